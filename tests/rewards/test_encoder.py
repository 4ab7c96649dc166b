"""Any architecture in two parts, and whole again in a folder that the objective reads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from moalign.batches import Completions
from moalign.errors import BaseModelError, ConfigError
from moalign.objectives import RewardModel
from moalign.objectives.reward_model import input_ids
from moalign.rewards.encoder import Encoder, features_of, load_encoder
from moalign.rewards.heads import Heads

CHAT = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
GIVEN = Completions(["Hi", CHAT, "A longer prompt", "Hi"], ["Hello.", "Hello.", "Yes", "Hello, my dear friend."])
CAUSAL, ENCODERS = ("llama", "gpt2", "gemma"), ("bert", "roberta", "distilbert")
SMALL = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 48}


def small_encoder(kind: str, vocabulary: int) -> PreTrainedModel:
    """A masked language model: it has neither a pooler nor a classifier."""
    names = {"dim": 32, "n_heads": 4, "n_layers": 2, "hidden_dim": 48} if kind == "distilbert" else SMALL
    config = AutoConfig.for_model(
        kind,
        vocab_size=vocabulary,
        max_position_embeddings=130,
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **names,
    )
    return AutoModelForMaskedLM.from_config(config)


@pytest.fixture(scope="module", params=[*CAUSAL, *ENCODERS])
def base(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    make_model: Callable[..., PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
) -> Path:
    """A base of each architecture with the byte tokenizer; reads 128 tokens. Read only."""
    kind = request.param
    model = small_encoder(kind, len(tokenizer)) if kind in ENCODERS else make_model(kind, vocab_size=len(tokenizer))
    return saved(tmp_path_factory.mktemp(kind), model, tokenizer, model_max_length=128)


def saved(folder: Path, model: PreTrainedModel, tokenizer: Any, **changes: Any) -> Path:
    model.save_pretrained(folder)
    copy = PreTrainedTokenizerFast.from_pretrained(_tokenizer_folder(folder, tokenizer))
    for name, value in changes.items():
        setattr(copy, name, value)
    copy.save_pretrained(folder)
    return folder


def _tokenizer_folder(folder: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    tokenizer.save_pretrained(folder / "tokenizer")
    return folder / "tokenizer"


def load(base: Path | str, heads: tuple[str, ...] = ("a", "b", "c"), **changes: Any) -> Encoder:
    settings: dict[str, Any] = {"max_length": None, "device": "cpu", "dtype": "float32", "seed": 0}
    return load_encoder(str(base), heads, **settings | changes)


def drawn_heads(encoder: Encoder, m: int = 3) -> Heads:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(m, encoder.head.in_features)).astype(np.float32).astype(float)
    return Heads(weight, np.arange(m) + 1.5, np.zeros(m))


def inputs_of(encoder: Encoder, separator: str = "") -> list[list[int]]:
    return [input_ids(encoder.tokenizer, *pair, separator) for pair in zip(GIVEN.prompts, GIVEN.responses, strict=True)]


def test_the_objective_gives_what_the_heads_say(base: Path, tmp_path: Path) -> None:
    """By label, in batches of its own: W f + b, less the b that an architecture without a bias cannot keep."""
    encoder = load(base)
    heads = drawn_heads(encoder)
    features = np.array(features_of(encoder, inputs_of(encoder, "|")))
    offset = encoder.save(tmp_path, heads)
    causal = base.name.rstrip("0") in CAUSAL
    assert encoder.has_bias is not causal
    assert offset.tolist() == ([1.5, 2.5, 3.5] if causal else [0.0, 0.0, 0.0])
    for j, name in enumerate("abc"):
        objective = RewardModel("r", str(tmp_path), column=name, separator="|", batch_size=3)
        expected = heads(features)[:, j] - offset[j]
        np.testing.assert_allclose(objective.score(GIVEN), expected, rtol=1e-4, atol=1e-4)
    again = np.array(features_of(encoder, inputs_of(encoder, "|")))
    np.testing.assert_array_equal(features, again)


def test_features_do_not_depend_on_what_is_read_beside(base: Path) -> None:
    encoder = load(base)
    inputs = inputs_of(encoder)
    together = np.array(features_of(encoder, inputs))
    assert together.shape == (4, 32)
    assert np.ptp(together, axis=0).max() > 0.1
    for row, ids in enumerate(inputs):
        np.testing.assert_allclose(together[row], features_of(encoder, [ids])[0], atol=2e-5)


def test_what_the_base_lacks_is_drawn_by_the_seed(base: Path) -> None:
    """A classifier's own layer, or a pooler; causal models have none, and are the same under any seed."""
    one, same, other = (load(base, seed=seed) for seed in (0, 0, 1))
    features = [np.array(features_of(encoder, inputs_of(encoder))) for encoder in (one, same, other)]
    np.testing.assert_array_equal(features[0], features[1])
    drawn = base.name.rstrip("0") in ENCODERS
    assert bool(np.abs(features[0] - features[2]).max() > 0.01) is drawn


