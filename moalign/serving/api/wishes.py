"""From what a request says about its trade-off, to a plan.

Weights may stand in the field `weights` or in the name of the model, "moalign@helpful=0.7,brief=0.3", for clients that
cannot send extra fields. Without either, all objectives count alike.
"""

from collections.abc import Mapping

from moalign.direction import Direction
from moalign.errors import UserError, unknown
from moalign.preference import Preference, named_numbers
from moalign.runs import BASE
from moalign.serving.api.refusals import RefusedError, shown
from moalign.serving.plan import POLICIES, Plan, Planner

MIXED = "moalign"  # the model whose mixture follows the request's weights
PREFIX = MIXED + "@"

SYNTAX = PREFIX + "NAME=WEIGHT,NAME=WEIGHT"
_LONG = 60  # characters of a name that a message repeats whole


def plan_for(
    planner: Planner,
    model: str,
    weights: Mapping[str, float] | None = None,
    policy: str | None = None,
    divergence: str | None = None,
    default: str | None = None,
) -> Plan:
    """The plan that a request asks for; `default` is the policy of a request that names none.

    Raises RefusedError: 404 for a model that there is not, with the near name, and 400 for weights, a policy or a
    divergence that cannot be had, or that stand beside a model that is one fixed policy.
    """
    if model != MIXED and not model.startswith(PREFIX):
        return _fixed(planner, model, {"weights": weights, "policy": policy, "divergence": divergence})
    chosen = policy or default or planner.default
    if chosen not in POLICIES:
        raise _refused("policy", unknown("policy", chosen, POLICIES) if len(chosen) <= _LONG else "unknown policy")
    if divergence is not None and chosen != "decode":
        raise _refused("divergence", f"divergence goes with policy 'decode'; this request's policy is {chosen!r}")
    wish = _wish(planner.objectives, model, weights, chosen)
    try:
        return planner.plan(wish, chosen, divergence or "reverse_kl")
    except UserError as error:
        raise _refused("weights" if policy is None else "policy", str(error)) from error


def _fixed(planner: Planner, model: str, given: Mapping[str, object]) -> Plan:
    """The base, or one adapter alone; neither is mixed, so nothing may be said about how."""
    if model != BASE and model not in planner.names:
        known = [MIXED, SYNTAX, BASE, *planner.names]
        line = unknown("model", model, known) if len(model) <= _LONG else f"unknown model {shown(model)}"
        raise RefusedError(404, line, param="model", code="model_not_found")
    if said := next((name for name, value in given.items() if value is not None), None):
        raise _refused(said, f"{said} goes with model {MIXED!r}; {model!r} is one fixed policy")
    return planner.named(model)


def _wish(
    objectives: tuple[str, ...], model: str, weights: Mapping[str, float] | None, policy: str
) -> Preference | Direction:
    """What is wanted, from the field, the name or both."""
    wishes: dict[str, Preference | Direction] = {}
    if weights is not None:
        wishes["weights"] = _read("weights", weights, objectives, policy)
    if model.startswith(PREFIX):
        try:
            numbers = named_numbers(model.removeprefix(PREFIX), f"{SYNTAX}, such as {example(objectives)}")
        except UserError as error:
            line = str(error) if len(model) <= 4 * _LONG else f"cannot read the weights in it; expected {SYNTAX}"
            raise _refused("model", f"model {shown(model)}: {line}") from error
        wishes["model"] = _read("model", numbers, objectives, policy)
    found = list(wishes.values())
    if len(found) == 2 and found[0] != found[1]:
        raise _refused(
            "weights", f"weights say {found[0]} and the model's name {found[1]}; give one, or the same twice"
        )
    return found[0] if found else Preference.of(dict.fromkeys(objectives, 1.0))


def _read(where: str, numbers: Mapping[str, float], objectives: tuple[str, ...], policy: str) -> Preference | Direction:
    if len(numbers) > len(objectives):
        known = ", ".join(objectives)
        raise _refused(where, f"{len(numbers)} weights for the {len(objectives)} objectives of this run ({known})")
    if other := next((name for name in numbers if name not in objectives), None):
        line = unknown("objective", other if len(other) <= _LONG else other[:_LONG] + "...", objectives)
        raise _refused(f"{where}.{shown(other)[1:-1]}" if where == "weights" else where, line)
    try:
        if policy == "direction" and any(number < 0 for number in numbers.values()):
            return Direction.of(numbers)
        return Preference.of(numbers)
    except UserError as error:
        below = any(number < 0 for number in numbers.values())
        hint = "; only policy 'direction' takes negative ones, as a run of method dpa has it" if below else ""
        raise _refused(where, str(error) + hint) from error


def example(objectives: tuple[str, ...]) -> str:
    """A model's name that asks for all objectives alike.

    >>> example(("helpful", "brief"))
    'moalign@helpful=0.5,brief=0.5'
    """
    return PREFIX + ",".join(f"{name}={round(1 / len(objectives), 3):g}" for name in objectives)


def _refused(param: str, message: str) -> RefusedError:
    return RefusedError(400, message, param=param, code="bad_wish")
