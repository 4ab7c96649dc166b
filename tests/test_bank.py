"""The bank against PEFT, against merged weights, and against itself: one row at a time."""

import math

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from moalign.adapters import Adapter, LowRank, write_adapter
from moalign.bank import AdapterBank, RowPlan
from moalign.errors import AdapterError

ROWS = {
    "one-hot": {"b": 1.0},
    "convex": {"a": 0.2, "b": 0.5, "c": 0.3},
    "negative": {"a": 1.5, "c": -0.5},
    "two": {"a": 2.0},
}


@pytest.fixture
def bank(model, adapters):
    with AdapterBank(model, adapters) as bank:
        yield bank


@torch.no_grad()
def logits(model, ids):
    return model(input_ids=ids).logits


@pytest.fixture
def peft_model(load_with_peft, tmp_path):
    """An adapter written to a folder, and a copy of the model with it as PEFT reads it."""

    def build(model, name, adapter, **options):
        write_adapter(adapter, tmp_path / name, "base")
        return load_with_peft(model, tmp_path / name, **options)

    return build


def test_one_hot_row_is_the_adapter_loaded_by_peft(model, adapters, bank, ids, peft_model):
    """Written to a PEFT folder and read by PEFT itself, each adapter gives the logits of its one-hot row."""
    for name, adapter in adapters.items():
        expected = logits(peft_model(model, name, adapter), ids)
        with bank.rows(bank.one_hot([name] * len(ids))):
            torch.testing.assert_close(logits(model, ids), expected, rtol=0, atol=1e-5)
        assert (expected - logits(model, ids)).abs().max() > 0.5, "the adapter must matter, or this shows nothing"


def test_zero_row_is_the_base_bit_for_bit(model, bank, ids):
    """Alone, and beside one-hot rows and mixtures in one batch, where the delta is added as an exact 0."""
    base = logits(model, ids)
    with bank.rows(torch.zeros(len(ids), 3)):
        assert torch.equal(logits(model, ids), base)
    for other in ([0, 1, 0], [0.3, 0.3, 0.4]):
        rows = torch.tensor([[0, 0, 0], other, [0, 0, 0], [0, 0, 0], other, [0, 0, 0]])
        with bank.rows(rows):
            found = logits(model, ids)
        zero = ~rows.any(1)
        assert torch.equal(found[zero], base[zero])
        assert (found[~zero] - base[~zero]).abs().amax((1, 2)).min() > 0.1


