"""The page as a whole: who hears what of it, where the keyboard goes, and whether it fits."""

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from browser import chromium, exploring, visit
from dash import dcc, html
from explored import Explored, many_run
from playwright.sync_api import Page

from moalign.dashboards.explorer.live import Live
from moalign.dashboards.explorer.page import VIEWS
from moalign.dashboards.explorer.parts import chooser, table

Part = dict[str, Any]
HEADINGS = ("H1", "H2", "H3", "H4")
FIELDS = ("Input", "Textarea")
LONG = ["x" * 200, "y" * 200, *(f"a_reward_model_with_a_long_name_v{at}" for at in range(7))]
# Stands in for Plotly where nothing needs to be drawn.
NO_PLOTLY = """window.Plotly = {
  setPlotConfig() {}, purge() {}, Plots: { resize: async () => {} },
  async react(place) {
    return Object.assign(place, { on() {}, removeAllListeners() {}, data: [], layout: {} });
  },
};"""
STYLES = (files("moalign.dashboards.explorer") / "assets" / "explorer.css").read_text(encoding="utf-8")


def parts(node: Any, above: tuple[Part, ...] = ()) -> Iterator[tuple[Part, tuple[Part, ...]]]:
    """Every part of a layout that is not hidden, in the order of the page, with those that it stands in."""
    if isinstance(node, list):
        for each in node:
            yield from parts(each, above)
    elif isinstance(node, dict) and "type" in node and not node["props"].get("hidden"):
        yield node, above
        yield from parts(node["props"].get("children"), (*above, node))
        options = [option for option in node["props"].get("options") or [] if isinstance(option, dict)]
        yield from parts([option["label"] for option in options], (*above, node))


def text(node: Any) -> str:
    """All text in a part of a layout."""
    if isinstance(node, list):
        return " ".join(map(text, node))
    if isinstance(node, dict):
        return text(node.get("props", {}).get("children"))
    return "" if node is None else str(node)


def page(folder: Path, m: int, names: list[str] | None = None, live: bool = True) -> Explored:
    """The page of a run with another one beside it, so that every view has its controls."""
    many_run(folder / "other", 4, m, names)
    return Explored(many_run(folder / "run", 6, m, names).folder, Live(True, 64) if live else None)


def name_of(part: Part, above: tuple[Part, ...], page_ids: dict[Any, Part]) -> str:
    """What a screen reader calls a control: by aria-label, by the label around it, or by its own words."""
    own = part["props"]
    if part["type"] == "Dropdown":
        return text(page_ids.get(f"{own['id']}-value-count"))
    if "aria-label" in own:
        return own["aria-label"]
    if part["type"] in ("Button", "Summary", "A"):
        return text(own.get("children"))
    return " ".join(text(each) for each in above if each["type"] == "Label")


@pytest.mark.parametrize("m", [2, 3, 5])
@pytest.mark.parametrize("live", [True, False])
def test_every_control_has_a_name(tmp_path: Path, m: int, live: bool) -> None:
    """None is silent, and no two buttons or fields of the page are called the same."""
    found = list(parts(json.loads(page(tmp_path, m, live=live).layout())))
    ids = {json.dumps(part["props"]["id"]).strip('"'): part for part, _ in found if "id" in part["props"]}
    kinds = (*FIELDS, "Dropdown", "Button", "Summary", "A")
    named = [
        (part["props"].get("id"), name_of(part, above, ids).strip()) for part, above in found if part["type"] in kinds
    ]
    assert len(named) > 20
    assert not [control for control, name in named if not name]
    fields = [name_of(part, above, ids) for part, above in found if part["type"] in FIELDS]
    assert len(set(fields)) == len(fields)


def test_sliders_and_locks_say_of_which_objective(tmp_path: Path) -> None:
    """A slider, a number and a lock for each: whoever cannot see the row hears its objective, also of a long name."""
    found = list(parts(json.loads(page(tmp_path, 9, LONG).layout())))
    ids: dict[Any, Part] = {}
    for at in range(2, 9):
        ends = f"_v{at - 2}"
        for kind in ("range", "number"):
            (heard,) = [name_of(part, above, ids) for part, above in found if part["props"].get("id") == f"{kind}-{at}"]
            assert ends in heard
        (lock,) = [part for part, _ in found if part["props"].get("id") == f"lock-{at}"]
        assert ends in text([option["label"] for option in lock["props"]["options"]])


@pytest.mark.parametrize("m", [2, 3, 5])
def test_one_heading_on_top_and_no_level_left_out(tmp_path: Path, m: int) -> None:
    """One h1; below it no heading is more than one level deeper than the one before."""
    found = [
        int(part["type"][1]) for part, _ in parts(json.loads(page(tmp_path, m).layout())) if part["type"] in HEADINGS
    ]
    assert found.count(1) == 1
    assert found[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(found))


