"""The fine-tuning loss: the mean over a response's tokens, each response the same."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from moalign.losses.sft import sft_loss


def test_known_numbers() -> None:
    """Two tokens of probability 1/4 and 1/2: -(log 1/4 + log 1/2)/2 = 1.5 log 2. One certain token: 0."""
    logprob = torch.tensor([0.25 * 0.5, 1.0], dtype=torch.float64).log()
    found = sft_loss(logprob, torch.tensor([2, 1]))
    expected = torch.tensor([1.5, 0.0], dtype=torch.float64) * torch.tensor(2.0, dtype=torch.float64).log()
    torch.testing.assert_close(found, expected)


def test_the_mean_over_responses_is_cross_entropy_of_each() -> None:
    """Three responses of 1, 4 and 7 tokens: torch's own mean over each one's tokens, also in the gradient."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([1, 4, 7])
    logits = torch.randn(12, 9, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randint(9, (12,), generator=generator)
    owner = torch.arange(3).repeat_interleave(lengths)
    each = logits.log_softmax(1).gather(1, target[:, None])[:, 0]
    found = sft_loss(torch.zeros(3, dtype=torch.float64).index_add(0, owner, each), lengths).mean()
    parts = zip(logits.split(lengths.tolist()), target.split(lengths.tolist()), strict=True)
    expected = torch.stack([cross_entropy(own, wanted) for own, wanted in parts]).mean()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (found, expected)))


def test_a_response_counts_the_same_however_long() -> None:
    """2 nats per token in 1 or in 100 tokens; a mean over all 101 tokens would forget the short one."""
    found = sft_loss(torch.tensor([-2.0, -200.0]), torch.tensor([1, 100]))
    assert found.tolist() == [2.0, 2.0]


@pytest.mark.parametrize("length", [0, -1])
def test_a_response_without_tokens_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=rf"a response has {length} tokens; the mean over its tokens needs"):
        sft_loss(torch.zeros(2), torch.tensor([3, length]))
