"""Requests that come, wait, leave and fail, and an engine that goes on."""

import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import torch
from engines import Asked
from plans import plan

from moalign.bank import AdapterBank
from moalign.errors import AdapterError, BusyError, ConfigError, DataError
from moalign.models import BaseModel
from moalign.serving.engine import Engine
from moalign.serving.limits import Limits
from moalign.serving.meter import Meter
from moalign.serving.sampling import Sampling

MIXED = plan({"a": 0.5, "b": 0.5})
LONG = Sampling(300, temperature=0.0)  # the tiny base does not end a text by itself that soon
SHORT = Sampling(4, temperature=0.0)


@pytest.fixture
def start(served_base: BaseModel, bank: AdapterBank) -> Iterator[Callable[..., Engine]]:
    """start(slots=2, ...): a running engine, stopped after the test."""
    begun: list[Engine] = []

    def begin(**limits: float) -> Engine:
        engine = Engine(served_base, bank, Limits(**limits), Meter())  # pyright: ignore[reportArgumentType]
        engine.start()
        begun.append(engine)
        return engine

    yield begin
    for engine in begun:
        engine.stop(0.0)


def idle(engine: Engine) -> bool:
    """Whether all slots come free within five seconds."""
    end = time.monotonic() + 5
    while (engine.running or engine.waiting) and time.monotonic() < end:
        time.sleep(0.01)
    return not (engine.running or engine.waiting)


def test_choices_of_one_request_share_what_is_read(start, prompts) -> None:
    """n = 3 with seeds of their own: each is the text that its seed gives alone, and the prompt is read once."""
    engine = start(slots=4)
    samplings = [Sampling(8, seed=seed) for seed in (7, 8, 9)]
    together = Asked(engine, prompts[0], MIXED, *samplings)
    texts = [together.text(choice) for choice in range(3)]
    assert texts == [Asked(engine, prompts[0], MIXED, sampling).text() for sampling in samplings]
    assert len(set(texts)) == 3
    exposed = engine._meter.exposition().decode()
    reused = [line for line in exposed.splitlines() if "reused" in line and not line.startswith("#")]
    assert any(float(line.rsplit(" ", 1)[1]) >= 2 * (len(prompts[0]) - 1) for line in reused), reused


def test_more_requests_than_slots_wait_their_turn(start, prompts) -> None:
    engine = start(slots=2)
    asked = [Asked(engine, prompt, MIXED, SHORT) for prompt in prompts * 2]
    texts = [each.text() for each in asked]
    assert texts[:9] == texts[9:]
    assert idle(engine)


def test_a_full_queue_refuses_and_says_when_to_come_back(start, prompts) -> None:
    engine = start(slots=1, queue=2)
    first = Asked(engine, prompts[0], MIXED, LONG)
    assert first.begun.wait(30)
    waiting = [Asked(engine, prompts[1], MIXED, SHORT) for _ in range(2)]
    with pytest.raises(BusyError, match="2 requests are waiting") as refused:
        Asked(engine, prompts[1], MIXED, SHORT)
    assert 1.0 <= refused.value.retry_after <= 60.0
    first.ticket.cancel()
    assert [each.finish() for each in waiting] == ["length", "length"]


def test_a_request_that_is_cancelled_frees_its_slots_and_hears_nothing_more(start, prompts) -> None:
    engine = start(slots=3)
    gone = Asked(engine, prompts[0], MIXED, LONG, LONG, LONG)
    assert gone.begun.wait(30)
    in_queue = Asked(engine, prompts[1], MIXED, LONG)
    in_queue.ticket.cancel()
    gone.ticket.cancel()
    assert idle(engine)
    heard = len(gone.pieces)
    assert Asked(engine, prompts[1], MIXED, SHORT).finish() == "length"
    assert (len(gone.pieces), in_queue.pieces) == (heard, [])
    gone.ticket.cancel()  # once more is no mistake
    assert Asked(engine, prompts[1], MIXED, SHORT).finish() == "length"


def test_a_text_that_takes_too_long_is_ended_with_what_there_is(start, prompts) -> None:
    """Of two requests for one slot the second has its time while it waits, and ends empty."""
    engine = start(slots=1, seconds=0.2)
    first, second = (Asked(engine, prompts[0], MIXED, Sampling(450, seed=1)) for _ in range(2))
    assert first.finish() in ("time", "length", "stop")
    assert second.finish() in ("time", "length", "stop")
    assert "time" in (first.finish(), second.finish())
    assert idle(engine)


