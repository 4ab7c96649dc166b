"""Pairs from scores: who wins, how surely, and how many are drawn."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moalign.batches import PreferencePairs
from moalign.data import load_scored, pairs_from_scores, relabel
from moalign.errors import DataError

SHARED = Path(__file__).parents[3] / "shared" / "data"


def _made(scores: list[float], labels="observed", per_prompt=99, prompts=None, texts=None, seed=0) -> PreferencePairs:
    n = len(scores)
    return pairs_from_scores(
        prompts or ["Hi"] * n,
        texts or [f"text {i}" for i in range(n)],
        np.array(scores, dtype=float),
        [f"f:{i}" for i in range(n)],
        np.random.default_rng(seed),
        per_prompt,
        labels,
    )


def test_the_higher_score_is_chosen_and_ties_are_dropped() -> None:
    """Scores 1, 2, 2 give three pairs; the tie of the last two is none, so 2 > 1 twice."""
    pairs = _made([1.0, 2.0, 2.0])
    assert sorted(zip(pairs.chosen, pairs.rejected, strict=True)) == [("text 1", "text 0"), ("text 2", "text 0")]
    assert pairs.probability.tolist() == [1.0, 1.0]
    assert list(pairs.source) == ["f:1 > f:0", "f:2 > f:0"]


def test_bradley_terry_probabilities() -> None:
    """sigma(3 - 1) = 1 / (1 + e^-2) = 0.8808; a tie is a pair with 1/2."""
    pairs = _made([1.0, 3.0], "bradley_terry")
    assert pairs.chosen == ["text 1"]
    assert pairs.probability[0] == pytest.approx(1 / (1 + math.exp(-2)), abs=1e-15)
    assert _made([2.0, 2.0], "bradley_terry").probability.tolist() == [0.5]


def test_a_huge_gap_is_certain_without_overflow() -> None:
    assert _made([-1e6, 1e6], "bradley_terry").probability.tolist() == [1.0]


def test_prompts_do_not_mix_and_missing_scores_make_no_pair() -> None:
    """Of prompt b only one response has a score; conversations group by content."""
    said = [{"role": "user", "content": "c"}]
    same = [{"content": "c", "role": "user"}]
    pairs = _made([1, 2, 5, np.nan, 7, 8], prompts=["a", "a", "b", "b", said, same])
    assert list(pairs.chosen) == ["text 1", "text 5"]
    assert list(pairs.rejected) == ["text 0", "text 4"]
    assert pairs.prompts[1] == said


def test_equal_texts_are_no_pair() -> None:
    """Two raters, one text: 4 and 2 say nothing about two responses."""
    assert len(_made([4, 2, 1], texts=["same", "same", "other"])) == 2


@given(
    scores=st.lists(st.integers(0, 3).map(float), min_size=2, max_size=8),
    per_prompt=st.integers(1, 6),
    labels=st.sampled_from(["observed", "bradley_terry"]),
)
def test_distinct_pairs_up_to_the_number_asked_for(scores: list[float], per_prompt: int, labels) -> None:
    """min(per_prompt, pairs that there are), by enumeration; none twice, none the wrong way round."""
    n = len(scores)
    there_are = sum(labels == "bradley_terry" or scores[i] != scores[j] for i in range(n) for j in range(i))
    if not there_are:
        return
    pairs = _made(scores, labels, per_prompt)
    drawn = Counter(frozenset(pair) for pair in zip(pairs.chosen, pairs.rejected, strict=True))
    assert len(pairs) == len(drawn) == min(per_prompt, there_are)
    value = {f"text {i}": score for i, score in enumerate(scores)}
    assert all(value[c] >= value[r] for c, r in zip(pairs.chosen, pairs.rejected, strict=True))


def test_the_draw_is_the_seeds_and_every_pair_has_its_chance() -> None:
    """One of three pairs, 600 draws: 200 each, give or take 4 x sqrt(600 x 1/3 x 2/3) = 46."""
    assert _made([1, 2, 3], per_prompt=1, seed=5) == _made([1, 2, 3], per_prompt=1, seed=5)
    counts = Counter(tuple(_made([1, 2, 3], per_prompt=1, seed=seed).source) for seed in range(600))
    assert len(counts) == 3
    assert all(154 <= count <= 246 for count in counts.values())


@pytest.mark.parametrize(
    ("scores", "prompts", "reason"),
    [
        ([1.0, 2.0], ["a", "b"], "each of the 2 prompts has one response"),
        ([1.0, 1.0], ["a", "a"], "the same score or the same text"),
        ([np.nan, np.nan], ["a", "a"], "none of them has this score"),
    ],
)
def test_no_pair_says_why(scores: list[float], prompts: list[str], reason: str) -> None:
    with pytest.raises(DataError, match=f"no pair can be made from 2 scored responses: .*{reason}"):
        _made(scores, prompts=prompts)


def test_relabel_orders_the_same_two_responses() -> None:
    """Pair 0 is turned round, pair 1 ties and is dropped, pair 2 has no score, pair 3 stays."""
    pairs = PreferencePairs(["p"] * 4, ["c0", "c1", "c2", "c3"], ["r0", "r1", "r2", "r3"], np.ones(4), list("abcd"))
    chosen, rejected = np.array([0, 1, np.nan, 4.0]), np.array([1, 1, 0, 2.0])
    observed = relabel(pairs, chosen, rejected, "observed")
    assert (list(observed.chosen), list(observed.rejected)) == (["r0", "c3"], ["c0", "r3"])
    assert (observed.probability.tolist(), list(observed.source)) == ([1, 1], ["a", "d"])
    sure = relabel(pairs, chosen, rejected, "bradley_terry")
    assert list(sure.chosen) == ["r0", "c1", "c3"]
    np.testing.assert_allclose(sure.probability, [1 / (1 + math.exp(-1)), 0.5, 1 / (1 + math.exp(-2))])


def test_relabel_of_scores_that_tell_nothing_apart_is_an_error() -> None:
    pair = PreferencePairs(["p"], ["c"], ["r"], np.ones(1), ["a"])
    with pytest.raises(DataError, match="none of 1 pairs can be relabelled"):
        relabel(pair, np.zeros(1), np.zeros(1), "observed")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")
def test_real_ratings_make_pairs() -> None:
    """77 summaries' worth of articles, 16 systems each: pairs per objective from one file."""
    ratings = load_scored("ratings_summeval.jsonl.gz", base=SHARED).scored
    for scores in ratings.scores.values():
        rng = np.random.default_rng(0)
        pairs = pairs_from_scores(ratings.prompts, ratings.responses, scores, ratings.source, rng, 4, "observed")
        assert max(Counter(pairs.prompts).values()) == 4
        assert len(pairs) > 200
