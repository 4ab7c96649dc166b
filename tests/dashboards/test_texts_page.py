"""What the page makes of streams as they come, in a Chromium: whole, broken, refused, stopped, late, hostile.

The server's answers are scripted in the page: `plan` says for each request what
comes, in which pieces, and how it ends.
"""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from browser import Visit, chromium, visit
from explored import many_run
from fastapi import FastAPI
from playwright.sync_api import Page, expect

from moalign.dashboards.explorer.app import PREFIX, explorer_app
from moalign.dashboards.explorer.live import Live
from moalign.serving.server import address, listen

TEXT = "caf\u00e9 \u6f22\u5b57 \U0001f44d\U0001f3fd"
SCRIPTED = """
  window.asked = [];
  window.aborted = 0;
  window.plan = () => ({ text: "a text" });
  const real = window.fetch;
  const line = (body) => `data: ${JSON.stringify(body)}\\n\\n`;
  window.fetch = async (url, options) => {
    if (!String(url).includes("/v1/")) return real(url, options);
    const body = JSON.parse(options.body);
    const plan = window.plan(body, window.asked.push({ url: String(url), body }) - 1);
    if (plan.down) throw new TypeError("Failed to fetch");
    if (plan.status) {
      const text = plan.message ? JSON.stringify({ error: { message: plan.message } }) : "<html>";
      return new Response(text, { status: plan.status, headers: plan.headers });
    }
    const last = plan.finish ?? "stop";
    const told = [...plan.text].map((each) => line({ choices: [{ delta: { content: each } }] }));
    if (plan.error) told.push(line({ error: { message: plan.error } }));
    else if (!plan.ends) told.push(line({ choices: [{ delta: {}, finish_reason: last }] }), "data: [DONE]\\n\\n");
    const bytes = new TextEncoder().encode(told.join(""));
    const size = plan.size ?? bytes.length;
    const stream = new ReadableStream({
      async start(control) {
        options.signal.addEventListener("abort", () => {
          window.aborted += 1;
          control.error(options.signal.reason);
        });
        if (plan.held) await new Promise((done) => window.held.push(done));
        for (let i = 0; i < bytes.length && !options.signal.aborted; i += size) {
          control.enqueue(bytes.slice(i, i + size));
        }
        if (options.signal.aborted || plan.ends === "never") return;
        if (plan.ends === "broken") setTimeout(() => control.error(new TypeError("network error")), 100);
        else control.close();
      },
    });
    return new Response(stream);
  };
"""


@pytest.fixture(scope="module")
def visitor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    """Somebody at a page whose run counts words, and whose server is the script."""
    folder = tmp_path_factory.mktemp("texts") / "run"
    run = many_run(folder, 8, 2, ["brief", "short"])
    for i, point in enumerate(run.front()):
        rows = [{"prompt": "Hi?", "response": "w " * (i + 1), "scores": {"brief": -1.0 - i, "short": float(i)}}]
        run.write_samples(point.adapter, rows)
    app = FastAPI()
    app.mount(PREFIX, explorer_app(folder, Live(True, 64)))
    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, ws="none", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    try:
        with chromium() as browser, visit(browser, address(listening)) as visitor:
            visitor.context.add_init_script(SCRIPTED)
            visitor.page.route("**/favicon.ico", lambda route: route.abort())
            visitor.go("read")
            expect(visitor.page.locator("#other")).to_be_visible()
            yield visitor
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()


@pytest.fixture
def page(visitor: Visit) -> Page:
    """The page, at Read, as if nobody had asked yet."""
    page = visitor.page
    page.set_viewport_size({"width": 1280, "height": 900})
    page.evaluate("location.hash = 'read'; asked.length = 0; aborted = 0; held = []; plan = () => ({ text: 'a text' })")
    page.locator("#prompt").fill("Hello?")
    for name, value in (("seed", "7"), ("tokens", "32"), ("heat", "1")):
        page.fill(f"#{name}", value)
    page.locator("#heat").blur()
    return page


def plan(page: Page, script: str) -> None:
    page.evaluate(f"void (plan = {script})")


def ask(page: Page, said: str = "All 2 texts are written.") -> None:
    page.click("#ask")
    expect(page.locator("#reading-state")).to_have_text(said)


