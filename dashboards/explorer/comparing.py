"""This run and another one: both fronts, and whether one of them reaches more."""

import threading
from itertools import combinations
from typing import Any

import dash
import numpy as np
from dash import Input, Output, dcc, html
from jaxtyping import Float

from moalign.comparing import Together, together
from moalign.dashboards import Band
from moalign.dashboards.explorer.parts import attributes, chooser, data_of, drawing, in_thread, note, plain, table, view
from moalign.dashboards.plane import CROWD
from moalign.dashboards.versus import VersusInfo, drawn_pair, versus_figure, versus_info
from moalign.dashboards.wording import short
from moalign.errors import RunError, UserError
from moalign.exploring import Seen, Watch, pathless
from moalign.frontiers import attainment_bands

_PAIRS = 45  # of objectives that may be chosen
_KEPT = 3  # other runs that are remembered, with their draws
_BANDED = 300  # points of a front up to which its band is quick


def comparing_view(seen: Seen, siblings: list[str]) -> html.Section:
    """A choice among the runs beside this one."""
    about = "Both fronts in one plane, and the difference of their hypervolumes with its interval over the prompts."
    if not siblings:
        return view("compare", "Compare runs", about, note("No other run stands beside this one."), _hidden())
    m = len(seen.run.objectives)
    return view(
        "compare",
        "Compare runs",
        about,
        chooser(
            "The other run",
            dcc.Dropdown(id="against", options=siblings, value=None, placeholder="choose one", maxHeight=300),
            "field wide",
        ),
        chooser(
            "Objectives",
            dcc.Dropdown(id="plane", options=planes(seen), value=None, placeholder="those that conflict most"),
            "field wide",
            hidden=m < 3,
        ),
        html.Div(id="verdict", **attributes(aria_live="polite")),
        html.P("Prompts are drawn again and again …", id="comparing", className="about", hidden=True),
        html.Div(
            [drawing("versus", "Both fronts in one plane", "front"), html.P(id="versus-about", className="about")],
            id="versus-place",
            hidden=True,
        ),
    )


def _hidden() -> html.Div:
    """What the callbacks listen to and write, where there is nothing to choose."""
    return html.Div(
        [
            dcc.Dropdown(id="against"),
            dcc.Dropdown(id="plane"),
            html.Div(id="verdict"),
            html.P(id="comparing"),
            drawing("versus", ""),
            html.P(id="versus-about"),
            html.Div(id="versus-place"),
        ],
        hidden=True,
    )


def planes(seen: Seen) -> list[dict[str, str]]:
    """The pairs of objectives, as a choice."""
    names = seen.run.objectives
    pairs = list(combinations(range(len(names)), 2))[:_PAIRS]
    return [{"label": f"{short(names[x])} and {short(names[y])}", "value": f"{x},{y}"} for x, y in pairs]


class Pairing:
    """The run of the page beside its siblings: what is dear to make is made once for each state of the two."""

    def __init__(self, watch: Watch):
        self._watch = watch
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[str, Together | str]] = {}
        self._beside: dict[str, Watch] = {}

    def seen(self, name: str) -> tuple[Seen, Seen]:
        """This run and one beside it, as they are now. Raises RunError if there is no such run or it cannot be read."""
        first, beside = self._watch.now(), self._watch.sibling(name)
        with self._lock:  # what was read of it before need not be read again
            beside = self._beside.pop(name, beside)
            self._beside[name] = beside
            while len(self._beside) > _KEPT:
                del self._beside[next(iter(self._beside))]
        try:
            return first, beside.now()
        except (OSError, UserError, ValueError, KeyError, TypeError) as error:
            known = isinstance(error, UserError)
            why = pathless(error, beside.folder) if known else "its settings or records are not whole"
            raise RunError(f"{name} cannot be read: {why}") from error

    def draws(self, name: str, first: Seen, second: Seen) -> Together | str:
        """Both fronts over prompts drawn again, or why that is not to be had."""
        state = f"{first.token} {second.token}"
        with self._lock:
            known = self._kept.pop(name, None)
            found = known[1] if known and known[0] == state else _drawn(first, second)
            self._kept[name] = (state, found)
            while len(self._kept) > _KEPT:
                del self._kept[next(iter(self._kept))]
        return found

    def info(self, name: str, pair: tuple[int, int] | None = None, volumes: bool = True) -> VersusInfo:
        """What there is to say of both runs; without volumes all that takes no time. Raises what `seen` raises."""
        first, second = self.seen(name)
        names, fronts = (first.run.folder.resolve().name, name), (first.front, second.front)
        if first.run.objectives != second.run.objectives:
            return versus_info(names, fronts)
        found = self.draws(name, first, second)
        if isinstance(found, str):
            return versus_info(names, fronts, why=found, pair=pair, infos=(first.alone, second.alone))
        if pair is None and len(first.run.objectives) > 1:
            pair = drawn_pair(first.alone)
        bands, infos = _bands(found, pair) if pair else (None, None), (first.alone, second.alone)
        if not volumes or not found.quick:
            return versus_info(names, fronts, bands, why=_too_dear(found), pair=pair, most=found.most, infos=infos)
        return versus_info(names, fronts, bands, None, found.volumes, pair=pair, most=found.most, infos=infos)


