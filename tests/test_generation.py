"""A text depends on its own seed and on nothing else, and is drawn from softmax(logits / T)."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from transformers import GenerationConfig

from moalign.adapters import Adapter
from moalign.bank import AdapterBank
from moalign.errors import BaseModelError, DataError
from moalign.generation import SeededSampling, generate, uniforms
from moalign.models import BaseModel

PROMPTS = [[5, 6, 7], [9], [20, 21, 22, 23, 24, 25], [3, 4]]


@pytest.fixture
def base(llama: Any, tokenizer: Any) -> BaseModel:
    return BaseModel("tiny", llama, tokenizer, "digest")


@pytest.fixture
def bank(llama: Any, random_adapter: Callable[..., Adapter]) -> Any:
    with AdapterBank(llama, {"a": random_adapter(llama, 1), "b": random_adapter(llama, 2)}) as bank:
        yield bank


ROWS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.0, 0.0]])


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_tokens_are_drawn_from_the_tempered_distribution(temperature: float) -> None:
    """10,000 seeds, 5 tokens, one of them impossible: a chi-square test at 1 in 1,000 on fixed seeds."""
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0, -torch.inf])
    count = 10_000
    sampling = SeededSampling(uniforms(range(count), 1), temperature)
    drawn = Counter(sampling(torch.zeros(count, 1), logits.repeat(count, 1)).argmax(-1).tolist())
    expected = count * torch.softmax(logits[:4] / temperature, 0)
    assert drawn[4] == 0
    assert chisquare([drawn[token] for token in range(4)], expected.double().numpy(), sum_check=False).pvalue > 1e-3


def test_each_step_has_its_own_draw() -> None:
    """Of one seed, the second number is not the first: independent to within 3 of the 1/sqrt(n) correlations."""
    numbers = uniforms(range(4000), 2)
    assert abs(torch.corrcoef(numbers.T)[0, 1]) < 3 / 4000**0.5
    sampling, logits = SeededSampling(numbers, 1.0), torch.zeros(4000, 10)
    for step in range(2):  # ten equally likely tokens: the number's first digit
        drawn = sampling(torch.zeros(4000, 1), logits).argmax(-1)
        assert torch.equal(drawn, (10 * numbers[:, step]).long())


def test_the_drawn_token_is_the_only_one_left() -> None:
    out = SeededSampling(uniforms([7], 1), 1.0)(torch.zeros(1, 1), torch.randn(1, 50))
    assert torch.isfinite(out).sum() == 1


def test_the_largest_uniform_number_still_draws_a_possible_token() -> None:
    """The cumulative sum may end below 1 by rounding; u just below 1 must not fall off the end, nor on p = 0."""
    sampling = SeededSampling(torch.full((1, 1), 1 - 2**-53, dtype=torch.float64), 1.0)
    logits = torch.full((1, 1000), 0.1)
    logits[0, -1] = -torch.inf
    assert sampling(torch.zeros(1, 1), logits).argmax() == 998


def said(base: BaseModel, bank: AdapterBank | None, which: list[int], **options: Any) -> list[list[int]]:
    return generate(
        base,
        bank,
        ROWS[which] if bank is not None else None,
        [PROMPTS[i] for i in which],
        seeds=[100 + i for i in which],
        **{"max_new_tokens": 12, **options},
    )


def test_a_response_does_not_depend_on_its_batch(base: BaseModel, bank: AdapterBank) -> None:
    """Prompts of 1 to 6 tokens share a batch by left padding; each alone says the same."""
    together = said(base, bank, [0, 1, 2, 3])
    assert len({tuple(response) for response in together}) == 4
    assert said(base, bank, [2, 0]) == [together[2], together[0]]
    assert [said(base, bank, [i])[0] for i in range(4)] == together


def test_a_prompt_that_stands_several_times_is_read_once(
    model: Any, tokenizer: Any, random_adapter: Callable[..., Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three prompts of 2 to 6 tokens for two adapters, four texts each: 6 sequences are read, not 24, and the texts are
    those of one by one. With a sliding window, and with a prompt of one token, all are read as they stand."""
    base = BaseModel("tiny", model, tokenizer, "digest")
    prompts = [PROMPTS[i] for i in (0, 2, 3) for _ in range(4)] * 2
    with AdapterBank(model, {"a": random_adapter(model, 1), "b": random_adapter(model, 2)}) as bank:
        rows = bank.one_hot(["a"] * 12 + ["b"] * 12)
        expected = [
            generate(base, bank, rows[[i]], [prompt], seeds=[i], max_new_tokens=10)[0]
            for i, prompt in enumerate(prompts)
        ]
        read: list[tuple[int, ...]] = []
        hook = model.get_decoder().register_forward_pre_hook(
            lambda _, args, given: read.append(tuple((given.get("input_ids") if not args else args[0]).shape)),
            with_kwargs=True,
        )
        try:
            found = generate(base, bank, rows, prompts, seeds=range(24), max_new_tokens=10)
            windowed = getattr(model.config, "sliding_window", None) is not None
            assert read[:2] == ([(24, 6), (24, 1)] if windowed else [(6, 5), (24, 1)])
            read.clear()
            generate(base, bank, rows[:2], [[9], [9]], seeds=[1, 2], max_new_tokens=1)
            assert read[0] == (2, 1)
        finally:
            hook.remove()
    assert found == expected


