"""Loading the base, naming it by its contents, and choosing layers as PEFT chooses them."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from moalign.bank import AdapterBank
from moalign.errors import BaseModelError, ConfigError
from moalign.models import BaseModel, adapter_factory, describe, load_base, select_layers

TARGETS = {
    "names": {"": ["q_proj", "up_proj"], "gpt2": ["c_attn", "mlp.c_proj"]},
    "regex": {"": r".*layers\.1\..*(q|down)_proj", "gpt2": r".*h\.1\.(attn|mlp)\.c_proj"},
    "all-linear": {"": "all-linear"},
}


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma", "mistral", "gpt2"])
def test_layers_are_those_peft_chooses(models, make_with_peft, architecture, kind):
    """PEFT, given our names, finds the same layers again, with the shapes we say, and the model is as it was."""
    model = models[architecture]
    modules = dict(model.named_modules())
    wanted = TARGETS[kind].get(architecture, TARGETS[kind][""])
    shapes, names, conv = select_layers(model, wanted)
    assert dict(model.named_modules()) == modules
    assert conv == (architecture == "gpt2")
    for targets in (wanted, list(names)):
        theirs = make_with_peft(model, LoraConfig(target_modules=targets, fan_in_fan_out=conv, task_type="CAUSAL_LM"))
        found = {
            name.removeprefix("base_model.model.").removesuffix(".lora_A.default.weight"): parameter.shape[1]
            for name, parameter in theirs.named_parameters()
            if "lora_A" in name
        }
        assert found == {name: into for name, (_, into) in shapes.items()}
    for name, (out, into) in shapes.items():
        weight = modules[name].weight
        assert weight.shape == ((into, out) if conv else (out, into))


def test_names_are_endings_where_endings_will_do(llama):
    """Servers expect q_proj; full names are for a choice that endings cannot say."""
    assert select_layers(llama, ["q_proj"])[1] == ("q_proj",)
    assert select_layers(llama, r".*\.0\..*q_proj")[1] == ("model.layers.0.self_attn.q_proj",)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["q_prj"], "target_modules ['q_prj']: Target modules {'q_prj'} not found in the base model"),
        ("(", "target_modules '(': missing )"),
        ([], "target_modules []: No `target_modules` passed"),
        (["embed_tokens"], "target_modules picks 'model.embed_tokens', a Embedding; the bank adapts nn.Linear"),
        (["q_proj", "norm"], "target_modules ['q_proj', 'norm']: Target module LlamaRMSNorm"),
    ],
)
def test_impossible_targets(llama, targets, message):
    """The error names the setting; also where PEFT stops half-way, the model is left as it was."""
    modules = dict(llama.named_modules())
    with pytest.raises(ConfigError) as caught:
        select_layers(llama, targets)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert dict(llama.named_modules()) == modules


@pytest.fixture(scope="module")
def base(tiny_base) -> BaseModel:
    return load_base(str(tiny_base))


@pytest.fixture
def broken(tiny_base, tmp_path):
    """A copy of the base's folder, to be damaged."""
    return shutil.copytree(tiny_base, tmp_path / "base")


def test_load_base(base, tiny_base):
    """Frozen, in float32 on a CPU, not training; EOS and padding are the tokenizer's."""
    assert base.name == str(tiny_base)
    assert base.model.dtype == torch.float32
    assert not base.model.training
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert (base.eos_ids, base.pad_id, base.device.type) == ((2,), 0, "cpu")
    assert base.tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == "<|user|>Hi\n"
    assert describe(base) == {
        "name": str(tiny_base),
        "digest": base.digest,
        "architecture": "llama",
        "parameters": str(sum(parameter.numel() for parameter in base.model.parameters())),
    }


def test_dtype(tiny_base):
    assert load_base(str(tiny_base), dtype="bfloat16", device="cpu").model.dtype == torch.bfloat16


