"""Gradients through the bank: PEFT's own, exactly zero elsewhere, and right to second order."""

import copy
import math

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import CheckpointError

from moalign.adapters import write_adapter
from moalign.bank import AdapterBank


@pytest.mark.parametrize("names", ["aaabbb", "abcabc"])
def test_gradients_are_pefts_and_stop_at_the_other_adapters(model, adapters, ids, names, load_with_peft, tmp_path):
    """dL/dA and dL/dB of each adapter are those PEFT computes on its sequences alone; elsewhere exactly 0."""
    with AdapterBank(model, adapters, trainable=True) as bank:
        with bank.rows(bank.one_hot(list(names))):
            cross_entropy(model(input_ids=ids).logits.flatten(0, 1), ids.flatten(), reduction="sum").backward()
        for k, name in enumerate(adapters):
            mine = [number for number, other in enumerate(names) if other == name]
            if not mine:
                for parameter in bank.parameters():
                    assert parameter.grad is not None
                    assert not parameter.grad[k].any()
                continue
            write_adapter(adapters[name], tmp_path / name, "base")
            theirs = load_with_peft(model, tmp_path / name, is_trainable=True)
            out = theirs(input_ids=ids[mine]).logits
            cross_entropy(out.flatten(0, 1), ids[mine].flatten(), reduction="sum").backward()
            for layer, delta in adapters[name].layers.items():
                module = theirs.base_model.model.get_submodule(layer)
                ours, rank = bank.layers[layer], delta.rank
                expected = module.lora_A.default.weight.grad, module.lora_B.default.weight.grad.T
                for grad, want in zip((ours.A.grad[k], ours.B.grad[k]), expected, strict=True):
                    torch.testing.assert_close(grad[:rank], want, rtol=1e-4, atol=1e-4)
                    assert not grad[rank:].any(), "the padding of a smaller rank learns nothing"
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    "rows", [[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [[0.3, -0.7, 1.2], [0.5, 0.5, 0.0]]], ids=["one-hot", "dense"]
)
def test_gradients_by_finite_differences(models, random_adapter, ids, rows):
    """(L(theta + h d) - L(theta - h d)) / 2h equals grad L . d, in double precision, on both paths."""
    model = copy.deepcopy(models["gpt2"]).double()
    adapters = {str(seed): random_adapter(model, seed, rank=seed) for seed in (1, 2, 3)}
    generator = torch.Generator().manual_seed(0)
    with AdapterBank(model, adapters, trainable=True) as bank:
        for layer in bank.layers.values():
            layer.double()

        def loss():
            with bank.rows(rows):
                return cross_entropy(model(input_ids=ids[:2]).logits.flatten(0, 1), ids[:2].flatten())

        loss().backward()
        start = [parameter.detach().clone() for parameter in bank.parameters()]
        step = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in start]
        slope = sum((p.grad * d).sum() for p, d in zip(bank.parameters(), step, strict=True))
        values = []
        with torch.no_grad():
            for sign in (1e-6, -1e-6):
                for parameter, value, direction in zip(bank.parameters(), start, step, strict=True):
                    parameter.copy_(value + sign * direction)
                values.append(loss())
    assert math.isclose((values[0] - values[1]) / 2e-6, slope, rel_tol=1e-6)


def test_gradient_checkpointing_inside_rows(llama, random_adapter, ids):
    """The forward pass that checkpointing repeats must see the rows again; outside the block it fails, loudly."""
    model = copy.deepcopy(llama).train()
    rows = torch.tensor([[1.0, 0], [0, 1], [0.5, 0.5], [0, 0], [1, 0], [0, -1]])
    with AdapterBank(model, {"a": random_adapter(model, 1), "b": random_adapter(model, 2)}, trainable=True) as bank:

        def gradients():
            with bank.rows(rows):
                model(input_ids=ids).logits.square().mean().backward()
            found = [parameter.grad for parameter in bank.parameters()]
            for parameter in bank.parameters():
                parameter.grad = None
            return found

        expected = gradients()
        model.activation_checkpointing_enable({"use_reentrant": False})
        for found, want in zip(gradients(), expected, strict=True):
            torch.testing.assert_close(found, want)
        with bank.rows(rows):
            loss = model(input_ids=ids).logits.square().mean()
        with pytest.raises(CheckpointError):
            loss.backward()
