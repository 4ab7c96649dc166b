"""A front of more than two objectives, seen as pairs: those that conflict most."""

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from moalign.dashboards.grid import grid_shape
from moalign.dashboards.marks import FrontInfo
from moalign.dashboards.plane import draw_plane
from moalign.dashboards.theme import TEMPLATE, blank_figure
from moalign.frontiers.indicators import kendall_tau


@dataclass(frozen=True)
class PairsInfo:
    """A front, and which pairs of its columns to draw, the strongest conflict first; `left_out` counts the others."""

    front: FrontInfo
    pairs: tuple[tuple[int, int], ...]
    left_out: int

    def split(self) -> tuple["PairsInfo", ...]:
        """One for each pair, so that a page can let them flow."""
        return tuple(replace(self, pairs=(pair,)) for pair in self.pairs)


def pairs_info(front: FrontInfo, most: int = 6) -> PairsInfo:
    """Choose the pairs of objectives that conflict most, at most `most`.

    The conflict of a pair is minus Kendall's tau between its two columns over all trained points: -1 where every
    gain in one costs the other. A flat column has no tau and counts as no conflict; ties keep the order of columns.
    """
    pairs = list(combinations(range(len(front.objectives)), 2))
    values = np.array([mark.values for mark in front.marks]).reshape(-1, len(front.objectives))
    firsts, seconds = ([pair[side] for pair in pairs] for side in (0, 1))
    agreement = np.nan_to_num(kendall_tau(values[:, firsts], values[:, seconds]))
    order = np.argsort(agreement, kind="stable")[:most]
    return PairsInfo(front, tuple(pairs[i] for i in order), max(len(pairs) - most, 0))


def pairs_figure(info: PairsInfo) -> go.Figure:
    """One small plane for each pair."""
    if not info.front.marks or not info.pairs:
        return blank_figure(info.front.note)
    rows, columns = grid_shape(len(info.pairs))
    figure = make_subplots(rows, columns, horizontal_spacing=0.1, vertical_spacing=0.16)
    figure.update_layout(template=TEMPLATE, height=80 + 280 * rows)
    for i, (x, y) in enumerate(info.pairs):
        draw_plane(figure, info.front, x, y, (i // columns + 1, i % columns + 1))
    return figure
