"""Log-probabilities against log_softmax of the full logits, one response at a time."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from moalign import logprobs
from moalign.bank import AdapterBank
from moalign.errors import DataError
from moalign.logprobs import Scorer, find_head, target_logprobs
from moalign.packing import pack_shared

EOS = 2


def some_ids(n, seed):
    return torch.randint(3, 96, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


# Prompts of 1 to 7 tokens; none, one, two or three responses each; one is EOS alone, one is empty.
PROMPTS = [some_ids(5, 1), some_ids(1, 2), some_ids(7, 3), some_ids(3, 4)]
RESPONSES = [
    [[*some_ids(6, 5), EOS], [*some_ids(2, 6), EOS]],
    [[EOS], [*some_ids(9, 7), EOS], some_ids(4, 8)],
    [],
    [[], [*some_ids(3, 9), EOS]],
]
ALONE = [(prompt, response) for prompt, group in zip(PROMPTS, RESPONSES, strict=True) for response in group]


def by_hand(model, prompt, response):
    """sum_t log softmax(logits(prompt + response_<t))[response_t], from the model's own logits, unpadded."""
    logits = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1].float()
    return logits.log_softmax(-1).gather(1, torch.tensor(response, dtype=torch.long)[:, None]).sum()


def all_by_hand(model):
    return torch.stack([by_hand(model, *pair) for pair in ALONE])


@pytest.fixture
def small_pieces(monkeypatch):
    """A piece of 512 logits: the vocabularies of these tests then take several pieces."""
    monkeypatch.setattr(logprobs, "_PIECE", 512)


@torch.no_grad()
def test_equals_log_softmax_of_the_full_logits(model):
    """Each response's sum, EOS included, with the prompt read once for all of its responses and read once for each."""
    scorer = Scorer.of(model)
    assert scorer.head is not None
    assert scorer.shares_prompt
    expected = all_by_hand(model)
    assert expected[5] == 0, "an empty response is certain"
    shared = scorer.pack(PROMPTS, RESPONSES, pad=0)
    assert len(shared.ids) == len(PROMPTS)
    torch.testing.assert_close(scorer.logprobs(shared), expected, rtol=1e-5, atol=1e-5)
    separate = Scorer(model, scorer.head, shares_prompt=False).pack(PROMPTS, RESPONSES, pad=0)
    assert len(separate.ids) == len(ALONE)
    torch.testing.assert_close(scorer.logprobs(separate), expected, rtol=1e-5, atol=1e-5)


ODD = {
    "gemma2": {},  # caps its logits, and takes no mask of ours
    "cohere": {},  # scales its logits
    "granite": {"logits_scaling": 8.0},
    "phi": {},  # a bias on the head
    "bloom": {"n_layer": 2, "n_head": 4},  # positions by distance in the sequence
    "opt": {"word_embed_proj_dim": 32, "ffn_dim": 48},
    "mamba": {"state_size": 4, "expand": 2, "time_step_rank": 4},  # a state that runs through the whole sequence
    "lfm2": {"layer_types": ["conv", "full_attention"]},  # a convolution over neighbours in the sequence
    "gemma3_text": {},
}


@torch.no_grad()
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("architecture", ODD)
def test_odd_architectures_fall_back(make_model, architecture, flat):
    """Whatever an architecture does to logits, positions or masks, the numbers are right, or the saving is not taken.

    Also with the usual small initial weights, where logits are so flat that a leak hardly changes them.
    """
    model = make_model(architecture, **ODD[architecture], **({"initializer_range": 0.02} if flat else {}))
    scorer = Scorer.of(model)
    prompts, responses = [some_ids(5, 1), some_ids(9, 2)], [[some_ids(6, 3), some_ids(4, 4)], [some_ids(7, 5)] * 2]
    found = scorer.logprobs(scorer.pack(prompts, responses, pad=0))
    expected = [by_hand(model, p, r) for p, group in zip(prompts, responses, strict=True) for r in group]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "plain"), [("gemma2", False), ("granite", False), ("phi", False), ("opt", True)]
)
def test_find_head(make_model, architecture, plain):
    """The head is taken for the product of hidden state and matrix only where it is nothing more."""
    changes = {**ODD[architecture], "initializer_range": 0.2}
    assert (find_head(make_model(architecture, **changes)) is not None) == plain


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [0.02, 0.2])
def test_prompts_are_not_shared_where_that_would_be_wrong(make_model, width, dtype):
    """Eager attention adds a mask to its scores, so that True would be +1 and hide nothing: it must be noticed.

    So must a model that counts positions by itself, and puts the second response behind the first.
    """
    eager = make_model("llama", attn_implementation="eager", initializer_range=width).to(dtype)
    assert not Scorer.of(eager).shares_prompt
    model = make_model("llama", initializer_range=width).to(dtype)
    assert Scorer.of(model).shares_prompt
    forward = model.model.forward
    model.model.forward = lambda **inputs: forward(**{**inputs, "position_ids": None})
    assert not Scorer.of(model).shares_prompt


