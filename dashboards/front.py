"""The front: what can be had of one objective for how much of another."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from moalign.dashboards.marks import FrontInfo, band_rim, blend_mark, blend_paths, corner_labels, point_mark
from moalign.dashboards.pairs import pairs_figure, pairs_info
from moalign.dashboards.plane import draw_plane
from moalign.dashboards.records import Band, Blend
from moalign.dashboards.space import draw_space
from moalign.dashboards.theme import TEMPLATE, blank_figure
from moalign.frontiers.pareto_set import ParetoPoint, ParetoSet


def front_info(
    front: ParetoSet,
    base: ParetoPoint | None = None,
    blends: Sequence[Blend] = (),
    oracle: Float[np.ndarray, "n m"] | None = None,
    band: Band | None = None,
) -> FrontInfo:
    """What there is to draw of a Pareto set, the base model, measured blends, and the exact front where it is known.

    A band of the front is drawn for two objectives, and left out for more: in a projection it would be as wide as
    the front itself.

    No arrays are left in it, so that two can be compared. An empty set, or one whose points are all equal, is not
    an error: `note` says it.
    """
    objectives = front.objectives
    labels = corner_labels(front.front, objectives)
    marks = [point_mark(point, objectives, labels.get(point.adapter, "")) for point in front]
    flags = front.on_front.tolist()
    exact = np.empty((0, len(objectives))) if oracle is None else oracle
    exact = exact[np.isfinite(exact).all(axis=1)]
    rim = band_rim(band) if band and len(objectives) == 2 else ()
    return FrontInfo(
        objectives,
        tuple(mark for mark, flag in zip(marks, flags, strict=True) if flag),
        tuple(mark for mark, flag in zip(marks, flags, strict=True) if not flag),
        None if base is None else point_mark(base, objectives, "base"),
        tuple(blend_mark(blend, objectives) for blend in blends),
        blend_paths(blends, front, objectives),
        tuple(sorted(tuple(row) for row in exact.tolist())),
        front_note(front),
        rim,
        band.meaning if band and rim else "",
    )


def front_note(front: ParetoSet) -> str:
    """A sentence on what keeps this from being a front to look at; empty where nothing does."""
    if len(front) == 0:
        return "No adapter has been measured yet, so there is no front to show."
    if len(front.objectives) == 1:
        return "With a single objective there is no trade-off: the best point is the front."
    if len(front) == 1:
        return "Only one adapter has been measured: a trade-off needs at least two."
    if len(np.unique(front.values, axis=0)) == 1:
        return f"All {len(front)} adapters have exactly the same values: they lie on top of each other."
    return ""


def front_figure(front: FrontInfo | ParetoSet) -> go.Figure:
    """The front as a figure: a plane for two objectives, space for three, the pairs that conflict most for more.

    A ParetoSet may be given as it is, which is all that a notebook needs.
    """
    info = front_info(front) if isinstance(front, ParetoSet) else front
    if not info.marks or len(info.objectives) < 2:
        return blank_figure(info.note)
    if len(info.objectives) > 3:
        return pairs_figure(pairs_info(info))
    figure = go.Figure(layout={"template": TEMPLATE})
    if len(info.objectives) == 3:
        draw_space(figure, info)
    else:
        draw_plane(figure, info, 0, 1)
    return figure