def test_both_columns_stream_with_one_seed_and_characters_may_come_in_pieces(page: Page) -> None:
    plan(page, f"({{ model }}) => ({{ text: model + ' {TEXT}', size: 1 }})")
    ask(page)
    expect(page.locator("#text-a")).to_have_text(f"moalign {TEXT}")
    expect(page.locator("#text-b")).to_have_text(f"base {TEXT}")
    bodies = page.evaluate("asked.map(({ body }) => body)")
    assert {body["seed"] for body in bodies} == {7}
    assert bodies[0]["weights"] == {"brief": 0.5, "short": 0.5}
    assert bodies[1]["model"] == "base"
    assert bodies[0]["messages"] == [{"role": "user", "content": "Hello?"}]
    expect(page.locator("#scores")).to_contain_text("= the same")
    expect(page.locator("#scores")).to_contain_text("mean ")


def test_no_live_region_holds_a_text_that_is_being_written(page: Page) -> None:
    plan(page, "() => ({ text: 'words and words', ends: 'never' })")
    page.click("#ask")
    expect(page.locator("#text-a")).to_have_text("words and words")
    assert page.locator("#text-a").get_attribute("aria-busy") == "true"
    spoken = page.evaluate("[...document.querySelectorAll('#read [aria-live], #read [role=status]')].map((e) => e.id)")
    assert spoken == ["reading-state"]
    page.click("#stop")
    expect(page.locator("#reading-state")).to_have_text("Stopped.")
    assert page.locator("#text-a").get_attribute("aria-busy") is None


def test_stop_ends_both_and_the_page_can_ask_again(page: Page) -> None:
    plan(page, "() => ({ text: 'half', ends: 'never' })")
    page.click("#ask")
    expect(page.locator("#state-b")).to_have_text("writing")
    page.click("#stop")
    for letter in "ab":
        expect(page.locator(f"#state-{letter}")).to_have_text("stopped")
        expect(page.locator(f"#text-{letter}")).to_have_text("half")
    assert page.evaluate("aborted") == 2
    plan(page, "() => ({ text: 'whole' })")
    ask(page)
    expect(page.locator("#text-a")).to_have_text("whole")
    page.click("#stop")
    expect(page.locator("#reading-state")).to_have_text("Nothing is being written.")


def test_of_two_fast_asks_the_later_one_stands_whenever_the_first_comes(page: Page) -> None:
    plan(page, "(_body, n) => (n < 2 ? { text: 'old', held: true } : { text: 'new' })")
    page.evaluate("document.getElementById('ask').click()")
    page.wait_for_function("asked.length === 2")
    ask(page)
    page.evaluate("held.splice(0).forEach((go) => go())")  # now the first come
    page.evaluate("new Promise(requestAnimationFrame)")
    for letter in "ab":
        expect(page.locator(f"#text-{letter}")).to_have_text("new")
        expect(page.locator(f"#state-{letter}")).to_have_text("")
    assert page.evaluate("aborted") == 2


def test_a_server_that_dies_in_the_middle_is_told_in_its_column_alone(page: Page) -> None:
    plan(page, "({ model }) => (model === 'base' ? { text: 'so far', ends: 'broken' } : { text: 'two words' })")
    ask(page, "1 of 2 texts came to their end; the others say why they did not.")
    expect(page.locator("#text-b")).to_have_text("so far")
    expect(page.locator("#state-b")).to_contain_text("⚠ the connection broke off before the end of the text")
    expect(page.locator("#text-a")).to_have_text("two words")
    expect(page.locator("#scores")).to_contain_text("2.0")
    plan(page, "() => ({ text: 'again' })")
    ask(page)
    expect(page.locator("#state-b")).to_have_text("")


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("{ down: true }", "⚠ the server cannot be reached; is it still running?"),
        ("{ status: 429, message: '8 requests wait; try again in 2 s' }", "⚠ 8 requests wait; try again in 2 s"),
        ("{ status: 503, headers: { 'Retry-After': '5' } }", "⚠ the server answered 503; try again in 5 s"),
        ("{ status: 400, message: 'the prompt has 9000 tokens' }", "⚠ the prompt has 9000 tokens"),
        ("{ status: 401, message: 'this server asks for its API key' }", "⚠ this server asks for its API key"),
        ("{ text: 'x', error: 'the server could not go on' }", "⚠ the server could not go on"),
        ("{ text: 'x', ends: 'closed' }", "⚠ the server stopped before the end of the text"),
        ("{ text: 'x', finish: 'time' }", "⚠ the server had no time left for the rest of the text"),
        ("{ text: 'x', finish: 'length' }", "ended at the most tokens"),
        ("{ text: '' }", ""),
    ],
)
def test_how_it_ended_is_a_sentence_in_the_column(page: Page, script: str, told: str) -> None:
    plan(page, f"() => ({script})")
    page.click("#ask")
    expect(page.locator("#reading-state")).not_to_contain_text("Writing")
    expect(page.locator("#state-a")).to_have_text(told)
    if not told:
        expect(page.locator("#text-a")).to_have_text("(an empty text)")


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("prompt", "  ", "Type a prompt first."),
        ("seed", "1.5", "The seed is a whole number from 0 on."),
        ("tokens", "65", "At most tokens is a whole number from 1 to 64."),
        ("heat", "", "The temperature is a number from 0 to 2."),
    ],
)
def test_what_cannot_be_asked_is_said_and_not_sent(page: Page, field: str, value: str, told: str) -> None:
    page.fill(f"#{field}", value)
    page.locator(f"#{field}").blur()
    for name in ("#ask", "#ask-five"):
        page.click(name)
        expect(page.locator("#reading-state")).to_have_text(f"⚠ {told}")
    assert page.evaluate("asked.length") == 0


