"""The help desk: its texts, its answers one by one, and objectives that conflict."""

import re

import numpy as np
import pytest

from moalign.batches import Completions
from moalign.demo.objectives import _read
from moalign.demo.world import (
    CAUTIONS,
    CLOSINGS,
    OPENINGS,
    REASON,
    STEP_COUNTS,
    answers,
    brief,
    careful,
    helpful,
    prompts,
    sample_answer,
    sentence,
    topics,
    warm,
    weighted_answers,
)
from moalign.errors import DataError

OBJECTIVES = {"helpful": helpful, "brief": brief, "warm": warm, "careful": careful}
PROMPT = "My printer has a paper jam."


def score(name: str, *texts: str) -> list[float]:
    return [float(value) for value in OBJECTIVES[name](Completions([PROMPT] * len(texts), texts))]


@pytest.fixture(scope="module")
def scored() -> tuple[np.ndarray, np.ndarray]:
    """Scores Float[n, 4] and probabilities Float[n] of all answers to one prompt of each topic."""
    scores, shares = [], []
    for topic in topics():
        texts, weights = zip(*weighted_answers(topic.prompts[0]), strict=True)
        completions = Completions([topic.prompts[0]] * len(texts), texts)
        scores.append(np.stack([objective(completions) for objective in OBJECTIVES.values()], axis=1))
        shares.append(np.array(weights) / len(topics()))
    return np.concatenate(scores), np.concatenate(shares)


def test_40_topics_with_four_prompts_to_train_on_and_one_to_evaluate_on():
    train, held_out = prompts("train"), prompts("eval")
    assert len(topics()) == len({topic.name for topic in topics()}) == 40
    assert (len(train), len(held_out)) == (160, 40)
    assert len({*train, *held_out}) == 200
    assert all(len(topic.prompts) == 5 and len(topic.steps) == 4 for topic in topics())


def test_an_unknown_split_is_named():
    with pytest.raises(DataError, match="unknown split 'evals'; did you mean 'eval'"):
        prompts("evals")


def test_each_prompt_has_600_different_answers_and_their_probabilities_sum_to_1():
    """5 openings x 4 numbers of steps x with or without a reason x 3 cautions x 5 closings = 600."""
    for prompt in [*prompts("train"), *prompts("eval")]:
        weighted = weighted_answers(prompt)
        assert len({text for text, _ in weighted}) == len(weighted) == 600
        assert sum(share for _, share in weighted) == pytest.approx(1)


def test_every_option_is_common():
    shares = [*(share for _, share in OPENINGS), *STEP_COUNTS, REASON, 1 - REASON, *CAUTIONS]
    assert min([*shares, *(share for _, share in CLOSINGS)]) >= 0.15


def test_answers_read_as_written():
    """The first: only one step. The last: every slot filled. One more, with two steps and the short caution."""
    listed = answers(PROMPT)
    assert listed[0] == "Open the back cover."
    assert listed[-1] == (
        "Thank you so much for asking! Open the back cover. Then pull the paper out. Next close the cover again. "
        "Finally print a test page. Damp paper is often the cause. Be careful: unplug the printer first, and never "
        "pull with force. We are always so glad to help!"
    )
    assert "Sure, gladly! Open the back cover. Then pull the paper out. Never pull with force. Good luck!" in listed


def test_every_answer_is_made_of_whole_sentences():
    for prompt in prompts("eval"):
        for text in answers(prompt)[::7]:
            assert re.fullmatch(r"(?:[A-Z][\w ,:]*[.!] )*[A-Z][\w ,:]*[.!]", text), text


def test_slots_of_a_topic_begin_differently_so_that_one_word_decides():
    """After a step, the next word tells a further step, the reason, each caution and each closing apart."""
    for topic in topics():
        follow = [*CLOSINGS[1:], *((text, 0) for text in [*topic.cautions[1:], sentence(topic.reason)])]
        words = ["Then", "Next", "Finally", *(re.split(r"\W", text)[0] for text, _ in follow)]
        assert len(set(words)) == len(words), topic.name


def test_samples_are_answers_in_the_listed_frequencies():
    """Of 2000 samples, 15 % open with "Noted.": standard deviation sqrt(.15 * .85 / 2000) = 0.008."""
    rng = np.random.default_rng(0)
    drawn = [sample_answer(PROMPT, rng) for _ in range(2000)]
    assert set(drawn) <= set(answers(PROMPT))
    assert np.mean([text.startswith("Noted.") for text in drawn]) == pytest.approx(0.15, abs=0.032)
    again = np.random.default_rng(0)
    assert [sample_answer(PROMPT, again) for _ in range(5)] == drawn[:5]


