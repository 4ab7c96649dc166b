"""Colours are checked by simulation: Machado, Oliveira and Fernandes (2009), severity 1.0, in linear RGB."""

from itertools import combinations

import numpy as np
import pytest

from moalign.dashboards.explorer.parts import badge
from moalign.dashboards.theme import (
    DASHES,
    INK,
    NEUTRAL,
    OBJECTIVE_COLOURS,
    RULE,
    SCHEMES,
    SYMBOLS,
    TEMPLATE,
    css_variables,
    objective_colour,
    objective_dash,
    objective_symbol,
    sharper,
)

VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
PALETTES = {name: scheme.objectives for name, scheme in SCHEMES.items()}


def linear(colour: str) -> np.ndarray:
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    xyz = TO_XYZ @ np.clip(rgb, 0, 1) / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one: str, other: str) -> float:
    """WCAG 2: (brighter luminance + 0.05) / (darker luminance + 0.05)."""
    dark, bright = sorted(float(TO_XYZ[1] @ linear(colour)) for colour in (one, other))
    return (bright + 0.05) / (dark + 0.05)


def test_contrast_of_black_on_white() -> None:
    """(1 + 0.05) / (0 + 0.05) = 21, and a colour on itself has 1."""
    assert contrast("#000000", "#ffffff") == pytest.approx(21, abs=1e-3)
    assert contrast("#0075ca", "#0075ca") == 1


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("scheme", PALETTES)
def test_objectives_are_told_apart(scheme: str, vision: str) -> None:
    """Any two of the six lie at least 20 apart in CIE Lab, whoever looks; 2.3 is a just noticeable difference."""
    seen = [lab(VISION[vision] @ linear(colour)) for colour in PALETTES[scheme]]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) >= 20


def test_red_and_green_would_fail() -> None:
    """The simulation bites: a pure red and an olive of its brightness are one colour under deuteranopia."""
    red, olive = (lab(VISION["deuteranopia"] @ linear(colour)) for colour in ("#c00000", "#7a6a00"))
    assert np.linalg.norm(red - olive) < 20


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_marks_and_text_are_readable(scheme) -> None:
    """WCAG asks 3 for marks and 4.5 for text; tones of bare figures must do on both backgrounds."""
    assert all(contrast(colour, scheme.page) >= 3 for colour in (*scheme.objectives, NEUTRAL, RULE, INK))
    assert all(contrast(colour, scheme.page) >= 3 for colour in OBJECTIVE_COLOURS)
    assert contrast(scheme.ink, scheme.page) >= 7
    assert contrast(scheme.muted, scheme.page) >= 4.5
    assert contrast(scheme.muted, scheme.raised) >= 4.5
    assert contrast(scheme.objectives[0], scheme.page) >= 4.5  # links
    assert min(contrast(scheme.edge, ground) for ground in (scheme.page, scheme.raised)) >= 3  # fields


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_words_are_readable_on_what_is_filled(scheme) -> None:
    """A row's words stand on its bar, 16 % of the first objective's colour; the tip of a figure brings its ground."""
    share = 0.16
    channels = [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in (scheme.objectives[0], scheme.page)]
    mixed = "#" + "".join(f"{round(share * a + (1 - share) * b):02x}" for a, b in zip(*channels, strict=True))
    assert contrast(scheme.ink, mixed) >= 4.5
    tip = TEMPLATE.layout.hoverlabel
    assert contrast(tip.font.color, tip.bgcolor) >= 7
    assert contrast(tip.bgcolor, SCHEMES["light"].page) >= 3


def test_nine_objectives_differ_in_more_than_colour() -> None:
    """Colours repeat after 6; symbols, which tell alone, only after 12, on the page as in the figures."""
    assert len({objective_symbol(i) for i in range(12)}) == 12
    assert len({badge(i).children for i in range(12)}) == 12
    assert len({(objective_colour(i), objective_dash(i)) for i in range(9)}) == 9
    assert len({objective_symbol(i) for i in range(2)} | {objective_dash(i) for i in range(2)}) == 4
    assert (len(OBJECTIVE_COLOURS), len(SYMBOLS), len(DASHES)) == (6, 12, 4)


def test_page_and_figures_share_one_palette() -> None:
    """What a figure is recoloured to is what the page calls --objective-i, for light and for dark."""
    css = css_variables()
    for name, tones in sharper().items():
        for i, colour in enumerate(OBJECTIVE_COLOURS):
            assert tones[colour] == SCHEMES[name].objectives[i]
            assert f"--objective-{i}: {tones[colour]};" in css


def test_figures_have_no_background() -> None:
    """A transparent figure can be put on any page."""
    assert TEMPLATE.layout.paper_bgcolor == TEMPLATE.layout.plot_bgcolor == "rgba(0,0,0,0)"
