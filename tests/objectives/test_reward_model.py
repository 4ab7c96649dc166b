"""Any sequence-classification model: batched as one by one, in its own form of conversation, never cut."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from moalign.batches import Completions
from moalign.errors import ConfigError, ObjectiveError
from moalign.objectives import ObjectiveSet, RewardModel, build_objective

CHAT = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
LABELS = {0: "helpful", 1: "toxic", 2: "verbose"}
GIVEN = Completions(
    ["Hi", CHAT, "A longer prompt, for padding", CHAT, "Hi"], ["Hello.", "Hello.", "Yes", "", "Hello, my dear friend."]
)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A random three-headed Llama with the byte tokenizer and its chat template; reads 96 tokens."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=96,
        initializer_range=0.3,
        id2label=LABELS,
        label2id={label: number for number, label in LABELS.items()},
        pad_token_id=tokenizer.pad_token_id,
    )
    return _saved(tmp_path_factory.mktemp("llama"), LlamaForSequenceClassification(config), tokenizer)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A random one-headed Bert; its tokenizer has no chat template."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=96,
        initializer_range=0.3,
        num_labels=1,
        pad_token_id=0,
    )
    plain = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, pad_token="<pad>")
    return _saved(tmp_path_factory.mktemp("bert"), BertForSequenceClassification(config), plain)


def _saved(folder: Path, model, tokenizer: PreTrainedTokenizerFast) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _logits(model, ids: list[int]) -> np.ndarray:
    with torch.inference_mode():
        return model.eval()(input_ids=torch.tensor([ids])).logits[0].double().numpy()


def test_scores_are_the_models_logits_one_by_one(llama: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Five inputs of different lengths in batches of two: each as transformers scores it alone, without padding."""
    model = LlamaForSequenceClassification.from_pretrained(llama)
    expected = []
    for prompt, response in zip(GIVEN.prompts, GIVEN.responses, strict=True):
        text = prompt + response if isinstance(prompt, str) else ""
        if not isinstance(prompt, str):
            messages = [*prompt, {"role": "assistant", "content": response}]
            text = tokenizer.apply_chat_template(messages, tokenize=False)
        expected.append(_logits(model, tokenizer(text, add_special_tokens=False)["input_ids"]))
    for head in range(3):
        scores = RewardModel("r", str(llama), column=head, batch_size=2).score(GIVEN)
        np.testing.assert_allclose(scores, np.array(expected)[:, head], atol=1e-5)


def test_a_head_by_label_and_its_sign(llama: Path) -> None:
    toxic = RewardModel("safe", str(llama), column="toxic", scale=-2.0).score(GIVEN)
    np.testing.assert_allclose(toxic, -2 * RewardModel("r", str(llama), column=1).score(GIVEN), rtol=1e-12)


