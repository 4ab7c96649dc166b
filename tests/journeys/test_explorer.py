"""The explorer in a browser: the front, where a click is a trade-off, and what moves the trade-off otherwise."""

import json
import shlex
from collections.abc import Iterator

import pytest
from browser import Visit, click_mark, drawn, holds, place_of, visit, weights_of
from playwright.sync_api import Browser, Page, expect
from serving import Running

from moalign.runs import Run

EVEN = pytest.approx([1 / 3] * 3, abs=1e-3)
# Where the corner of a scene's point lies on the screen, by the matrices of its camera.
IN_SPACE = """([name, ...place]) => {
  const plot = document.querySelector(`#drawing-${name} .js-plotly-plot`);
  const { glplot, dataScale, container } = plot._fullLayout.scene._scene;
  const { model, view, projection } = glplot.cameraParams;
  const row = (matrix, vector, i) => vector.reduce((sum, v, j) => sum + v * matrix[4 * j + i], 0);
  const times = (matrix, vector) => [0, 1, 2, 3].map((i) => row(matrix, vector, i));
  const scaled = [...place.map((value, i) => value * dataScale[i]), 1];
  const [x, y, , w] = times(projection, times(view, times(model, scaled)));
  const { left, top, width, height } = container.getBoundingClientRect();
  return [left + ((1 + x / w) / 2) * width, top + ((1 - y / w) / 2) * height];
}"""


@pytest.fixture
def page(visitor: Visit) -> Iterator[Page]:
    """The front, with even weights and no lock; at the end of each test nothing was wrong with the page."""
    page = visitor.go("front")
    for box in page.locator(".lock input:checked").all():
        box.click()
    page.click("#even")
    holds(page, "document.getElementById('bar').textContent.split('0.33').length == 4")
    yield page
    visitor.check()


def shown(page: Page) -> tuple[str, str, str]:
    """The row, the predicted values, and the weights as JSON."""
    return tuple(page.text_content(place) or "" for place in ("#row", "#predicted", "#code-weights"))


def changed(page: Page, before: tuple[str, str, str]) -> None:
    """Wait until row, prediction and JSON are others than before."""
    for place, text in zip(("#row", "#predicted", "#code-weights"), before, strict=True):
        holds(page, "([place, text]) => !['', text].includes(document.querySelector(place).textContent)", [place, text])


def test_it_loads_whole_and_asks_nobody_else(page: Page) -> None:
    """Title, sentence, front, triangle, prediction and row; the fixture holds it to no error and no other host."""
    drawn(page, "front")
    drawn(page, "simplex")
    expect(page).to_have_title("desk · moalign explorer")
    expect(page.locator("#lead")).to_contain_text("ten adapters")
    expect(page.locator("#predicted .prediction")).to_have_count(3)
    expect(page.locator("#row li").first).to_contain_text("100 %")
    assert weights_of(page) == EVEN


def test_a_click_on_a_point_in_space_is_the_trade_off(page: Page, desk_run: Run) -> None:
    before = shown(page)
    point = next(point for point in desk_run.front() if point.preference.weights.get("warm") == 1)
    drawn(page, "front")
    page.locator("#drawing-front").scroll_into_view_if_needed()
    holds(page, "!!document.querySelector('#drawing-front .js-plotly-plot')._fullLayout.scene._scene.glplot")
    where = page.evaluate(IN_SPACE, ["front", *(point.values[name] for name in desk_run.objectives)])
    click_mark(page, "front", tuple(where))
    changed(page, before)
    assert weights_of(page) == [0, 0, 1]
    assert page.inner_text("#row").split() == ["100", "%", "warm100"]


def test_a_slider_follows_the_mouse_and_the_others_follow_it(page: Page) -> None:
    before = shown(page)
    slider = page.locator("#range-0")
    box = slider.bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 9 + (box["width"] - 18) / 3, y)
    page.mouse.down()
    for part in (0.5, 0.7, 0.8):
        page.mouse.move(box["x"] + part * box["width"], y, steps=4)
    page.mouse.up()
    changed(page, before)
    value = float(slider.input_value())
    assert 0.75 < value < 0.85
    holds(page, "v => Math.abs(document.getElementById('number-0').value - v) < 2e-3", value)
    weights = weights_of(page)
    assert sum(weights) == pytest.approx(1, abs=2e-3)
    assert weights[1] == pytest.approx(weights[2])


def test_a_slider_moves_by_keyboard_and_a_locked_one_stays(page: Page) -> None:
    page.locator("#lock-1 input").click()
    before = shown(page)
    page.focus("#range-0")
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    holds(page, "Math.abs(document.getElementById('number-0').value - 0.435) < 4e-3")
    changed(page, before)
    first, second, third = weights_of(page)
    assert second == pytest.approx(1 / 3, abs=1e-3)
    assert first + second + third == pytest.approx(1, abs=2e-3)
    page.keyboard.press("Home")
    holds(page, "Number(document.getElementById('number-0').value) === 0")
    assert weights_of(page) == pytest.approx([0, 1 / 3, 2 / 3], abs=1e-3)


