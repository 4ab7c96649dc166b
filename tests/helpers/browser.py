"""A Chromium that looks at pages, where this machine has one: nothing but the page's own server is asked."""

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import workers
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Error,
    Page,
    Request,
    ViewportSize,
    expect,
    sync_playwright,
)
from served import until

NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-sync", "--disable-background-networking")
PATIENCE = 60_000  # milliseconds, on a busy machine
WIDE = ViewportSize(width=1280, height=900)
_MISSING = (
    "no Chromium that runs on this machine; apt-get install chromium, or: playwright install --with-deps chromium"
)

expect.set_options(timeout=PATIENCE)


def chromium_path() -> str:
    """The Chromium on the path, else the one that Playwright has downloaded; the test is skipped where neither is."""
    known = next(filter(None, map(shutil.which, NAMES)), None)
    if known is None:
        with sync_playwright() as playwright:
            known = playwright.chromium.executable_path
    if not Path(known).is_file():
        pytest.skip(_MISSING)
    return known


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window. No event loop of one's own can run in this thread while it is open."""
    path = chromium_path()
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=[*QUIET])
        except Error:  # a downloaded one lacks its libraries on a bare machine
            pytest.skip(_MISSING)
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A visitor to one server: a page, and what it wrote to the console, opened, and asked of other hosts."""

    def __init__(self, browser: Browser, address: str, **options: Any):
        self.address = address
        self.said: list[str] = []
        self.strangers: list[str] = []
        self.context: BrowserContext = browser.new_context(**{"viewport": WIDE, "accept_downloads": True, **options})
        self.context.set_default_timeout(PATIENCE)
        self.context.on("request", self._asked)
        self.context.on("console", self._wrote)
        self.context.on("weberror", lambda error: self.said.append(f"page error: {error.error}"))
        self.context.on("dialog", self._alerted)
        self.page: Page = self.context.new_page()

    def go(self, view: str = "front") -> Page:
        """Open a view, or go to it, and wait until the page has made its trade-off."""
        if not self.page.url.startswith(self.address):
            self.page.goto(f"{self.address}/explore/#{view}")
            holds(self.page, "document.getElementById('code-weights')?.textContent")
        else:
            self.page.click(f"#to-{view}")
        self.page.wait_for_selector(f"#{view}", state="visible")
        return self.page

    def check(self, *known: str) -> None:
        """No error on the console but those that hold a word of `known`, no dialog, and no other host was asked."""
        said, self.said = self.said, []
        unexpected = [line for line in said if not any(word in line for word in known)]
        assert not self.strangers
        assert not unexpected, "\n".join(unexpected)

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((self.address, "data:", "blob:", "file:")):
            self.strangers.append(request.url)

    def _wrote(self, message: ConsoleMessage) -> None:
        if message.type == "error":  # software rendering warns of its own slowness
            self.said.append(f"{message.text} ({message.location.get('url')})")

    def _alerted(self, dialog: Dialog) -> None:
        self.said.append(f"dialog: {dialog.message}")
        dialog.dismiss()


@contextmanager
def visit(browser: Browser, address: str, **options: Any) -> Iterator[Visit]:
    """A visit in a context of its own."""
    visitor = Visit(browser, address, **options)
    try:
        yield visitor
    finally:
        visitor.context.close()


@contextmanager
def exploring(run: Path, log: Path) -> Iterator[str]:
    """The address of `moalign explore run` on a free port; killed at the end."""
    process = workers.start(["explore", str(run), "--port", "0"], log)
    try:
        assert until(lambda: _address(log) or not process.is_alive(), PATIENCE / 1000), "no address in time"
        assert process.is_alive(), log.read_text()
        yield _address(log)
    finally:
        process.kill()
        process.join()


def _address(log: Path) -> str:
    found = re.search(r"open (http://\S+)/explore/", log.read_text(encoding="utf-8")) if log.exists() else None
    return found[1] if found else ""


def holds(page: Page, expression: str, arg: Any = None, seconds: float = PATIENCE / 1000) -> Any:
    """Wait until an expression, or a function of `arg`, is true of the page; what it then is.

    It is asked again and again from here, since Playwright's own waiting needs `eval`, which pages may forbid.
    """
    end = time.monotonic() + seconds
    while not (found := page.evaluate(expression, arg)):
        assert time.monotonic() < end, f"not in time: {expression} ({arg})"
        page.wait_for_timeout(20)
    return found


def drawn(page: Page, name: str) -> None:
    """Wait until a figure has been drawn with its data at a size that can be seen."""
    holds(page, _DRAWN, name)


def place_of(page: Page, name: str, x: float, y: float) -> tuple[float, float]:
    """Where a point of a plane lies on the screen, which is scrolled there."""
    page.locator(f"#drawing-{name}").scroll_into_view_if_needed()
    return tuple(page.evaluate(_PLACE, [name, x, y]))


def click_mark(page: Page, name: str, at: tuple[float, float]) -> None:
    """Click what is drawn there, once the figure knows that the mouse is over it."""
    plot = f"document.querySelector('#drawing-{name} .js-plotly-plot')"
    page.evaluate(f"() => {{ {plot}.once('plotly_hover', () => ({plot}.seen = 'hovered')); {plot}.seen = ''; }}")
    page.mouse.move(at[0] - 3, at[1] - 3)
    page.mouse.move(*at)
    holds(page, f"{plot}.seen === 'hovered'")
    page.evaluate(f"() => {{ {plot}.once('plotly_click', () => ({plot}.seen = 'clicked')); }}")
    page.mouse.down()
    if page.evaluate(f"!!{plot}._fullLayout.scene"):  # which looks for buttons whenever it is drawn
        holds(page, f"{plot}.seen === 'clicked'")
    page.mouse.up()


def choose(page: Page, dropdown: str, text: str) -> None:
    """Take the first entry of a dropdown that holds a text."""
    page.click(f"#{dropdown}")
    page.locator(".dash-dropdown-options label, .dash-dropdown-option").filter(has_text=text).first.click()


def weights_of(page: Page) -> list[float]:
    """The weights that the number fields show."""
    return [float(field.input_value()) for field in page.locator(".control input[type=number]").all()]


_DRAWN = """name => {
  const plot = document.querySelector(`#drawing-${name} .js-plotly-plot`);
  const known = plot?.data?.length && plot._fullLayout && plot.querySelector(".main-svg");
  return !!known && plot.getBoundingClientRect().width > 50 && !plot._dragging;
}"""
_PLACE = """([name, x, y]) => {
  const plot = document.querySelector(`#drawing-${name} .js-plotly-plot`);
  const { xaxis, yaxis } = plot._fullLayout;
  const { left, top } = plot.getBoundingClientRect();
  return [left + xaxis._offset + xaxis.d2p(x), top + yaxis._offset + yaxis.d2p(y)];
}"""
