"""PEFT folders: what PEFT writes is read as PEFT means it, what is written PEFT reads, the rest is refused."""

import errno
import json
import math
import warnings

import pytest
import torch
from peft import IA3Config, LoraConfig
from safetensors.torch import load_file, save_file

from moalign import adapters as module
from moalign.adapters import Adapter, LowRank, fresh_adapter, read_adapter, write_adapter
from moalign.bank import AdapterBank
from moalign.errors import AdapterError, StorageError

NAMES = {"gpt2": ["c_attn", "c_fc"]}
Q1 = "model.layers.1.self_attn.q_proj"
# Settings of PEFT's that are linear in the row, as (target_modules, other settings).
LINEAR = {
    "names": (["q_proj", "down_proj"], {}),
    "regex": (r"model\.layers\.1\.(self_attn|mlp)\.(q|up)_proj", {}),
    "all-linear": ("all-linear", {}),
    "rank and alpha by layer": (
        ["q_proj", "v_proj", "up_proj"],
        {"rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 5}, "alpha_pattern": {r"layers\.0.*\.v_proj": 3, Q1: 7}},
    ),
    "rsLoRA": (["q_proj", "v_proj"], {"use_rslora": True, "rank_pattern": {"v_proj": 9}}),
    "some layers": (["q_proj", "v_proj"], {"layers_to_transform": [1]}),
    "excluded": (["q_proj", "v_proj"], {"exclude_modules": r".*layers\.0.*"}),
    "gaussian start": (["q_proj"], {"init_lora_weights": "gaussian"}),
    "orthogonal start": (["q_proj"], {"init_lora_weights": "orthogonal"}),
    "output layer": (["q_proj", "lm_head"], {}),
}


def config(targets, **settings):
    return LoraConfig(**{"r": 4, "lora_alpha": 10, "target_modules": targets, "task_type": "CAUSAL_LM", **settings})


@torch.no_grad()
def logits(model, ids):
    return model(input_ids=ids).logits


def same_in_a_bank(model, adapter, ids, expected):
    with AdapterBank(model, {"a": adapter}) as bank, bank.rows([[1.0]]):
        torch.testing.assert_close(logits(model, ids), expected, rtol=0, atol=1e-5)
    assert (logits(model, ids) - expected).abs().max() > 0.01


def there_and_back(model, saved, tmp_path, load_with_peft, ids, expected):
    """Read, put through a bank, written and read by PEFT: the same layers and no more, the same logits."""
    adapter = read_adapter(saved)
    same_in_a_bank(model, adapter, ids, expected)
    with AdapterBank(model, {"a": adapter}) as bank:
        write_adapter(bank.adapter("a"), tmp_path / "again", "base")
    theirs = load_with_peft(model, tmp_path / "again")  # PEFT warns of layers it does not find in the file
    torch.testing.assert_close(logits(theirs, ids), expected, rtol=0, atol=1e-5)
    found = {name.split(".lora_A")[0] for name, _ in theirs.named_parameters() if ".lora_A" in name}
    assert found == {f"base_model.model.{name}" for name in adapter.layers}


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma", "mistral", "gpt2"])
def test_names_on_every_architecture(models, architecture, make_with_peft, load_with_peft, ids, tmp_path):
    """GPT-2's Conv1D layers store their weight transposed; lora_A and lora_B are not."""
    model = models[architecture]
    settings = config(NAMES.get(architecture, ["q_proj", "up_proj"]), fan_in_fan_out=architecture == "gpt2")
    theirs = make_with_peft(model, settings)
    theirs.save_pretrained(tmp_path / "peft")
    there_and_back(model, tmp_path / "peft", tmp_path, load_with_peft, ids, logits(theirs, ids))


@pytest.mark.parametrize("kind", LINEAR)
def test_whatever_is_linear(llama, make_with_peft, load_with_peft, ids, tmp_path, kind):
    """Each way to choose layers, ranks and scales: rsLoRA's alpha/sqrt(r) becomes the layer's own scale."""
    targets, settings = LINEAR[kind]
    theirs = make_with_peft(llama, config(targets, **settings))
    theirs.save_pretrained(tmp_path / "peft", save_embedding_layers=False)
    there_and_back(llama, tmp_path / "peft", tmp_path, load_with_peft, ids, logits(theirs, ids))


def test_scales(llama, make_with_peft, tmp_path):
    """alpha/r = 10/4; alpha_pattern's 7 over rank 4; rsLoRA 10/sqrt(4) = 5."""
    for rslora, expected in ((False, 2.5), (True, 5.0)):
        folder = tmp_path / str(rslora)
        make_with_peft(llama, config(["q_proj"], use_rslora=rslora, alpha_pattern={Q1: 7})).save_pretrained(folder)
        layers = read_adapter(folder).layers
        assert layers["model.layers.0.self_attn.q_proj"].scale == expected
        assert layers[Q1].scale == 7 / (2 if rslora else 4)
        assert layers[Q1].rank == 4
        assert layers[Q1].A.dtype == torch.float32


def test_written_config(tmp_path):
    """What servers read: whole alphas as integers, the common rank first, the others by layer name."""
    layers = {
        "model.q": LowRank(torch.ones(4, 8), torch.ones(6, 4), 4.0),
        "model.k": LowRank(torch.ones(4, 8), torch.ones(6, 4), 4.0),
        "model.v": LowRank(torch.ones(2, 8), torch.ones(6, 2), 1 / 3),
    }
    write_adapter(Adapter(layers, ("q", "k", "v")), tmp_path, "org/base")
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (written["r"], written["lora_alpha"]) == (4, 16)
    assert '"lora_alpha": 16,' in (tmp_path / "adapter_config.json").read_text()
    assert written["rank_pattern"] == {"model.v": 2}
    assert written["alpha_pattern"] == {"model.v": pytest.approx(2 / 3)}
    assert written["target_modules"] == ["k", "q", "v"]
    assert written["base_model_name_or_path"] == "org/base"
    assert written["peft_type"] == "LORA"
    again = read_adapter(tmp_path)
    assert {name: layer.scale for name, layer in again.layers.items()} == pytest.approx(
        {name: layer.scale for name, layer in layers.items()}
    )


@pytest.mark.parametrize("targets", [("q",), r"model\.q"])
def test_every_layer_can_be_found_again(targets, tmp_path):
    """PEFT leaves out, in silence, a layer that target_modules does not name; then full names are written instead."""
    layers = {f"model.{name}": LowRank(torch.ones(2, 3), torch.ones(3, 2), 1.0) for name in "qk"}
    write_adapter(Adapter(layers, targets), tmp_path, "base")
    assert json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"] == ["model.k", "model.q"]


REFUSED_BY_PEFT_SETTING = {
    "DoRA": ({"use_dora": True}, "use_dora is set, and DoRA rescales the whole weight"),
    "bias": ({"bias": "all"}, "bias='all' trains biases of the base model"),
    "lora_bias": ({"lora_bias": True}, "a bias in lora_B is not scaled by the row"),
    "modules_to_save": ({"modules_to_save": ["lm_head"]}, "modules_to_save replaces whole modules"),
    "tokens": ({"trainable_token_indices": [3, 4]}, "trained token embeddings"),
    "PiSSA": ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa' changed the base weights"),
    "PiSSA niter": ({"init_lora_weights": "pissa_niter_2"}, "init_lora_weights='pissa_niter_2' changed the base"),
    "OLoRA": ({"init_lora_weights": "olora"}, "init_lora_weights='olora' changed the base weights"),
    "embedding": ({"target_modules": ["embed_tokens"]}, "embed_tokens.*' is not a LoRA factor of a linear layer"),
    "aLoRA": ({"alora_invocation_tokens": [5]}, "an activated LoRA depends on the tokens"),
    "parameters": ({"target_parameters": ["mlp.up_proj.weight"]}, "adapts tensors that are not linear layers"),
}


@pytest.mark.parametrize(("settings", "message"), REFUSED_BY_PEFT_SETTING.values(), ids=REFUSED_BY_PEFT_SETTING)
def test_not_linear_in_the_row(llama, make_with_peft, tmp_path, settings, message):
    """Made and saved by PEFT itself: each would silently be another model as a row."""
    settings = {"target_modules": ["q_proj", "v_proj"], **settings}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's advice on some of these settings
        make_with_peft(llama, config(settings.pop("target_modules"), **settings)).save_pretrained(tmp_path)
    with pytest.raises(AdapterError, match=message):
        read_adapter(tmp_path)


def test_other_kinds_of_adapter(llama, make_with_peft, tmp_path):
    make_with_peft(llama, IA3Config(task_type="CAUSAL_LM")).save_pretrained(tmp_path)
    with pytest.raises(AdapterError, match="peft_type is 'IA3'; the bank takes LORA"):
        read_adapter(tmp_path)


@pytest.fixture
def folder(llama, random_adapter, tmp_path):
    write_adapter(random_adapter(llama, 1), tmp_path / "adapter", "base")
    return tmp_path / "adapter"


def change_config(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_tensors(folder, change):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


A1, B1 = (f"base_model.model.{Q1}.lora_{factor}.weight" for factor in "AB")
DAMAGE = {
    "no folder": (lambda f: f.rename(f.with_name("moved")), "is not a PEFT adapter: it has no adapter_config.json"),
    "no config": (lambda f: (f / "adapter_config.json").unlink(), "it has no adapter_config.json"),
    "bad config": (lambda f: (f / "adapter_config.json").write_text("{"), "adapter_config.json is damaged"),
    "config is a list": (lambda f: (f / "adapter_config.json").write_text("[]"), "is damaged: it holds a list"),
    "config is binary": (lambda f: (f / "adapter_config.json").write_bytes(b"\xff\xfe"), "config.json is damaged"),
    "layer_replication": (lambda f: change_config(f, layer_replication=[[0, 2]]), "changes the base model"),
    "megatron": (lambda f: change_config(f, megatron_config={"x": 1}), "Megatron layers are sharded"),
    "loftq": (lambda f: change_config(f, init_lora_weights="loftq"), "changed the base weights"),
    "bin": (
        lambda f: (f / "adapter_model.safetensors").rename(f / "adapter_model.bin"),
        "holds adapter_model.bin, a pickle that can run code when it is loaded; expected adapter_model.safetensors",
    ),
    "pt": (lambda f: (f / "adapter_model.safetensors").rename(f / "x.pt"), "holds x.pt, a pickle"),
    "no weights": (lambda f: (f / "adapter_model.safetensors").unlink(), "has no adapter_model.safetensors"),
    "cut short": (
        lambda f: (f / "adapter_model.safetensors").write_bytes((f / "adapter_model.safetensors").read_bytes()[:-100]),
        "adapter_model.safetensors is damaged",
    ),
    "empty": (lambda f: (f / "adapter_model.safetensors").write_bytes(b""), "adapter_model.safetensors is damaged"),
    "no factors": (lambda f: change_tensors(f, dict.clear), "no LoRA factors in adapter_model.safetensors"),
    "no B": (lambda f: change_tensors(f, lambda t: t.pop(B1)), r"have shapes A \(4, 32\) and B None"),
    "no A": (lambda f: change_tensors(f, lambda t: t.pop(A1)), r"have shapes A None and B \(32, 4\)"),
    "ranks differ": (
        lambda f: change_tensors(f, lambda t: t.update({B1: torch.ones(32, 5)})),
        r"factors of 'base_model.model.model.layers.1.self_attn.q_proj' have shapes A \(4, 32\) and B \(32, 5\)",
    ),
    "a vector": (lambda f: change_tensors(f, lambda t: t.update({B1: torch.ones(4)})), r"and B \(4,\); expected"),
    "convolution": (
        lambda f: change_tensors(f, lambda t: t.update({A1: torch.ones(4, 3, 1, 1), B1: torch.ones(3, 4, 1, 1)})),
        r"shapes A \(4, 3, 1, 1\)",
    ),
    "stray tensor": (
        lambda f: change_tensors(f, lambda t: t.update({"base_model.model.lm_head.weight": torch.ones(2, 2)})),
        "tensor 'base_model.model.lm_head.weight' is not a LoRA factor of a linear layer",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damage(folder, damage, message):
    """One line that names the file or the tensor."""
    damage(folder)
    with pytest.raises(AdapterError, match=message) as caught:
        read_adapter(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), module.safetensors.SafetensorError("I/O")]
)
def test_full_disk(llama, random_adapter, tmp_path, monkeypatch, error):
    """Whichever way the disk's refusal comes up through safetensors, it is one clear line."""

    def refuse(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(module, "save_file", refuse)
    with pytest.raises(StorageError, match=r"cannot write .*adapter: (No space left on device|I/O)"):
        write_adapter(random_adapter(llama, 1), tmp_path / "adapter", "base")


def test_fresh_adapter_changes_nothing_yet(llama, ids):
    """B is 0, so the logits are the base's; A is uniform in +-1/sqrt(in): its deviation is 1/sqrt(3 in)."""
    shapes = {"model.layers.0.mlp.down_proj": (32, 48), Q1: (32, 32)}
    generator = torch.Generator().manual_seed(5)
    adapter = fresh_adapter(shapes, ["down_proj", "q_proj"], rank=64, alpha=32.0, generator=generator)
    with AdapterBank(llama, {"a": adapter}) as bank, bank.rows([[1.0]]):
        found = logits(llama, ids)
    assert torch.equal(found, logits(llama, ids))
    for name, (out, into) in shapes.items():
        layer = adapter.layers[name]
        assert (layer.B.shape, layer.A.shape, layer.scale) == ((out, 64), (64, into), 0.5)
        assert not layer.B.any()
        assert layer.A.abs().max() <= 1 / math.sqrt(into)
        assert layer.A.std().item() == pytest.approx(1 / math.sqrt(3 * into), rel=0.05)
    again = fresh_adapter(shapes, "x", rank=64, alpha=32.0, generator=torch.Generator().manual_seed(5))
    assert torch.equal(again.layers[Q1].A, adapter.layers[Q1].A)
    assert again.target_modules == "x"


def test_rank_below_one():
    with pytest.raises(AdapterError, match="rank is 0; expected at least 1"):
        fresh_adapter({"q": (2, 2)}, "q", rank=0, alpha=1.0, generator=torch.Generator())
