"""The texts that are being written now, their sequences in slots, and one step of all of them."""

from collections.abc import Sequence
from itertools import count

import torch
from jaxtyping import Float
from torch import Tensor

from moalign.bank import AdapterBank
from moalign.errors import ConfigError, DataError
from moalign.generation import uniforms
from moalign.models import BaseModel
from moalign.row_plan import RowPlan
from moalign.serving.lanes import Choice, Kept, Lane, common
from moalign.serving.limits import Limits
from moalign.serving.plan import Plan
from moalign.serving.sampling import Piece, Sampling, choose, logprobs_of
from moalign.serving.slots import Slots, next_logits, readable
from moalign.serving.text import GrowingText

WORTH_COPYING = 16  # tokens of a prefix, below which reading them again is as quick


class Batch:
    """Slots and the lanes in them: first those that write, then those that still read their prompts, then free ones.

    A free slot keeps what it held, for a prompt that begins the same under the same row: the next turn of a
    conversation, or another answer to one question.
    """

    def __init__(self, base: BaseModel, bank: AdapterBank | None, limits: Limits):
        self._base, self._bank, self._limits = base, bank, limits
        self.context = readable(base)
        self._ends = frozenset(base.eos_ids)
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
        """The choices of a request, which are not in the batch yet.

        Raises DataError for a prompt that cannot be read, and ConfigError for no choice or one without a token.
        """
        self._check(prompt, samplings)
        empty = torch.zeros(0)
        rows = [(tuple(sorted(r.items())), empty if self._bank is None else self._bank.mixture(r)) for r in plan.rows]
        return [
            Choice(
                number=number,
                prompt=prompt,
                plan=plan,
                sampling=sampling,
                lanes=[Lane(key, row) for key, row in rows],
                text=GrowingText(self._base.tokenizer, sampling.stop),
                draws=uniforms([sampling.seed], sampling.max_tokens)[0].tolist() if sampling.temperature else [],
            )
            for number, sampling in enumerate(samplings)
        ]

    def _check(self, prompt: list[int], samplings: Sequence[Sampling]) -> None:
        """What would otherwise break the step in which it is read, and with it the texts of others."""
        if not 1 <= len(prompt) <= self.context:
            raise DataError(f"a prompt has {len(prompt)} tokens; expected 1 to {self.context}")
        known = self._base.model.config.get_text_config().vocab_size
        if not 0 <= min(prompt) <= max(prompt) < known:
            raise DataError(f"a prompt has tokens from {min(prompt)} to {max(prompt)}; expected 0 to {known - 1}")
        if min((each.max_tokens for each in samplings), default=0) < 1:
            raise ConfigError("expected at least one choice, and at least one token for each")

    def admit(self, choice: Choice) -> int:
        """Give a choice its slots; how many tokens of its prompt need not be read, since a slot holds them already."""
        for lane in choice.lanes:
            lane.ids = list(choice.prompt)
            # Lanes of one text read in step, so what one of them could copy would help none.
            source, length = self._longest_prefix(lane) if len(choice.lanes) == 1 else (-1, 0)
            self._take_slot(lane, source, length)
        self._choices.append(choice)
        return choice.lanes[0].read

    def _longest_prefix(self, lane: Lane) -> tuple[int, int]:
        """The slot that begins as this lane does, and for how many tokens: one is always left to read."""
        wanted = lane.ids[:-1]
        held = [(each.slot, each.ids[: each.read]) for each in self._lanes if each.key == lane.key]
        held += [(slot, kept.ids) for slot, kept in self._kept.items() if kept.key == lane.key]
        length, slot = max(((common(ids, wanted), slot) for slot, ids in held), default=(0, -1))
        return (slot, length) if length >= WORTH_COPYING else (-1, 0)

    def _take_slot(self, lane: Lane, source: int, length: int) -> None:
        target = len(self._lanes)
        kept = self._kept.get(source)
        if kept is not None and len(kept.ids) - length < WORTH_COPYING:
            # The lane goes on where that ended, in a free slot: the two change places, and nobody needs the record.
            there = self._kept.pop(target, None)
            if source != target:
                self._slots.swap(source, target, max(len(kept.ids), len(there.ids) if there else 0))
                self._kept.pop(source)
                if there is not None:
                    self._kept[source] = there
        else:
            there = self._kept.pop(target, None)
            if there is not None:
                self._save(there, target, source)
            if length and source != target:
                self._slots.copy(source, target, length)
        lane.slot, lane.read = target, length
        self._lanes.append(lane)

    def _save(self, kept: Kept, slot: int, but: int) -> None:
        """Move what a slot holds to another free one, in place of the oldest, unless it is the oldest itself."""
        free = [place for place in range(slot + 1, self._slots.count) if place != but]
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
        if lane.read:
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
        place = {lane: place for place, lane in enumerate(lanes)}
        through = [choice for choice in chosen if not choice.unread]
        for lane in (lane for choice in through for lane in choice.lanes):
            self._bring(lane, self._writing)
            self._writing += 1
            self._planned = False
        # Numbers that are not finite may lie in a slot from now on, where they would reach whoever has it next.
        sound = logits.amax(-1).isfinite().tolist() if len(through) < len(chosen) else []
        harmed = [each for each in chosen if each.unread and not all(sound[place[lane]] for lane in each.lanes)]
        found = [(choice, self._broken(choice)) for choice in harmed]
        self.release(harmed)
        return found + self._draw(through, logits, [[place[lane] for lane in choice.lanes] for choice in through])

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
        writing.sort(key=lambda choice: choice.lanes[0].slot)
        return self._draw(writing, logits, [[lane.slot for lane in choice.lanes] for choice in writing])

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

    def _draw(
        self, choices: Sequence[Choice], logits: Float[Tensor, "b v"], places: Sequence[list[int]]
    ) -> list[tuple[Choice, Piece]]:
        """The next token of each choice, from the logits of its lanes, which stand at these places."""
        if not choices:
            return []
        if places == [[place] for place in range(len(logits))]:
            scores = logits.float()
        else:
            pairs = zip(choices, places, strict=True)
            scores = torch.stack([choice.scores([logits[place] for place in own]) for choice, own in pairs])
        tokens = choose(scores, [choice.sampling for choice in choices], [choice.draw for choice in choices]).tolist()
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
        if token in self._ends:
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
