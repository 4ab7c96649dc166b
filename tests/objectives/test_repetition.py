"""Minus the share of repeated n-grams."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moalign.batches import Completions
from moalign.errors import ConfigError
from moalign.objectives import Repetition


def _score(n: int, *texts: str) -> list[float]:
    return Repetition("varied", n).score(Completions(["p"] * len(texts), texts)).tolist()


def test_by_hand() -> None:
    """ "a b a b a" has the bigrams ab ba ab ba: 2 of 4 are distinct, 2/4 - 1 = -0.5. Its words: 2/5 - 1 = -0.6."""
    assert _score(2, "a b A b a") == [-0.5]
    assert _score(1, "a b a b a") == pytest.approx([-0.6])
    assert _score(3, "a b c d") == [0.0]


def test_a_response_too_short_to_repeat_scores_0() -> None:
    assert _score(3, "", "a", "a a", " ") == [0, 0, 0, 0]


@given(words=st.lists(st.sampled_from("abc"), max_size=12), n=st.integers(1, 4))
def test_as_counted_pair_by_pair(words: list[str], n: int) -> None:
    """A gram is repeated if an equal one stands before it: the second derivation compares all pairs."""
    grams = [words[i : i + n] for i in range(len(words) - n + 1)]
    again = sum(any(grams[i] == grams[j] for j in range(i)) for i in range(len(grams)))
    expected = -again / len(grams) if grams else 0.0
    assert _score(n, " ".join(words)) == pytest.approx([expected], abs=1e-15)


def test_n_is_at_least_one() -> None:
    with pytest.raises(ConfigError, match="objective 'varied': n is 0"):
        Repetition("varied", n=0)
