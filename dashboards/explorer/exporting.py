"""What can be taken away: the run as one page that opens with the network off, and the data."""

from collections.abc import Callable
from dataclasses import replace
from urllib.parse import quote

from dash import html
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response

from moalign.dashboards.explorer.parts import view
from moalign.dashboards.report import report_html
from moalign.dashboards.spreadsheet import points_csv, steps_csv, texts_csv
from moalign.errors import UserError
from moalign.exploring import Seen, Watch, pathless
from moalign.following import HistoryReader
from moalign.history import History

_FILES = (
    (
        "report.html",
        "The run as one HTML file",
        "The front, all objectives at once, what was asked and attained, what lies between, training, texts to read, "
        "indicators and every point, with figures that answer the mouse; it opens with the network off. What is chosen "
        "in this page, the trade-off or a run to compare with, is not in it.",
    ),
    (
        "points.csv",
        "The points as CSV",
        "A line for the base model, each point and each measured blend: what was asked, values, standard errors, "
        "intervals, the row.",
    ),
    (
        "steps.csv",
        "The training as CSV",
        "A line for each step that was logged: loss, divergence, length, rewards, weights, and the cosines between "
        "gradients.",
    ),
    ("texts.csv", "The texts as CSV", "A line for each text that a point was measured by: prompt, response, scores."),
)


def exporting_view(seen: Seen) -> html.Section:
    """Links; the figures have buttons of their own."""
    return view(
        "export",
        "Export",
        "Made from the run as it is now; nothing is written into its folder. Every figure has buttons for PNG and SVG, "
        "with its title and legend, on white or, on a dark screen, on dark.",
        html.Ul(
            [
                html.Li([html.A(title, href=name, download=_download(seen, name)), html.Span(about, className="about")])
                for name, title, about in _FILES
            ],
            className="exports",
        ),
    )


def _download(seen: Seen, name: str) -> str:
    return f"{seen.run.folder.resolve().name}-{name}"


def add_routes(server: FastAPI, watch: Watch) -> None:
    """The files, made when they are asked for."""

    def report() -> str:
        seen = watch.now()
        return report_html(replace(seen.report, history=_history(seen)))

    def points() -> str:
        seen = watch.now()
        return points_csv(seen.front, seen.base, seen.blends)

    def steps() -> str:
        return steps_csv(_history(watch.now()))

    def texts() -> str:
        seen = watch.now()
        return texts_csv(seen.samples, seen.run.objectives)

    makers = {"report.html": report, "points.csv": points, "steps.csv": steps, "texts.csv": texts}
    for path, make in makers.items():
        kind = "text/html" if path.endswith(".html") else "text/csv"
        server.add_api_route(f"/{path}", _answer(watch, path, make, kind), include_in_schema=False)


def _history(seen: Seen) -> History:
    return HistoryReader(seen.run.folder, seen.run.objectives).read()


def _answer(watch: Watch, name: str, make: Callable[[], str], kind: str) -> Callable[[], object]:
    async def answer() -> Response:
        try:
            content = await run_in_threadpool(make)
        except UserError as error:
            return PlainTextResponse(f"{pathless(error, watch.folder)}\n", status_code=409)
        stem = quote(f"{watch.folder.resolve().name}-{name}")
        headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{stem}"}
        return Response(content, media_type=f"{kind}; charset=utf-8", headers=headers)

    return answer
