"""The bank under `generate` and under reduced precision."""

import copy

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from moalign.adapters import write_adapter
from moalign.bank import AdapterBank, RowPlan

MIXES = [{}, {"b": 1.0}, {"a": 0.2, "b": 0.5, "c": 0.3}, {"a": 1.5, "c": -0.5}]
PROMPTS = [[5, 6, 7, 8, 9], [11, 12], [13], [14, 15, 16]]


@pytest.fixture
def batch():
    """Four prompts of different lengths, padded on the left."""
    longest = max(map(len, PROMPTS))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in PROMPTS])
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def settings(**changes):
    return GenerationConfig(
        **{"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "eos_token_id": 2, **changes}
    )


def until_eos(ids):
    return ids[: ids.index(2) + 1] if 2 in ids else ids


@pytest.mark.parametrize("beams", [1, 3])
def test_generate_is_the_merged_models(model, adapters, merged, batch, beams):
    """Four trade-offs in one left-padded batch write the tokens that four merged models write, each by itself.

    With a KV cache, greedily and by beam search; two of three beams are returned.
    """
    config = settings(num_beams=beams, num_return_sequences=(beams + 1) // 2)
    with AdapterBank(model, adapters) as bank, bank.rows(torch.stack([bank.mixture(mix) for mix in MIXES])):
        found = model.generate(**batch, generation_config=config)[:, 5:].tolist()
    expected = []
    for prompt, mix in zip(PROMPTS, MIXES, strict=True):
        alone = torch.tensor([prompt])
        out = merged(model, adapters, mix).generate(
            input_ids=alone, attention_mask=torch.ones_like(alone), generation_config=config
        )
        expected += out[:, len(prompt) :].tolist()
    assert [until_eos(ids) for ids in found] == [until_eos(ids) for ids in expected]
    assert len({tuple(ids) for ids in found}) == len(found), "the rows must make a difference"


def test_num_return_sequences_keeps_the_rows(model, adapters, merged, batch):
    """Sampled three times per prompt: the logits behind every token are those of the merged model of its row."""
    config = settings(do_sample=True, num_return_sequences=3, max_new_tokens=5, eos_token_id=None)
    torch.manual_seed(0)
    with AdapterBank(model, adapters) as bank, bank.rows(torch.stack([bank.mixture(mix) for mix in MIXES])):
        out = model.generate(**batch, generation_config=config, output_logits=True, return_dict_in_generate=True)
    found = torch.stack(out.logits, dim=1)  # (sequences, tokens, vocabulary)
    for number, mix in enumerate(MIXES):
        mine = slice(3 * number, 3 * number + 3)
        length = len(PROMPTS[number])
        whole = out.sequences[mine, 5 - length : -1]
        with torch.no_grad():
            expected = merged(model, adapters, mix)(input_ids=whole).logits[:, length - 1 :]
        torch.testing.assert_close(found[mine], expected, rtol=1e-4, atol=1e-4)


def test_bf16_autocast_is_pefts(model, adapters, ids, load_with_peft, tmp_path):
    """Under autocast the bank rounds where PEFT rounds; only the scale comes before B here, and after B there.

    With a scale of 2 (adapter a) that makes no difference at all; with 1.5 (b) both are equally far from float32.
    """
    for name in "ab":
        write_adapter(adapters[name], tmp_path / name, "base")
        theirs = load_with_peft(model, tmp_path / name)
        with AdapterBank(model, adapters) as bank, bank.rows(bank.one_hot([name])), torch.no_grad():
            exact = model(input_ids=ids).logits
            with torch.autocast("cpu", torch.bfloat16):
                found = model(input_ids=ids).logits.float()
                expected = theirs(input_ids=ids).logits.float()
        if name == "a":
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
        assert (found - exact).abs().mean() < 1.2 * (expected - exact).abs().mean()
        assert 1e-3 < (found - exact).abs().max() < 0.2, "autocast must have been on"


def test_bf16_base_with_float32_adapters(model, adapters, ids, load_with_peft, tmp_path):
    """A base in bfloat16: the deltas are computed in float32, and the sum is rounded once, as PEFT does."""
    model = copy.deepcopy(model).to(torch.bfloat16)
    for name, adapter in adapters.items():
        write_adapter(adapter, tmp_path / name, "base")
        theirs = load_with_peft(model, tmp_path / name)
        with AdapterBank(model, adapters) as bank, bank.rows(bank.one_hot([name])), torch.no_grad():
            assert all(parameter.dtype == torch.float32 for parameter in bank.parameters())
            found = model(input_ids=ids).logits
        with torch.no_grad():
            expected = theirs(input_ids=ids).logits
        assert found.dtype == torch.bfloat16
        assert (found == expected).float().mean() > 0.99


def test_autocast_does_not_round_the_row(llama, random_adapter):
    """bfloat16(2/3) is 1.002 times too large; a row of 1/3 must still be a third of a row of 1, on both paths."""
    with AdapterBank(llama, {name: random_adapter(llama, ord(name)) for name in "ab"}) as bank:
        layer = bank.layers["model.layers.0.mlp.up_proj"]
        x = torch.randn(6, 300, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
        for row in (np.array([[1.0, 0.0]], np.float32), np.array([[1.0, 1.0]], np.float32)):
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                whole = RowPlan.of(row).change(layer, x).float()
                third = RowPlan.of(row / 3).change(layer, x).float()
            assert 3 * (third * whole).sum() / whole.square().sum() == pytest.approx(1, abs=3e-4)
