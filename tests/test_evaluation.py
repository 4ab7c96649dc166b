"""Measuring adapters: together as alone, with errors over prompts, and against the optimum where it is known."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from moalign.adapters import Adapter
from moalign.bank import AdapterBank
from moalign.config import EvaluationSettings
from moalign.evaluation import Evaluator, Measurement, ranking_accuracy
from moalign.frontiers import tilt
from moalign.frontiers.oracle import Answers
from moalign.logprobs import Scorer
from moalign.models import BaseModel
from moalign.objectives import Length, ObjectiveSet, Repetition
from moalign.preference import Preference

BOTH = Preference.of({"brief": 0.75, "varied": 0.25})
SETTINGS = EvaluationSettings(prompts=3, samples=2, max_new_tokens=6, batch_size=5)


@pytest.fixture
def evaluator(make_model: Any, tokenizer: Any, tmp_path: Path) -> Evaluator:
    model = make_model("llama", vocab_size=len(tokenizer))
    prompts = ["Hi", "Why is it so?", "Go on."]
    return Evaluator(
        base=BaseModel("tiny", model, tokenizer, "digest"),
        scorer=Scorer.of(model),
        objectives=ObjectiveSet([Length("brief", unit="characters"), Repetition("varied", n=1)]),
        prompts=prompts,
        prompt_ids=[tokenizer(prompt)["input_ids"] for prompt in prompts],
        settings=SETTINGS,
        seed=3,
        cache=tmp_path,
    )


@pytest.fixture
def bank(evaluator: Evaluator, random_adapter: Callable[..., Adapter]) -> Any:
    model = evaluator.base.model
    with AdapterBank(model, {"a": random_adapter(model, 1), "b": random_adapter(model, 2)}) as bank:
        yield bank


def same(one: Measurement, other: Measurement) -> bool:
    return one.responses == other.responses and np.allclose(one.log_ratio, other.log_ratio, atol=1e-4)


def test_adapters_are_measured_together_as_alone(evaluator: Evaluator, bank: AdapterBank) -> None:
    """Three rows in batches of five, cut across adapters; the texts of each are those it writes alone."""
    rows = {"a": bank.mixture({"a": 1.0}), "b": bank.mixture({"b": 1.0}), "mix": bank.mixture({"a": 0.5, "b": 0.5})}
    together = evaluator.measure(bank, rows)
    for name, row in rows.items():
        assert same(evaluator.measure(bank, {name: row})[name], together[name])
    assert not same(together["a"], together["b"])
    assert together["a"].prompt.tolist() == [0, 0, 1, 1, 2, 2]


def test_a_row_of_zeros_is_the_base_and_has_no_divergence_from_it(evaluator: Evaluator, bank: AdapterBank) -> None:
    zero = evaluator.measure(bank, {"zero": torch.zeros(2)})["zero"]
    base = evaluator.measure(None, {"base": torch.zeros(1)})["base"]
    assert zero.responses == base.responses
    assert np.abs(zero.log_ratio).max() == 0
    assert np.abs(zero.kl).max() == 0
    assert not base.kl.any()
    assert len(set(base.responses)) == len(base.responses)  # every sample is another draw


def test_the_divergence_is_that_of_the_log_probabilities(evaluator: Evaluator, bank: AdapterBank) -> None:
    """log pi(y|x) - log pi_ref(y|x), each from a plain forward pass over prompt and response."""
    found = evaluator.measure(bank, {"a": bank.mixture({"a": 1.0})})["a"]
    model = evaluator.base.model
    ids = evaluator._generate(bank, [bank.mixture({"a": 1.0})], [evaluator.prompt_ids])
    for i, response in enumerate(ids):
        prompt = evaluator.prompt_ids[found.prompt[i]]
        whole = torch.tensor([prompt + response])

        def logprob(prompt: list[int] = prompt, whole: torch.Tensor = whole) -> float:
            table = model(input_ids=whole).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            return float(table.gather(1, whole[0, len(prompt) :, None]).sum())

        with torch.no_grad():
            reference = logprob()
            with bank.rows(bank.one_hot(["a"])):
                assert found.log_ratio[i] == pytest.approx(logprob() - reference, abs=1e-3)
        assert found.length[i] == len(response)
        assert found.truncated[i] == (response[-1] != 2)


def test_a_row_that_is_told_something_is_scored_and_compared_by_the_plain_prompt(
    evaluator: Evaluator, bank: AdapterBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes and is read behind what it is told, beside a row that is told nothing and the same as ever; objectives
    see the plain prompts; and KL is sum_t KL(pi(.|told, y_<t) || pi_ref(.|plain, y_<t)), by log-softmax by hand."""
    tokenizer, model = evaluator.base.tokenizer, evaluator.base.model
    told = [tokenizer(f"Be brief! {prompt}")["input_ids"] for prompt in evaluator.prompts]
    seen: list[list[str]] = []
    score = Length.score
    monkeypatch.setattr(Length, "score", lambda self, c: (seen.append(list(c.prompts)), score(self, c))[1])
    rows = {"told": bank.mixture({"a": 0.5, "b": 0.5}), "plain": bank.mixture({"b": 1.0})}
    found = evaluator.measure(bank, rows, {"told": told})
    assert set().union(*seen) == set(evaluator.prompts)

    alone = evaluator.measure(bank, {"plain": rows["plain"]})["plain"]
    assert same(found["plain"], alone)
    assert found["told"].responses != evaluator.measure(bank, {"told": rows["told"]})["told"].responses
    ids = evaluator._generate(bank, [rows["told"]], [told])
    assert [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)] == found["told"].responses

    def distributions(prompt: list[int], response: list[int]) -> torch.Tensor:
        return model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)

    for i, response in enumerate(ids):
        place = found["told"].prompt[i]
        with torch.no_grad():
            reference = distributions(evaluator.prompt_ids[place], response)
            with bank.rows(rows["told"][None]):
                policy = distributions(told[place], response)
        own = torch.tensor(response)[:, None]
        expected = (policy - reference).gather(1, own).sum(), (policy.exp() * (policy - reference)).sum()
        assert found["told"].log_ratio[i] == pytest.approx(float(expected[0]), abs=1e-3)
        assert found["told"].kl[i] == pytest.approx(float(expected[1]), abs=1e-3)
    assert found["told"].kl.min() > 0.1


