"""The explorer in a browser, alone, over runs as they come: being written, beside others, taken away, deleted."""

import csv
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from browser import Visit, choose, click_mark, drawn, exploring, holds, place_of, visit, weights_of
from playwright.sync_api import Browser, Download, Page, expect
from shown_run import log_step, shown_run

from moalign.preference import Preference
from moalign.runs import Run

HOSTILE = "<script>alert(1)</script> [a link](javascript:alert(1)) <img src=x onerror=alert(1)> **bold**"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two objectives, in a folder called by a tag, with another run beside it and texts that are markup."""
    folder = tmp_path_factory.mktemp("runs")
    shown_run(folder / "<i>weaker", names=("helpful", "brief"), divisions=4, reach=0.4, seed=2)
    run = shown_run(folder / "<b>two", names=("helpful", "brief"), divisions=4)
    for key in ("base", *(point.adapter for point in run.front())):
        run.write_samples(key, [{**row, "response": f"{HOSTILE} {row['response']}"} for row in run.samples(key)])
    return run


@pytest.fixture(scope="module")
def visitor(browser: Browser, run: Run) -> Iterator[Visit]:
    """`moalign explore` of that run, and somebody who looks at it."""
    with exploring(run.folder, run.folder.parent / "explore.log") as address, visit(browser, address) as visitor:
        yield visitor


@pytest.fixture(autouse=True)
def fine(request: pytest.FixtureRequest) -> Iterator[None]:
    """At the end of each test nothing was wrong with the page."""
    yield
    if "visitor" in request.fixturenames:
        request.getfixturevalue("visitor").check()


def saved(page: Page, button: str) -> Download:
    with page.expect_download() as download:
        page.click(button)
    return download.value


def test_a_click_on_a_point_of_the_plane_is_the_trade_off(visitor: Visit, run: Run) -> None:
    page = visitor.go("front")
    drawn(page, "front")
    point = next(point for point in run.front() if point.preference.weights.get("brief") == 0.75)
    click_mark(page, "front", place_of(page, "front", *(point.values[name] for name in run.objectives)))
    holds(page, "document.getElementById('bar').textContent.includes('0.75')")
    assert weights_of(page) == [0.25, 0.75]
    assert page.locator("#row li").count() == 1
    ring = "document.querySelector('#drawing-front .js-plotly-plot').data.at(-1)"
    holds(page, f"at => Math.abs({ring}.x[0] - at) < 1e-6", point.values["helpful"])


def test_without_a_server_it_says_how_to_read_texts(visitor: Visit) -> None:
    page = visitor.go("read")
    expect(page.locator("#read")).to_contain_text("moalign serve")


def test_names_and_texts_are_never_markup(visitor: Visit) -> None:
    """A folder called by a tag, and texts with a script, a picture and Markdown: the page has none of them."""
    page = visitor.go("examples")
    expect(page.locator("h1")).to_have_text("<b>two")
    holds(page, "document.getElementById('pick-text-a').textContent.length > 0")
    for letter in "ab":
        assert HOSTILE in (page.text_content(f"#pick-text-{letter}") or "")
    page.click("#pick-a")
    expect(page.locator("#pick-state")).to_contain_text("After 1 pick")
    assert not page.locator(".said *").count()
    assert (
        not page.locator("body script:not([src]):not([type='application/json']):not([id])")
        .filter(has_text="alert")
        .count()
    )
    assert not page.locator("main img, main i:not(.track i)").count()


def test_training_is_drawn_and_followed_without_loading_again(visitor: Visit, run: Run) -> None:
    """Steps and a point that a sweep adds while the page is open; the page is the same one all along."""
    page = visitor.go("training")
    for at in range(3):
        drawn(page, f"training-{at}")
    page.evaluate("window.mine = true")
    steps = """() => Math.max(...[...document.querySelectorAll("#training .js-plotly-plot")]
        .flatMap(({ _fullData }) => _fullData ?? []).flatMap(({ x }) => Array.from(x ?? [], Number))
        .filter(Number.isFinite))"""
    before, said = page.evaluate(steps), page.inner_text("#progress-said")
    log_step(run, run.front().points[0].adapter, 33, {"helpful": 0.9, "brief": 0.1})
    holds(page, f"before => ({steps})() === 33 && before < 33", before)
    first = run.front().points[0]
    landed = replace(first, adapter="landed", preference=Preference.of({"helpful": 0.6, "brief": 0.4}))
    run.write_samples("landed", run.samples(first.adapter))
    run.add_point(landed)
    run.log("point", **landed.as_dict(), status="NEW", hypervolume=None)
    expect(page.locator("#progress-said")).not_to_have_text(said)
    visitor.go("front")
    holds(
        page,
        """() => document.querySelector("#drawing-front .js-plotly-plot").data
        .some(({ customdata }) => [...(customdata ?? [])].includes("landed"))""",
    )
    assert page.evaluate("window.mine")


def test_two_runs_are_compared_in_words_and_in_a_plane(visitor: Visit) -> None:
    page = visitor.go("compare")
    choose(page, "against", "<i>weaker")
    drawn(page, "versus")
    expect(page.locator("#verdict")).to_contain_text("hypervolume", ignore_case=True)
    expect(page.locator("#verdict")).to_contain_text("<i>weaker")
    assert not page.locator("#compare i:not(.track i)").count()


def test_figures_are_saved_as_pictures(visitor: Visit) -> None:
    page = visitor.go("front")
    drawn(page, "front")
    png = saved(page, "[data-save=png][data-figure=front]")
    assert png.suggested_filename.endswith(".png")
    head = png.path().read_bytes()
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(head) > 10_000
    svg = saved(page, "[data-save=svg][data-figure=front]").path().read_text(encoding="utf-8")
    assert "<svg" in svg[:500]
    assert "helpful" in svg


def test_the_points_are_saved_as_a_table(visitor: Visit, run: Run) -> None:
    page = visitor.go("export")
    path = saved(page, "#export a[href='points.csv']").path()
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    told = {row["adapter"]: row for row in rows}
    for point in run.front():
        assert float(told[point.adapter]["value helpful"]) == pytest.approx(point.values["helpful"])


def test_the_page_is_saved_and_opens_with_the_network_off(visitor: Visit, browser: Browser, tmp_path: Path) -> None:
    page = visitor.go("export")
    path = tmp_path / "report.html"
    saved(page, "#export a[href='report.html']").save_as(path)
    with visit(browser, "file://", offline=True) as reader:
        reader.page.goto(path.as_uri())
        holds(reader.page, "document.querySelectorAll('.js-plotly-plot .main-svg').length >= 3")
        expect(reader.page.locator("h1")).to_contain_text("<b>two")
        assert not reader.page.locator("main img").count()
        reader.check()


def test_a_run_deleted_while_it_is_open_says_so(browser: Browser, run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    shutil.copytree(run.folder, folder)
    with exploring(folder, tmp_path / "gone.log") as address, visit(browser, address) as guest:
        page = guest.go("front")
        drawn(page, "front")
        shutil.rmtree(folder)
        expect(page.locator("#gone")).to_contain_text("is gone: it was deleted or moved")
        assert page.locator("#drawing-front .main-svg").count()
        page.click("#to-training")
        expect(page.locator("#training")).to_be_visible()
        guest.check()
        page.reload()
        expect(page.locator("[role=alert]").first).to_contain_text("is gone")
