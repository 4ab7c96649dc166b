"""The models that a server offers: mixtures by preference, the base, and every adapter, with what was measured."""

from typing import Any

from moalign.frontiers import ParetoPoint
from moalign.serving.api.refusals import RefusedError
from moalign.serving.api.service import Service
from moalign.serving.api.wishes import BASE, MIXED, PREFIX, SYNTAX, example, plan_for
from moalign.serving.plan import POLICIES


def cards(service: Service) -> list[dict[str, Any]]:
    """All of them: the mixture, the base, the adapters in the order of the front, and a mixture as an example."""
    base = service.run.base_point()
    return [
        _mixture(service),
        _card(service, BASE, "base", **({} if base is None else _measured(base))),
        *(_adapter(service, name, point) for name, point in service.planner.names.items()),
        card(service, example(service.planner.objectives)),
    ]


def card(service: Service, name: str) -> dict[str, Any]:
    """One of them; a mixture by name, moalign@helpful=0.7,brief=0.3, comes with its plan.

    Raises RefusedError: 404 for a name that there is not, 400 for weights that are none.
    """
    if name == MIXED:
        return _mixture(service)
    plan = plan_for(service.planner, name, default=service.default_policy)
    if name.startswith(PREFIX):
        return _card(service, name, "preference", plan=plan.as_dict())
    if name == BASE:
        base = service.run.base_point()
        return _card(service, BASE, "base", **({} if base is None else _measured(base)))
    return _adapter(service, name, service.planner.names[name])


def _mixture(service: Service) -> dict[str, Any]:
    return _card(
        service,
        MIXED,
        "preference",
        objectives=list(service.planner.objectives),
        syntax=SYNTAX,
        policies=[policy for policy in POLICIES if _works(service, policy)],
        default_policy=service.default_policy,
    )


def _works(service: Service, policy: str) -> bool:
    """Whether this run has what a policy needs, for weights that count every objective."""
    try:
        plan_for(service.planner, MIXED, policy=policy)
    except RefusedError:
        return False
    return True


def _adapter(service: Service, name: str, point: ParetoPoint) -> dict[str, Any]:
    return _card(service, name, "adapter", **_measured(point))


def _measured(point: ParetoPoint) -> dict[str, Any]:
    record = point.as_dict()
    names = ("preference", "direction", "values", "standard_errors", "intervals")
    return {name: record[name] for name in names if name in record}


def _card(service: Service, name: str, kind: str, **more: Any) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": service.created,
        "owned_by": "moalign",
        "kind": kind,
        **more,
    }
