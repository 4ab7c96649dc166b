"""One look for every figure and for the page around them: colours, marks, type, light and dark.

A figure is drawn on a transparent background in tones that read on white and on near-black, so that it can be put
into any notebook. The page knows which of the two it is on, and exchanges the tones for sharper ones
(`sharper`); it takes its own colours from here too (`css_variables`).

No figure tells anything by colour alone: objectives have a colour, a symbol and a dash.
"""

from dataclasses import dataclass

import plotly.graph_objects as go

INK = "#767b83"  # text in figures
RULE = "#8b8f96"  # axes and thin lines
GRID = "rgba(128, 132, 140, 0.18)"
AXIS = "rgba(128, 132, 140, 0.5)"
NEUTRAL = "#7b8087"  # marks that belong to no objective: the base model, the exact front, dominated points

# After Okabe and Ito ("Color Universal Design", 2008), moved apart until every two differ by at least 20 in CIE
# Lab under protanopia and deuteranopia as well, and each from both backgrounds by a contrast of 3: the tests
# simulate it.
OBJECTIVE_COLOURS = ("#0075ca", "#b0401b", "#20a263", "#b47ab1", "#c78300", "#626967")
ACCENT = OBJECTIVE_COLOURS[0]
SYMBOLS = (
    *("circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon", "triangle-down", "pentagon"),
    *("hourglass", "bowtie", "hexagram"),
)
DASHES = ("solid", "dash", "dot", "dashdot")

FONT = '-apple-system, BlinkMacSystemFont, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif'


@dataclass(frozen=True)
class Scheme:
    """The colours of the page on one kind of screen."""

    page: str
    raised: str
    ink: str
    muted: str
    rule: str
    edge: str  # around what can be written into or chosen
    objectives: tuple[str, ...]


SCHEMES = {
    "light": Scheme("#fdfdfb", "#f4f4f0", "#1c2126", "#5c636b", "#dcdcd6", "#878d94", OBJECTIVE_COLOURS),
    "dark": Scheme(
        "#14161a",
        "#1d2025",
        "#e9e8e4",
        "#a2a8b0",
        "#33373e",
        "#747a83",
        ("#3f97f0", "#e2643f", "#5fd39a", "#e0b4ea", "#f2b632", "#8a9298"),
    ),
}


def objective_colour(index: int) -> str:
    """The colour of the objective in column `index`; from the seventh on they repeat, and symbols from the 13th."""
    return OBJECTIVE_COLOURS[index % len(OBJECTIVE_COLOURS)]


def objective_symbol(index: int) -> str:
    """The marker of the objective in column `index`."""
    return SYMBOLS[index % len(SYMBOLS)]


def objective_dash(index: int) -> str:
    """The dash of the objective in column `index`."""
    return DASHES[index % len(DASHES)]


def sharper() -> dict[str, dict[str, str]]:
    """For each scheme, what to put in place of each tone of a figure once the background is known.

    >>> sharper()["dark"][ACCENT]
    '#3f97f0'
    """
    return {
        name: {
            INK: scheme.muted,
            NEUTRAL: scheme.muted,
            **dict(zip(OBJECTIVE_COLOURS, scheme.objectives, strict=True)),
        }
        for name, scheme in SCHEMES.items()
    }


def css_variables() -> str:
    """The page's colours as CSS: light, and dark where the reader's system asks for it."""
    blocks = {name: _variables(scheme) for name, scheme in SCHEMES.items()}
    return (
        f":root {{ color-scheme: light dark; --font: {FONT};\n{blocks['light']} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{\n{blocks['dark']} }} }}"
    )


def blank_figure(sentence: str) -> go.Figure:
    """A figure that says in a sentence why there is nothing to draw."""
    figure = go.Figure(layout={"template": TEMPLATE, "height": 160})
    figure.update_xaxes(visible=False).update_yaxes(visible=False)
    return figure.add_annotation(text=sentence, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False)


def _variables(scheme: Scheme) -> str:
    plain = {name: getattr(scheme, name) for name in ("page", "raised", "ink", "muted", "rule", "edge")}
    objectives = {f"objective-{i}": colour for i, colour in enumerate(scheme.objectives)}
    return "\n".join(f"  --{name}: {value};" for name, value in (plain | objectives).items())


def _axis() -> dict[str, object]:
    return {
        "gridcolor": GRID,
        "linecolor": RULE,
        "tickcolor": RULE,
        "showline": False,
        "zeroline": False,
        "ticks": "",
        "nticks": 6,
        "automargin": True,
        "title": {"standoff": 10, "font": {"size": 13}},
        "tickfont": {"size": 12},
    }


def _scene_axis() -> dict[str, object]:
    return {
        "gridcolor": "#9a9ea5",
        "linecolor": RULE,
        "showline": True,
        "zeroline": False,
        "showbackground": False,
        "showspikes": False,
        "nticks": 5,
        "title": {"font": {"size": 13}},
        "tickfont": {"size": 11},
    }


TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "colorway": OBJECTIVE_COLOURS,
        "margin": {"l": 8, "r": 12, "t": 12, "b": 8},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": RULE, "activecolor": INK},
        "hovermode": "closest",
        "hoverlabel": {
            "align": "left",
            "bgcolor": "#23272d",
            "bordercolor": "#23272d",
            "font": {"family": FONT, "size": 13, "color": "#f3f3f0"},
        },
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 0,
            "yref": "container",
            "yanchor": "bottom",
            "itemsizing": "trace",
        },
        "xaxis": _axis(),
        "yaxis": _axis(),
        "scene": {axis: _scene_axis() for axis in ("xaxis", "yaxis", "zaxis")},
    }
)