@pytest.mark.parametrize("weights", ROWS.values(), ids=ROWS)
def test_row_is_the_summed_deltas_merged_into_the_weights(model, adapters, bank, merged, ids, weights):
    """W + sum_k w_k dW_k, whatever the sign and the sum; for GPT-2 the delta is transposed, as Conv1D stores W."""
    expected = logits(merged(model, adapters, weights), ids)
    with bank.rows(bank.mixture(weights)[None]):
        torch.testing.assert_close(logits(model, ids), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mixed", [True, False])
def test_every_row_of_a_mixed_batch_is_that_row_alone(model, bank, ids, mixed):
    """Zero, one-hot, convex and negative rows in one batch do not touch each other; nor do six sizes of one adapter."""
    many = [{}, *ROWS.values(), {"c": -1.0}] if mixed else [{"b": size} for size in (1.0, 0.5, 0.5, 0.2, -1.0, 2.0)]
    rows = torch.stack([bank.mixture(weights) for weights in many])
    with bank.rows(rows):
        together = logits(model, ids)
    for number, row in enumerate(rows):
        with bank.rows(row[None]):
            alone = logits(model, ids[number : number + 1])
        torch.testing.assert_close(together[number : number + 1], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("names", ["abcabc", "aaabbc", "abbbbb", "cbacba", "cccccc"])
def test_one_hot_rows_in_any_order(model, bank, ids, names):
    """Groups may be uneven, interleaved or absent: each sequence still sees its own adapter."""
    with bank.rows(bank.one_hot(list(names))):
        found = logits(model, ids)
    for name in set(names):
        mine = [number for number, other in enumerate(names) if other == name]
        with bank.rows(bank.one_hot([name])):
            torch.testing.assert_close(found[mine], logits(model, ids[mine]), rtol=1e-5, atol=1e-5)


def test_peft_linear_is_not_the_convex_row(llama, random_adapter, ids, peft_model, tmp_path):
    """PEFT's `linear` adds factors: (sum sqrt(w s) B)(sum sqrt(w s) A) = sum_k w_k dW_k + cross terms B_i A_j.

    At .5/.5 with independent adapters the cross terms are as large as the deltas themselves. Whoever replaces the
    bank's rows, or a soup, by `linear` makes this test fail; `cat` (factors side by side) is exact.
    """
    adapters = {name: random_adapter(llama, seed) for name, seed in (("a", 1), ("b", 2))}
    model = peft_model(llama, "a", adapters["a"], adapter_name="a")
    write_adapter(adapters["b"], tmp_path / "b", "base")
    model.load_adapter(tmp_path / "b", "b")
    for kind in ("linear", "cat"):
        model.add_weighted_adapter(["a", "b"], [0.5, 0.5], kind, combination_type=kind)
    layer = "model.layers.0.mlp.up_proj"
    module = model.base_model.model.get_submodule(layer)
    exact = 0.5 * sum(adapter.layers[layer].delta() for adapter in adapters.values())
    error = {kind: (module.get_delta_weight(kind) - exact).norm() / exact.norm() for kind in ("linear", "cat")}
    assert error["linear"] > 0.7
    assert error["cat"] < 1e-5
    with AdapterBank(llama, adapters) as bank, bank.rows([[0.5, 0.5]]):
        found = logits(llama, ids)
    model.set_adapter("cat")
    torch.testing.assert_close(found, logits(model, ids), rtol=1e-5, atol=1e-5)
    model.set_adapter("linear")
    assert (found - logits(model, ids)).abs().max() > 0.5


def flops(model, ids, bank=None, rows=None):
    with FlopCounterMode(display=False) as counter:
        if bank is None:
            logits(model, ids)
        else:
            with bank.rows(rows):
                logits(model, ids)
    return counter.get_total_flops()


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_one_hot_rows_cost_one_adapter_each(models, architecture, random_adapter, ids):
    """Counted: with K = 6 adapters, one-hot rows cost what one adapter costs, and mixtures K times as much.

    Zero rows cost nothing when all are zero; a scaled one-hot row, uneven groups and absent adapters are cheap too.
    """
    model = models[architecture]
    adapters = {str(seed): random_adapter(model, seed) for seed in range(6)}
    with AdapterBank(model, {"0": adapters["0"]}) as bank:
        one = flops(model, ids, bank, torch.ones(6, 1))
    base = flops(model, ids)
    with AdapterBank(model, adapters) as bank:
        assert flops(model, ids, bank, torch.zeros(6, 6)) == base
        for names in ("012345", "543210", "000111", "001111", "222222"):
            assert flops(model, ids, bank, 0.5 * bank.one_hot(list(names))) == one
        assert flops(model, ids, bank, torch.ones(6, 6)) - base == 6 * (one - base)
        two = torch.zeros(6, 6)
        two[:, [1, 4]] = 0.5
        assert flops(model, ids, bank, two) - base == 2 * (one - base)


def test_row_plan():
    """Segments are as long as the groups' greatest common divisor allows; a zero row is an adapter with factor 0."""
    eye = np.eye(3)
    assert RowPlan.of(np.zeros((4, 3))) is None
    plan = RowPlan.of(eye[[0, 0, 0, 0, 2, 2]])
    assert plan is not None
    assert plan.single == (0, 0, 2)
    plan = RowPlan.of(np.stack([0 * eye[0], 0 * eye[0], -0.5 * eye[2], -0.5 * eye[2]]))
    assert plan is not None
    assert plan.factors.tolist() == [0, -0.5]
    plan = RowPlan.of(np.array([[0, 0.5, 0.5], [0, 0, 1]]))
    assert plan is not None
    assert (plan.single, plan.active) == (None, (1, 2))


def test_adapters_come_out_as_they_went_in(model, adapters, bank):
    """The zeros that pad smaller ranks, and the layers an adapter lacks, are not part of the copy."""
    for name, adapter in adapters.items():
        found = bank.adapter(name)
        assert found.layers.keys() == adapter.layers.keys()
        assert found.target_modules == adapter.target_modules
        for layer, delta in adapter.layers.items():
            assert torch.equal(found.layers[layer].A, delta.A)
            assert torch.equal(found.layers[layer].B, delta.B)
            assert found.layers[layer].scale == delta.scale


def test_rows_nest_and_end(llama, random_adapter, ids):
    """An inner block hides the outer one, an exception ends it, and outside of all the model is the base."""
    base = logits(llama, ids)
    with AdapterBank(llama, {"a": random_adapter(llama, 1)}) as bank:
        with bank.rows([[1.0]]):
            adapted = logits(llama, ids)
            with bank.rows([[0.0]]):
                assert torch.equal(logits(llama, ids), base)
            assert torch.equal(logits(llama, ids), adapted)
        with pytest.raises(ZeroDivisionError), bank.rows([[1.0]]):
            raise ZeroDivisionError
        assert torch.equal(logits(llama, ids), base)


def test_close_leaves_the_model_untouched(model, adapters, ids):
    """After `close` there are no hooks and the logits are the base's; rows of a closed bank are refused."""
    base = logits(model, ids)
    bank = AdapterBank(model, adapters)
    bank.close()
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(logits(model, ids), base)
    with pytest.raises(AdapterError, match="this bank is closed"), bank.rows([[1.0, 0.0, 0.0]]):
        pass


def test_two_banks_on_one_model(model, adapters, merged, ids):
    """Each bank adds its own deltas to the same base: rows of one do not move the other."""
    first, second = {"a": adapters["a"]}, {"b": adapters["b"], "c": adapters["c"]}
    with AdapterBank(model, first) as one, AdapterBank(model, second) as two:
        with one.rows([[1.0]]), two.rows([[0.0, 0.5]]):
            both = logits(model, ids)
        with two.rows([[1.0, 0.0]]):
            alone = logits(model, ids)
    torch.testing.assert_close(both, logits(merged(model, adapters, {"a": 1.0, "c": 0.5}), ids), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(alone, logits(merged(model, adapters, {"b": 1.0}), ids), rtol=1e-5, atol=1e-5)


def test_rows_serve_neighbours(llama, random_adapter, ids):
    """Two rows on six sequences are three neighbours each; five rows on six sequences are a mistake."""
    with AdapterBank(llama, {"a": random_adapter(llama, 1), "b": random_adapter(llama, 2)}) as bank:
        for rows in (np.eye(2), np.array([[0.5, 0.5], [1, -1]])):
            with bank.rows(rows):
                found = logits(llama, ids)
            with bank.rows(rows.repeat(3, axis=0)):
                torch.testing.assert_close(found, logits(llama, ids))
        with bank.rows(torch.ones(5, 2)), pytest.raises(AdapterError, match="6 sequences cannot share 5 rows"):
            logits(llama, ids)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (torch.tensor([1.0, 0.0]), r"shape \(2,\); expected \(sequences, 2\)"),
        ([[1.0, 0.0, 0.0]], r"shape \(1, 3\); expected \(sequences, 2\), one weight for each of helpful, brief"),
        (np.zeros((0, 2)), r"shape \(0, 2\)"),
        ([[math.nan, 1.0]], "NaN or infinity"),
        ([[math.inf, 1.0]], "NaN or infinity"),
    ],
)
def test_rows_that_are_refused(llama, random_adapter, row, message):
    adapters = {"helpful": random_adapter(llama, 1), "brief": random_adapter(llama, 2)}
    with (
        AdapterBank(llama, adapters) as bank,
        pytest.raises(AdapterError, match=message),
        bank.rows(row),
    ):
        pass


def test_unknown_names(llama, random_adapter):
    """The near name is suggested, for rows and for layers."""
    adapters = {"helpful": random_adapter(llama, 1), "brief": random_adapter(llama, 2)}
    with AdapterBank(llama, adapters) as bank:
        for call in (
            lambda: bank.one_hot(["helpfull"]),
            lambda: bank.mixture({"helpfull": 1.0}),
            lambda: bank.adapter("helpfull"),
        ):
            with pytest.raises(AdapterError, match="unknown adapter 'helpfull'; did you mean 'helpful'"):
                call()


@pytest.mark.parametrize(
    ("layer", "out", "into", "message"),
    [
        (
            "model.layers.0.self_attn.q_prj",
            32,
            32,
            "did you mean 'model.layers.0.self_attn.q_proj'.*another base model",
        ),
        ("model.layers.0.self_attn.q_proj", 32, 16, "is 32 x 32 in this base model and 32 x 16 in the adapter"),
        ("model.layers.0.self_attn.q_proj", 64, 32, "is 32 x 32 in this base model and 64 x 32 in the adapter"),
        ("model.embed_tokens", 96, 32, "is a Embedding; the bank adapts nn.Linear and Conv1D"),
    ],
)
def test_adapters_that_do_not_fit(llama, layer, out, into, message):
    """A bank that cannot be built leaves nothing behind on the model."""
    good = {"model.layers.1.mlp.up_proj": LowRank(torch.ones(2, 32), torch.ones(48, 2), 1.0)}
    adapter = Adapter({**good, layer: LowRank(torch.ones(2, into), torch.ones(out, 2), 1.0)}, ("q_proj",))
    with pytest.raises(AdapterError, match=message):
        AdapterBank(llama, {"a": adapter})
    assert not any(module._forward_hooks for module in llama.modules())
    with pytest.raises(AdapterError, match="at least one adapter"):
        AdapterBank(llama, {})
