"""Token ids: the prompt as generation sees it, the response after it, EOS exactly once, nothing cut."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from moalign.batches import PreferencePairs
from moalign.data import (
    load_pairs,
    prompt_ids,
    response_ids,
    tokenize_pairs,
    tokenize_prompts,
    tokenize_texts,
)
from moalign.errors import BaseModelError, DataError

SHARED = Path(__file__).parents[3] / "shared"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHAT = [{"role": "user", "content": "ab"}]


def _letters(*, automatic: str = "$A", prepend: bool = False, template: str | None = None, eos: bool = True):
    """One token per letter, but "on" is one; specials <s>, </s>, <|im_start|>, <|im_end|>; automatic BOS or EOS."""
    specials = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    pieces = [*specials, "on", *"▁abcdefghijklmnopqrstuvwxyz\n</>|_S"]
    tokens = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, [("o", "n")], unk_token="<unk>"))
    steps = [normalizers.Prepend("▁")] if prepend else []
    tokens.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    tokens.add_special_tokens(specials)
    tokens.post_processor = processors.TemplateProcessing(single=automatic, special_tokens=[("<s>", 1), ("</s>", 2)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>" if eos else None,
        chat_template=template,
    )
    tokenizer.name_or_path = "letters"
    return tokenizer


def _spelt(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> list[str]:
    return tokenizer.convert_ids_to_tokens(ids)


@pytest.mark.parametrize("automatic", ["$A", "<s> $A", "<s> $A </s>", "$A </s>"])
def test_bos_and_eos_stand_once_whatever_the_tokenizer_adds(automatic: str) -> None:
    """BOS in front of the prompt if the tokenizer puts it there, EOS behind the response only."""
    tokenizer = _letters(automatic=automatic)
    front = ["<s>"] if automatic.startswith("<s>") else []
    assert _spelt(tokenizer, prompt_ids("ab", tokenizer)) == [*front, "a", "b"]
    assert _spelt(tokenizer, response_ids("ab", "cd", tokenizer)) == ["c", "d", "</s>"]
    assert _spelt(tokenizer, prompt_ids("<s>ab", tokenizer)) == ["<s>", "a", "b"]
    assert _spelt(tokenizer, response_ids("ab", "cd</s>", tokenizer)) == ["c", "d", "</s>"]


def test_the_separator_belongs_to_the_response() -> None:
    tokenizer = _letters()
    assert _spelt(tokenizer, response_ids("ab", "cd", tokenizer, separator=" ")) == ["▁", "c", "d", "</s>"]


def test_a_token_across_the_boundary_leaves_the_prompt_as_it_is() -> None:
    """ "go" + "n" is g, on together, but generation has read g, o before there is an n."""
    tokenizer = _letters()
    assert _spelt(tokenizer, tokenizer("gon")["input_ids"]) == ["g", "on"]
    prompts, responses = tokenize_texts(["go", "ga"], ["n", "n"], tokenizer)
    assert [_spelt(tokenizer, ids) for ids in prompts] == [["g", "o"], ["g", "a"]]
    assert [_spelt(tokenizer, ids) for ids in responses] == [["n", "</s>"], ["n", "</s>"]]


def test_a_prepended_space_is_not_put_into_the_middle() -> None:
    """SentencePiece writes a space before a text: once before the prompt, none before a response that joins it."""
    tokenizer = _letters(prepend=True, automatic="<s> $A")
    assert _spelt(tokenizer, prompt_ids("ab", tokenizer)) == ["<s>", "▁", "a", "b"]
    assert _spelt(tokenizer, response_ids("ab", "cd", tokenizer)) == ["c", "d", "</s>"]
    assert _spelt(tokenizer, tokenizer("cd", add_special_tokens=False)["input_ids"]) == ["▁", "c", "d"]


def test_a_template_that_ends_its_turns_by_eos() -> None:
    """The line break that ChatML writes after its end is dropped: generation stops before it."""
    tokenizer = _letters(template=CHATML, automatic="<s> $A")
    ends = tokenizer.convert_tokens_to_ids(["</s>", "<|im_end|>"])
    prompt = prompt_ids(CHAT, tokenizer)
    assert tokenizer.decode(prompt).replace(" ", "") == "<|im_start|>user\nab<|im_end|>\n<|im_start|>assistant\n"
    assert _spelt(tokenizer, response_ids(CHAT, "cd", tokenizer, eos=ends)) == ["c", "d", "<|im_end|>"]
    assert _spelt(tokenizer, response_ids(CHAT, "cd<|im_end|>", tokenizer, eos=ends)) == ["c", "d", "<|im_end|>"]


def test_a_template_without_eos_gets_one() -> None:
    """Where only </s> stops generation, what ChatML writes is kept and </s> follows it."""
    tokenizer = _letters(template=CHATML)
    assert _spelt(tokenizer, response_ids(CHAT, "cd", tokenizer)) == ["c", "d", "<|im_end|>", "\n", "</s>"]


def test_of_several_ends_plain_text_gets_the_one_of_the_template() -> None:
    """A base with a chat template was taught one end; without a template, the first one counts."""
    with_template, without = _letters(template=CHATML), _letters()
    ends = with_template.convert_tokens_to_ids(["</s>", "<|im_end|>"])
    assert _spelt(with_template, response_ids("ab", "c", with_template, eos=ends)) == ["c", "<|im_end|>"]
    assert _spelt(without, response_ids("ab", "c", without, eos=ends)) == ["c", "</s>"]


def test_an_end_spelt_within_the_text_is_read_as_text() -> None:
    """ "a</s>b": six letters and the end, since nothing can follow an end."""
    tokenizer = _letters(template=CHATML)
    ids = response_ids("x", "a</s>b", tokenizer, separator=" ")
    assert _spelt(tokenizer, ids) == ["▁", "a", "<", "/", "s", ">", "b", "</s>"]
    ends = tokenizer.convert_tokens_to_ids(["<|im_end|>"])
    assert response_ids(CHAT, "a<|im_end|>b", tokenizer, eos=ends).count(ends[0]) == 1


def test_an_empty_response_is_the_end_alone() -> None:
    tokenizer = _letters(template=CHATML)
    assert _spelt(tokenizer, response_ids("ab", "", tokenizer)) == ["</s>"]


@given(prompt=st.text("abno ", min_size=1, max_size=6), response=st.text("abno ", max_size=6))
def test_one_end_and_the_same_text(prompt: str, response: str) -> None:
    """Decoding prompt and response gives the text back, for every text; one by one or many at once."""
    tokenizer = _letters(automatic="<s> $A")
    prompts, responses = tokenize_texts([prompt, "x"], [response, "n"], tokenizer)
    assert responses[0][-1] == 2
    assert 2 not in responses[0][:-1]
    assert prompts[0] == prompt_ids(prompt, tokenizer)
    assert responses[0] == response_ids(prompt, response, tokenizer)
    text = "".join(_spelt(tokenizer, prompts[0][1:] + responses[0][:-1]))
    assert text.replace("▁", " ") == prompt + response


def test_conversations_are_tokenised_as_trl_renders_them(tokenizer: PreTrainedTokenizerFast) -> None:
    """TRL's `apply_chat_template`, cut at the prompt, then tokenised: the same ids, and EOS behind."""
    trl = pytest.importorskip("trl.data_utils")
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    row = {
        "prompt": prompt,
        "chosen": [{"role": "assistant", "content": "Hello."}],
        "rejected": [{"role": "assistant", "content": "What?"}],
    }
    rendered = trl.maybe_apply_chat_template(row, tokenizer)
    pairs = PreferencePairs([prompt], ["Hello."], ["What?"], np.ones(1), ["f:1"])
    tokens, _, _ = tokenize_pairs(pairs, tokenizer, max_length=200)
    assert tokens.prompt[0] == tokenizer(rendered["prompt"])["input_ids"]
    assert tokens.chosen[0] == [*tokenizer(rendered["chosen"])["input_ids"], tokenizer.eos_token_id]
    assert tokens.rejected[0] == [*tokenizer(rendered["rejected"])["input_ids"], tokenizer.eos_token_id]


