"""The policies by which a wish becomes rows: each looks at what is known of a run and chooses what to mix.

[C-MORL] Liu et al. 2024, "C-MORL: Multi-Objective Reinforcement Learning through Efficient Discovery of Pareto Front"
         (arXiv 2410.02236).
[RS]     Rame et al. 2023, "Rewarded soups" (arXiv 2306.04488).
[MOD]    Shi et al. 2024, "Decoding-Time Language Model Alignment with Multiple Objectives" (arXiv 2406.18853).
[DPA]    Wang et al. 2024, "Arithmetic Control of LLMs for Diverse User Preferences" (arXiv 2402.18571).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from moalign.blends import mixed, read_blends
from moalign.direction import Direction
from moalign.errors import ConfigError, RunError
from moalign.frontiers import Calibration, ParetoPoint, ParetoSet, corners
from moalign.mapping import calibrated
from moalign.methods import METHODS
from moalign.preference import Preference
from moalign.runs import Run

SAME = 1e-6  # degrees: directions this near are one, rounded otherwise

Wish = Preference | Direction


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of a run, read once.

    `corners` are the points that were asked for one objective alone, by objective; `directed` those whose prompts
    state a direction. `map` is there where a blend was measured: before that it is a straight line, and chooses what
    `nearest` does; with directions there is none. Its columns are `columns`. `reads_directions`: the adapters follow
    what their prompts state.
    """

    front: ParetoSet
    corners: dict[str, ParetoPoint]
    directed: tuple[tuple[Direction, ParetoPoint], ...]
    map: Calibration | None
    columns: tuple[str, ...]
    reads_directions: bool
    method: str

    @classmethod
    def of(cls, run: Run, front: ParetoSet | None = None) -> "Known":
        """Read a run, but for its points where they are given. Raises RunError if nothing is trained yet."""
        front, names = run.front() if front is None else front, run.objectives
        if not len(front):
            raise RunError(f"{run.folder} has no trained adapters yet; run its sweep first")
        # Without mixtures the map is a straight line, and of a thousand adapters it would not fit into memory.
        mixtures = read_blends(run) or any(point.row is not None for point in front)
        found = calibrated(run, front) if mixtures else None
        columns = tuple(point.adapter for point in front if point.row is None and point.direction is None)
        # Adapters before mixtures, so that a corner is the adapter itself where there is one.
        ordered = sorted(front, key=lambda point: point.row is not None)
        ends = {
            name: point
            for name, end in zip(names, corners(len(names)), strict=True)
            for point in reversed(ordered)
            if (point.preference.vector(names) == end).all()
        }
        return cls(
            front,
            ends,
            tuple((Direction.of(point.direction), point) for point in front if point.direction is not None),
            found if found is not None and len(found.rows) > len(columns) else None,
            columns,
            METHODS[run.config.method].adapters == "rounds",
            run.config.method,
        )

    def works(self, wanted: Mapping[str, float]) -> list[str]:
        """The names of the policies that can serve a preference with these weights."""
        if self.reads_directions:
            return ["direction", "nearest"]
        all_corners = all(name in self.corners for name, weight in wanted.items() if weight > 0)
        return [
            "nearest",
            "interpolate",
            *(["soup", "decode"] if all_corners else []),
            *(["calibrated"] if self.map is not None else []),
        ]


@dataclass(frozen=True)
class Choice:
    """The lanes that a policy chose: a mixture and a share each.

    `parts` are the points that the one lane is between, with their shares, where that is how it was chosen. `direction`
    is what its prompt states.
    """

    rows: tuple[dict[str, float], ...]
    shares: tuple[float, ...] = (1.0,)
    parts: tuple[tuple[ParetoPoint, float], ...] = ()
    direction: Direction | None = None


def nearest(known: Known, wish: Preference) -> Choice:
    """The measured point that is best for the weights, argmax over points of w.J, in the objectives' units  [C-MORL].

    The point may be a mixture, or state a direction. Ties go to the first.
    """
    return alone(known.front.best_for(wish))


def interpolate(known: Known, wish: Preference) -> Choice:
    """Between the points around the wish, by the weights that were asked of them (`ParetoSet.bracketing`)."""
    _refuse_directions(known, "interpolate")
    return _between(known.front.bracketing(wish))


def soup(known: Known, wish: Preference) -> Choice:
    """The corners, each by its objective's weight: theta = sum_i w_i theta_i, exactly  [RS].

    Raises ConfigError where an objective that counts has no corner.
    """
    _refuse_directions(known, "soup")
    return _between(_shared_corners(known, wish, "soup"))


