"""Two runs: both fronts in one plane, and whether one reaches more than the other."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from moalign.dashboards.charts import wrapped
from moalign.dashboards.front import front_info, front_note
from moalign.dashboards.marks import FrontInfo, Values, band_rim
from moalign.dashboards.pairs import pairs_info
from moalign.dashboards.plane import CROWD, column, errors, hover_texts
from moalign.dashboards.records import Band
from moalign.dashboards.theme import TEMPLATE, blank_figure, objective_colour, objective_dash, objective_symbol
from moalign.dashboards.wording import decimals, listing, number, plotly_text, short
from moalign.frontiers.comparison import Comparison
from moalign.frontiers.hypervolume import hypervolume
from moalign.frontiers.pareto_set import ParetoSet

_EXACT = 4  # objectives up to which a volume is quick to compute


@dataclass(frozen=True)
class MostRow:
    """What each run has of an objective at the best of its points, the difference, and what it is called."""

    objective: str
    first: str
    second: str
    difference: str
    verdict: str


@dataclass(frozen=True)
class VersusInfo:
    """Two runs by name, their fronts, and the pair of columns that is drawn.

    `verdict` says which reaches more, and how sure that is; `reference` from which point volumes are counted, and whose
    it is; `hypervolumes` are as shown, empty where they are not known. `rims` are the bands, closed polygons in the
    drawn plane, and `meaning` what they hold. `most` has a row for each objective where draws of the prompts are known.
    `note` stands in for the drawing.
    """

    names: tuple[str, str]
    fronts: tuple[FrontInfo, ...]
    pair: tuple[int, int]
    hypervolumes: tuple[str, ...]
    verdict: str
    reference: str
    note: str
    rims: tuple[tuple[Values, ...], ...] = ()
    meaning: str = ""
    most: tuple[MostRow, ...] = ()


def versus_info(
    names: tuple[str, str],
    fronts: tuple[ParetoSet, ParetoSet],
    bands: tuple[Band | None, Band | None] = (None, None),
    volumes: tuple[float, float] | None = None,
    comparison: Comparison | None = None,
    why: str = "",
    pair: tuple[int, int] | None = None,
    most: Sequence[Comparison] = (),
    infos: tuple[FrontInfo, FrontInfo] | None = None,
) -> VersusInfo:
    """What there is to say of two fronts of the same objectives.

    `volumes` (computed if None, for at most four objectives) and `comparison`, first less second, are counted from the
    reference point of the first; without a comparison `why` says what keeps it from being made. Of more than two
    objectives the given pair is drawn, else the one that conflicts most in the first run (`drawn_pair`); `bands` are
    those of the drawn pair. `most` compares the best of each objective. `infos` are the fronts as they are drawn, where
    they are known already. Other objectives: see `apart`.
    """
    objectives = fronts[0].objectives
    if objectives != fronts[1].objectives:
        return apart(names, (objectives, fronts[1].objectives))
    missing = [name for name, front in zip(names, fronts, strict=True) if len(front) == 0]
    note = f"No adapter of {listing(missing)} has been measured yet." if missing else ""
    if len(objectives) == 1:
        note = note or front_note(fronts[0])
    reference = fronts[0].reference_point
    if volumes is None and not note and len(objectives) <= _EXACT:
        volumes = (hypervolume(fronts[0].values, reference), hypervolume(fronts[1].values, reference))
    infos = infos or (front_info(fronts[0]), front_info(fronts[1]))
    known = [band for band in bands if band is not None]
    return VersusInfo(
        names,
        infos,
        pair or drawn_pair(infos[0]),
        tuple(number(volume) for volume in volumes or ()),
        why if comparison is None else _verdict(names, comparison),
        _reference(names, fronts),
        note,
        tuple(() if band is None else band_rim(band) for band in bands) if known else (),
        known[0].meaning if known else "",
        tuple(_most(names, fronts, column, each) for column, each in enumerate(most)),
    )


def drawn_pair(front: FrontInfo) -> tuple[int, int]:
    """The pair of objectives that is drawn of a front where none is asked for: the one that conflicts most."""
    return (pairs_info(front, 1).pairs or ((0, 0),))[0]


def _reference(names: tuple[str, str], fronts: tuple[ParetoSet, ParetoSet]) -> str:
    """Whose reference point counts, and that the other run has another one, if so."""
    objectives = fronts[0].objectives

    def shown(front: ParetoSet) -> str:
        places = zip(objectives, front.reference_point.tolist(), strict=True)
        return ", ".join(f"{short(name)} {number(value)}" for name, value in places)

    told = f"Counted from one point for both, that of {short(names[0])}: {shown(fronts[0])}."
    if np.array_equal(fronts[0].reference_point, fronts[1].reference_point):
        return told
    return f"{told} That of {short(names[1])} is another, and counts nothing here: {shown(fronts[1])}."


def _most(names: tuple[str, str], fronts: tuple[ParetoSet, ParetoSet], column: int, found: Comparison) -> MostRow:
    values = [float(front.values[:, column].max()) for front in fronts]
    places = decimals([(found.high - found.low) / 4], values)
    told = "not told apart"
    if found.significant:
        told = short(names[0 if found.difference > 0 else 1])
    first, second, difference, low, high = (
        number(value, places) for value in (*values, found.difference, found.low, found.high)
    )
    return MostRow(fronts[0].objectives[column], first, second, f"{difference} ({low} to {high})", told)


def apart(names: tuple[str, str], objectives: tuple[tuple[str, ...], tuple[str, ...]]) -> VersusInfo:
    """Two runs that cannot be drawn together: a sentence on how their objectives differ."""
    first, second = (listing([short(name) for name in each]) for each in objectives)
    same = set(objectives[0]) == set(objectives[1])
    fault = "the same objectives in another order" if same else "other objectives"
    note = f"{short(names[0])} is about {first}; {short(names[1])} about {second}: {fault}, so they share no plane."
    return VersusInfo(names, (), (0, 1), (), "", "", note)


def versus_figure(info: VersusInfo) -> go.Figure:
    """Both fronts: the first with circles and solid lines, the second with squares and dashes; bands where known."""
    if info.note:
        return blank_figure(wrapped(info.note))
    figure = go.Figure(layout={"template": TEMPLATE})
    for draw in (_band, _front):  # both bands behind both fronts
        for which, front in enumerate(info.fronts):
            figure.add_traces(list(draw(front, which, info)))
    x, y = (plotly_text(short(info.fronts[0].objectives[column])) for column in info.pair)
    return figure.update_xaxes(title_text=x).update_yaxes(title_text=y)


def _verdict(names: tuple[str, str], comparison: Comparison) -> str:
    first, second = (short(name) for name in names)
    if comparison.difference == comparison.low == comparison.high == 0:
        return f"{first} and {second} have the same hypervolume on every draw of the prompts."
    more, less, low, high = first, second, comparison.low, comparison.high
    if comparison.difference < 0:
        more, less, low, high = second, first, -comparison.high, -comparison.low
    said = (
        f"{more} has {number(abs(comparison.difference))} more hypervolume than {less} "
        f"(95 % of the draws of the prompts: {number(low)} to {number(high)}; p = {number(comparison.p, 3)})"
    )
    return f"{said}." if comparison.significant else f"{said}: that may well be the draw of the prompts."


def _look(which: int) -> tuple[str, str, str]:
    return objective_colour(which), objective_dash(which), objective_symbol(which)


def _band(_front: FrontInfo, which: int, info: VersusInfo) -> Iterable[go.Scatter]:
    if not info.rims or not info.rims[which]:
        return
    colour, dash, _ = _look(which)
    yield go.Scatter(
        x=[place[0] for place in info.rims[which]],
        y=[place[1] for place in info.rims[which]],
        mode="lines",
        line={"color": colour, "width": 0.7, "dash": dash},
        fill="toself",
        fillcolor=colour,
        opacity=0.2,
        hoverinfo="skip",
        name=f"{plotly_text(short(info.names[which]))}: {info.meaning}",
        legendgroup=str(which),
        showlegend=False,
    )


def _front(front: FrontInfo, which: int, info: VersusInfo) -> Iterable[go.Scatter]:
    colour, dash, symbol = _look(which)
    name = plotly_text(short(info.names[which]))
    x, y = info.pair
    crowded = len(front.marks) > CROWD
    bare = crowded or bool(info.rims)
    if len(front.objectives) == 2:
        places = np.array(sorted(mark.values for mark in front.on_front))
        # In steps, as the band and the hypervolume count: between two points neither is attained.
        line = {"color": colour, "width": 1.5, "dash": dash, "shape": "vh"}
        yield go.Scatter(
            x=places[:, 0],
            y=places[:, 1],
            mode="lines",
            line=line,
            hoverinfo="skip",
            legendgroup=str(which),
            showlegend=False,
        )
    for marks, faint in ((front.dominated, True), (front.on_front, False)):
        if marks:
            yield go.Scatter(
                x=column(marks, x),
                y=column(marks, y),
                error_x=None if bare else errors(marks, x, colour),
                error_y=None if bare else errors(marks, y, colour),
                mode="markers",
                marker={
                    "symbol": f"{symbol}-open" if faint else symbol,
                    "size": 4 if crowded else 6 if faint else 9,
                    "color": colour,
                },
                opacity=0.45 if faint else 1.0,
                hovertext=[f"{name}<br>{text}" for text in hover_texts(marks)],
                hoverinfo="text",
                name=f"{name}, dominated" if faint else name,
                legendgroup=str(which),
                showlegend=not faint,
            )
