"""What a free slot still holds is read once, and is what it is said to be."""

import random

import pytest
import torch
from plans import plan

from moalign.bank import AdapterBank
from moalign.models import BaseModel
from moalign.serving.batch import Batch
from moalign.serving.lanes import Choice
from moalign.serving.limits import Limits
from moalign.serving.sampling import Sampling
from moalign.serving.slots import Slots, next_logits

ROW, OTHER = {"a": 0.2, "b": 0.3, "c": 0.5}, {"b": 0.5, "c": 0.5}


def written(batch: Batch, prompt: list[int], row: dict[str, float], sampling: Sampling) -> tuple[list[int], int]:
    """What one request alone is answered, and how much of its prompt was not read again."""
    choice = batch.choices(prompt, plan(row), [sampling])[0]
    reused = batch.admit(choice)
    while len(batch):
        batch.step()
    return choice.written, reused


def fresh(
    base: BaseModel, bank: AdapterBank, prompt: list[int], row: dict[str, float], sampling: Sampling
) -> list[int]:
    """The same by a batch that holds nothing yet."""
    return written(Batch(base, bank, Limits(slots=1)), prompt, row, sampling)[0]


@torch.inference_mode()
def test_a_prefix_that_was_read_under_the_same_row_is_copied(served_base, bank, prompts) -> None:
    """The next turn of a conversation reads what is new; under another row it reads everything. Texts are the same."""
    first, batch, greedy = prompts[0], Batch(served_base, bank, Limits(slots=4)), Sampling(12, temperature=0.0)
    answer, _ = written(batch, first, ROW, greedy)
    turn = first + answer[:-1] + prompts[1]
    for row, reused in ((ROW, len(first) + len(answer) - 1), (OTHER, 0)):
        assert written(batch, turn, row, greedy) == (fresh(served_base, bank, turn, row, greedy), reused)


@torch.inference_mode()
def test_what_a_free_slot_keeps_is_given_up_the_oldest_first(served_base, bank, prompts) -> None:
    """Three slots, four texts one after the other: of the first nothing is left, of the other three everything."""
    batch = Batch(served_base, bank, Limits(slots=3))
    texts = [[token + shift for token in prompts[0][:20]] for shift in range(4)]
    for text in texts:
        written(batch, text, ROW, Sampling(1))
    reused = []
    for text in reversed(texts):
        choice = batch.choices(text, plan(ROW), [Sampling(1)])[0]
        reused.append(batch.admit(choice))
        batch.release([choice])
    assert reused == [19, 19, 19, 0]


@torch.inference_mode()
def test_another_conversation_that_begins_alike_leaves_a_kept_one_whole(served_base, bank, prompts) -> None:
    """Two conversations after one long instruction, in turns: each finds all that it had said."""
    batch, greedy = Batch(served_base, bank, Limits(slots=4)), Sampling(20, temperature=0.0)
    said = {"one": prompts[6] + prompts[1] + prompts[0], "two": prompts[6] + prompts[4]}
    reused, read = [], []
    for name in ("one", "two", "one", "two"):
        answer, found = written(batch, said[name], ROW, greedy)
        assert answer == fresh(served_base, bank, said[name], ROW, greedy)
        reused.append(found)
        read.append(len(said[name]) + len(answer) - 1)
        said[name] = said[name] + answer[:-1] + prompts[5]
    assert reused[0] == 0
    assert len(prompts[6]) <= reused[1] < len(prompts[6]) + 3
    assert reused[2:] == read[:2]


@torch.inference_mode()
@pytest.mark.parametrize("seed", range(4))
def test_what_free_slots_are_said_to_hold_they_hold(served_base, bank, prompts, seed: int) -> None:
    """Forty prompts that begin alike, of many lengths and two rows, come and go: keys and values, read again."""
    rng, batch = random.Random(seed), Batch(served_base, bank, Limits(slots=5, prefill_tokens=30))
    here: list[Choice] = []
    for _ in range(40):
        text = prompts[6][:17] + rng.choice([[], prompts[1], prompts[5]]) * rng.randint(1, 3) + [rng.randint(3, 9)]
        here += batch.choices(text, plan(rng.choice([ROW, OTHER])), [Sampling(9)])
        batch.admit(here[-1])
        for _ in range(rng.randint(0, 2)):
            batch.step()
        here = [choice for choice in here if not choice.done]
        batch.release([choice for choice in here if rng.random() < 0.5 or not batch.free])
        here = [choice for choice in here if not choice.done]
        slot, kept = rng.choice([*batch._kept.items(), (-1, None)])
        if kept is not None:
            again = Slots(1, 512)
            with bank.rows(bank.mixture(dict(kept.key))[None]):
                next_logits(served_base.model, again, 0, [0], [kept.ids])
            for held, expected in zip(batch._slots._stores(), again._stores(), strict=True):
                part = expected[0, :, : len(kept.ids)]
                torch.testing.assert_close(held[slot, :, : len(kept.ids)], part, atol=1e-3, rtol=1e-3)