def test_a_conversation_is_known_by_its_last_user_turn():
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": PROMPT}]
    assert answers(turns) == answers(PROMPT)


@pytest.mark.parametrize(
    "ask", [answers, weighted_answers, lambda prompt: sample_answer(prompt, np.random.default_rng())]
)
def test_an_unknown_prompt_is_refused_with_the_near_one_in_one_line(ask):
    with pytest.raises(
        DataError, match=r"unknown prompt 'My printer has a paper.'; did you mean 'My printer has a paper jam"
    ) as info:
        ask("My printer has a paper.")
    assert "\n" not in str(info.value)
    assert len(str(info.value)) < 300


def test_a_conversation_without_a_user_is_refused():
    with pytest.raises(DataError, match="unknown prompt ''"):
        answers([{"role": "system", "content": "Be kind."}])


def test_the_objectives_find_the_slots_of_every_topic():
    """Steps are instructions and nothing else, reasons explain, the fuller caution has three words of warning."""
    for topic in topics():
        for count in (1, 2, 3, 4):
            found = _read(topic.stated(count))
            assert (found.instructions, found.asides, found.reasons, found.cautions) == (count, 0, 0, 0), topic.name
            assert (found.warmth, found.coldness) == (0, 0), topic.name
        found = _read(sentence(topic.reason))
        assert (found.instructions, found.asides, found.reasons, found.cautions) == (0, 0, 1, 0), topic.name
        assert [_read(text).cautions for text in topic.cautions] == [0, 1, 3], topic.name
        assert [_read(text).instructions for text in topic.cautions] == [0, 0, 0], topic.name


def test_warmth_rises_with_the_openings_and_closings():
    for options in (OPENINGS, CLOSINGS):
        (none, cool, *kind) = score("warm", *(text for text, _ in options))
        assert cool < none == 0 < kind[0] < kind[1] < kind[2]


def test_scores_by_hand():
    """Two instructions and a closing of 2 words: 1.3 (4 (1 - 0.75^2) - 0.05 * 2) = 2.145. Nine words: -9 / 8.5."""
    text = "Open the cover. Then pull it out. Good luck!"
    assert score("helpful", text) == pytest.approx([2.145])
    assert score("brief", text) == pytest.approx([-9 / 8.5])
    assert score("warm", text) == pytest.approx([4 * np.tanh(0.8 / 4)])
    assert score("careful", text) == pytest.approx([-0.4])


def test_each_objective_is_about_one_wide(scored: tuple[np.ndarray, np.ndarray]):
    scores, shares = scored
    width = np.sqrt(shares @ (scores - shares @ scores) ** 2)
    np.testing.assert_allclose(width, 1, atol=0.05)


def test_all_four_objectives_conflict_pairwise(scored: tuple[np.ndarray, np.ndarray]):
    """Every correlation over the answers is negative; no answer is best at two of the objectives."""
    scores, shares = scored
    centred = scores - shares @ scores
    covariance = (centred * shares[:, None]).T @ centred
    correlation = covariance / np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    assert correlation[np.triu_indices(4, 1)].max() < -0.05
    first = scores[:600]
    best = [set(np.flatnonzero(column == column.max())) for column in first.T]
    assert all(not best[i] & best[j] for i in range(4) for j in range(i))


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "🙂🙃",
        "word " * 2000,
        "x" * 10_000,
        "!?" * 5000,
        "日本語のテキスト",
        "\x00\n\t",
        "Then.",
        "Don't, don't!",
    ],
    ids=["empty", "space", "emoji", "words", "letters", "marks", "japanese", "control", "connector", "negation"],
)
def test_any_text_has_a_finite_score(name: str, text: str):
    assert np.isfinite(score(name, text)).all()


@pytest.mark.parametrize("name", ["helpful", "warm", "careful"])
@pytest.mark.parametrize(
    "text",
    ["Open the back cover.", "Happy to help with that!", "Never pull with force.", "Damp paper is often the cause."],
)
def test_saying_it_again_gains_nothing(name: str, text: str):
    """Nor does another connector make another instruction of it."""
    once, thrice = score(name, text, f"{text} Then {text.lower()} {text}")
    assert thrice <= once


def test_silence_is_no_briefer_than_the_shortest_answer():
    shortest = min(answers(PROMPT), key=len)
    assert score("brief", "", shortest) == [-4 / 8.5, -4 / 8.5]
    assert score("brief", "one two three four five six")[0] == -6 / 8.5


def test_no_completions_no_scores():
    assert all(objective(Completions([], [])).shape == (0,) for objective in OBJECTIVES.values())
