"""What a run's points are called in requests."""

from collections import Counter

from moalign.frontiers import ParetoPoint, ParetoSet
from moalign.runs import Run


def served_names(run: Run, front: ParetoSet | None = None) -> dict[str, ParetoPoint]:
    """The points of a run by the name that users type, in the order of its front.

    A point is called by its preference, such as `brief30-helpful70`. Where several were asked for the same one, the
    first six characters that tell their adapters apart (of the digest behind the last hyphen) follow, and where even
    these are the same, the adapter's whole key stands instead. A run without points has no names. `front` are its
    points where they are read already. Raises RunError before the base model has been measured.
    """
    points = list(run.front() if front is None else front)
    asked = Counter(point.preference.key for point in points)
    short = [_short(point, alone=asked[point.preference.key] == 1) for point in points]
    often = Counter(short)
    return {point.adapter if often[name] > 1 else name: point for name, point in zip(short, points, strict=True)}


def _short(point: ParetoPoint, alone: bool) -> str:
    key = point.preference.key
    return key if alone else f"{key}-{point.adapter.rpartition('-')[2][:6]}"