def test_a_zero_row_says_what_the_base_says(base: BaseModel, bank: AdapterBank) -> None:
    assert said(base, bank, [3]) == said(base, None, [3])


def test_the_same_seed_says_the_same_and_another_does_not(base: BaseModel, bank: AdapterBank) -> None:
    texts = [generate(base, bank, ROWS[[2]], [PROMPTS[0]], seeds=[seed], max_new_tokens=12)[0] for seed in (1, 1, 2, 3)]
    assert texts[0] == texts[1]
    assert len({tuple(text) for text in texts}) == 3


def test_a_low_temperature_is_greedy(base: BaseModel) -> None:
    (found,) = generate(base, None, None, [PROMPTS[0]], seeds=[1], max_new_tokens=8, temperature=1e-6)
    ids = torch.tensor([PROMPTS[0]])
    for token in found:
        assert base.model(input_ids=ids).logits[0, -1].argmax() == token
        ids = torch.cat([ids, torch.tensor([[token]])], dim=1)


def test_a_response_ends_with_its_first_eos(base: BaseModel) -> None:
    """Token 2 ends a response and is part of it; what fills the batch up behind it is not."""
    found = generate(base, None, None, [PROMPTS[0]] * 40, seeds=range(40), max_new_tokens=60, temperature=3.0)
    ended = [response for response in found if 2 in response]
    assert ended
    assert all(response.index(2) == len(response) - 1 for response in ended)
    assert all(len(response) == 60 for response in found if 2 not in response)


def test_a_prompt_without_room_is_refused(base: BaseModel) -> None:
    """The tiny Llama reads 128 positions: 6 of the prompt and 123 new ones are one too many."""
    assert len(said(base, None, [2], max_new_tokens=122)) == 1
    with pytest.raises(BaseModelError, match="a prompt of 6 tokens and 123 new ones exceed the 128 positions of tiny"):
        said(base, None, [2], max_new_tokens=123)


def test_an_empty_prompt_is_refused(base: BaseModel) -> None:
    with pytest.raises(DataError, match="a prompt has no tokens"):
        generate(base, None, None, [[5], []], seeds=[0, 1], max_new_tokens=2)


def test_the_models_own_generation_settings_do_not_change_the_policy(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is sampled must be the distribution whose log-probabilities are taken."""
    expected = said(base, None, [0, 1, 2, 3])
    own = GenerationConfig(
        temperature=0.1,
        do_sample=True,
        top_k=1,
        top_p=0.1,
        min_p=0.5,
        repetition_penalty=5.0,
        no_repeat_ngram_size=1,
        min_new_tokens=12,
        suppress_tokens=expected[0][:1],
        num_beams=3,
        eos_token_id=2,
        pad_token_id=0,
    )
    monkeypatch.setattr(base.model, "generation_config", own)
    assert said(base, None, [0, 1, 2, 3]) == expected