def test_sliding_window(make_model):
    """A window of 8: a shared layout longer than that is not used, and longer sequences are still right."""
    model = make_model("mistral", sliding_window=8)
    scorer = Scorer.of(model)
    assert scorer.shares_prompt
    assert scorer.window == 8
    fits = scorer.pack([[5, 6]], [[[7, 8, EOS], [9, 10, EOS]]], pad=0)
    assert len(fits.ids) == 1
    too_long = scorer.pack(PROMPTS, RESPONSES, pad=0)
    assert len(too_long.ids) == len(ALONE)
    with torch.no_grad():
        torch.testing.assert_close(scorer.logprobs(too_long), all_by_hand(model), rtol=1e-5, atol=1e-5)
        assert (all_by_hand(model) - all_by_hand(make_model("mistral"))).abs().max() > 1e-3, "the window must matter"


@pytest.mark.parametrize("shares", [True, False])
def test_gradients_equal_autograds(model, adapters, small_pieces, shares):
    """d/dA, d/dB of a weighted sum of log-probabilities, through the pieces and through full logits and autograd."""
    scorer = Scorer(model, find_head(model), shares)
    weights = torch.linspace(-1, 1, len(ALONE))
    mixture = [[0.5, 0.2, -0.3]]
    with AdapterBank(model, adapters, trainable=True) as bank, bank.rows(mixture):
        (scorer.logprobs(scorer.pack(PROMPTS, RESPONSES, pad=0)) * weights).sum().backward()
        found = [parameter.grad for parameter in bank.parameters()]
        for parameter in bank.parameters():
            parameter.grad = None
        (all_by_hand(model) * weights).sum().backward()
        for ours, parameter in zip(found, bank.parameters(), strict=True):
            assert parameter.grad is not None
            torch.testing.assert_close(ours, parameter.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n", [0, 1, 5])
@pytest.mark.parametrize("vocabulary", [256, 257, 1000])
def test_pieces(small_pieces, n, vocabulary):
    """Pieces of 256 give what one product gives, value and slope; the last piece may hold one token, n may be 0."""
    generator = torch.Generator().manual_seed(n)
    hidden = torch.randn(n, 16, generator=generator, requires_grad=True)
    matrix = 3 * torch.randn(vocabulary, 16, generator=generator)
    target = torch.tensor([0, 255, vocabulary - 1, 7, 7])[:n]
    found = target_logprobs(hidden, matrix, target)
    expected = (hidden @ matrix.T).log_softmax(-1).gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    outside = torch.randn(n, generator=generator)
    slopes = [torch.autograd.grad((value * outside).sum(), hidden)[0] for value in (found, expected)]
    torch.testing.assert_close(*slopes, rtol=1e-5, atol=1e-5)


def test_extreme_logits(small_pieces):
    """Logits of +-1e4 in different pieces: the running maximum moves, and nothing overflows."""
    matrix = torch.zeros(600, 1)
    matrix[0], matrix[300], matrix[599] = -1e4, 1e4, 1e4
    hidden = torch.ones(3, 1, requires_grad=True)
    found = target_logprobs(hidden, matrix, torch.tensor([0, 300, 599]))
    torch.testing.assert_close(found, torch.tensor([-2e4, 0, 0]) - torch.tensor(2.0).log(), rtol=1e-6, atol=1e-6)
    found.sum().backward()
    assert torch.isfinite(hidden.grad).all()


class Largest(TorchDispatchMode):
    """The most elements that any float32 tensor made by an operation has."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float32:
                self.elements = max(self.elements, tensor.numel())
        return out


def test_the_logits_are_never_stored(monkeypatch):
    """n = 300 tokens, v = 20,000, pieces of 2^17 logits: no float32 tensor has n v elements, or anywhere near.

    The largest is one piece, 300 x 436 logits; forward and backward.
    """
    monkeypatch.setattr(logprobs, "_PIECE", 2**17)
    hidden = torch.randn(300, 4, requires_grad=True)
    matrix, target = torch.randn(20_000, 4), torch.randint(0, 20_000, (300,))
    with Largest() as largest:
        target_logprobs(hidden, matrix, target).sum().backward()
    assert 300 * 256 <= largest.elements <= 2**17
    with Largest() as largest:
        (hidden @ matrix.T).log_softmax(-1)
    assert largest.elements == 300 * 20_000, "or the measurement would be blind"


def test_a_scorer_never_stores_them_either(make_model, random_adapter, monkeypatch):
    """The whole way, from ids to the adapters' gradients: 96 tokens, 8,000 words, at most the 8,000 x 32 head."""
    monkeypatch.setattr(logprobs, "_PIECE", 2**15)
    model = make_model("llama", vocab_size=8000)
    scorer = Scorer.of(model)
    tokens = scorer.pack([some_ids(9, 0)] * 4, [[some_ids(11, 1), some_ids(13, 2)]] * 4, pad=0)
    with (
        AdapterBank(model, {"a": random_adapter(model, 1)}, trainable=True) as bank,
        bank.rows([[1.0]]),
        Largest() as largest,
    ):
        scorer.logprobs(tokens).sum().backward()
    assert len(tokens.target) == 96
    assert largest.elements <= 8000 * 32 < 96 * 8000


def test_bf16(small_pieces):
    """bfloat16 in, float32 out: as log_softmax of the bfloat16 logits in float32, and never above 0.

    The target's own logit must be rounded as the others are, or a certain token gets log p = +0.06.
    """
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(200, 64, generator=generator).bfloat16()
    matrix = (torch.randn(1000, 64, generator=generator)).bfloat16()
    logits = (hidden @ matrix.T).float()
    for target in (logits.argmax(1), torch.randint(0, 1000, (200,), generator=generator)):
        found = target_logprobs(hidden, matrix, target)
        assert found.dtype == torch.float32
        assert found.max() <= 0
        expected = logits.log_softmax(-1).gather(1, target[:, None])[:, 0]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_bf16_model(llama):
    """A base in bfloat16 is within its own rounding of the float32 one, in either layout."""
    model = copy.deepcopy(llama).to(torch.bfloat16)
    scorer = Scorer.of(model)
    assert scorer.shares_prompt
    found = scorer.logprobs(scorer.pack(PROMPTS, RESPONSES, pad=0))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, all_by_hand(model), rtol=0.02, atol=0.05)