def test_overlong_pairs_are_counted_and_never_cut() -> None:
    """Prompt 2 + response and EOS: pair 0 has 4, pair 1 has 6 by its rejected response, pair 2 exactly 5."""
    pairs = PreferencePairs(["ab"] * 3, ["c", "c", "cc"], ["d", "ddd", "d"], np.ones(3), ["f:1", "f:2", "f:3"])
    tokens, kept, overlong = tokenize_pairs(pairs, _letters(), max_length=5)
    assert (kept, overlong) == ([0, 2], 1)
    assert [len(ids) for ids in tokens.chosen] == [2, 3]
    with pytest.raises(DataError, match="all 3 pairs are longer than max_length=3: the shortest has 4 tokens"):
        tokenize_pairs(pairs, _letters(), max_length=3)
    with pytest.raises(DataError, match="there are no pairs"):
        tokenize_pairs(pairs.select([]), _letters(), max_length=3)


def test_no_chat_template_is_named_with_the_way_out() -> None:
    for call in (lambda: prompt_ids(CHAT, _letters()), lambda: response_ids(CHAT, "a", _letters())):
        with pytest.raises(
            BaseModelError, match=r"tokenizer 'letters' has no chat template.*or give prompts as plain text"
        ):
            call()


def test_no_eos_is_named() -> None:
    with pytest.raises(BaseModelError, match="tokenizer 'letters' has no EOS token"):
        response_ids("ab", "c", _letters(eos=False))