def test_nothing_is_scored_twice(evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second measurement, in a later run, finds every score in the cache."""
    rows = {"base": torch.zeros(1)}
    first = evaluator.measure(None, rows)["base"]

    def again(*_: object) -> None:
        raise AssertionError("scored twice")

    monkeypatch.setattr(Length, "score", again)
    assert np.array_equal(evaluator.measure(None, rows)["base"].scores, first.scores)


def measurement(scores: list[list[float]], kl: list[float]) -> Measurement:
    n = len(scores)
    return Measurement(
        prompt=np.arange(n) // 2,
        responses=["text"] * n,
        scores=np.array(scores, dtype=float),
        log_ratio=np.array(kl),
        kl=np.array(kl),
        length=np.arange(1, n + 1),
        truncated=np.zeros(n, dtype=bool),
    )


def test_a_point_holds_means_over_responses_and_errors_over_prompts(evaluator: Evaluator) -> None:
    """Prompt means 1 and 3 for brief: mean 2, standard deviation sqrt 2, over sqrt 2 prompts: an error of 1."""
    found = measurement([[0, 5], [2, 5], [3, 5], [3, 5]], [0.1, 0.2, 0.3, 0.6])
    point = evaluator.point("key", "modpo", BOTH, found, 0.1)
    assert point.values == {"brief": 2.0, "varied": 5.0}
    assert point.standard_errors == {"brief": pytest.approx(1.0), "varied": 0.0}
    assert point.intervals["brief"] == (1.0, 3.0)
    assert (point.kl_to_reference, point.length) == (pytest.approx(0.3), 2.5)
    assert point.kl_to_oracle is None
    assert (point.adapter, point.method, point.preference) == ("key", "modpo", BOTH)


def test_the_distance_from_the_oracle_is_exact_for_a_policy_that_is_enumerated(evaluator: Evaluator) -> None:
    """Two answers, pi_ref = (.8, .2), pi = (.5, .5), r = (0, 1) and (1, 0), w = (.75, .25), beta = .5.

    KL(pi || pi*) by the sum over both answers, against the average over "samples" that are exactly half and half.
    """
    reference, scores, beta = np.array([0.8, 0.2]), np.array([[0.0, 1.0], [1.0, 0.0]]), 0.5
    world = [Answers(np.log(reference), scores)] * 2
    policy = np.array([0.5, 0.5])
    kl = float(policy @ np.log(policy / reference))
    found = measurement([scores[0].tolist(), scores[1].tolist()] * 2, [kl] * 4)
    point = replace(evaluator, world=world).point("key", "modpo", BOTH, found, beta)
    weights = BOTH.vector(("brief", "varied"))
    expected = float(policy @ np.log(policy / tilt(world[0], weights, beta)))
    assert point.kl_to_oracle == pytest.approx(expected, abs=1e-9)


def test_sample_rows_say_what_was_asked_answered_and_scored(evaluator: Evaluator) -> None:
    found = evaluator.measure(None, {"base": torch.zeros(1)})["base"]
    rows = evaluator.sample_rows(found)
    assert [row["prompt"] for row in rows] == ["Hi"] * 2 + ["Why is it so?"] * 2 + ["Go on."] * 2
    assert rows[0]["scores"] == {"brief": -float(len(found.responses[0])), "varied": found.scores[0, 1]}


def test_progress_is_told_in_responses(evaluator: Evaluator) -> None:
    said: list[tuple[int, int]] = []
    replace(evaluator, on_batch=lambda *numbers: said.append(numbers)).measure(None, {"base": torch.zeros(1)})
    assert said == [(5, 6), (6, 6)]


def test_accuracy_is_a_share_and_ties_are_halves() -> None:
    """Right, wrong, tie: 1.5 of 3."""
    assert ranking_accuracy(np.array([-1.0, -3.0, -2.0]), np.array([-2.0, -1.0, -2.0])) == 0.5
