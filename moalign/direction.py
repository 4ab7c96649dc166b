"""A direction: which way to go in the space of the objectives, and how to draw such directions.

Where a preference shares weight 1 among objectives, a direction is an arrow of length 1, and may ask for less of
something. It is what a policy trained by DPA is told in its prompt.

Wang et al. 2024, "Arithmetic Control of LLMs for Diverse User Preferences: Directional Preference Alignment with
Multi-Objective Rewards" (arXiv 2402.18571).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from moalign.errors import ConfigError, PreferenceError, unknown
from moalign.preference import Preference, named_numbers

Spread = Literal["uniform_angle", "sphere_cone", "grid"]
_CELLS = 4096  # of the table by which an area is turned into an angle


@dataclass(frozen=True)
class Direction:
    """Named components of a vector of length 1 (the root of their squares' sum); they may be negative.

    Build one with `Direction.of`, `Direction.parse` or `Direction.toward`, which normalise. As with preferences, the
    order in which components were written does not count, and components of 0 are kept.

    >>> Direction.parse("helpful=3,brief=-4").components
    {'brief': -0.8, 'helpful': 0.6}
    """

    items: tuple[tuple[str, float], ...]

    @classmethod
    def of(cls, components: Mapping[str, float]) -> "Direction":
        """v / ||v||_2. Raises PreferenceError if a component is not finite, or all are 0."""
        if not components:
            raise PreferenceError("a direction needs at least one component, such as helpful=0.7,brief=-0.2")
        for name, component in components.items():
            if not math.isfinite(component):
                raise PreferenceError(f"component of {name!r} is {component}; expected a finite number")
        length = math.hypot(*components.values())
        if length == 0:
            raise PreferenceError(f"all components are 0 ({', '.join(components)}); at least one must not be")
        if not math.isfinite(length):  # of numbers near the largest that there are
            return cls.of({name: component / 1e300 for name, component in components.items()})
        if math.isclose(length, 1.0, abs_tol=1e-9):
            length = 1.0  # already normalised: reading a direction back must give the same one
        return cls(tuple((name, round(components[name] / length, 12)) for name in sorted(components)))

    @classmethod
    def parse(cls, text: str) -> "Direction":
        """Read ``NAME=C,NAME=C,...``; the components need not have length 1."""
        return cls.of(named_numbers(text, "NAME=COMPONENT, such as helpful=0.7,brief=-0.2"))

    @classmethod
    def toward(cls, preference: Preference) -> "Direction":
        """The direction of a preference's weights: w / ||w||_2.

        >>> str(Direction.toward(Preference.parse("helpful=0.5,brief=0.5")))
        'brief=0.7071,helpful=0.7071'
        """
        return cls.of(preference.weights)

    @property
    def components(self) -> dict[str, float]:
        """Name to component, in alphabetical order."""
        return dict(self.items)

    @property
    def key(self) -> str:
        """A short name for people and folders: the components in hundredths, `m` for minus.

        >>> Direction.parse("helpful=0.8,brief=-0.6").key
        'brief-m60-helpful80'
        """
        return "-".join(f"{name}{'-m' if c < 0 else ''}{100 * abs(c):.4g}" for name, c in self.items if c)

    def vector(self, names: Sequence[str]) -> Float[np.ndarray, " m"]:
        """The components in the order of `names`; objectives not mentioned have 0.

        Raises PreferenceError, with the near name, if the direction has an objective that is not in `names`.
        """
        for name, _ in self.items:
            if name not in names:
                raise PreferenceError(unknown("objective", name, names))
        components = self.components
        return np.array([components.get(name, 0.0) for name in names])

    def angle(self, other: "Direction") -> float:
        """Degrees between two directions, from 0 to 180; what one does not mention is 0 there.

        2 atan2(|a - b|, |a + b|), which is exact where the cosine is flat, near 0 and 180.

        >>> Direction.parse("a=1").angle(Direction.parse("b=1"))
        90.0
        """
        names = sorted({name for name, _ in (*self.items, *other.items)})
        a, b = self.vector(names), other.vector(names)
        return math.degrees(2 * math.atan2(np.linalg.norm(a - b), np.linalg.norm(a + b)))

    def preference(self) -> Preference | None:
        """The weights that point the same way, |v| / ||v||_1; None if a component is negative, which no weight is.

        >>> str(Direction.parse("helpful=0.8,brief=0.6").preference())
        'brief=0.4286,helpful=0.5714'
        """
        return None if any(c < 0 for _, c in self.items) else Preference.of(self.components)

    def __str__(self) -> str:
        return ",".join(f"{name}={component:.4g}" for name, component in self.items)


def sample_directions(
    count: int, centre: Float[np.ndarray, " m"], cone: float, kind: Spread, rng: np.random.Generator
) -> Float[np.ndarray, "n m"]:
    """`count` vectors of length 1 at most `cone` degrees from `centre`, of m >= 2 objectives  (DPA, section 4.1).

    - uniform_angle: the angle to the centre is uniform, and so is the side to which it opens. For two objectives it is
      the paper's; for more it crowds the middle, where the same angles hold less area.
    - sphere_cone: uniform by area, so that of more than two objectives most directions are near the rim.
    - grid: always the same, whatever `rng`. For two objectives evenly spaced angles, both ends included, from the end
      richest in the first objective (of one alone, the centre); for more a Fibonacci lattice, the i-th of n vectors
      at (i + 1/2)/n of the area.

    Areas are found in a table, to 1/4000 of the cone. Raises ConfigError for fewer than two objectives, a centre of
    length 0, a cone that is not in (0, 180], or an unknown kind.

    >>> sample_directions(3, np.array([1.0, 0.0]), 45.0, "grid", np.random.default_rng(0)).round(2).tolist()
    [[0.71, -0.71], [1.0, 0.0], [0.71, 0.71]]
    """
    m, length = len(centre), float(np.linalg.norm(centre))
    if m < 2 or not length > 0 or not math.isfinite(length):
        raise ConfigError(f"directions around {centre.tolist()}; expected at least 2 numbers that are not all 0")
    if not 0 < cone <= 180:
        raise ConfigError(f"a cone of {cone:g} degrees; expected more than 0 and at most 180")
    if kind not in ("uniform_angle", "sphere_cone", "grid"):
        raise ConfigError(unknown("kind of directions", kind, ["uniform_angle", "sphere_cone", "grid"]))
    places = _lattice(count, m - 1) if kind == "grid" else rng.uniform(size=(count, m - 1))
    return _on_cap(places, math.radians(cone), even=kind == "uniform_angle") @ _turn_to(centre / length)


def along(scores: Float[np.ndarray, "n m"], direction: Float[np.ndarray, " m"]) -> Float[np.ndarray, " n"]:
    """How far each of n responses goes along the direction: v . r_i  (DPA, section 4.2); NaN where a score is.

    Where the direction has a component of 0 it asks for nothing, so that there a score may be missing.

    >>> along(np.array([[1.0, 2.0], [np.nan, 3.0]]), np.array([0.0, 1.0])).tolist()
    [2.0, 3.0]
    """
    counted = direction != 0
    return scores[:, counted] @ direction[counted]


def choose(scores: Float[np.ndarray, "n m"], direction: Float[np.ndarray, " m"]) -> int | None:
    """The place of the response that goes furthest along the direction: argmax_i v . r_i.

    Best of n: of responses drawn under one direction, or under several near it (RPS, arXiv 2510.20498: 5 of at most 30
    degrees). A tie is the first's. A value that is not finite is never chosen; None where there is no other.

    >>> choose(np.array([[1.0, -2.0], [2.0, -1.0], [np.nan, 0.0]]), np.array([0.6, 0.8]))
    1
    """
    values = along(scores, direction)
    finite = np.isfinite(values)
    return int(np.where(finite, values, -np.inf).argmax()) if finite.any() else None


def nearby(direction: Direction, count: int, cone: float, rng: np.random.Generator) -> list[Direction]:
    """`count` directions at most `cone` degrees from one of at least two objectives, to draw responses for `choose`.

    >>> near = nearby(Direction.parse("a=1,b=1"), 5, 30.0, np.random.default_rng(0))
    >>> max(each.angle(near[0]) for each in near) < 60
    True
    """
    names, vector = list(direction.components), np.array(list(direction.components.values()))
    drawn = sample_directions(count, vector, cone, "uniform_angle", rng)
    return [Direction.of(dict(zip(names, row, strict=True))) for row in drawn.tolist()]


def _on_cap(places: Float[np.ndarray, "n d"], cone: float, even: bool = False) -> Float[np.ndarray, "n m"]:
    """Places in the unit cube to vectors within `cone` (radians) of the first axis, by area or with `even` angles.

    The first place is the angle to the axis; the others are the side it opens to, a point of the sphere one dimension
    down, all of it.
    """
    if places.shape[1] == 1:
        angle = (2 * places[:, 0] - 1) * cone
        return np.column_stack([np.cos(angle), np.sin(angle)])
    angle = places[:, 0] * cone
    if not even:
        # At angle a the sphere of d dimensions is sin(a)^(d - 1) wide; its integral is inverted by interpolation.
        angles = np.linspace(0, cone, _CELLS + 1)
        width = np.sin(angles) ** (places.shape[1] - 1)
        area = np.append(0.0, np.cumsum(width[1:] + width[:-1]))
        angle = np.interp(places[:, 0] * area[-1], area, angles)
    return np.column_stack([np.cos(angle), np.sin(angle)[:, None] * _on_cap(places[:, 1:], math.pi)])


def _lattice(count: int, d: int) -> Float[np.ndarray, "n d"]:
    """Evenly spread places in the unit cube: equal steps in the first dimension, golden ones in the others.

    The steps are powers of 1/g, where g^d = g + 1 (for d = 2 the golden ratio).
    """
    if d == 1:
        return np.linspace(0, 1, count)[:, None] if count > 1 else np.full((count, 1), 0.5)
    ratio = 2.0
    for _ in range(64):
        ratio = (1 + ratio) ** (1 / d)
    steps = np.arange(count)[:, None] * ratio ** -np.arange(1.0, d)
    return np.column_stack([(np.arange(count) + 0.5) / max(count, 1), steps % 1])


def _turn_to(centre: Float[np.ndarray, " m"]) -> Float[np.ndarray, "m m"]:
    """An orthogonal matrix, for rows from the right, that takes the first axis to `centre`; a turn for m = 2.

    A reflection at the plane between the axis and the centre, or its opposite: of both, the one that is exact.
    """
    sign = 1.0 if centre[0] >= 0 else -1.0
    normal = centre.copy()
    normal[0] += sign
    turn = -sign * (np.eye(len(centre)) - 2 * np.outer(normal, normal) / (normal @ normal))
    if len(centre) == 2:
        turn[1] *= np.sign(np.linalg.det(turn))  # else the grid would begin at the other end
    return turn
