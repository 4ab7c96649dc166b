"""Plans: prepared once for many passes, however many tokens; and what layers that read one input share."""

import copy
import gc
import weakref
from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from moalign.adapters import Adapter, LowRank
from moalign.bank import AdapterBank
from moalign.errors import AdapterError

MIXES = [{}, {"b": 1.0}, {"a": 0.2, "b": 0.5, "c": 0.3}, {"a": 1.5, "c": -0.5}, {"b": -2.0}, {"c": 1.0}]
ROWS = {"mixed": MIXES, "one-hot": [{}, {"b": 0.5}, {"c": 1.0}, {"a": 2.0}, {"b": 0.5}, {"c": 1.0}]}


@torch.no_grad()
def logits(model, ids):
    return model(input_ids=ids).logits


@pytest.mark.parametrize("many", ROWS.values(), ids=ROWS)
def test_one_plan_serves_passes_of_any_shape(model, adapters, merged, ids, many):
    """One token or nine, six sequences or twelve, in turns: each sequence has the logits of its own merged model.

    A row of zeros has those of the base bit for bit.
    """
    with AdapterBank(model, adapters) as bank:
        plan = bank.prepare(torch.stack([bank.mixture(mix) for mix in many]))
        expected = [logits(merged(model, adapters, mix), ids[[number]]) for number, mix in enumerate(many)]
        for tokens, copies in ((1, 1), (9, 1), (1, 2), (2, 1), (1, 1), (9, 2)):
            batch = ids[:, :tokens].repeat_interleave(copies, dim=0)
            with bank.rows(plan):
                found = logits(model, batch)
            want = torch.cat(expected)[:, :tokens].repeat_interleave(copies, dim=0)
            torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-5)
            zero = [number for number, mix in enumerate(many) for _ in range(copies) if not mix]
            assert torch.equal(found[:copies], logits(model, batch)[: len(zero)])


def test_prepare_takes_and_refuses_what_rows_does(llama, random_adapter, ids):
    """A plan is as good as its rows, also when the caller changes these later; zero rows need none."""
    adapters = {name: random_adapter(llama, ord(name)) for name in "ab"}
    with AdapterBank(llama, adapters) as bank, AdapterBank(llama, {"a": adapters["a"]}) as other:
        assert bank.prepare(np.zeros((6, 2))) is None
        with bank.rows(None):
            assert torch.equal(logits(llama, ids), logits(copy.deepcopy(llama), ids))
        rows = np.array([[0.5, 0.5]], np.float32)
        plan = bank.prepare(rows)
        with bank.rows(rows.tolist()):
            expected = logits(llama, ids)
        rows[:] = 0
        with bank.rows(plan):
            assert torch.equal(logits(llama, ids), expected)
        with pytest.raises(AdapterError, match="NaN or infinity"):
            bank.prepare([[1.0, float("nan")]])
        with pytest.raises(AdapterError, match=r"shape \(1, 3\); expected \(sequences, 2\)"):
            bank.prepare([[1.0, 0.0, 0.0]])
        with pytest.raises(AdapterError, match="for rows of 2 adapters; this bank has 1"), other.rows(plan):
            pass
        with pytest.raises(AdapterError, match="3 sequences cannot share 2 rows"), bank.rows(bank.prepare(np.eye(2))):
            logits(llama, ids[:3, :1])


def count_products(monkeypatch, run):
    """How many products of first factors a run makes, by the number of columns."""
    widths, real = Counter(), torch.mm

    def mm(x, y, **options):
        widths[y.shape[1]] += 1
        return real(x, y, **options)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "mm", mm)
        run()
    return dict(widths)


def test_layers_that_read_one_input_share_a_product(llama, random_adapter, ids, monkeypatch):
    """Learnt in the first pass: of the seven layers of a block q, k, v become one, and gate and up; K r = 8 each.

    The logits stay those of the first pass, where every layer computed by itself.
    """
    adapters = {name: random_adapter(llama, ord(name)) for name in "ab"}
    blocks = llama.config.num_hidden_layers
    with AdapterBank(llama, adapters) as bank, bank.rows([[0.4, 0.6]]):
        first = logits(llama, ids)
        assert count_products(monkeypatch, lambda: logits(llama, ids)) == {24: blocks, 16: blocks, 8: 2 * blocks}
        torch.testing.assert_close(logits(llama, ids), first, rtol=1e-6, atol=1e-6)
        names = {layer: name.rpartition(".")[2] for name, layer in bank.layers.items()}
        groups = {tuple(names[member] for member in layer.group) for layer in bank.layers.values()}
        assert groups == {("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",)}


def add_one(_module, args):
    args[0].add_(1)


@pytest.mark.parametrize(
    ("learnt", "mode"), [(True, torch.no_grad), (False, torch.no_grad), (False, torch.inference_mode)]
)
def test_an_input_that_changes_on_the_way_is_not_shared(llama, random_adapter, merged, ids, learnt, mode):
    """A hook adds 1 to k's input in place: the same tensor as q's, with other numbers, and so it is for v.

    A tensor of inference mode does not count its changes: there it is seen as long as groups are being learnt.
    """
    adapters = {name: random_adapter(llama, ord(name)) for name in "ab"}
    base, mix = copy.deepcopy(llama), {"a": 0.4, "b": 0.6}
    expected = merged(llama, adapters, mix)
    with AdapterBank(base, adapters) as bank, bank.rows([list(mix.values())]), mode():
        if learnt:
            base(input_ids=ids)
        for model in (base, expected):
            model.model.layers[0].self_attn.k_proj.register_forward_pre_hook(add_one)
        for _ in range(2):
            found, want = base(input_ids=ids).logits, expected(input_ids=ids).logits
            torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [[[0.4, 0.6]], [[0.0, 1.0], [1.0, 0.0]]], ids=["dense", "one-hot"])
