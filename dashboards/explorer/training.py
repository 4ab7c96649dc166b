"""What the sweep did, and what it does now, without loading the page again."""

from typing import Any

import dash
from dash import Input, Output, State, dcc, html

from moalign.dashboards.explorer.parts import (
    attributes,
    chooser,
    data_of,
    drawing,
    in_thread,
    listed,
    note,
    plain,
    table,
    view,
)
from moalign.dashboards.history import TITLES, history_figures, history_info
from moalign.dashboards.progress import ProgressInfo, progress_figure, progress_info
from moalign.dashboards.wording import number
from moalign.exploring import Seen, Watch
from moalign.following import HistoryReader
from moalign.history import History
from moalign.runs import Run
from moalign.standing import Told, progress

_ROWS = 60  # adapters that are listed
_LOOK = 4000  # milliseconds between two looks at the log
_HURRY = 300  # while there is more of it to read
_PATIENCE = 0.7  # seconds that one look may read: others wait for the same processor


def training_view(_seen: Seen) -> html.Section:
    """Progress, and a chart for each thing that was logged."""
    charts = [drawing(f"training-{at}", title, "chart") for at, title in enumerate(TITLES)]
    return view(
        "training",
        "Training",
        "What was logged, and where the sweep stands; it is looked at again every few seconds.",
        dcc.Interval(id="look", interval=_LOOK),
        dcc.Store(id="logged"),
        html.P("The log is being read.", id="progress-said", className="note", **attributes(aria_live="polite")),
        drawing("progress", "How many adapters are in which state", "strip"),
        chooser(
            "Lines of",
            dcc.Dropdown(id="line-of", options=[], value=None, placeholder="those logged last", maxHeight=300),
            "field wide",
        ),
        html.Div(charts, className="grid charts"),
        html.Details([html.Summary("Every adapter"), html.Div(id="progress-rows")], className="more"),
    )


def rows(info: ProgressInfo) -> Any:
    """Every adapter, where it stands, and how far it is."""
    if not info.rows:
        return note("No adapter is planned yet.")
    found = [[row.asked, row.state, row.steps, row.note] for row in info.rows[:_ROWS]]
    more = [note(f"and {len(info.rows) - _ROWS} more")] if len(info.rows) > _ROWS else []
    return html.Div(
        [table(["asked for", "state", "steps", ""], found, "Progress of every adapter", numeric=False), *more]
    )


def said(info: ProgressInfo, history: History) -> str:
    """Where the sweep stands, in words, and what of the log is not shown."""
    parts = [info.sentence]
    if history.read < 1:
        parts.append(f"The log is long: {number(100 * history.read, 0)} % of it has been read.")
    if history.unreadable:
        lines = "1 line" if history.unreadable == 1 else f"{history.unreadable:,} lines"
        parts.append(f"{lines} of the log cannot be read, as a kill or a full disk leaves them, and are left out.")
    return " ".join(parts)


class _Follower:
    """The log of the run that is shown, and what the records of its adapters say; another run, another log."""

    def __init__(self, run: Run):
        self.reader, self.records = HistoryReader(run.folder, run.objectives), dict[str, Told]()

    def of(self, run: Run) -> "_Follower":
        return self if run.objectives == self.reader.objectives else _Follower(run)

    def info(self, run: Run, history: History) -> ProgressInfo:
        return progress_info(progress(run, history, records=self.records), run.objectives)


def register(app: dash.Dash, watch: Watch) -> None:
    """The callbacks of the view; nothing is sent while nothing changes."""
    follower = _Follower(watch.now().run)

    def following(run: Run) -> _Follower:
        nonlocal follower
        follower = follower.of(run)
        return follower

    @app.callback(
        Output("logged", "data"),
        Output("look", "interval"),
        Output("progress-said", "children"),
        Output(data_of("progress"), "data"),
        Output("progress-rows", "children"),
        Output("line-of", "options"),
        Input("look", "n_intervals"),
        State("logged", "data"),
    )
    @in_thread
    def look(_beat: int, before: str | None) -> tuple[Any, ...]:
        seen = watch.now()
        follower = following(seen.run)
        history = follower.reader.read(_PATIENCE)
        info = follower.info(seen.run, history)
        state = f"{seen.token} {history.lines} {history.read:.3f} {info.counts} {info.sentence}"
        if state == before:
            return (dash.no_update,) * 6
        options = [{"label": row.asked, "value": row.key} for row in info.rows if row.key]
        interval = _LOOK if history.read == 1 else _HURRY
        return state, interval, said(info, history), plain(progress_figure(info)), rows(info), listed(options)

    @app.callback(
        *[Output(data_of(f"training-{at}"), "data") for at in range(len(TITLES))],
        Input("logged", "data"),
        Input("line-of", "value"),
        prevent_initial_call=True,
    )
    @in_thread
    def draw(_logged: str, current: str | None) -> tuple[Any, ...]:
        seen = watch.now()
        follower = following(seen.run)
        history = follower.reader.read(0.0)
        asked = {row.key: row.asked for row in follower.info(seen.run, history).rows}
        return tuple(map(plain, history_figures(history_info(history, current or "", asked))))