@torch.no_grad()
def test_an_adapter_on_the_output_layer_counts(llama, random_adapter):
    """A scorer made before the bank must not go round the bank's hook on lm_head."""
    scorer = Scorer.of(llama)
    adapter = random_adapter(llama, 1)
    generator = torch.Generator().manual_seed(0)
    head = type(adapter.layers["model.layers.0.mlp.up_proj"])(
        torch.randn(2, 32, generator=generator), torch.randn(96, 2, generator=generator), 0.5
    )
    adapter = type(adapter)({**adapter.layers, "lm_head": head}, (*adapter.target_modules, "lm_head"))
    with AdapterBank(llama, {"a": adapter}) as bank, bank.rows([[1.0]]):
        found = scorer.logprobs(scorer.pack(PROMPTS, RESPONSES, pad=0))
        torch.testing.assert_close(found, all_by_hand(llama), rtol=1e-5, atol=1e-5)


def test_layout():
    """Prompt 5 6, responses 7 2 and 8 2: one sequence, positions that both start at 2, and no sight of each other."""
    tokens = pack_shared([[5, 6], [9]], [[[7, 2], [8, 2]], []], pad=0)
    assert tokens.ids.tolist() == [[5, 6, 7, 2, 8, 2], [9, 0, 0, 0, 0, 0]]
    assert tokens.positions.tolist()[0] == [0, 1, 2, 3, 2, 3]
    assert tokens.target.tolist() == [7, 2, 8, 2]
    assert tokens.place.tolist() == [1, 2, 1, 4]
    assert tokens.owner.tolist() == [0, 0, 1, 1]
    assert tokens.responses == 2
    seen = tokens.attention_mask[0, 0].int().tolist()
    assert seen[3] == [1, 1, 1, 1, 0, 0]
    assert seen[5] == [1, 1, 0, 0, 1, 1]
    assert tokens.attention_mask.any(-1).all(), "a token that sees nothing would be NaN"
    one_each = pack_shared([[5, 6], [9]], [[[7, 2]], [[8]]], pad=0)
    assert one_each.attention_mask.tolist() == [[True] * 4, [True, True, False, False]]


def test_padding_may_be_any_token(llama):
    """The pad id is never attended to: EOS serves as well."""
    scorer = Scorer.of(llama)
    with torch.no_grad():
        values = [scorer.logprobs(scorer.pack(PROMPTS, RESPONSES, pad=pad)) for pad in (0, EOS, 50)]
    assert torch.equal(values[0], values[1])
    assert torch.equal(values[0], values[2])


@pytest.mark.parametrize("shares", [True, False])
def test_empty_prompt(llama, shares):
    """Without a token before it, the response's first token is predicted by nothing."""
    with pytest.raises(DataError, match=r"prompt 1 of the batch has no tokens.*BOS"):
        Scorer(llama, None, shares).pack([[5], []], [[[7, 2]], [[7, 2]]], pad=0)
