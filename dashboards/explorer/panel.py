"""The panel of the trade-off, beside all views; on a narrow screen it is a bar below them, which opens."""

from typing import Any

from dash import dcc, html

from moalign.dashboards.explorer.parts import attributes, badge, button, chooser, colour_of, drawing
from moalign.dashboards.wording import short
from moalign.exploring import Seen


def tradeoff_panel(seen: Seen) -> html.Details:
    """Sliders, the map of three objectives, what is predicted, wishes, the row, and how to ask for it elsewhere."""
    names = seen.run.objectives
    even = {name: 1 / len(names) for name in names}
    return html.Details(
        [
            html.Summary([html.Span("Trade-off", className="title"), html.Span(id="bar", className="bar")]),
            html.Div(
                [
                    html.H2("Trade-off"),
                    html.Div([_control(at, name, even[name]) for at, name in enumerate(names)], className="controls"),
                    html.Div(
                        [
                            button("Even", "even", "quiet"),
                            chooser("Policy", _policies()),
                        ],
                        className="line",
                    ),
                    html.H3("It is predicted to attain"),
                    html.Div(id="predicted"),
                    html.P(id="stands", className="about", **attributes(aria_live="polite")),
                    html.H3("Its row"),
                    html.Div(id="row"),
                    *(_map(names) if len(names) == 3 else ()),
                    _wishes(names),
                    _code(),
                ],
                className="inside",
            ),
        ],
        open=True,
        id="tradeoff",
    )


def _control(at: int, name: str, weight: float) -> html.Div:
    shown = short(name, 22)  # what there is room for: the end of a name often tells it from others
    return html.Div(
        [
            html.Div(
                [
                    badge(at),
                    html.Span(shown, className="name", title=name),
                    html.Label(
                        [
                            _unseen(f"Weight of {shown}, as a number"),
                            dcc.Input(
                                id=f"number-{at}",
                                type="number",
                                min=0,
                                max=1,
                                step="any",
                                value=round(weight, 3),
                                debounce=True,
                                className="weight",
                            ),
                        ]
                    ),
                    dcc.Checklist(
                        id=f"lock-{at}",
                        options=[{"label": html.Span(["lock", _unseen(f" the weight of {shown}")]), "value": 1}],
                        value=[],
                        className="lock",
                    ),
                ],
                className="head",
            ),
            html.Label(
                [
                    _unseen(f"Weight of {shown}"),
                    dcc.Input(
                        id=f"range-{at}", type="range", min=0, max=1, step=0.005, value=weight, className="range"
                    ),
                ]
            ),
        ],
        className="control",
        style={"--accent": colour_of(at)},
    )


def _map(names: tuple[str, ...]) -> list[Any]:
    options = [{"label": f"how much {short(name, 20)} it gives", "value": name} for name in names]
    return [
        drawing("simplex", "Map of the weights; the sliders choose the same", "map"),
        chooser(
            "Shade by", dcc.Dropdown(id="shade", options=options, value=None, placeholder="nothing", searchable=False)
        ),
    ]


def _unseen(text: str) -> html.Span:
    return html.Span(text, className="unseen")


def _policies() -> dcc.Dropdown:
    return dcc.Dropdown(id="policy", options=[], value=None, clearable=False, searchable=False)


def _wishes(names: tuple[str, ...]) -> html.Details:
    fields = [
        html.Label(
            [
                html.Span([badge(at), " at least of ", html.Span(short(name, 20))]),
                dcc.Input(id=f"least-{at}", type="number", step="any", debounce=True, placeholder="anything"),
            ],
            className="field",
        )
        for at, name in enumerate(names)
    ]
    return html.Details(
        [
            html.Summary("I want at least …"),
            *fields,
            button("Find the weights", "find"),
            html.P(id="found", className="about", **attributes(aria_live="polite")),
        ],
        className="more",
    )


def _code() -> html.Details:
    kinds = {"weights": "JSON", "curl": "curl", "python": "Python"}
    return html.Details(
        [
            html.Summary("Use it elsewhere"),
            *(
                html.Div(
                    [
                        html.Div(
                            [
                                html.Span(kinds[kind], className="name"),
                                html.Button(
                                    "Copy",
                                    type="button",
                                    className="quiet",
                                    **attributes(data_copy=f"code-{kind}", aria_label=f"Copy as {kinds[kind]}"),
                                ),
                            ],
                            className="line",
                        ),
                        html.Pre(id=f"code-{kind}", tabIndex=0),
                    ]
                )
                for kind in kinds
            ),
        ],
        className="more",
    )
