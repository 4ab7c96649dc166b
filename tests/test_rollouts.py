"""Rollouts of many policies in one batch: each completion as if it were alone, each reward where it belongs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from moalign import rollouts
from moalign.adapters import Adapter
from moalign.bank import AdapterBank
from moalign.batches import Prompt
from moalign.errors import MemoryLimitError
from moalign.generation import generate
from moalign.models import BaseModel
from moalign.rollouts import Environment, Rollouts, roll_out

PROMPTS = ["Hi", "Why is it so?", "Go on.", "No"]
EOS = 2


def score(prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
    """The length of the prompt, and of the response, in characters."""
    return np.array([[len(prompt), len(response)] for prompt, response in zip(prompts, responses, strict=True)], float)


@pytest.fixture(scope="module")
def environment(make_model: Any, tokenizer: Any) -> Environment:
    base = BaseModel("tiny", make_model("llama", vocab_size=len(tokenizer)), tokenizer, "digest")
    return Environment(base, PROMPTS, [tokenizer(prompt)["input_ids"] for prompt in PROMPTS], score, 6)


@pytest.fixture
def bank(environment: Environment, random_adapter: Callable[..., Adapter]) -> Any:
    model = environment.base.model
    with AdapterBank(model, {name: random_adapter(model, seed) for seed, name in enumerate("abc")}) as bank:
        yield bank


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many sequences each call of `generate` was asked for."""
    found: list[int] = []

    def counted(base: Any, bank: Any, rows: Any, prompts: Any, **options: Any) -> list[list[int]]:
        found.append(len(prompts))
        return generate(base, bank, rows, prompts, **options)

    monkeypatch.setattr(rollouts, "generate", counted)
    return found


