"""Choosing the next token of each row by its own settings."""

import math

import pytest
import torch
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from moalign.generation import uniforms
from moalign.serving.sampling import Sampling, choose, logprobs_of, nucleus
from moalign.serving.text import token_text

SCORES = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()


def test_a_temperature_of_zero_takes_the_likeliest_and_of_equal_ones_the_first() -> None:
    tied = torch.tensor([[1.0, 2.0, 2.0], [3.0, 0.0, 3.0]])
    assert choose(tied, [Sampling(1, temperature=0.0)] * 2, [0.9, 0.9]).tolist() == [1, 0]


@pytest.mark.parametrize(("u", "token"), [(0.0, 0), (0.49, 0), (0.51, 1), (0.79, 1), (0.81, 2), (0.94, 2), (0.96, 3)])
def test_a_draw_inverts_the_cumulative_probability(u: float, token: int) -> None:
    """Cumulative .5 .8 .95 1: the token is the first whose sum passes u."""
    assert choose(SCORES, [Sampling(1)], [u]).item() == token


def test_temperature_sharpens_as_its_power_does() -> None:
    """At temperature 1/2 probabilities are squares over their sum: .25 .09 .0225 .0025 of .365."""
    first = 0.25 / 0.365
    sampling = [Sampling(1, temperature=0.5)]
    assert choose(SCORES, sampling, [first - 1e-6]).item() == 0
    assert choose(SCORES, sampling, [first + 1e-6]).item() == 1


@pytest.mark.parametrize(("top_p", "kept"), [(0.01, 1), (0.5, 1), (0.51, 2), (0.79, 2), (0.81, 3), (0.96, 4), (1.0, 4)])
def test_a_nucleus_is_the_fewest_tokens_that_reach_top_p(top_p: float, kept: int) -> None:
    """Of .5 .3 .15 .05, whatever the order in which they stand."""
    for order in (torch.tensor([0, 1, 2, 3]), torch.tensor([3, 1, 0, 2])):
        stays = nucleus(SCORES[:, order].double(), torch.tensor([top_p]))[0].isfinite()
        assert sorted(order[stays].tolist()) == list(range(kept))


def test_rows_with_other_settings_do_not_change_a_draw() -> None:
    """One row alone, and among a greedy one, one with a nucleus and a hot one."""
    generator = torch.Generator().manual_seed(0)
    scores = 3 * torch.randn(4, 50, generator=generator)
    settings = [
        Sampling(1, temperature=0.0),
        Sampling(1, temperature=0.7, top_p=0.9),
        Sampling(1, temperature=2.0),
        Sampling(1),
    ]
    for draws in uniforms([5], 40)[0].split(4):
        together = choose(scores, settings, draws.tolist())
        alone = [choose(scores[i : i + 1], settings[i : i + 1], [float(draws[i])]).item() for i in range(4)]
        assert together.tolist() == alone


def test_draws_have_the_frequencies_of_the_nucleus() -> None:
    """top_p .8 leaves .5 and .3: 5/8 and 3/8 of 4,000 draws, within four standard errors."""
    n = 4000
    tokens = choose(SCORES.expand(n, -1), [Sampling(1, top_p=0.8)] * n, uniforms([1], n)[0].tolist())
    share = float((tokens == 0).double().mean())
    assert set(tokens.tolist()) == {0, 1}
    assert abs(share - 5 / 8) < 4 * math.sqrt(5 / 8 * 3 / 8 / n)


def test_log_probabilities_are_those_of_the_model_with_the_likeliest_first(tokenizer) -> None:
    scores = torch.full((len(tokenizer),), -30.0)
    scores[tokenizer.convert_tokens_to_ids("a")] = math.log(3.0)
    scores[tokenizer.convert_tokens_to_ids("b")] = 0.0
    found = logprobs_of(scores, tokenizer.convert_tokens_to_ids("b"), 2, tokenizer)
    assert (found.token, found.token_bytes) == ("b", b"b")
    assert found.logprob == pytest.approx(math.log(1 / 4), abs=1e-5)
    assert [(text, bytes_) for text, bytes_, _ in found.top] == [("a", b"a"), ("b", b"b")]
    assert found.top[0][2] == pytest.approx(math.log(3 / 4), abs=1e-5)


@pytest.mark.parametrize("temperature", [1e-6, 1e-40, 1e-300])
def test_a_temperature_close_to_zero_takes_the_likeliest(temperature: float) -> None:
    """Divided by it, logits would be infinite, and no token likelier than another."""
    scores = torch.tensor([[-900.0, 800.0, 799.0], [3.0, 1.0, -torch.inf]])
    for u in (0.0, 0.5, 0.999):
        assert choose(scores, [Sampling(1, temperature=temperature)] * 2, [u, u]).tolist() == [1, 0]


def by_definition(scores: torch.Tensor, top_p: float) -> list[int]:
    """The fewest tokens that reach top_p, likeliest first and of equal ones the first, one by one."""
    order = sorted(range(len(scores)), key=lambda token: (-float(scores[token]), token))
    probability, kept, mass = scores.double().softmax(-1), [], 0.0
    for token in order:
        kept.append(token)
        mass += float(probability[token])
        if mass >= top_p - 1e-6:
            break
    return sorted(kept)


@pytest.mark.parametrize("likely", [2, 5, 256])
@pytest.mark.parametrize("spread", [0.0, 0.1, 4.0])
def test_a_nucleus_is_the_same_however_many_tokens_are_looked_at_first(likely: int, spread: float) -> None:
    """Forty tokens, many of them equal, as in half precision; all equal; and some impossible."""
    generator = torch.Generator().manual_seed(1)
    scores = (spread * torch.randn(6, 40, generator=generator)).round()
    scores[3:, ::7] = -torch.inf
    top_p = [0.05, 0.3, 0.5, 0.77, 0.9, 0.999]
    found = nucleus(scores, torch.tensor(top_p), likely).isfinite()
    assert [row.nonzero()[:, 0].tolist() for row in found] == [
        by_definition(row, each) for row, each in zip(scores, top_p, strict=True)
    ]


def test_parts_of_a_character_have_their_own_bytes(tokenizer) -> None:
    """Together the bytes are the text's, though no part reads as one."""
    spelt = [token_text(tokenizer, token) for token in tokenizer.encode("aé🎉 ", add_special_tokens=False)]
    assert b"".join(raw for _, raw in spelt) == "aé🎉 ".encode()
    assert [text for text, _ in spelt] == ["a", *["\N{REPLACEMENT CHARACTER}"] * 6, " "]
    assert token_text(tokenizer, tokenizer.eos_token_id) == ("<eos>", b"<eos>")


def test_bytes_of_a_vocabulary_that_spells_them_out() -> None:
    """As tokenizers with a fallback to bytes have them."""
    tokens = Tokenizer(BPE({"a": 0, "<0xC3>": 1, "<0xA9>": 2}, [], byte_fallback=True))
    tokens.decoder = decoders.ByteFallback()
    made = PreTrainedTokenizerFast(tokenizer_object=tokens)
    assert [token_text(made, token)[1] for token in range(3)] == [b"a", b"\xc3", b"\xa9"]