def test_a_bank_made_in_inference_mode_can_be_trained(llama, random_adapter, ids, rows):
    """Serve in inference mode, then score without gradients, then learn with the same plan: as a fresh bank does."""
    adapters = {name: random_adapter(llama, ord(name)) for name in "ab"}
    found = []
    for served in (True, False):
        model = copy.deepcopy(llama)
        with torch.inference_mode(served):
            bank = AdapterBank(model, adapters, trainable=True)
            plan = bank.prepare(rows)
            if served:
                with bank.rows(plan):
                    in_inference = model(input_ids=ids).logits
        with bank, bank.rows(plan):
            scored = logits(model, ids)
            cross_entropy(model(input_ids=ids).logits.flatten(0, 1), ids.flatten()).backward()
        found.append([parameter.grad for parameter in bank.parameters()])
        torch.testing.assert_close(in_inference, scored, rtol=1e-6, atol=1e-6)
    for ours, want in zip(*found, strict=True):
        assert want.any()
        torch.testing.assert_close(ours, want)


def test_gradients_pass_through_a_frozen_bank_that_has_served(llama, random_adapter, ids):
    """To the embeddings, as from a bank that has not: its factors were moved in inference mode."""
    found = []
    for served in (True, False):
        adapters = {name: random_adapter(llama, ord(name)) for name in "ab"}
        with AdapterBank(llama, adapters) as bank, bank.rows([[0.4, 0.6]]):
            if served:
                with torch.inference_mode():
                    llama(input_ids=ids)
            x = llama.get_input_embeddings()(ids).detach().requires_grad_()
            llama(inputs_embeds=x).logits.square().mean().backward()
        found.append(x.grad)
    assert found[1].any()
    torch.testing.assert_close(*found)


def test_an_adapter_with_nan_reaches_only_those_who_ask_for_it(llama, random_adapter, ids):
    """0 times NaN is NaN: eight sequences write a token each, and only the two with the broken adapter break."""
    adapters = {name: random_adapter(llama, ord(name)) for name in "abc"}
    broken = {
        name: LowRank(torch.full_like(layer.A, torch.nan), layer.B, layer.scale)
        for name, layer in adapters["c"].layers.items()
    }
    names = list("abcabcab")
    batch = torch.cat([ids, ids])[:8, :1]
    with AdapterBank(llama, adapters) as bank, bank.rows(bank.one_hot(names)):
        expected = logits(llama, batch)
    with AdapterBank(llama, {**adapters, "c": Adapter(broken, adapters["c"].target_modules)}) as bank:
        with bank.rows(bank.one_hot(names)):
            found = logits(llama, batch)
        with bank.rows([[0.5, 0.5, 0.0]]):
            assert logits(llama, batch).isfinite().all()
    whole = [name != "c" for name in names]
    torch.testing.assert_close(found[whole], expected[whole], rtol=1e-5, atol=1e-5)
    assert not found[[not each for each in whole]].isfinite().any()


def test_the_next_plan_sees_changed_weights(llama, random_adapter, ids):
    """Twice the second factors are twice the row, whether all adapters are laid out, or two of six."""
    with AdapterBank(llama, {str(k): random_adapter(llama, k) for k in range(6)}) as bank:
        for row in ([0.2, 0.1, -0.3, 0.1, 0.2, 0.4], [0.0, 0.3, 0.0, 0.4, 0.0, 0.0]):
            with bank.rows([row]):
                logits(llama, ids)
            with bank.rows(2 * np.array([row])):
                expected = logits(llama, ids)
            with torch.no_grad():
                for layer in bank.layers.values():
                    layer.B.mul_(2)
            with bank.rows([row]):
                torch.testing.assert_close(logits(llama, ids), expected, rtol=1e-6, atol=1e-6)
            with torch.no_grad():
                for layer in bank.layers.values():
                    layer.B.mul_(0.5)


def test_a_plan_holds_no_activations_after_its_block(llama, random_adapter, ids):
    """Also when the pass was cut off between q and k, which share their input."""
    seen = []

    def stop(_module, args):
        seen.append(weakref.ref(args[0]))
        if len(seen) == 2:
            raise KeyboardInterrupt

    with AdapterBank(llama, {name: random_adapter(llama, ord(name)) for name in "ab"}) as bank:
        plan = bank.prepare([[0.4, 0.6]])
        handle = llama.model.layers[0].self_attn.k_proj.register_forward_pre_hook(stop)
        try:
            with bank.rows(plan):
                logits(llama, ids)
            with pytest.raises(KeyboardInterrupt), bank.rows(plan):
                logits(llama, ids)
        finally:
            handle.remove()
        gc.collect()
        assert [ref() for ref in seen] == [None, None]
