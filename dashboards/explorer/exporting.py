"""What can be taken away: the page as one file that opens with the network off, and the data."""

from collections.abc import Callable
from urllib.parse import quote

from dash import html
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response

from moalign.dashboards.explorer.parts import view
from moalign.dashboards.report import report_html
from moalign.dashboards.spreadsheet import points_csv
from moalign.errors import UserError
from moalign.exploring import Seen, Watch


def exporting_view(seen: Seen) -> html.Section:
    """Links; the figures have buttons of their own."""
    files = (
        (
            "report.html",
            "The report as one HTML file",
            "All that is known now, in a page that opens with the network off.",
        ),
        (
            "points.csv",
            "The points as CSV",
            "A line for each point: what was asked, values, standard errors, intervals.",
        ),
    )
    return view(
        "export",
        "Export",
        "Made from the run as it is now; nothing is written into its folder. Every figure has buttons for PNG and SVG.",
        html.Ul(
            [
                html.Li([html.A(title, href=name, download=_download(seen, name)), html.Span(about, className="about")])
                for name, title, about in files
            ],
            className="exports",
        ),
    )


def _download(seen: Seen, name: str) -> str:
    return f"{seen.run.folder.resolve().name}-{name}"


def add_routes(server: FastAPI, watch: Watch) -> None:
    """The files, made when they are asked for."""

    def report() -> str:
        return report_html(watch.now().report)

    def table() -> str:
        seen = watch.now()
        return points_csv(seen.front, seen.base)

    for path, make, kind in (("report.html", report, "text/html"), ("points.csv", table, "text/csv")):
        server.add_api_route(f"/{path}", _answer(watch, path, make, kind), include_in_schema=False)


def _answer(watch: Watch, name: str, make: Callable[[], str], kind: str) -> Callable[[], object]:
    async def answer() -> Response:
        try:
            content = await run_in_threadpool(make)
        except UserError as error:
            return PlainTextResponse(f"{error}\n", status_code=409)
        stem = quote(f"{watch.folder.resolve().name}-{name}")
        headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{stem}"}
        return Response(content, media_type=f"{kind}; charset=utf-8", headers=headers)

    return answer