def _drawn(first: Seen, second: Seen) -> Together | str:
    try:
        return together(first.run, second.run, (first.front, second.front))
    except UserError as error:
        told = pathless(error, first.run.folder, second.run.folder)
        return f"{told[:1].upper()}{told[1:]}."
    except (OSError, ValueError, KeyError, TypeError):
        return "The texts of the points cannot be read, so that nothing says what is noise."


def _bands(found: Together, pair: tuple[int, int]) -> tuple[Band | None, Band | None]:
    """Where either front would lie with other prompts, in the plane of two objectives alone."""
    if max(map(len, found.fronts)) > _BANDED:
        return None, None

    def band(draws: Float[np.ndarray, "b n m"]) -> Band:
        outer, inner = attainment_bands(list(draws[:, :, list(pair)]), (0.05, 0.95))
        return Band(outer, inner, "in 90 % of all samples of the prompts")

    return band(found.first), band(found.second)


def _too_dear(found: Together) -> str:
    m, points = len(found.fronts[0].objectives), max(map(len, found.fronts))
    return (
        f"Whether one has more hypervolume is not counted here: over {m} objectives and {points:,} points that takes "
        "minutes. `moalign compare` counts it; the table says which has more of each objective."
    )


def verdict(info: VersusInfo, second: Seen | None = None) -> list[Any]:
    """The words above the drawing, and which run has more of each objective."""
    left_out = [note(f"{info.names[1]}: {line}.") for line in (second.left_out if second else ())[:3]]
    if info.note:
        return [note(info.note), *left_out]
    told: list[Any] = [note(info.verdict), *left_out]
    if info.hypervolumes:
        pairs = zip(info.names, info.hypervolumes, strict=True)
        said = "; ".join(f"{short(name)} {volume}" for name, volume in pairs)
        told.append(html.P(f"Hypervolume as measured: {said}. {info.reference}", className="about"))
    if info.most:
        head = ["most of", *map(short, info.names), "difference (95 %)", "which has more"]
        rows = [[short(row.objective), row.first, row.second, row.difference, row.verdict] for row in info.most]
        told.append(table(head, rows, "The most of each objective"))
    return told


def about(info: VersusInfo) -> str:
    """What the drawing shows that it does not say by itself."""
    if not info.rims:
        return "Bars are 95 % intervals." if min(len(front.marks) for front in info.fronts) <= CROWD else ""
    plane = "" if len(info.fronts[0].objectives) == 2 else ", of these two objectives alone"
    return f"The bands say where either front lies {info.meaning}{plane}."


def register(app: dash.Dash, watch: Watch) -> None:
    """The callbacks of the view: a name from the list, and never a path, comes from the page."""
    pairing = Pairing(watch)
    asked = (Input("against", "value"), Input("plane", "value"), Input("state", "data"))

    @app.callback(
        Output(data_of("versus"), "data"), Output("versus-place", "hidden"), Output("versus-about", "children"), *asked
    )
    @in_thread
    def draw(name: str | None, plane: str | None, _state: str) -> tuple[Any, bool, str]:
        if not name:
            return dash.no_update, True, ""
        info = pairing.info(name, _pair(plane, watch.now()), volumes=False)
        return plain(versus_figure(info)), bool(info.note), "" if info.note else about(info)

    @app.callback(Output("verdict", "children"), *asked, running=[(Output("comparing", "hidden"), False, True)])
    @in_thread
    def judge(name: str | None, plane: str | None, _state: str) -> list[Any] | None:
        if not name:
            return None
        info = pairing.info(name, _pair(plane, watch.now()))
        return verdict(info, pairing.seen(name)[1])


def _pair(plane: str | None, seen: Seen) -> tuple[int, int] | None:
    """The columns that the page asks for; None for anything else than one of its choices."""
    if plane not in [option["value"] for option in planes(seen)]:
        return None
    x, y = str(plane).split(",")
    return int(x), int(y)