def test_a_template_that_refuses_is_a_data_error() -> None:
    template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(DataError, match="refuses a conversation of user: roles must alternate"):
        prompt_ids(CHAT, _letters(template=template))


def test_a_template_that_changes_the_prompt_is_refused() -> None:
    """A thinking mark in the generation prompt that the answered conversation does not have."""
    template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}think{% endif %}"
    with pytest.raises(BaseModelError, match="renders a prompt otherwise once it is answered"):
        response_ids(CHAT, "cd", _letters(template=template))


def test_no_texts_are_no_ids() -> None:
    assert tokenize_texts([], [], _letters()) == ([], [])
    assert tokenize_prompts([], _letters()) == []


@pytest.fixture(scope="module")
def stories():
    folder = SHARED / "models" / "stories3M-chat"
    if not folder.is_dir():
        pytest.skip("the shared models are not here")
    return AutoTokenizer.from_pretrained(folder)


def test_a_real_sentencepiece_tokenizer(stories) -> None:
    """After "Assistant:", " To be" is the two tokens that generation writes; "To be" without the space is three."""
    prompt = "Human: Hi\n\nAssistant:"
    assert prompt_ids(prompt, stories)[0] == stories.bos_token_id
    spaced, joined = (response_ids(prompt, "To be", stories, separator) for separator in (" ", ""))
    assert stories.convert_ids_to_tokens(spaced) == ["▁To", "▁be", "</s>"]
    assert stories.convert_ids_to_tokens(joined) == ["T", "o", "▁be", "</s>"]


def test_a_real_chat_template_that_ends_in_bos(stories) -> None:
    """stories3M-chat ends a turn by <s>, and generation stops at 1 and 2: the ids of the plain form with a space."""
    ids = response_ids([{"role": "user", "content": "Hi"}], "To be", stories, eos=[2, 1])
    assert stories.convert_ids_to_tokens(ids) == ["▁To", "▁be", "<s>"]
    assert response_ids("Human: Hi\n\nAssistant:", "To be", stories, separator=" ", eos=[2, 1]) == ids


def test_real_pairs_are_tokenised(stories, tmp_path: Path) -> None:
    """1759 helpful pairs: every response joins its prompt's text, and what is too long is counted."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the shared data are not here")
    pairs = load_pairs("pairs_hh_helpful.jsonl.gz", base=SHARED / "data", quarantine=tmp_path / "q.jsonl").pairs
    tokens, kept, overlong = tokenize_pairs(pairs, stories, max_length=512, separator=" ", eos=[1, 2])
    assert len(kept) + overlong == len(pairs)
    assert len(kept) > 1000
    for number, i in list(enumerate(kept))[:200]:
        text = stories.decode(tokens.prompt[number] + tokens.chosen[number], skip_special_tokens=True)
        assert text.split() == f"{pairs.prompts[i]} {pairs.chosen[i]}".split()