@pytest.fixture
def cramped(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The same on a machine with room for seven sequences."""
    found: list[int] = []

    def small(base: Any, bank: Any, rows: Any, prompts: Any, **options: Any) -> list[list[int]]:
        found.append(len(prompts))
        if len(prompts) > 7:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return generate(base, bank, rows, prompts, **options)

    monkeypatch.setattr(rollouts, "generate", small)
    return found


def answers(found: Rollouts) -> dict[tuple[str, int], list[list[int]]]:
    """The completions by policy and prompt."""
    return {
        (key, prompt): found.group(policy, place)
        for policy, key in enumerate(found.keys)
        for place, prompt in enumerate(found.prompts)
    }


def test_every_policy_answers_every_prompt_in_one_call(
    environment: Environment, bank: AdapterBank, calls: list[int]
) -> None:
    """3 policies, 2 prompts, 4 completions; rewards stay vectors, in the order policy, prompt, completion."""
    found = roll_out(environment, bank, ["a", "b", "c"], [1, 3], 4, "s")
    assert calls == [24]
    assert (found.keys, found.prompts, len(found.responses)) == (("a", "b", "c"), [1, 3], 24)
    assert found.rewards.shape == (3, 2, 4, 2)
    assert (found.rewards[:, 0, :, 0] == len(PROMPTS[1])).all()
    assert (found.rewards[:, 1, :, 0] == len(PROMPTS[3])).all()
    decode = environment.base.tokenizer.decode
    for policy in range(3):
        for place in range(2):
            texts = [decode(ids, skip_special_tokens=True).strip() for ids in found.group(policy, place)]
            assert found.rewards[policy, place, :, 1].tolist() == [len(text) for text in texts]


def test_a_policys_completions_depend_on_nothing_else_in_the_batch(environment: Environment, bank: AdapterBank) -> None:
    """Fewer policies, another order of policies and of prompts, fewer completions: the same tokens."""
    together = answers(roll_out(environment, bank, ["a", "b", "c"], [0, 1, 2, 3], 3, "s"))
    assert len({str(ids) for ids in together.values()}) == len(together)
    for keys, prompts in ((["b"], [0, 1, 2, 3]), (["c", "a"], [3, 1]), (["a"], [2])):
        for which, ids in answers(roll_out(environment, bank, keys, prompts, 3, "s")).items():
            assert ids == together[which]
    fewer = answers(roll_out(environment, bank, ["a"], [0, 1], 2, "s"))
    assert fewer == {which: together[which][:2] for which in fewer}


def test_another_stream_gives_other_completions_and_the_same_one_the_same(
    environment: Environment, bank: AdapterBank
) -> None:
    first, again, other = (roll_out(environment, bank, ["a"], [0, 1], 3, stream) for stream in ("s", "s", "t"))
    assert first.responses == again.responses != other.responses


def test_policies_share_their_random_numbers(environment: Environment, random_adapter: Callable[..., Adapter]) -> None:
    """The same adapter under two names says the same: differences between policies are not luck."""
    adapter = random_adapter(environment.base.model, 5)
    with AdapterBank(environment.base.model, {"one": adapter, "other": adapter}) as twins:
        found = roll_out(environment, twins, ["one", "other"], [0, 2], 3, "s")
    assert found.responses[:6] == found.responses[6:]
    assert len({str(ids) for ids in found.responses[:6]}) == 6


def test_lengths_count_eos_and_what_lacks_one_is_truncated(environment: Environment, bank: AdapterBank) -> None:
    found = roll_out(replace(environment, max_new_tokens=60), bank, ["a", "b"], [0, 1, 2], 8, "s")
    flat = list(zip(found.responses, found.lengths.flatten(), found.truncated.flatten(), strict=True))
    assert 0 < found.truncated.mean() < 1
    for ids, length, truncated in flat:
        assert length == len(ids) <= 60
        assert truncated == (EOS not in ids)
        assert ids.index(EOS) == len(ids) - 1 if EOS in ids else len(ids) == 60


def test_a_batch_that_does_not_fit_is_halved_and_says_the_same(
    environment: Environment, bank: AdapterBank, cramped: list[int]
) -> None:
    """24 sequences, then 12, then 6 at once; the tokens are those of four at a time, which fit."""
    said: list[str] = []
    small = replace(environment, notice=said.append, _at_once={})
    parts = [roll_out(small, bank, [key], [prompt], 4, "s") for key in "abc" for prompt in (0, 1)]
    assert (cramped, said) == ([4] * 6, [])
    cramped.clear()
    found = roll_out(small, bank, ["a", "b", "c"], [0, 1], 4, "s")
    assert found.responses == [ids for part in parts for ids in part.responses]
    assert np.array_equal(found.rewards.reshape(-1, 2), np.concatenate([part.rewards.reshape(-1, 2) for part in parts]))
    assert cramped == [24, 12, 6, 6, 6, 6]
    assert said[0] == "out of memory with 24 sequences at once; going on with 12"


def test_what_did_not_fit_is_not_tried_at_every_step(
    environment: Environment, bank: AdapterBank, cramped: list[int]
) -> None:
    """The next rollouts begin with the size that was found, and say nothing."""
    said: list[str] = []
    small = replace(environment, notice=said.append, _at_once={})
    for step in range(3):
        roll_out(small, bank, ["a", "b"], [0, 1], 3, str(step))
    assert cramped == [12, 6, 6, 6, 6, 6, 6]
    assert said == ["out of memory with 12 sequences at once; going on with 6"]


def test_one_completion_that_does_not_fit_is_told(
    environment: Environment, bank: AdapterBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any, **__: Any) -> list[list[int]]:
        raise MemoryError

    monkeypatch.setattr(rollouts, "generate", none)
    with pytest.raises(MemoryLimitError, match="a smaller max_new_tokens"):
        roll_out(environment, bank, ["a"], [0], 2, "s")


def test_a_score_may_be_nan_and_stays_where_it_is(environment: Environment, bank: AdapterBank) -> None:
    def spoilt(prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        found = score(prompts, responses)
        found[found[:, 0] == len(PROMPTS[1]), 1] = np.nan
        return found

    found = roll_out(replace(environment, score=spoilt), bank, ["a", "b"], [0, 1], 2, "s")
    assert np.isnan(found.rewards[:, 1, :, 1]).all()
    assert np.isfinite(found.rewards[:, 0]).all()


def places(environment: Environment, prompts: int, validation: int, seed: int = 0) -> tuple[list[int], list[int]]:
    return replace(environment, prompts=["p"] * prompts).parted(validation, seed)


def test_validation_prompts_are_held_out_while_they_are_a_third_at_most(environment: Environment) -> None:
    """12 prompts, 4 for validation: 8 and 4, none in both; of 11, both are drawn from all."""
    training, validation = places(environment, 12, 4)
    assert sorted(training + validation) == list(range(12))
    assert len(validation) == 4
    training, validation = places(environment, 11, 4)
    assert training == list(range(11))
    assert len(validation) == len(set(validation)) == 4


def test_more_validation_than_prompts_is_all_of_them(environment: Environment) -> None:
    assert places(environment, 3, 16) == ([0, 1, 2], [0, 1, 2])
    assert places(environment, 1, 1) == ([0], [0])


def test_without_validation_all_prompts_are_for_training(environment: Environment) -> None:
    assert places(environment, 5, 0) == ([0, 1, 2, 3, 4], [])


def test_the_parts_are_the_seeds_own(environment: Environment) -> None:
    """The same for a seed, whoever asks; another for another seed, and in no order of the file."""
    assert places(environment, 30, 10, seed=1) == places(environment, 30, 10, seed=1)
    assert places(environment, 30, 10, seed=1) != places(environment, 30, 10, seed=2)
    assert places(environment, 30, 10)[1] != list(range(10))