def test_without_a_chat_template_messages_are_joined_by_blank_lines(base: Path) -> None:
    plain = PreTrainedTokenizerFast(tokenizer_object=load(base).tokenizer.backend_tokenizer)
    assert plain.decode(input_ids(plain, CHAT, "Hello.", "|")) == "Be kind.\n\nHi\n\n|Hello."


def test_a_base_that_is_a_reward_model_gets_new_heads(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    config = LlamaConfig(vocab_size=len(tokenizer), **SMALL, num_labels=2, pad_token_id=0)
    folder = saved(tmp_path / "base", LlamaForSequenceClassification(config), tokenizer)
    encoder = load(folder)
    encoder.save(tmp_path / "made", drawn_heads(encoder))
    assert RewardModel("r", str(tmp_path / "made"), column="c").score(GIVEN).shape == (4,)


@pytest.mark.parametrize("unknown", ["<pad>", None])
def test_a_base_without_a_padding_token_gets_one(
    tmp_path: Path, make_model: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast, unknown: str | None
) -> None:
    """EOS, or the unknown token; the saved model reads a batch as it reads each text alone."""
    model = make_model("llama", vocab_size=len(tokenizer), pad_token_id=None)
    special = {"unk_token": unknown} if unknown else {"eos_token": "<eos>"}
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, **special)
    encoder = load(saved(tmp_path / "base", model, bare))
    assert encoder.tokenizer.pad_token == (unknown or "<eos>")
    encoder.save(tmp_path / "made", drawn_heads(encoder))
    scores = [RewardModel("r", str(tmp_path / "made"), column="b", batch_size=size).score(GIVEN) for size in (1, 4)]
    np.testing.assert_allclose(*scores, atol=1e-4)


def test_a_base_that_could_not_be_padded_is_refused(
    tmp_path: Path, make_model: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast
) -> None:
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    folder = saved(tmp_path, make_model("llama", vocab_size=len(tokenizer), pad_token_id=None), bare)
    with pytest.raises(BaseModelError, match="names no padding, EOS or unknown token; set pad_token in its"):
        load(folder)


def test_rotary_positions_go_on(tiny_base: Path, tmp_path: Path) -> None:
    """A base that reads 512 tokens, made to read 600: the saved model does, and says so."""
    assert load(tiny_base).longest == 512
    assert load(tiny_base, max_length=100).longest == 100
    encoder = load(tiny_base, max_length=600)
    assert encoder.longest == 600
    long = Completions(["a"], ["b" * 599])
    heads = drawn_heads(encoder)
    offset = encoder.save(tmp_path, heads)
    expected = heads(np.array(features_of(encoder, [input_ids(encoder.tokenizer, "a", "b" * 599, "")]))) - offset
    np.testing.assert_allclose(RewardModel("r", str(tmp_path), column=1).score(long), expected[:, 1], atol=1e-4)


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_learned_positions_end(
    kind: str, tmp_path: Path, make_model: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast
) -> None:
    size = len(tokenizer)
    model = small_encoder(kind, size) if kind in ENCODERS else make_model(kind, vocab_size=size)
    folder = saved(tmp_path, model, tokenizer, model_max_length=128)
    with pytest.raises(ConfigError, match=r"max_length is 129, but base model .* reads 128 tokens"):
        load(folder, max_length=129)


def test_a_base_that_is_not_whole_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    """One layer's weights are gone: they would be random, and nothing would say so."""
    for path in tiny_base.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    with pytest.raises(BaseModelError, match=r"lacks .* of its weights, such as model\.layers\.2"):
        load(tmp_path)
    with pytest.raises(BaseModelError, match="not found"):
        load("nowhere/at/all")
    with pytest.raises(ConfigError, match="device 'abacus'"):
        load(tiny_base, device="abacus")
