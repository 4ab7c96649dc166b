"""What the sweep did, and what it does now, without loading the page again."""

from typing import Any

import dash
from dash import Input, Output, State, dcc, html

from moalign.dashboards.explorer.parts import attributes, data_of, drawing, in_thread, note, plain, table, view
from moalign.dashboards.history import history_figures, history_info
from moalign.dashboards.progress import ProgressInfo, progress_figure, progress_info
from moalign.dashboards.wording import preference_text
from moalign.exploring import Seen, Watch
from moalign.following import HistoryReader
from moalign.runs import Run
from moalign.standing import progress

_ROWS = 60  # adapters that are listed
_LOOK = 4000  # milliseconds between two looks at the log


def training_view(seen: Seen) -> html.Section:
    """Progress, and a chart for each thing that was logged."""
    charts = [drawing(f"training-{at}", chart, "chart") for at, chart in enumerate(_charts(seen.run))]
    return view(
        "training",
        "Training",
        "What was logged, and where the sweep stands; it is looked at again every few seconds.",
        dcc.Interval(id="look", interval=_LOOK),
        dcc.Store(id="logged"),
        html.P(id="progress-said", className="note", **attributes(aria_live="polite")),
        drawing("progress", "How many adapters are in which state", "strip"),
        html.Label(
            [
                html.Span("Lines of"),
                dcc.Dropdown(id="line-of", options=[], value=None, placeholder="those logged last", maxHeight=300),
            ],
            className="field wide",
        ),
        html.Div(charts, className="grid charts"),
        html.Details([html.Summary("Every adapter"), html.Div(id="progress-rows")], className="more"),
    )


def _charts(run: Run) -> list[str]:
    """The titles of the charts, which are the same for each run."""
    return [chart.title for chart in history_info(HistoryReader(run.folder, run.objectives).read()).charts]


def rows(info: ProgressInfo) -> Any:
    """Every adapter, where it stands, and how far it is."""
    if not info.rows:
        return note("No adapter is planned yet.")
    found = [[row.asked, row.state, row.steps, row.note] for row in info.rows[:_ROWS]]
    more = [note(f"and {len(info.rows) - _ROWS} more")] if len(info.rows) > _ROWS else []
    return html.Div(
        [table(["asked for", "state", "steps", ""], found, "Progress of every adapter", numeric=False), *more]
    )


def register(app: dash.Dash, watch: Watch) -> None:
    """The callbacks of the view; nothing is sent while nothing changes."""
    run = watch.now().run
    reader, count = HistoryReader(run.folder, run.objectives), len(_charts(run))

    @app.callback(
        Output("logged", "data"),
        Output("progress-said", "children"),
        Output(data_of("progress"), "data"),
        Output("progress-rows", "children"),
        Input("look", "n_intervals"),
        State("logged", "data"),
    )
    @in_thread
    def look(_beat: int, before: str | None) -> tuple[Any, ...]:
        run = watch.now().run
        history = reader.read()
        info = progress_info(progress(run, history), run.objectives)
        state = f"{watch.now().token} {[len(trace.moments) for trace in history.traces]} {info.counts}"
        if state == before:
            return (dash.no_update,) * 4
        return state, info.sentence, plain(progress_figure(info)), rows(info)

    @app.callback(
        *[Output(data_of(f"training-{at}"), "data") for at in range(count)],
        Output("line-of", "options"),
        Input("logged", "data"),
        Input("line-of", "value"),
        prevent_initial_call=True,
    )
    @in_thread
    def draw(_logged: str, current: str | None) -> tuple[Any, ...]:
        figures = history_figures(history_info(reader.read(), current or ""))
        seen = watch.now()
        options = [
            {"label": preference_text(point.preference, seen.run.objectives), "value": point.adapter}
            for point in seen.front
        ]
        return *map(plain, figures), options
