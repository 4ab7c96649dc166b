"""What stands where: the views, one at a time, and beside them the trade-off."""

from typing import Any

from dash import dcc, html

from moalign.dashboards.explorer.comparing import comparing_view
from moalign.dashboards.explorer.examples import examples_view
from moalign.dashboards.explorer.exporting import exporting_view
from moalign.dashboards.explorer.front import front_view
from moalign.dashboards.explorer.live import Live, live_store
from moalign.dashboards.explorer.panel import tradeoff_panel
from moalign.dashboards.explorer.parts import attributes
from moalign.dashboards.explorer.reading import reading_view
from moalign.dashboards.explorer.training import training_view
from moalign.dashboards.summary import summary_sentence
from moalign.dashboards.theme import sharper
from moalign.exploring import Seen

VIEWS = {
    "front": "Front",
    "read": "Read",
    "examples": "By example",
    "training": "Training",
    "compare": "Compare",
    "export": "Export",
}
_BEAT = 3000  # milliseconds between two looks at the folder


def page(seen: Seen, siblings: list[str], live: Live | None) -> html.Div:
    """The page of a run as it is; what changes later is written by callbacks."""
    links = [html.A(title, href=f"#{name}", id=f"to-{name}") for name, title in VIEWS.items()]
    return html.Div(
        [
            *(dcc.Store(id=name, data=data) for name, data in _stores(seen, live).items()),
            dcc.Interval(id="beat", interval=_BEAT),
            html.A("To the views", href="#views", className="skip"),
            html.Header(
                [
                    html.P("moalign explorer", className="overline"),
                    html.H1(seen.run.folder.resolve().name),
                    html.P(summary_sentence(seen.front, {}), className="lead", id="lead"),
                    html.Nav(links, **attributes(aria_label="Views")),
                ]
            ),
            html.P(id="gone", className="alert", role="alert", hidden=True),
            html.Div(
                [html.P(id="problem"), html.Button("Close", type="button", id="dismiss", className="quiet")],
                id="trouble",
                className="alert",
                role="alert",
                hidden=True,
            ),
            html.Div(
                [
                    html.Main(
                        [
                            front_view(seen),
                            reading_view(seen, live),
                            examples_view(seen, live),
                            training_view(seen),
                            comparing_view(seen, siblings),
                            exporting_view(seen),
                        ],
                        id="views",
                        tabIndex=-1,
                    ),
                    html.Aside(tradeoff_panel(seen), **attributes(aria_label="Trade-off")),
                ],
                className="columns",
            ),
        ],
        id="page",
    )


def _stores(seen: Seen, live: Live | None) -> dict[str, Any]:
    """What a page remembers, by name; `plan`, `kept` and the like are empty until something is written there."""
    names = seen.run.objectives
    return {
        "weights": {name: 1 / len(names) for name in names},
        "wanted": None,
        "plan": None,
        "state": seen.token,
        "scheme": None,
        "schemes": sharper(),
        "live": live_store(live),
        "asked": None,
        "said": None,
        "kept": None,
        "points-five": None,
        "picks": None,
        "judged": None,
    }