def test_five_points_answer_at_once_under_their_names(page: Page) -> None:
    plan(page, "({ model }, n) => ({ text: `${n} words`.repeat(1) + ' more'.repeat(n) })")
    page.click("#ask-five")
    expect(page.locator("#reading-state")).to_have_text("All 5 texts are written.")
    assert len(set(page.evaluate("asked.map(({ body }) => body.model)"))) == 5
    expect(page.locator("#five .said")).to_have_count(5)
    expect(page.locator("#five-scores")).to_contain_text("▲ most")


HOSTILE = (
    "<script>alert(1)</script> <img src=x onerror=alert(1)> [link](javascript:alert(1)) \\u202e\\u0000\\u001b[31m "
    "\\u0627\\u0644\\u0633\\u0644\\u0627\\u0645"
)


@pytest.mark.parametrize("width", [1280, 390])
def test_hostile_and_endless_texts_are_text_and_stay_in_their_place(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    plan(page, f"(_body, n) => (n ? {{ text: 'x'.repeat(100000) }} : {{ text: `{HOSTILE}` }})")
    ask(page)
    said = page.evaluate("document.getElementById('text-a').textContent")
    assert said.startswith("<script>alert(1)</script> <img src=x")
    assert "\u2400\u241b[31m" in said  # control characters are pictures
    assert page.evaluate("document.querySelectorAll('.said *').length") == 0
    assert page.evaluate("document.getElementById('text-b').textContent.length") == 100_000
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#text-b").bounding_box()["height"] < 500  # type: ignore[index]
    assert page.locator("#text-a").get_attribute("dir") == "auto"


def test_stored_samples_can_be_read_beside_a_server_and_stop_what_is_written(page: Page) -> None:
    plan(page, "() => ({ text: 'half', ends: 'never' })")
    page.click("#ask")
    expect(page.locator("#text-a")).to_have_text("half")
    page.get_by_label("stored samples").check()
    expect(page.locator("#state-a")).to_contain_text("nearest measured point")
    expect(page.locator("#text-a")).to_contain_text("w w")
    expect(page.locator("#five .said")).to_have_count(5)
    expect(page.locator("#ask")).to_be_hidden()
    assert page.evaluate("aborted") == 2
    page.get_by_label("written now").check()
    expect(page.locator("#text-a")).to_have_text("")
    expect(page.locator("#ask")).to_be_visible()


def test_texts_of_ones_own_prompt_are_written_and_picked_from(page: Page) -> None:
    page.evaluate("location.hash = 'examples'")
    page.get_by_label("a prompt of my own").check()
    page.click("#own-ask")
    expect(page.locator("#own-state")).to_have_text("⚠ Type a prompt first.")
    page.locator("#own-prompt").fill("Mine?")
    page.locator("#own-prompt").blur()
    plan(page, "(_body, n) => (n ? { text: 'w '.repeat(n) } : { status: 429, message: 'the queue is full' })")
    page.click("#own-ask")
    expect(page.locator("#own-state")).to_have_text("⚠ the queue is full")
    expect(page.locator("#pick-prompt")).to_have_text("Mine?")
    page.click("#pick-a")
    expect(page.locator("#pick-state")).to_contain_text("After 1 pick")
    page.click("#pick-undo")
    expect(page.locator("#pick-state")).to_have_text("No picks yet.")
    page.click("#pick-b")
    page.locator("#pick-copies summary").click()
    expect(page.locator("#judged-weights")).to_contain_text("brief")


def test_without_a_clipboard_what_is_to_be_copied_is_selected(page: Page) -> None:
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined, configurable: true })")
    page.evaluate("location.hash = 'examples'")
    page.click("[data-copy=judged-weights]")
    expect(page.locator("[data-copy=judged-weights]")).to_have_text("Selected: press Ctrl-C")
    selected: Any = page.evaluate("getSelection().toString()")
    assert "brief" in selected
    expect(page.locator("[data-copy=judged-weights]")).to_have_text("Copy")