def calibrate(known: Known, wish: Preference) -> Choice:
    """The mixture of neighbours that is best for the weights by the fitted map: argmax over rows of w.V(row).

    In the objectives' own units, as `nearest`. Raises ConfigError where no blend was measured that the map could be
    fitted on.
    """
    _refuse_directions(known, "calibrated")
    if known.map is None:
        raise ConfigError(
            "policy 'calibrated' needs a map, and this run has no measured blends to fit one on: measure some by "
            "`moalign report RUN --blends 1` or `moalign fill RUN`, or use " + _either(known.works(wish.weights))
        )
    row = known.map.row_for_preference(wish.vector(known.front.objectives))
    return Choice((mixed([({key: 1.0}, weight) for key, weight in zip(known.columns, row.tolist(), strict=True)]),))


def direct(known: Known, wish: Wish) -> Choice:
    """The run's adapter, and the direction of the wish, w / ||w||_2, for the prompt to state  [DPA].

    The only policy that takes a direction, whose components may be negative. The adapter is that of the point whose
    direction is nearest. Raises ConfigError where the run's adapters read no direction.
    """
    if not known.reads_directions:
        raise ConfigError(unread(known.method))
    direction = wish if isinstance(wish, Direction) else Direction.toward(wish)
    direction.vector(known.front.objectives)
    told, point = min(known.directed, key=lambda pair: pair[0].angle(direction))
    if told.angle(direction) < SAME:
        return Choice((point.mixture,), parts=((point, 1.0),), direction=direction)
    return Choice((point.mixture,), parts=_around(known, wish), direction=direction)


def decode(known: Known, wish: Preference) -> Choice:
    """A lane for each corner that counts, whose next-token probabilities are combined  [MOD]; see `decoding.combine`.

    Errors as for `soup`.
    """
    _refuse_directions(known, "decode")
    parts = _shared_corners(known, wish, "decode")
    if len(parts) == 1:
        return alone(parts[0][0])
    return Choice(tuple(point.mixture for point, _ in parts), tuple(share for _, share in parts))


POLICIES: dict[str, Callable[[Known, Any], Choice]] = {
    "nearest": nearest,
    "interpolate": interpolate,
    "soup": soup,
    "calibrated": calibrate,
    "direction": direct,
    "decode": decode,
}


def alone(point: ParetoPoint) -> Choice:
    """A point as it was measured."""
    direction = None if point.direction is None else Direction.of(point.direction)
    return Choice((point.mixture,), parts=((point, 1.0),), direction=direction)


def unread(method: str) -> str:
    """The line for a direction, or a spread around one, where no prompt states any."""
    return (
        f"this run was trained by {method!r}, whose adapters read no direction; ask for weights >= 0 and no spread, or "
        "use a run of method 'dpa'"
    )


def _between(parts: Sequence[tuple[ParetoPoint, float]]) -> Choice:
    return Choice((mixed([(point.mixture, share) for point, share in parts]),), parts=tuple(parts))


def _shared_corners(known: Known, wish: Preference, policy: str) -> list[tuple[ParetoPoint, float]]:
    """The corners of the objectives that count, with their weights."""
    wanted = {name: weight for name, weight in wish.weights.items() if weight > 0}
    missing = [name for name in wanted if name not in known.corners]
    if missing:
        raise ConfigError(
            f"policy {policy!r} mixes the corners, and this run has no point for {missing[0]}=1 alone; train one, or "
            "use " + _either(known.works(wanted))
        )
    return [(known.corners[name], weight) for name, weight in wanted.items()]


def _around(known: Known, wish: Wish) -> tuple[tuple[ParetoPoint, float], ...]:
    """The directed points between whose directions the wish lies; none where it lies outside, or is below 0."""
    wanted = wish.preference() if isinstance(wish, Direction) else wish
    inside = [point for told, point in known.directed if told.preference() is not None]
    if wanted is None or not inside:
        return ()
    names = known.front.objectives
    parts = ParetoSet(names, known.front.reference_point, inside).bracketing(wanted)
    reached = sum((share * point.preference.vector(names) for point, share in parts), np.zeros(len(names)))
    return tuple(parts) if np.allclose(reached, wanted.vector(names), atol=1e-6) else ()


def _refuse_directions(known: Known, policy: str) -> None:
    if known.reads_directions:
        raise ConfigError(
            f"policy {policy!r} mixes adapters, and this run ({known.method}) has one that follows the direction its "
            "prompt states; use " + _either(known.works({}))
        )


def _either(names: Sequence[str]) -> str:
    return " or ".join(repr(name) for name in names)
