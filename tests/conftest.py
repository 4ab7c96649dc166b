"""Tiny real models for the whole suite: random weights from a fixed seed, five architectures, no network.

Two layers, 32 dimensions, 96 tokens. The weights are drawn ten times wider than usual, so that attention is uneven,
logits differ by units, and a mistake of a few per cent cannot hide in a flat distribution.
"""

import copy
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers reads it: a test that asks the network is a mistake

import pytest
import torch
from peft import PeftConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging

from moalign.adapters import Adapter, LowRank

VOCAB = 96
ARCHITECTURES = ("llama", "qwen3", "gemma", "mistral", "gpt2")

_COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GPT2 = {
    "vocab_size": VOCAB,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 128,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="session", autouse=True)
def _quiet_transformers() -> None:
    """Progress bars and advice of transformers do not belong in a test's output; warnings still are errors."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Models this small are three times slower on two busy threads than on one."""
    torch.set_num_threads(1)


def _tiny_model(architecture: str, **changes: object) -> PreTrainedModel:
    settings = _GPT2 if architecture == "gpt2" else _COMMON
    config = AutoConfig.for_model(architecture, **{**settings, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        with torch.no_grad():  # norms and biases start at 1 and 0, where a mistake in them would not show
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    return model.requires_grad_(False)


@pytest.fixture(scope="session")
def make_model() -> Callable[..., PreTrainedModel]:
    """make_model("gemma2", sliding_window=8): a fresh tiny causal language model with these settings."""
    return _tiny_model


@pytest.fixture(scope="session")
def models() -> dict[str, PreTrainedModel]:
    """Architecture to its tiny model, built once. Read only: whoever changes weights takes a deep copy."""
    return {name: _tiny_model(name) for name in ARCHITECTURES}


@pytest.fixture(params=ARCHITECTURES)
def model(request: pytest.FixtureRequest, models: dict[str, PreTrainedModel]) -> PreTrainedModel:
    """Each of the five architectures in turn."""
    return models[request.param]


@pytest.fixture(scope="session")
def llama(models: dict[str, PreTrainedModel]) -> PreTrainedModel:
    """The architecture to take where one is enough."""
    return models["llama"]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, <pad> <bos> <eos>, and a chat template; reads and writes any text."""
    vocabulary = {"<pad>": 0, "<bos>": 1, "<eos>": 2}
    for letter in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[letter] = len(vocabulary)
    tokens = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokens.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
    )


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A folder with a tiny Llama and its tokenizer, as `load_base` reads it. Read only."""
    folder = tmp_path_factory.mktemp("tiny_base")
    _tiny_model("llama", vocab_size=len(tokenizer), max_position_embeddings=512).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _linear_layers(model: PreTrainedModel) -> dict[str, tuple[int, int]]:
    """Every layer "all-linear" means, as name -> (out, in): all but the output head."""
    shapes = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module is not model.get_output_embeddings():
            shapes[name] = (module.out_features, module.in_features)
        elif isinstance(module, Conv1D):
            shapes[name] = (module.nf, module.nx)
    return shapes


def _random_adapter(
    model: PreTrainedModel, seed: int, *, rank: int = 4, alpha: float = 8.0, only: str = "", size: float = 0.3
) -> Adapter:
    """An adapter that visibly changes the model, on the linear layers whose name contains `only`."""
    generator = torch.Generator().manual_seed(seed)
    layers = {
        name: LowRank(
            torch.randn(rank, into, generator=generator) / into**0.5,
            size * torch.randn(out, rank, generator=generator) / rank**0.5,
            alpha / rank,
        )
        for name, (out, into) in _linear_layers(model).items()
        if only in name
    }
    return Adapter(layers, tuple(sorted(layers)), any(isinstance(m, Conv1D) for m in model.modules()))


@pytest.fixture(scope="session")
def random_adapter() -> Callable[..., Adapter]:
    """random_adapter(model, seed, rank=4, alpha=8, only="", size=0.3)."""
    return _random_adapter


@pytest.fixture
def adapters(model: PreTrainedModel) -> dict[str, Adapter]:
    """Three adapters of `model` that differ in rank, in scale and in the layers they change."""
    return {
        "a": _random_adapter(model, 1, rank=4, alpha=8.0),
        "b": _random_adapter(model, 2, rank=2, alpha=3.0),
        "c": _random_adapter(model, 3, rank=3, alpha=6.0, only="attn"),
    }


@contextmanager
def _peft_warns() -> Iterator[None]:
    """peft 0.21.2 still asks transformers 5.23 by an old name; nothing else of its warnings is silenced."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


@pytest.fixture(scope="session")
def load_with_peft() -> Callable[..., PeftModel]:
    """load_with_peft(model, folder): a copy of the model with the adapter as PEFT itself reads it."""

    def load(model: PreTrainedModel, folder: Path, **options: object) -> PeftModel:
        with _peft_warns():
            return PeftModel.from_pretrained(copy.deepcopy(model), folder, **options)

    return load


@pytest.fixture(scope="session")
def make_with_peft() -> Callable[..., PeftModel]:
    """make_with_peft(model, config): a copy of the model with a new adapter of PEFT's, its lora_B drawn at random."""

    def make(model: PreTrainedModel, config: PeftConfig) -> PeftModel:
        with _peft_warns(), torch.random.fork_rng():
            torch.manual_seed(11)
            wrapped = get_peft_model(copy.deepcopy(model), config).eval()
            for name, parameter in wrapped.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(parameter, std=0.2)
            return wrapped

    return make


def _merged(model: PreTrainedModel, adapters: dict[str, Adapter], weights: dict[str, float]) -> PreTrainedModel:
    """A copy of the model with sum_k w_k dW_k added to its weights in float64: what a row must be equal to."""
    model = copy.deepcopy(model)
    modules = dict(model.named_modules())
    for name, weight in weights.items():
        for layer, low_rank in adapters[name].layers.items():
            module = modules[layer]
            delta = weight * low_rank.scale * (low_rank.B.double() @ low_rank.A.double())
            if isinstance(module, Conv1D):
                delta = delta.T  # y = x W + b: Conv1D stores its weight as (in, out)
            module.weight.data = (module.weight.double() + delta).to(module.weight.dtype)
    return model


@pytest.fixture(scope="session")
def merged() -> Callable[..., PreTrainedModel]:
    """merged(model, adapters, {"a": 0.3, "b": 0.7}): the summed deltas merged into a copy of the base."""
    return _merged


@pytest.fixture(scope="session")
def ids() -> Tensor:
    """Six sequences of nine tokens; no special ones."""
    return torch.randint(3, VOCAB, (6, 9), generator=torch.Generator().manual_seed(3))
