"""Held-out prompts: by content, whatever else is in the data."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moalign.data import split_by_prompt
from moalign.errors import ConfigError

PROMPTS = [f"prompt {i}" for i in range(400)]


@given(prompts=st.lists(st.sampled_from(PROMPTS), max_size=30), holdout=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_every_row_is_on_one_side_and_its_prompt_too(prompts: list[str], holdout: float, seed: int) -> None:
    """A partition, with no prompt on both sides, and neither side empty from two prompts on."""
    train, held = split_by_prompt(prompts, holdout, seed)
    assert sorted(train + held) == list(range(len(prompts)))
    assert not {prompts[i] for i in train} & {prompts[i] for i in held}
    if len(set(prompts)) > 1:
        assert train
        assert held


def test_added_rows_move_no_other() -> None:
    """The first 200 prompts stand where they stood when 200 more, or repeats, join them."""
    few = set(split_by_prompt(PROMPTS[:200], 0.2, seed=3)[1])
    many = {i for i in split_by_prompt([*PROMPTS, *PROMPTS], 0.2, seed=3)[1] if i < 200}
    assert few == many


def test_the_share_is_the_one_asked_for_and_the_seed_counts() -> None:
    """400 independent prompts at 0.25: 100, give or take 3 x sqrt(400 x 0.25 x 0.75) = 26."""
    held = {seed: split_by_prompt(PROMPTS, 0.25, seed)[1] for seed in (0, 1)}
    assert all(74 <= len(rows) <= 126 for rows in held.values())
    assert held[0] != held[1]


def test_conversations_are_compared_by_content() -> None:
    prompts = [[{"role": "user", "content": "Hi"}], [{"content": "Hi", "role": "user"}], "Hi"]
    train, held = split_by_prompt(prompts, 0.5, seed=0)
    assert sorted(map(len, (train, held))) == [1, 2]


def test_nothing_is_held_out_at_0_or_of_one_prompt() -> None:
    assert split_by_prompt(["a", "b"], 0.0, seed=0) == ([0, 1], [])
    assert split_by_prompt(["b", "b"], 0.99, seed=0) == ([0, 1], [])
    assert split_by_prompt([], 0.5, seed=0) == ([], [])
    for holdout in (1.0, -0.1, float("nan")):
        with pytest.raises(ConfigError, match="holdout is"):
            split_by_prompt(["a"], holdout, seed=0)
