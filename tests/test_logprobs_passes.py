"""Many responses in passes: the values of one at a time, in order; and divergences from the base."""

import pytest
import torch

from moalign import logprobs
from moalign.bank import AdapterBank
from moalign.logprobs import Scorer

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13], [14, 15]]
RESPONSES = [[[20, 21, 2], [22, 2]], [[2], list(range(30, 40)), []], [], [[40, 41]]]
ROWS = [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.5, 0.5]]
ALONE = [(i, response) for i, group in enumerate(RESPONSES) for response in group]


@pytest.fixture(params=["shared", "separate"])
def scorer(request, models):
    """A prompt is read once for its responses, or once for each."""
    found = Scorer.of(models["llama"])
    return Scorer(found.model, found.head, request.param == "shared")


@pytest.fixture
def bank(llama, random_adapter):
    with AdapterBank(llama, {"a": random_adapter(llama, 1), "b": random_adapter(llama, 2)}) as bank:
        yield bank


@pytest.fixture(params=[1, 12, 10_000], autouse=True)
def _tokens_per_pass(request, monkeypatch):
    """One prompt at a time, a few, and all of them in one pass."""
    monkeypatch.setattr(logprobs, "_TOKENS_PER_PASS", request.param)


@torch.no_grad()
def distributions(model, prompt, response):
    """log pi(.|x, y_<t) for each token of one response, from the model's own logits."""
    return model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)


def own(logs, response):
    return logs.gather(1, torch.tensor(response, dtype=torch.long)[:, None]).sum()


def test_batched(scorer, bank, llama):
    """In order of appearance, whatever the passes were; prompts without a response are passed over."""
    base, mixed = [], []
    for i, response in ALONE:
        base.append(own(distributions(llama, PROMPTS[i], response), response))
        with bank.rows(ROWS[i : i + 1]):
            mixed.append(own(distributions(llama, PROMPTS[i], response), response))
    found = scorer.batched(PROMPTS, RESPONSES, 0, bank=bank, rows=torch.tensor(ROWS))
    torch.testing.assert_close(found, torch.stack(mixed), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scorer.batched(PROMPTS, RESPONSES, 0), torch.stack(base), rtol=1e-5, atol=1e-5)
    assert scorer.batched([], [], 0).shape == (0,)


def test_divergence(scorer, bank, llama, monkeypatch):
    """log pi/pi_ref of the response, and sum_t sum_v pi(v) log(pi(v)/pi_ref(v)) along it."""
    monkeypatch.setattr(logprobs, "_PIECE", 3 * 2**15)  # stretches of three tokens
    ratios, divergences = [], []
    for i, response in ALONE:
        reference = distributions(llama, PROMPTS[i], response)
        with bank.rows(ROWS[i : i + 1]):
            policy = distributions(llama, PROMPTS[i], response)
        ratios.append(own(policy, response) - own(reference, response))
        divergences.append((policy.exp() * (policy - reference)).sum())
    log_ratio, kl = scorer.divergence(PROMPTS, RESPONSES, 0, bank, torch.tensor(ROWS))
    torch.testing.assert_close(log_ratio, torch.stack(ratios), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(kl, torch.stack(divergences), rtol=1e-4, atol=1e-4)
    assert kl[[0, 1, 3, 5]].min() > 0.1, "the adapters must matter"
    assert (log_ratio[4], kl[4]) == (0, 0), "an empty response diverges by nothing"


def test_divergence_from_a_reference_that_reads_other_prompts(scorer, bank, llama):
    """pi reads the prompts as it is told, pi_ref the plain ones, of other lengths; whatever the passes and layouts."""
    told = [[50, 51, 52, *PROMPTS[0]], PROMPTS[1], PROMPTS[2][1:], [60, *PROMPTS[3]]]
    ratios, divergences = [], []
    for i, response in ALONE:
        reference = distributions(llama, PROMPTS[i], response)
        with bank.rows(ROWS[i : i + 1]):
            policy = distributions(llama, told[i], response)
        ratios.append(own(policy, response) - own(reference, response))
        divergences.append((policy.exp() * (policy - reference)).sum())
    log_ratio, kl = scorer.divergence(told, RESPONSES, 0, bank, torch.tensor(ROWS), plain=PROMPTS)
    torch.testing.assert_close(log_ratio, torch.stack(ratios), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(kl, torch.stack(divergences), rtol=1e-4, atol=1e-4)
    without = scorer.divergence(PROMPTS, RESPONSES, 0, bank, torch.tensor(ROWS))
    same = scorer.divergence(PROMPTS, RESPONSES, 0, bank, torch.tensor(ROWS), plain=PROMPTS)
    torch.testing.assert_close(same, without, rtol=1e-5, atol=1e-5)
    assert (kl - without[1])[0].abs() > 0.1, "what it is told must matter"


def test_no_divergence_from_itself(scorer, bank):
    """A row of zeros is the base: both are 0 to the last bit."""
    log_ratio, kl = scorer.divergence(PROMPTS, RESPONSES, 0, bank, torch.zeros(4, 2))
    assert not log_ratio.any()
    assert not kl.any()
