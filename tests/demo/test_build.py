"""The base of the help desk: what is committed, and that the build makes such a folder from a seed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from moalign.data import prompt_ids, response_ids
from moalign.demo.build import OUT, Size, answer_probabilities, build, reworded
from moalign.demo.vocabulary import train_tokenizer
from moalign.demo.world import answers, prompts, topics, weighted_answers
from moalign.logprobs import Scorer

TINY = Size(hidden=16, layers=1, heads=2, inner=16, batch=4)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(OUT).eval()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(OUT)


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_the_base_is_small_and_is_read_as_float32(model: PreTrainedModel):
    assert model.num_parameters() <= 1_500_000
    assert sum(path.stat().st_size for path in OUT.iterdir()) <= 4 * 2**20
    assert model.dtype == torch.float32
    assert model.config.architectures == ["LlamaForCausalLM"]
    assert model.config.bos_token_id is None


def test_padding_and_end_are_two_tokens_and_padding_stands_on_the_left(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
):
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer.padding_side == "left"
    assert (model.config.pad_token_id, model.config.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)
    assert len(tokenizer) == model.config.vocab_size


@pytest.mark.parametrize("prompt", ["My printer has a paper jam.", prompts("eval")[7]])
def test_answers_carry_the_base_s_probability(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str):
    """All 600 answers are scored, EOS included; what the base could say beyond them is at most 2 %."""
    probability = answer_probabilities(Scorer.of(model), tokenizer, prompt)
    assert 0.98 <= probability.sum() <= 1 + 1e-5
    shares = np.array([share for _, share in weighted_answers(prompt)])
    divergence = np.sum(shares * (np.log(shares) - np.log(probability)))
    assert 0 <= divergence < 0.15  # and it says them about as often as the help desk does


def test_words_of_the_world_are_single_tokens(tokenizer: PreTrainedTokenizerBase):
    """Words and marks of an answer, and EOS: the longest stays near 60."""
    for topic in topics():
        last = answers(topic.prompts[0])[-1]
        ids = response_ids(user(topic.prompts[0]), last, tokenizer)
        marks = sum(last.count(mark) for mark in ".,:!")
        assert len(ids) == len(last.split()) + marks + 1 <= 66


def test_a_rendered_prompt_begins_the_rendered_conversation(tokenizer: PreTrainedTokenizerBase):
    """As text and as tokens; the answer ends in EOS, and nothing follows."""
    for prompt in prompts("eval"):
        answer = answers(prompt)[123]
        turns = [*user(prompt), {"role": "assistant", "content": answer}]
        front = tokenizer.apply_chat_template(user(prompt), tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(turns, tokenize=False)
        assert whole == front + answer + tokenizer.eos_token
        front_ids, whole_ids = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (front, whole))
        assert whole_ids[: len(front_ids)] == front_ids
        assert whole_ids[len(front_ids) :] == response_ids(user(prompt), answer, tokenizer)
        assert whole_ids.index(tokenizer.eos_token_id) == len(whole_ids) - 1


def test_a_system_message_is_left_out(tokenizer: PreTrainedTokenizerBase):
    assert prompt_ids([{"role": "system", "content": "Be kind."}, *user("Hi")], tokenizer) == prompt_ids(
        user("Hi"), tokenizer
    )


@given(text=st.text())
def test_any_text_comes_back(tokenizer: PreTrainedTokenizerBase, text: str):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_base_answers_a_question_in_other_words(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
    """Lower case and no question mark: still the printer's first step."""
    ids = prompt_ids(user("the printer is stuck again"), tokenizer)
    made = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=70)[0, len(ids) :]
    text = tokenizer.decode(made, skip_special_tokens=True)
    assert made[-1] == tokenizer.eos_token_id
    assert "Open the back cover." in text


def test_rewording_keeps_most_of_the_question():
    rng = np.random.default_rng(0)
    made = {reworded("My sink is full.", rng) for _ in range(60)}
    assert {"my sink is full", "My sink is", "Hello, my sink is full."} <= made
    assert "My sink is full." not in made


def test_the_same_seed_gives_the_same_folder(tmp_path: Path):
    """Another seed gives other weights. Three steps of a tiny Llama on the first two prompts."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        build(tmp_path / name, seed=seed, steps=3, size=TINY, prompt_limit=2)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"} <= set(names)
    a, b, c = ({name: (tmp_path / run / name).read_bytes() for name in names} for run in "abc")
    assert a == b
    assert a["model.safetensors"] != c["model.safetensors"]


def test_an_unknown_word_is_its_bytes():
    """ "é" is two bytes in UTF-8."""
    tokenizer = train_tokenizer(["one two"])
    assert tokenizer.convert_ids_to_tokens(tokenizer("one é")["input_ids"]) == ["one", "Ġ", "Ã", "©"]
