"""The explorer in a browser: texts as the server writes them, and weights from picks."""

import json
import signal
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from browser import Visit, drawn, holds, visit, weights_of
from playwright.sync_api import Browser, Page, expect
from served import until
from serving import Running, serving
from shown_run import add_adapters, rambling, shown_run

from moalign.adapters import Adapter
from moalign.batches import Completions
from moalign.demo import world
from moalign.runs import Run

PROMPT = "How do I reset my password?"
HOSTILE = "<script>alert(1)</script> [a link](javascript:alert(1)) <img src=x onerror=alert(1)> **bold**"
# Keeps how long each text was whenever it changed.
WATCH = """() => {
  window.grown = [];
  for (const letter of "ab") {
    const text = document.getElementById(`text-${letter}`);
    new MutationObserver(() => window.grown.push([letter, text.textContent.length]))
      .observe(text, { childList: true, characterData: true, subtree: true });
  }
}"""


@pytest.fixture
def page(visitor: Visit) -> Iterator[Page]:
    """The view where texts are read, asking the help desk something."""
    page = visitor.go("read")
    fill(page, prompt=PROMPT, seed=3, tokens=96, heat=1)
    yield page
    visitor.check()


def fill(page: Page, **fields: object) -> None:
    for name, value in fields.items():
        page.fill(f"#{name}", str(value))
        page.press(f"#{name}", "Tab")


def weigh(page: Page, at: int) -> None:
    """All weight on one objective."""
    page.fill(f"#number-{at}", "1")
    page.press(f"#number-{at}", "Enter")
    holds(
        page,
        "at => JSON.stringify(Object.values(JSON.parse(document.getElementById('code-weights').textContent))"
        ".map((w, i) => w === (i === at ? 1 : 0))) === '[true,true,true]'",
        at,
    )


def answers(desk: Running, **who: object) -> str:
    """What the interface says to the same request."""
    asked = {"messages": [{"role": "user", "content": PROMPT}], "seed": 3, "max_tokens": 96, "temperature": 1, **who}
    return desk.http.post("/v1/chat/completions", json=asked).json()["choices"][0]["message"]["content"]


def test_two_texts_are_those_of_the_interface_and_are_scored(page: Page, desk: Running, desk_run: Run) -> None:
    """Helpful against brief, with the seed that both share: what the interface says for the same weights and seed."""
    weigh(page, 1)
    page.click("#keep")
    expect(page.locator("#other-value")).to_contain_text("kept")
    weigh(page, 0)
    page.click("#ask")
    expect(page.locator("#scores table")).to_be_visible()
    texts = [page.text_content(f"#text-{letter}") or "" for letter in "ab"]
    corners = ({"helpful": 1.0, "brief": 0.0, "warm": 0.0}, {"helpful": 0.0, "brief": 1.0, "warm": 0.0})
    assert texts == [answers(desk, model="moalign", weights=weights) for weights in corners]
    assert texts[0] != texts[1]
    asked = Completions([PROMPT] * 2, texts)
    rows = page.locator("#scores tbody tr").all()
    for name, row in zip(desk_run.objectives, rows, strict=True):
        first, second = getattr(world, name)(asked)
        told = row.inner_text()
        assert name in told
        word = "the same" if round(second - first, 2) == 0 else "more in B" if second > first else "less in B"
        assert word in told


def test_five_points_answer_in_a_grid(page: Page) -> None:
    page.click("#ask-five")
    expect(page.locator("#five-scores table")).to_be_visible()
    texts = page.locator("#five .said").all_text_contents()
    assert len(texts) == 5
    assert all(texts)
    assert len(set(texts)) > 1
    assert page.locator("#five-scores thead th").count() == 6
    expect(page.locator("#five-scores")).to_contain_text("▲ most")


def test_what_a_model_writes_is_text(page: Page) -> None:
    """A model that writes markup, played by the test; the prompt holds the same."""
    chunk = {"choices": [{"delta": {"content": HOSTILE}, "finish_reason": "stop", "index": 0}]}
    body = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
    page.route("**/v1/chat/completions", lambda route: route.fulfill(body=body, content_type="text/event-stream"))
    try:
        fill(page, prompt=HOSTILE)
        page.click("#ask")
        expect(page.locator("#scores table")).to_be_visible()
        page.click("#ask-five")
        expect(page.locator("#five-scores table")).to_be_visible()
    finally:
        page.unroute("**/v1/chat/completions")
    assert page.text_content("#text-a") == HOSTILE
    assert page.locator("#five .said").first.text_content() == HOSTILE
    assert page.locator("#read").locator("script, img, b, strong, a").count() == page.locator("#read strong").count()
    assert not page.locator(".said *").count()


