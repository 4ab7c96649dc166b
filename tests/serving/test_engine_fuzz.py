"""Random schedules: requests of all kinds come, go and fail, and after every step the engine's books are right."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
import torch
from plans import plan

from moalign.bank import AdapterBank
from moalign.models import BaseModel, load_base
from moalign.serving.batch import Batch
from moalign.serving.engine import Engine, Ticket
from moalign.serving.lanes import RowKey
from moalign.serving.limits import Limits
from moalign.serving.meter import Meter
from moalign.serving.plan import Plan
from moalign.serving.sampling import Piece, Sampling
from moalign.serving.slots import Slots, next_logits

POISON = 7  # a token whose embedding is NaN, as an overflow in half precision would leave it
PLANS = [
    plan({"a": 1.0}),
    plan({"a": 0.5, "b": 0.5}),
    plan({}),
    plan({"a": 1.0}, {"b": 1.0}, shares=(0.5, 0.5)),
    plan({"c": 1.0}, {"b": 1.0}, {}, shares=(0.7, 0.3, 0.0), divergence="jsd"),
]


@dataclass(eq=False)
class Request:
    """What was asked, what came, and whether anybody listens."""

    prompt: list[int]
    plan: Plan
    samplings: list[Sampling]
    deaf: bool = False
    gone: bool = False
    late: bool = False  # told something after it was cancelled
    failed: bool = False  # with a step, so that its texts may end anywhere
    pieces: list[Piece] = field(default_factory=list)
    ticket: Ticket | None = None

    def take(self, pieces: list[Piece]) -> None:
        """What the engine delivers."""
        self.late |= self.gone
        self.pieces += pieces
        if self.deaf:
            self.gone = True
            raise RuntimeError("the connection is gone")

    def ends(self, choice: int) -> int:
        """How many pieces end a choice."""
        return sum(each.choice == choice and bool(each.finish or each.error) for each in self.pieces)


class Fragile:
    """A base with a bank, one of whose tokens is NaN; and a model that fails when it is told to."""

    def __init__(self, base: BaseModel, bank: AdapterBank):
        self.base, self.bank = base, bank
        self.failing, self.failed = 0, False  # the how manyeth pass from now on is to fail; whether it has
        base.model.register_forward_pre_hook(self._fail)
        self._alone: dict[object, tuple[str, str | None, bool]] = {}

    def _fail(self, *_: object) -> None:
        self.failing -= 1
        if self.failing == 0:
            self.failed = True
            raise RuntimeError("out of memory")

    def alone(self, prompt: list[int], asked: Plan, sampling: Sampling) -> tuple[str, str | None, bool]:
        """The text that a request gives by itself, how it ends, and whether that is an error."""
        key = (tuple(prompt), str(asked.rows), sampling)
        if key not in self._alone:
            batch, pieces = Batch(self.base, self.bank, Limits(slots=len(asked.rows))), []
            batch.admit(batch.choices(prompt, asked, [sampling])[0])
            while len(batch):
                pieces += [piece for _, piece in batch.step()]
            text = "".join(piece.text for piece in pieces)
            self._alone[key] = text, pieces[-1].finish, pieces[-1].error is not None
        return self._alone[key]

    def check_slot(self, slots: Slots, slot: int, key: RowKey, ids: list[int]) -> None:
        """A slot holds the keys and values of these tokens under this row, as they are when read at once."""
        if ids and POISON not in ids:
            fresh = Slots(1, 512)
            with self.bank.rows(self.bank.mixture(dict(key))[None]):
                next_logits(self.base.model, fresh, 0, [0], [ids])
            for found, expected in zip(slots._stores(), fresh._stores(), strict=True):
                torch.testing.assert_close(found[slot, :, : len(ids)], expected[0, :, : len(ids)], atol=1e-3, rtol=1e-3)


@pytest.fixture(scope="module")
def fragile(tiny_base, random_adapter) -> Iterator[Fragile]:
    base = load_base(str(tiny_base))
    base.model.get_input_embeddings().weight[POISON] = torch.nan
    adapters = {name: random_adapter(base.model, seed, rank=2 + seed) for seed, name in enumerate("abc")}
    with AdapterBank(base.model, adapters) as bank:
        yield Fragile(base, bank)


def request(rng: random.Random, fragile: Fragile) -> Request:
    """One of some hundred requests, many of which begin alike; with stop strings that are in the text, or nearly."""
    tokenizer = fragile.base.tokenizer
    prompt = tokenizer.encode("The same words at the beginning of all. ", add_special_tokens=False)
    prompt = prompt[: rng.choice([1, 3, 20, 40])]
    if rng.random() < 0.5:
        prompt = prompt + tokenizer.encode(rng.choice(["And more", "Other"]) * 3, add_special_tokens=False)
    if rng.random() < 0.15:
        prompt.insert(rng.randrange(len(prompt)), POISON)
    asked, samplings = rng.choice(PLANS), []
    for number in range(rng.choice([1, 1, 2, 3])):
        plain = Sampling(rng.choice([1, 4, 11]), temperature=(0.0, 1.0)[number % 2], seed=number)
        text = fragile.alone(prompt, asked, plain)[0]
        stops = rng.choice([(), (text[1:3] or "a",), ("no", text[-1:] + "never")])
        samplings.append(replace(plain, stop=stops))
    return Request(prompt, asked, samplings, deaf=rng.random() < 0.08)


def check_books(engine: Engine) -> None:
    """Slots are parted into those that write, read and are free; every text is where it is said to be."""
    batch = engine._batch
    assert [lane.slot for lane in batch._lanes] == list(range(len(batch)))
    assert batch.free == engine._limits.slots - len(batch) >= 0
    assert 0 <= batch._writing <= len(batch)
    for place, lane in enumerate(batch._lanes):
        assert lane.read == len(lane.ids) - 1 if place < batch._writing else lane.read < len(lane.ids)
    assert sorted(lane.slot for choice in batch._choices for lane in choice.lanes) == list(range(len(batch)))
    for choice in batch._choices:
        assert len({lane.slot < batch._writing for lane in choice.lanes}) == 1, "a text of several lanes is split"
        assert {(lane.read, *lane.ids) for lane in choice.lanes} == {
            (choice.lanes[0].read, *choice.prompt, *choice.written)
        }
    assert all(len(batch) <= slot < engine._limits.slots for slot in batch._kept)
    assert set(engine._owner) == set(batch._choices)
    assert not set(engine._current) & set(engine._queue)
    for ticket in engine._current:
        assert ticket.open == {each for each in ticket.choices if each in engine._owner or each in ticket.waiting}


def check_slots(fragile: Fragile, batch: Batch) -> None:
    """What lies in live slots and in free ones, read again."""
    for lane in batch._lanes:
        fragile.check_slot(batch._slots, lane.slot, lane.key, lane.ids[: lane.read])
    for slot, kept in batch._kept.items():
        fragile.check_slot(batch._slots, slot, kept.key, kept.ids)


def play(fragile: Fragile, engine: Engine, rng: random.Random, count: int) -> list[Request]:
    """Submit so many requests at random times, cancel some, let a step fail now and then; until all are through."""
    asked: list[Request] = []
    pace = rng.choice([0.1, 0.4])  # one after the other, with slots that keep what they held, or all at once
    for _ in range(3000):
        while len(asked) < count and rng.random() < pace:
            new = request(rng, fragile)
            if len(new.plan.rows) <= engine._limits.slots:
                new.ticket = engine.submit(new.prompt, new.plan, new.samplings, new.take)
                asked.append(new)
        if asked and rng.random() < 0.06:
            leaving = rng.choice(asked)
            assert leaving.ticket is not None
            leaving.gone = True
            leaving.ticket.cancel()
        fragile.failing, fragile.failed = rng.choice([1, 2]) if rng.random() < 0.03 else 0, False
        slots, open_before = engine._batch._slots, [each for each in asked if each.ticket and each.ticket.open]
        engine._turn()
        assert (engine._batch._slots is not slots) == fragile.failed, "a step failed by itself"
        for each in open_before if fragile.failed else ():
            each.failed |= any(piece.error for piece in each.pieces)
        fragile.failing = 0
        check_books(engine)
        if rng.random() < 0.08:
            check_slots(fragile, engine._batch)
        if len(asked) == count and not (engine._queue or engine._current):
            return asked
    raise AssertionError("requests that never end")


@torch.inference_mode()
@pytest.mark.parametrize("seed", range(7))
def test_whatever_comes_and_goes_every_text_is_as_alone_and_ends_once(fragile: Fragile, seed: int) -> None:
    """Few slots, parts of prompts, prefixes, several lanes, stop strings, NaN, cancelled, deaf, and failed steps."""
    rng = random.Random(seed)
    slots, prefill = rng.choice([(1, 2048), (2, 5), (3, 1), (4, 16), (6, 7), (6, 2048)])
    engine = Engine(fragile.base, fragile.bank, Limits(slots=slots, prefill_tokens=prefill, queue=99), Meter())
    asked = play(fragile, engine, rng, count=12)
    assert (engine.running, engine.waiting, engine._batch.free) == (0, 0, slots)
    for each in asked:
        for number, sampling in enumerate(each.samplings):
            assert not each.late, "told after it was cancelled"
            if each.gone:
                assert each.ends(number) <= 1
                continue
            assert each.ends(number) == 1
            last = [piece for piece in each.pieces if piece.choice == number][-1]
            text, finish, wrong = fragile.alone(each.prompt, each.plan, sampling)
            found = "".join(piece.text for piece in each.pieces if piece.choice == number)
            if each.failed and last.error:  # what it had written when a step failed
                assert text.startswith(found)
            else:
                assert (found, last.finish, last.error is not None) == (text, finish, wrong)
