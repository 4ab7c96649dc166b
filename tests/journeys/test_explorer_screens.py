"""The explorer's views as pictures, in build/screens, to be looked at; none is wider than its screen."""

from pathlib import Path
from typing import Any

import pytest
from browser import WIDE, choose, drawn, exploring, holds, visit
from explored import many_run
from playwright.sync_api import Browser, Page, ViewportSize, expect
from serving import Running

SCREENS = Path(__file__).parents[2] / "build" / "screens"
NARROW = ViewportSize(width=390, height=844)
SCREENS_OF: dict[str, dict[str, Any]] = {
    "1280": {"viewport": WIDE},
    "390": {"viewport": NARROW, "is_mobile": True, "has_touch": True},
}
DARK = ("front", "read", "compare")
VIEWS = ("front", "read", "examples", "training", "compare", "export")


def ready(page: Page, view: str) -> None:
    """Whatever the view shows is there."""
    if view == "front":
        drawn(page, "front")
        drawn(page, "parallel")
    elif view == "training":
        for at in range(page.locator("#training .drawing.chart").count()):
            drawn(page, f"training-{at}")
    elif view == "compare":
        if not page.locator("#verdict").text_content():
            choose(page, "against", "weaker")
        drawn(page, "versus")
    elif view == "read" and not page.locator("#scores table").count():
        page.click("#ask")
        expect(page.locator("#scores table")).to_be_visible()
        page.click("#ask-five")
        expect(page.locator("#five-scores table")).to_be_visible()
    elif view == "examples" and not page.locator("#pick-weights h3").count():
        page.click("#pick-a")
        expect(page.locator("#pick-weights h3")).to_be_visible()


def picture(page: Page, name: str, size: ViewportSize) -> None:
    """Written, and no wider than the screen, which is as high as the page where a bar stays at its bottom."""
    holds(page, "width => innerWidth === width", size["width"])
    holds(page, "document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    SCREENS.mkdir(parents=True, exist_ok=True)
    high = page.evaluate("document.documentElement.scrollHeight")
    page.set_viewport_size({**size, "height": high} if size == NARROW else size)
    page.screenshot(path=SCREENS / f"{name}.png", full_page=True, animations="disabled")
    page.set_viewport_size(size)


@pytest.mark.parametrize("width", SCREENS_OF)
def test_every_view_in_light_and_dark(browser: Browser, desk: Running, width: str) -> None:
    options = SCREENS_OF[width]
    with visit(browser, desk.address, **options) as visitor:
        for view in VIEWS:
            page = visitor.go(view)
            ready(page, view)
            picture(page, f"{view}-{width}", options["viewport"])
            if view in DARK:
                page.emulate_media(color_scheme="dark")
                ready(page, view)
                picture(page, f"{view}-{width}-dark", options["viewport"])
                page.emulate_media(color_scheme="light")
        if width == "390":
            page.click("#tradeoff > summary")
            drawn(page, "simplex")
            page.locator("#tradeoff").evaluate("panel => panel.scrollTo(0, 300)")
            page.screenshot(path=SCREENS / f"tradeoff-{width}.png")
        visitor.check()


def test_many_objectives(browser: Browser, tmp_path: Path) -> None:
    many_run(tmp_path / "many", 60, 5)
    with exploring(tmp_path / "many", tmp_path / "log") as address, visit(browser, address) as visitor:
        page = visitor.go("front")
        for name in ("pair-0", "parcoords", "matrix"):
            drawn(page, name)
        picture(page, "many-1280", WIDE)
        page.set_viewport_size(NARROW)
        drawn(page, "matrix")
        picture(page, "many-390", NARROW)
        visitor.check()