def test_a_hidden_preference_is_found_from_picks(page: Page, visitor: Visit, desk_run: Run) -> None:
    """A judge who counts warmth twice as much as brevity, by the scores that the texts carry: cosine 0.95 by 20."""
    visitor.go("examples")
    hidden = np.array([0.1, 0.3, 0.6])
    names = desk_run.objectives
    page.click("#pick-reset")
    expect(page.locator("#pick-state")).to_contain_text("No picks yet")
    expect(page.locator("#pick-use")).to_be_disabled()
    picks = 0
    while picks < 20 and page.is_visible("#pick-a") and page.is_enabled("#pick-a"):
        values = []
        for letter in "ab":
            scores = json.loads(page.get_attribute(f"#pick-text-{letter}", "data-scores") or "")
            values.append(float(hidden @ [scores[name] for name in names]))
        page.click("#pick-a" if values[0] > values[1] else "#pick-b")
        picks += 1
        expect(page.locator("#pick-state")).to_contain_text(f"After {picks} pick")
    assert picks >= 3
    assert page.locator("#pick-weights .prediction").count() == 3
    page.click("#pick-use")
    holds(page, "document.getElementById('number-2').value > 0.4")
    found = np.array(weights_of(page))
    assert found.sum() == pytest.approx(1, abs=2e-3)
    cosine = found @ hidden / np.linalg.norm(found) / np.linalg.norm(hidden)
    assert cosine >= 0.95, f"{found} after {picks} picks"


@pytest.fixture(scope="module")
def rambler(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory, random_adapter: Callable[..., Adapter]
) -> Iterator[tuple[Running, Visit]]:
    """A server that ends no text before the most tokens, and somebody who looks at it."""
    folder = tmp_path_factory.mktemp("rambler")
    run = add_adapters(shown_run(folder / "run", divisions=1, base=rambling(folder / "base")), random_adapter)
    with serving(run.folder, folder / "log") as running, visit(browser, running.address) as guest:
        yield running, guest


def begin(guest: Visit) -> Page:
    """Two long texts that are written side by side: of either something can be read before one of them is whole."""
    page = guest.go("read")
    fill(page, prompt=PROMPT, tokens=900)
    page.evaluate(WATCH)
    page.click("#ask")
    holds(page, "['a', 'b'].every((letter) => document.getElementById(`text-${letter}`).textContent.length > 20)")
    return page


def test_two_texts_grow_side_by_side_until_the_button_stops_them(rambler: tuple[Running, Visit]) -> None:
    """Here, and in the server, whose slots are free again."""
    running, guest = rambler
    page = begin(guest)
    page.click("#stop")
    expect(page.locator("#state-a")).to_have_text("stopped")
    expect(page.locator("#state-b")).to_have_text("stopped")
    text = page.text_content("#text-a")
    for letter in "ab":
        lengths = [length for which, length in page.evaluate("window.grown") if which == letter]
        assert len(set(lengths)) > 3
        assert lengths == sorted(lengths), "a text only grows"
    assert until(lambda: running.metric("moalign_running_sequences") == 0, 30)
    assert running.metric("moalign_tokens_total") < 2 * 900
    assert page.text_content("#text-a") == text
    guest.check()


def test_a_server_that_is_killed_is_a_message_and_the_page_goes_on(rambler: tuple[Running, Visit]) -> None:
    """In the middle of two texts. What needs no server still works: another view, a figure as a file."""
    running, guest = rambler
    page = begin(guest)
    running.send(signal.SIGKILL)
    for letter in "ab":
        expect(page.locator(f"#state-{letter}")).to_contain_text("⚠")
        expect(page.locator(f"#state-{letter}")).to_contain_text("server")
        assert len(page.text_content(f"#text-{letter}") or "") > 20, "what was written stays"
    page.click("#ask")
    expect(page.locator("#state-a")).to_contain_text("cannot be reached")
    guest.go("front")
    drawn(page, "parallel")
    with page.expect_download() as download:
        page.click("[data-save=svg][data-figure=parallel]")
    assert "<svg" in download.value.path().read_text(encoding="utf-8")
    guest.check("Failed to load resource", "Failed to fetch", "ERR_", "Callback")