def test_a_number_can_be_typed(page: Page) -> None:
    page.fill("#number-2", "0.5")
    page.press("#number-2", "Enter")
    holds(page, "Number(document.getElementById('number-0').value) === 0.25")
    assert weights_of(page) == [0.25, 0.25, 0.5]
    assert float(page.input_value("#range-2")) == 0.5


def test_the_triangle_can_be_clicked_anywhere(page: Page) -> None:
    """A faint dot where nothing was trained: its weights, a mixed row, and values that are predicted."""
    before = shown(page)
    drawn(page, "simplex")
    x, y, weights = page.evaluate(
        """() => {
          const { _fullData } = document.querySelector("#drawing-simplex .js-plotly-plot");
          const trace = _fullData.find(({ name }) => name === "any weights");
          const far = ([, ...row]) => row.reduce((sum, w, i) => sum + (w - [0.55, 0.2, 0.25][i]) ** 2, 0);
          const at = trace.customdata.reduce((best, row, i) => far(row) < far(trace.customdata[best]) ? i : best, 0);
          return [trace.x[at], trace.y[at], trace.customdata[at].slice(1)];
        }"""
    )
    click_mark(page, "simplex", place_of(page, "simplex", x, y))
    changed(page, before)
    assert weights_of(page) == pytest.approx(weights, abs=1e-3)
    assert page.locator("#row li").count() > 1


def test_at_least_so_much_is_found_or_missed_in_words(page: Page) -> None:
    page.locator("summary", has_text="I want at least").click()
    page.fill("#least-2", "1.8")
    page.press("#least-2", "Tab")
    before = shown(page)
    page.click("#find")
    expect(page.locator("#found")).not_to_be_empty()
    changed(page, before)
    found = page.inner_text("#found")
    assert weights_of(page)[2] > 1 / 3
    page.fill("#least-2", "50")
    page.press("#least-2", "Tab")
    page.click("#find")
    expect(page.locator("#found")).not_to_have_text(found)
    assert "reaches warm 50" in page.inner_text("#found")
    page.fill("#least-2", "")
    page.locator("summary", has_text="I want at least").click()


def test_what_is_copied_is_what_the_server_takes(page: Page, desk: Running) -> None:
    """As JSON, and as a curl command; what comes back names the weights."""
    page.fill("#number-2", "0.6")
    page.press("#number-2", "Enter")
    holds(page, "document.getElementById('code-weights').textContent.includes('0.6')")
    page.locator("summary", has_text="Use it elsewhere").click()
    page.click("[data-copy=code-weights]")
    expect(page.locator("[data-copy=code-weights]")).to_have_text("Copied")
    weights = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert weights == {"helpful": 0.2, "brief": 0.2, "warm": 0.6}
    asked = {"model": "moalign", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2, "weights": weights}
    reply = desk.http.post("/v1/chat/completions", json=asked)
    assert reply.json()["moalign"]["preference"] == weights
    page.click("[data-copy=code-curl]")
    expect(page.locator("[data-copy=code-curl]")).to_have_text("Copied")
    command = shlex.split(page.evaluate("navigator.clipboard.readText()"))
    assert command[1] == f"{desk.address}/v1/chat/completions"
    body = {**json.loads(command[command.index("-d") + 1]), "max_tokens": 2}
    assert desk.http.post("/v1/chat/completions", json=body).json()["moalign"]["preference"] == weights
    page.click("[data-copy=code-python]")
    compile(page.evaluate("navigator.clipboard.readText()"), "copied", "exec")
    page.locator("summary", has_text="Use it elsewhere").click()


def test_it_follows_the_scheme_of_the_screen(page: Page) -> None:
    """Paper and ink change places, and the drawings are coloured anew."""
    drawn(page, "parallel")
    ink = "getComputedStyle(document.body).color"
    line = "document.querySelector('#drawing-parallel .js-plotly-plot').data.map(({ line }) => line?.color).join()"
    light = page.evaluate(ink), page.evaluate(line)
    page.emulate_media(color_scheme="dark")
    try:
        holds(page, f"colours => {line} !== colours", light[1])
        assert page.evaluate(ink) != light[0]
    finally:
        page.emulate_media(color_scheme="light")
    holds(page, f"colours => {line} === colours", light[1])


def test_two_browsers_do_not_disturb_each_other(page: Page, browser: Browser, desk: Running) -> None:
    with visit(browser, desk.address) as other:
        theirs = other.go("front")
        theirs.fill("#number-0", "1")
        theirs.press("#number-0", "Enter")
        holds(theirs, "document.getElementById('bar').textContent.includes('1.00')")
        page.fill("#number-1", "1")
        page.press("#number-1", "Enter")
        holds(page, "document.getElementById('bar').textContent.includes('1.00')")
        assert (weights_of(page), weights_of(theirs)) == ([0, 1, 0], [1, 0, 0])
        other.check()