def test_without_a_chat_template_the_texts_are_joined(bert: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Messages by blank lines, then the response; plain text with the separator between."""
    model = BertForSequenceClassification.from_pretrained(bert)
    texts = ["Be kind.\n\nHi\n\n|Hello.", "Hi|Hello."]
    expected = [_logits(model, tokenizer(text)["input_ids"])[0] for text in texts]
    scores = RewardModel("r", str(bert), separator="|").score(Completions([CHAT, "Hi"], ["Hello.", "Hello."]))
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_without_a_padding_token_each_is_read_alone(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """transformers refuses such a batch; the scores are still those of each text alone."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.3, num_labels=1, pad_token_id=None, **sizes)
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    folder = _saved(tmp_path, LlamaForSequenceClassification(config), bare)
    model = LlamaForSequenceClassification.from_pretrained(folder)
    expected = [_logits(model, bare(text)["input_ids"])[0] for text in ("ab", "abcd")]
    scores = RewardModel("r", str(folder)).score(Completions(["a", "a"], ["b", "bcd"]))
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_heads_of_one_model_share_it_and_what_it_has_read(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three objectives of five texts, two of them alike: one model, four texts read, and each head's own scores."""
    read = []
    forward = LlamaForSequenceClassification.forward

    def counted(self, input_ids, **rest):
        read.append(len(input_ids))
        return forward(self, input_ids, **rest)

    alone = [
        RewardModel("r", str(llama), column=head).score(GIVEN) for head in range(3)
    ]  # each is gone when it is done
    monkeypatch.setattr(LlamaForSequenceClassification, "forward", counted)
    given = Completions([*GIVEN.prompts[:4], "Hi"], [*GIVEN.responses[:4], "Hello."])
    heads = [RewardModel(f"r{head}", str(llama), column=head) for head in range(3)]
    scores = [objective.score(given) for objective in heads]
    assert sum(read) == 4
    assert len({id(objective._classifier) for objective in heads}) == 1
    for own, shared in zip(alone, scores, strict=True):
        np.testing.assert_allclose(shared[:4], own[:4], atol=1e-5)
        assert shared[4] == shared[0]


def test_new_weights_in_a_folder_are_another_model(llama: Path, tmp_path: Path) -> None:
    """The objective made before goes on with the old ones, which its fingerprint names; one made after has the new."""
    for file in llama.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    before = RewardModel("r", str(tmp_path))
    old = before.score(GIVEN)
    model = LlamaForSequenceClassification.from_pretrained(llama)
    model.score.weight.data *= 2
    model.save_pretrained(tmp_path)
    after = RewardModel("r", str(tmp_path))
    np.testing.assert_allclose(after.score(GIVEN), 2 * old, rtol=1e-5)
    np.testing.assert_array_equal(before.score(GIVEN), old)
    assert before.fingerprint != after.fingerprint


def test_an_overlong_input_is_refused_and_not_cut(llama: Path) -> None:
    """One token per byte: 2 + 95 are one more than the 96 that it reads."""
    objective = RewardModel("r", str(llama))
    assert objective.score(Completions(["ab"], ["c" * 94])).shape == (1,)
    with pytest.raises(ObjectiveError, match=r"objective 'r': 1 of 2 inputs are longer than the 96 tokens .*has 97\)"):
        ObjectiveSet([objective]).score(Completions(["ab", "ab"], ["c" * 95, "c"]))


def test_a_head_that_is_not_there_is_named(llama: Path) -> None:
    with pytest.raises(ObjectiveError, match=r"unknown column of objective 'r' .*'toxik'; did you mean 'toxic'\?"):
        RewardModel("r", str(llama), column="toxik").score(GIVEN)
    for head in (3, -1):
        with pytest.raises(ObjectiveError, match=f"objective 'r': column is {head}, but .* has 3"):
            RewardModel("r", str(llama), column=head).score(GIVEN)


def test_what_cannot_be_loaded_is_named(tmp_path: Path, llama: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """An empty folder, and one whose weights are pickled: neither is loaded."""
    with pytest.raises(ObjectiveError, match="objective 'r': cannot load"):
        RewardModel("r", str(tmp_path)).score(GIVEN)
    (tmp_path / "config.json").write_text((llama / "config.json").read_text())
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickled")
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ObjectiveError, match=r"cannot load .*\.safetensors weights \(pickled ones are not loaded\)"):
        RewardModel("r", str(tmp_path)).score(GIVEN)


def test_the_fingerprint_is_of_the_weights_and_the_settings(llama: Path, bert: Path, tmp_path: Path) -> None:
    """A copied folder is the same model; a README makes no difference; head, scale and weights do."""
    first = RewardModel("r", str(llama)).fingerprint
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in llama.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "README.md").write_text("A copy.")
    assert RewardModel("another", str(copy), batch_size=1).fingerprint == first
    others = [
        RewardModel("r", str(llama), column=1),
        RewardModel("r", str(llama), scale=2.0),
        RewardModel("r", str(bert)),
    ]
    assert first not in [objective.fingerprint for objective in others]


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size is 0"):
        RewardModel("r", "m", batch_size=0)
    with pytest.raises(ConfigError, match="scale is 0"):
        build_objective("r", {"type": "reward_model", "model": "m", "scale": 0})