def test_a_plan_with_more_lanes_than_slots_is_refused(start, prompts) -> None:
    with pytest.raises(ConfigError, match="3 lanes needs as many slots, and this server has 2"):
        Asked(start(slots=2), prompts[0], plan({"a": 1.0}, {"b": 1.0}, {"c": 1.0}, shares=(0.4, 0.3, 0.3)), SHORT)


def test_a_step_that_fails_ends_what_is_being_written_and_nothing_after_it(start, prompts, monkeypatch, caplog) -> None:
    engine = start(slots=2)
    expected = Asked(engine, prompts[4], MIXED, SHORT).text()
    with monkeypatch.context() as broken:
        broken.setattr(engine._batch, "step", lambda: 1 / 0)
        failed = Asked(engine, prompts[4], MIXED, SHORT, SHORT)
        assert failed.done.wait(30)
    assert {piece.error for piece in failed.pieces} == {"the server could not finish this text (ZeroDivisionError)"}
    assert "a step failed" in caplog.text
    assert Asked(engine, prompts[4], MIXED, SHORT).text() == expected
    assert idle(engine)


def test_a_listener_that_fails_is_dropped(start, prompts, caplog) -> None:
    engine = start(slots=2)

    def deaf(_: object) -> None:
        raise RuntimeError("the connection is gone")

    engine.submit(prompts[0], MIXED, [LONG], deaf)
    assert Asked(engine, prompts[1], MIXED, SHORT).finish() == "length"
    assert idle(engine)
    assert "could not be delivered" in caplog.text


def test_stopping_finishes_what_is_there_and_takes_nothing_new(start, prompts) -> None:
    engine = start(slots=1)
    asked = [Asked(engine, prompt, MIXED, Sampling(20, temperature=0.0)) for prompt in prompts[:3]]
    assert engine.ready
    stopping = threading.Thread(target=engine.stop, args=(30.0,))
    stopping.start()
    while engine.ready:
        time.sleep(0.001)
    with pytest.raises(BusyError, match="stopping"):
        Asked(engine, prompts[0], MIXED, SHORT)
    assert [each.finish() for each in asked] == ["length"] * 3
    stopping.join(30)
    assert not stopping.is_alive()


def test_stopping_does_not_wait_longer_than_it_may(start, prompts) -> None:
    engine = start(slots=1)
    first, second = (Asked(engine, prompts[0], MIXED, Sampling(450, seed=seed)) for seed in (1, 2))
    assert first.begun.wait(30)
    engine.stop(0.0)
    assert second.finish() == "time"
    assert second.text() == ""
    assert not engine.ready


def test_many_threads_asking_at_once_get_their_own_texts(start, prompts) -> None:
    """Eight threads, five requests each, rows of their own: each text is the one asked for alone."""
    engine = start(slots=6)
    rows = [plan({"a": i / 8, "b": 1 - i / 8}) for i in range(8)]
    expected = [Asked(engine, prompts[i], rows[i], Sampling(12, seed=i)).text() for i in range(8)]
    found: list[list[str]] = [[] for _ in range(8)]

    def ask(i: int) -> None:
        found[i] = [Asked(engine, prompts[i], rows[i], Sampling(12, seed=i)).text() for _ in range(5)]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [[text] * 5 for text in expected]


def test_without_a_bank_the_base_writes(served_base, prompts) -> None:
    """A run's base alone, as a reference: rows of nothing."""
    engine = Engine(served_base, None, Limits(slots=2), Meter())
    engine.start()
    try:
        text = Asked(engine, prompts[5], plan({}), Sampling(6, temperature=0.0)).text()
        out = served_base.model.generate(
            served_base.tokenizer(["Tell me a story about a fox."], return_tensors="pt", add_special_tokens=False)[
                "input_ids"
            ],
            max_new_tokens=6,
            do_sample=False,
        )
        assert text == served_base.tokenizer.decode(out[0, len(prompts[5]) :], skip_special_tokens=True)
    finally:
        engine.stop(0.0)