def test_eos_of_the_generation_config_counts_too(base, broken):
    """Chat models often end a turn with another token than a text; without any, there is no response."""
    (broken / "generation_config.json").write_text('{"eos_token_id": [7, 2]}')
    assert load_base(str(broken)).eos_ids == (7, 2)
    other = load_base(str(broken))
    other.tokenizer.eos_token = None
    assert other.eos_ids == (7, 2)
    other.tokenizer.pad_token = None
    assert other.pad_id == 7
    other.model.generation_config.eos_token_id = None
    with pytest.raises(BaseModelError, match=r"names no EOS token; set eos_token in its tokenizer_config.json"):
        _ = other.eos_ids


def test_digest_follows_the_contents(base, broken, tmp_path):
    """The folder's place does not count; weights, tokenizer, chat template and settings do; a note does not."""
    digests = [base.digest]
    assert load_base(str(broken)).digest == base.digest
    (broken / "README.md").write_text("note")
    assert load_base(str(broken)).digest == base.digest
    (broken / "chat_template.jinja").write_text("{{ messages }}")
    digests.append(load_base(str(broken)).digest)
    (broken / "generation_config.json").write_text('{"eos_token_id": 5}')
    digests.append(load_base(str(broken)).digest)
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][0] += 1e-3
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    digests.append(load_base(str(broken)).digest)
    assert len(set(digests)) == 4


def lose_a_weight(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


DAMAGE = {
    "no folder": (shutil.rmtree, "not found: there is no such folder"),
    "no config": (lambda f: (f / "config.json").unlink(), "is not a model folder: it has no config.json"),
    "pickle": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        "has no .safetensors file; pickled",
    ),
    "cut short": (lambda f: (f / "model.safetensors").write_bytes(b"abc"), "cannot load base model"),
    "bad config": (lambda f: (f / "config.json").write_text("{"), "is not a valid JSON file"),
    "unknown kind": (lambda f: change_config(f, model_type="foo"), "model type `foo`"),
    "not causal": (lambda f: change_config(f, model_type="t5"), "cannot load base model"),
    "other shape": (lambda f: change_config(f, intermediate_size=64), "cannot load base model"),
    "a weight less": (lose_a_weight, "lacks 1 of its weights, such as model.layers.0.mlp.up_proj.weight"),
    "no tokenizer": (lambda f: [path.unlink() for path in f.glob("tokenizer*")], "cannot load base model"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_bases_that_cannot_be_used(broken, damage, message):
    """One line that names the base; a missing weight is an error and not a random one."""
    damage(broken)
    with pytest.raises(BaseModelError, match=message) as caught:
        load_base(str(broken))
    assert str(broken) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nowhere", "./nowhere", "/nowhere/at/all", "~/nowhere", "a/b/c"])
def test_names_that_cannot_be_a_hub_name_never_ask_the_network(name):
    with pytest.raises(BaseModelError, match=f"base model '{name}' not found: there is no such folder"):
        load_base(name)


def test_device_and_dtype_are_checked(tiny_base):
    with pytest.raises(ConfigError, match="unknown dtype 'flot32'; did you mean 'float32'"):
        load_base(str(tiny_base), dtype="flot32")
    with pytest.raises(ConfigError, match=r"device 'gpu' cannot be used here .*expected auto, cpu or cuda"):
        load_base(str(tiny_base), device="gpu")


def test_adapter_factory(base):
    """One seed, one adapter; another seed, another A. It fits the base and changes nothing yet."""
    fresh = adapter_factory(base, rank=4, alpha=8.0, target_modules="all-linear")
    one, same, other = fresh(1), fresh(1), fresh(2)
    layer = "model.layers.1.mlp.gate_proj"
    assert len(one.layers) == 14
    assert torch.equal(one.layers[layer].A, same.layers[layer].A)
    assert not torch.equal(one.layers[layer].A, other.layers[layer].A)
    assert one.layers[layer].scale == 2
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad(), AdapterBank(base.model, {"one": one}) as bank, bank.rows([[1.0]]):
        found = base.model(input_ids=ids).logits
    with torch.no_grad():
        assert torch.equal(found, base.model(input_ids=ids).logits)
    with pytest.raises(ConfigError, match="not found in the base model"):
        adapter_factory(base, rank=4, alpha=8.0, target_modules=["nothing"])
