"""The texts that are being written now, their sequences in slots, and one step of all of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import torch
from jaxtyping import Float
from torch import Tensor

from moalign.bank import AdapterBank
from moalign.generation import uniforms
from moalign.models import BaseModel
from moalign.row_plan import RowPlan
from moalign.serving.decoding import combine
from moalign.serving.limits import Limits
from moalign.serving.plan import Plan
from moalign.serving.sampling import Piece, Sampling, choose, logprobs_of
from moalign.serving.slots import Slots, next_logits, readable
from moalign.serving.text import GrowingText

WORTH_COPYING = 16  # tokens of a prefix, below which reading them again is as quick

RowKey = tuple[tuple[str, float], ...]


@dataclass(eq=False)
class Lane:
    """One sequence under one row: `ids` are prompt and text so far, of which its slot holds the first `read`."""

    key: RowKey
    row: Float[Tensor, " k"]
    ids: list[int]
    read: int = 0
    slot: int = -1  # while it has one


@dataclass(eq=False)
class Choice:
    """One text: a lane for each row of its plan, all with the same tokens, and what was drawn for it so far."""

    number: int
    prompt: list[int]
    plan: Plan
    sampling: Sampling
    lanes: list[Lane]
    text: GrowingText
    draws: list[float]
    written: list[int] = field(default_factory=list)
    done: bool = False

    @property
    def unread(self) -> int:
        """Tokens of the prompt that are not in its slots yet."""
        return len(self.prompt) - self.lanes[0].read


@dataclass(frozen=True)
class Kept:
    """What a free slot still holds: tokens under a row, and when they were left there."""

    key: RowKey
    ids: list[int]
    age: int


class Batch:
    """Slots and the lanes in them: first those that write, then those that still read their prompts, then free ones.

    A free slot keeps what it held, for a prompt that begins the same under the same row: the next turn of a
    conversation, or another answer to one question.
    """

    def __init__(self, base: BaseModel, bank: AdapterBank | None, limits: Limits):
        self._base, self._bank, self._limits = base, bank, limits
        self.context = readable(base)
        self._age = count()
        self.clear()

    def clear(self) -> None:
        """Forget everything, storage included."""
        self._slots = Slots(self._limits.slots, self.context)
        self._lanes: list[Lane] = []  # by slot
        self._choices: list[Choice] = []
        self._kept: dict[int, Kept] = {}
        self._writing = 0  # so many of the lanes write
        self._plan: RowPlan | None = None  # of those, while `_planned`
        self._planned = False

    def __len__(self) -> int:
        return len(self._lanes)

    @property
    def free(self) -> int:
        """Slots without a lane."""
        return self._slots.count - len(self._lanes)

    def choices(self, prompt: list[int], plan: Plan, samplings: Sequence[Sampling]) -> list[Choice]:
        """The choices of a request, which are not in the batch yet."""
        empty = torch.zeros(0)
        rows = [(tuple(sorted(r.items())), empty if self._bank is None else self._bank.mixture(r)) for r in plan.rows]
        return [
            Choice(
                number=number,
                prompt=prompt,
                plan=plan,
                sampling=sampling,
                lanes=[Lane(key, row, list(prompt)) for key, row in rows],
                text=GrowingText(self._base.tokenizer, sampling.stop),
                draws=uniforms([sampling.seed], sampling.max_tokens)[0].tolist() if sampling.temperature else [],
            )
            for number, sampling in enumerate(samplings)
        ]

    def admit(self, choice: Choice) -> int:
        """Give a choice its slots; how many tokens of its prompt need not be read, since a slot holds them already."""
        for lane in choice.lanes:
            # Lanes of one text read in step, so what one of them could copy would help none.
            source, length = self._longest_prefix(lane) if len(choice.lanes) == 1 else (-1, 0)
            self._take_slot(lane, source, length)
        self._choices.append(choice)
        return choice.lanes[0].read

    def _longest_prefix(self, lane: Lane) -> tuple[int, int]:
        """The slot that begins as this lane does, and for how many tokens: one is always left to read."""
        held = [(each.slot, each.key, each.ids[: each.read]) for each in self._lanes]
        held += [(slot, kept.key, kept.ids) for slot, kept in self._kept.items()]
        found = [(_common(ids, lane.ids[:-1]), slot) for slot, key, ids in held if key == lane.key]
        length, slot = max(found, default=(0, -1))
        return (slot, length) if length >= WORTH_COPYING else (-1, 0)

    def _take_slot(self, lane: Lane, source: int, length: int) -> None:
        target = len(self._lanes)
        there, kept = self._kept.pop(target, None), self._kept.pop(source, None)
        if kept is not None:  # what it begins with lies in a free slot: the two change places
            self._slots.swap(source, target, max(len(kept.ids), len(there.ids) if there else 0))
            if there is not None:
                self._kept[source] = there
        elif source != target:
            if there is not None:
                self._save(there, target)
            if length:
                self._slots.copy(source, target, length)
        lane.slot, lane.read = target, length
        self._lanes.append(lane)

    def _save(self, kept: Kept, slot: int) -> None:
        """Move what a slot holds to another free one, in place of the oldest, unless it is the oldest itself."""
        free = range(slot + 1, self._slots.count)
        oldest = min(free, key=lambda place: self._kept[place].age if place in self._kept else -1, default=slot)
        if oldest != slot and (oldest not in self._kept or self._kept[oldest].age < kept.age):
            self._slots.copy(slot, oldest, len(kept.ids))
            self._kept[oldest] = kept

    def release(self, choices: Sequence[Choice]) -> None:
        """Free the slots of choices, whatever state they are in."""
        for choice in choices:
            choice.done = True
            for lane in choice.lanes:
                if lane.slot >= 0:
                    self._leave(lane)
        self._choices = [choice for choice in self._choices if not choice.done]

    def _leave(self, lane: Lane) -> None:
        """Move a lane behind all others, where its slot is free and keeps what it holds."""
        if lane.slot < self._writing:
            self._writing -= 1
            self._planned = False
            self._bring(lane, self._writing)
        self._bring(lane, len(self._lanes) - 1)
        self._lanes.pop()
        self._kept[lane.slot] = Kept(lane.key, lane.ids[: lane.read], next(self._age))
        lane.slot = -1

    def _bring(self, lane: Lane, slot: int) -> None:
        other = self._lanes[slot]
        if other is lane:
            return
        self._slots.swap(lane.slot, slot, max(lane.read, other.read))
        self._lanes[lane.slot], self._lanes[slot] = other, lane
        other.slot, lane.slot = lane.slot, slot

    def step(self) -> list[tuple[Choice, Piece]]:
        """Read a part of the new prompts, write one token of each text whose prompt is read; what came of it."""
        found = self._read() if len(self._lanes) > self._writing else []
        return [*found, *self._write()] if self._writing else found

    def _read(self) -> list[tuple[Choice, Piece]]:
        chosen, longest = self._next_to_read()
        lanes = [lane for choice in chosen for lane in choice.lanes]
        for place, lane in enumerate(lanes, start=self._writing):
            self._bring(lane, place)
        tokens = [lane.ids[lane.read : lane.read + longest] for lane in lanes]
        plan = None if self._bank is None else self._bank.prepare(torch.stack([lane.row for lane in lanes]))
        logits = self._forward(self._writing, lanes, tokens, plan)
        by_lane = dict(zip(lanes, logits, strict=True))
        through = [choice for choice in chosen if not choice.unread]
        for lane in (lane for choice in through for lane in choice.lanes):
            self._bring(lane, self._writing)
            self._writing += 1
            self._planned = False
        return self._draw(through, [by_lane[lane] for choice in through for lane in choice.lanes])

    def _next_to_read(self) -> tuple[list[Choice], int]:
        """The first choices with something to read, as many as keep to the limit when padded; and how far to read."""
        limit, chosen, lanes, longest = self._limits.prefill_tokens, [], 0, 0
        for choice in self._choices:
            if choice.lanes[0].slot < self._writing:
                continue
            wider, longer = lanes + len(choice.lanes), max(longest, choice.unread)
            if chosen and wider * longer > limit:
                break
            chosen.append(choice)
            lanes, longest = wider, longer
        return chosen, max(1, min(longest, limit // lanes))

    def _write(self) -> list[tuple[Choice, Piece]]:
        lanes = self._lanes[: self._writing]
        if not self._planned:
            rows = torch.stack([lane.row for lane in lanes])
            self._plan = None if self._bank is None else self._bank.prepare(rows)
            self._planned = True
        logits = self._forward(0, lanes, [lane.ids[-1:] for lane in lanes], self._plan)
        writing = [choice for choice in self._choices if choice.lanes[0].slot < self._writing]
        return self._draw(writing, [logits[lane.slot] for choice in writing for lane in choice.lanes])

    def _forward(
        self, first: int, lanes: Sequence[Lane], tokens: Sequence[list[int]], plan: RowPlan | None
    ) -> Float[Tensor, "b v"]:
        starts = [lane.read for lane in lanes]
        if self._bank is None or plan is None:
            logits = next_logits(self._base.model, self._slots, first, starts, tokens)
        else:
            with self._bank.rows(plan):
                logits = next_logits(self._base.model, self._slots, first, starts, tokens)
        for lane, new in zip(lanes, tokens, strict=True):
            lane.read += len(new)
        return logits

    def _draw(self, choices: Sequence[Choice], logits: Sequence[Tensor]) -> list[tuple[Choice, Piece]]:
        """The next token of each choice, from the logits of its lanes in turn."""
        if not choices:
            return []
        waiting = iter(logits)
        scores = torch.stack([_next_scores(choice, [next(waiting) for _ in choice.lanes]) for choice in choices])
        samplings = [choice.sampling for choice in choices]
        draws = [choice.draws[len(choice.written)] if choice.draws else 0.0 for choice in choices]
        tokens = choose(scores, samplings, draws).tolist()
        sound = scores.amax(-1).isfinite().tolist()
        found = [
            (choice, self._piece(choice, token, row) if fine else self._broken(choice))
            for choice, token, row, fine in zip(choices, tokens, scores, sound, strict=True)
        ]
        self.release([choice for choice, piece in found if piece.finish is not None or piece.error is not None])
        return found

    def _piece(self, choice: Choice, token: int, scores: Float[Tensor, " v"]) -> Piece:
        choice.written.append(token)
        for lane in choice.lanes:
            lane.ids.append(token)
        finish, text, wanted = None, "", choice.sampling.top_logprobs
        if token in self._base.eos_ids:
            return Piece(choice.number, choice.text.end(), "stop", tokens=len(choice.written))
        text = choice.text.push(token)
        full = len(choice.written) == choice.sampling.max_tokens or len(choice.lanes[0].ids) >= self.context
        if full and not choice.text.stopped:
            text, finish = text + choice.text.end(), "length"
        logprobs = () if wanted is None else (logprobs_of(scores, token, wanted, self._base.tokenizer),)
        finish = "stop" if choice.text.stopped else finish
        return Piece(choice.number, text, finish, logprobs, len(choice.written))

    def _broken(self, choice: Choice) -> Piece:
        for lane in choice.lanes:
            self._slots.clear(lane.slot)
            lane.read = 0
        line = "the model gave no finite probabilities for the next token"
        return Piece(choice.number, choice.text.end(), error=line, tokens=len(choice.written))


def _next_scores(choice: Choice, logits: list[Float[Tensor, " v"]]) -> Float[Tensor, " v"]:
    if len(logits) == 1:
        return logits[0].float()
    return combine(torch.stack(logits).float().log_softmax(-1), choice.plan.shares, choice.plan.divergence)


def _common(a: list[int], b: list[int]) -> int:
    """With how many tokens in common two sequences begin."""
    if a[: len(b)] == b:
        return len(b)
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