def test_what_cannot_be_read_is_refused_before_it_breaks_the_step_of_others(start, prompts, served_base) -> None:
    """No token, one too many, one that the model lacks, no choice, one without a token."""
    engine = start(slots=2)
    known = served_base.model.config.vocab_size
    for prompt, said in (
        ([], "0 tokens; expected 1 to"),
        ([5] * 513, "513 tokens"),
        ([5, known], "expected 0 to"),
    ):
        with pytest.raises(DataError, match=said):
            Asked(engine, prompt, MIXED, SHORT)
    for samplings in ((), (Sampling(0),)):
        with pytest.raises(ConfigError, match="at least one"):
            Asked(engine, prompts[0], MIXED, *samplings)
    assert Asked(engine, [5] * 512, MIXED, SHORT).finish() in ("length", "stop")  # the context is full with one more
    assert idle(engine)


def test_a_text_that_ended_in_the_step_that_failed_is_told_so(start, prompts, monkeypatch, caplog) -> None:
    """One token is written when the prompt is read; then the pass of those who write fails, and its piece is lost."""
    engine = start(slots=2)
    with monkeypatch.context() as broken:
        first = Asked(engine, prompts[0], MIXED, LONG)
        assert first.begun.wait(30)
        whole = engine._batch._write
        broken.setattr(engine._batch, "_write", lambda: 1 / 0 if len(engine._owner) == 2 else whole())
        second = Asked(engine, prompts[1], MIXED, Sampling(1, temperature=0.0))
        assert second.done.wait(10)
    assert [sum(piece.error is not None for piece in each.pieces) for each in (first, second)] == [1, 1]
    assert idle(engine)
    assert not engine._current


def test_slots_that_cannot_be_freed_end_the_texts_and_not_the_server(start, prompts, monkeypatch, caplog) -> None:
    """As when the device is out of memory while a slot changes its place."""
    engine = start(slots=2)
    first, second = (Asked(engine, prompts[0], MIXED, LONG) for _ in range(2))
    assert first.begun.wait(30)
    assert second.begun.wait(30)
    with monkeypatch.context() as broken:
        broken.setattr(engine._batch._slots, "swap", lambda *_: 1 / 0)
        first.ticket.cancel()
        assert second.done.wait(10)
    assert second.pieces[-1].error is not None
    assert Asked(engine, prompts[1], MIXED, SHORT).finish() == "length"
    assert idle(engine)


def test_an_engine_that_is_stopped_before_it_began_tells_those_who_wait(served_base, bank, prompts) -> None:
    engine = Engine(served_base, bank, Limits(slots=2), Meter())
    asked = Asked(engine, prompts[0], MIXED, LONG)
    engine.stop(0.0)
    assert (asked.finish(), asked.text()) == ("time", "")
    engine.stop(0.0)  # once more is no mistake
    Engine(served_base, bank, Limits(slots=2), Meter()).stop(0.0)  # nor where nobody waits


def test_who_stops_later_and_has_more_time_gives_no_more_time(served_base, bank) -> None:
    engine = Engine(served_base, bank, Limits(slots=2), Meter())
    for seconds in (60.0, 1.0, 60.0):
        engine.stop(seconds)
    assert engine._stopping is not None
    assert engine._stopping < time.monotonic() + 2.0


@torch.inference_mode()
def test_how_long_to_wait_counts_the_writing_and_not_the_waiting(served_base, bank, prompts, monkeypatch) -> None:
    """Ten requests of four steps, one after the other, a step a second: each takes 4 seconds, and the last waits 36."""
    now = [0.0]
    monkeypatch.setattr("moalign.serving.engine.time", SimpleNamespace(monotonic=lambda: now[0]))
    engine = Engine(served_base, bank, Limits(slots=1), Meter())
    for prompt in (prompts * 2)[:10]:
        engine.submit(prompt, MIXED, [SHORT], lambda _: None)
    while engine._queue or engine._current:
        engine._turn()
        now[0] += 1.0
    assert 1.0 < engine._seconds <= 4.0


def test_an_adapter_that_is_not_finite_is_refused_at_the_start(served_base, random_adapter) -> None:
    """Of four the last is damaged: who asks for it would give its NaN to those in the same batch who do not."""
    adapters = {name: random_adapter(served_base.model, seed) for seed, name in enumerate("abcd")}
    with AdapterBank(served_base.model, adapters) as bank:
        layer = next(layer for name, layer in bank.layers.items() if "v_proj" in name)
        layer.B[3, 0, 0] = torch.nan
        with torch.no_grad(), bank.rows([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]):
            assert served_base.model(input_ids=torch.tensor([[5, 6]] * 2)).logits[0].isnan().any()
        with pytest.raises(AdapterError, match="adapter d holds NaN or infinity in layer"):
            Engine(served_base, bank, Limits(), Meter())