def test_landmarks_and_what_is_told_aloud(tmp_path: Path) -> None:
    """One header, one main, a named nav and aside; each view is called by its heading; troubles are alerts."""
    explored = page(tmp_path, 3)
    found = [part for part, _ in parts(json.loads(explored.layout()))]
    of = {
        kind: [part["props"] for part in found if part["type"] == kind] for kind in ("Header", "Nav", "Main", "Aside")
    }
    assert [len(each) for each in of.values()] == [1, 1, 1, 1]
    assert of["Nav"][0]["aria-label"] == "Views"
    assert of["Aside"][0]["aria-label"] == "Trade-off"
    ids = [json.dumps(part["props"]["id"]) for part in found if "id" in part["props"]]
    assert len(set(ids)) == len(ids)
    views = [part["props"] for part in found if part["props"].get("className") == "view"]
    assert [view["id"] for view in views] == list(VIEWS)
    assert all(json.dumps(view["aria-labelledby"]) in ids for view in views)
    assert all(part["props"]["aria-label"] for part in found if part["props"].get("role") == "img")
    assert explored.layout().count('"role": "alert"') == 2
    assert '<html lang="en">' in explored.client.get("/explore/").text


def test_a_dropdown_is_called_by_its_label() -> None:
    """Dash writes aria-labelledby="<id>-value-count <id>-value": without the first it would be its value alone."""
    made = chooser("Shade by", dcc.Dropdown(id="shade"), "field")
    told, dropdown = made.children
    assert (told.id, told.children, dropdown.id) == ("shade-value-count", "Shade by", "shade")
    bundle = (files("dash") / "dcc" / "async-dropdown.js").read_text(encoding="utf-8")
    assert re.search(r'"aria-labelledby":"".concat\(\w+,"-value-count "\).concat\(\w+,"-value"\)', bundle)


def test_a_column_without_a_name_has_no_heading() -> None:
    """An empty heading is read as a heading that says nothing."""
    head = table(["asked", "steps", ""], [["a", 1, "done"]], "Progress").children.children[0].children
    assert [type(cell) for cell in head.children] == [html.Th, html.Th, html.Td]


def test_styles_keep_the_focus_seen_and_the_motion_away() -> None:
    """Every outline that is taken away is put elsewhere; who asks for no motion gets none; paper shows no buttons."""
    taken = re.findall(r"([^{}]+)\{[^}]*outline: none", STYLES)
    assert {selector.strip() for selector in taken} == {
        "main",
        ".dash-input-container input",
        ".dash-input-container.range:focus-within",
    }
    assert ".dash-input-container:not(.range):has(:focus-visible) { outline: 2px" in STYLES
    assert ".range input:focus-visible::-webkit-slider-thumb { outline: 2px" in STYLES
    assert ":focus-visible { outline: 2px" in STYLES
    reduced = STYLES.partition("prefers-reduced-motion: reduce")[2].partition("}")[0]
    assert "transition: none" in reduced
    assert "animation: none" in reduced
    assert "@media print" in STYLES


def wider(page: Page) -> list[str]:
    """What reaches out of the screen to the right, but for what scrolls by itself."""
    return page.evaluate(
        """() => [...document.querySelectorAll("#page *")].filter((part) => {
          const { right, width } = part.getBoundingClientRect();
          const held = part.closest(".scroll, .unseen, .skip, pre, .range, .dash-dropdown > *");
          const cut = getComputedStyle(part.parentElement).overflowX !== "visible";
          return part instanceof HTMLElement && width > 0 && right > innerWidth + 1 && !held && !cut;
        }).map((part) => `${part.tagName}#${part.id}.${part.className}`)"""
    )


def test_nine_long_names_fit_on_a_phone_and_the_keyboard_gets_everywhere(tmp_path: Path) -> None:
    """No view scrolls sideways at 320 pixels, the names of the views are whole, and the focus is seen where it is."""
    run = many_run(tmp_path / "<b>run", 8, 9, LONG)
    with (
        chromium() as browser,
        exploring(run.folder, tmp_path / "log") as address,
        visit(browser, address, color_scheme="dark", viewport={"width": 320, "height": 844}) as visitor,
    ):
        # Figures take their size from the page, and without a graphics card they take their time.
        visitor.page.route(
            "**/plotly.min.js", lambda route: route.fulfill(body=NO_PLOTLY, content_type="text/javascript")
        )
        page = visitor.go("front")
        order = [_tabbed(page) for _ in range(len(VIEWS) + 1)]
        assert order == ["#views", *(f"#{name}" for name in VIEWS)]
        page.click("#tradeoff > summary")
        for name in VIEWS:
            page.evaluate("name => { location.hash = name }", name)
            page.wait_for_selector(f"#{name}", state="visible")
            assert not wider(page), name
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
            assert page.evaluate("[document.querySelector('nav')].every((nav) => nav.scrollWidth <= nav.clientWidth)")
        page.evaluate("location.hash = 'front'")
        assert page.get_by_role("button", name=re.compile("^Go to a point")).count() == 1
        visitor.check()


def _tabbed(page: Page) -> str:
    """Where the next Tab leads; the focus is outlined there."""
    page.keyboard.press("Tab")
    target, style = page.evaluate(
        "[document.activeElement.getAttribute('href'), getComputedStyle(document.activeElement).outlineStyle]"
    )
    assert style == "solid"
    return target
