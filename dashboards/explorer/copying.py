"""The weights that picks tell, as others can use them: JSON, curl, Python."""

from typing import Any

import dash
from dash import Input, Output, html

from moalign.dashboards.explorer.parts import attributes, in_thread
from moalign.dashboards.explorer.picks import weights_under
from moalign.dashboards.explorer.snippets import snippets
from moalign.exploring import Watch

_KINDS = {"weights": "JSON", "curl": "curl", "python": "Python"}


def copies_view() -> html.Details:
    """The weights as others can use them."""
    parts: list[Any] = []
    for kind, title in _KINDS.items():
        copy = html.Button(
            "Copy",
            type="button",
            className="quiet",
            **attributes(data_copy=f"judged-{kind}", aria_label=f"Copy the weights as {title}"),
        )
        parts += [html.Div([html.Span(title), copy], className="line"), html.Pre(id=f"judged-{kind}", tabIndex=0)]
    return html.Details(
        [html.Summary("Use them elsewhere"), *parts], className="more copies", id="pick-copies", hidden=True
    )


def add_copies(app: dash.Dash, watch: Watch) -> None:
    """The callback that writes them."""

    @app.callback(
        *[Output(f"judged-{kind}", "children") for kind in _KINDS],
        Input("judged", "data"),
        Input("policy", "value"),
        Input("live", "data"),
    )
    @in_thread
    def copies(judged: dict[str, float] | None, policy: str | None, live: dict[str, Any]) -> list[str]:
        if not judged:
            return [""] * len(_KINDS)
        weights = weights_under(watch.now(), judged, policy)
        return list(snippets(weights, policy, live["origin"], live["chat"]).values())
