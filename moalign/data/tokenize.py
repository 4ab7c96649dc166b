"""Texts to token ids: the prompt as the model will see it, the response as it will write it, EOS exactly once."""

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from moalign.batches import Messages, PreferencePairs, Prompt, TokenPairs
from moalign.errors import BaseModelError, DataError


def prompt_ids(prompt: Prompt, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids of a prompt, with what the tokenizer puts in front (BOS, once) and nothing behind.

    A conversation is rendered by the chat template, up to where the assistant begins. Raises BaseModelError if there is
    no chat template, and DataError if it refuses the conversation.

    >>> from tokenizers import Tokenizer, models, pre_tokenizers
    >>> from transformers import PreTrainedTokenizerFast
    >>> words = Tokenizer(models.WordLevel({"</s>": 0, "Hi": 1, "Hello": 2, "What": 3}, unk_token="What"))
    >>> words.pre_tokenizer = pre_tokenizers.Whitespace()
    >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>")
    >>> prompt_ids("Hi", tokenizer)
    [1]
    """
    return tokenize_prompts([prompt], tokenizer)[0]


def response_ids(
    prompt: Prompt,
    response: str,
    tokenizer: PreTrainedTokenizerBase,
    separator: str = "",
    eos: Sequence[int] | None = None,
) -> list[int]:
    """The ids of a response as it follows its prompt, ended by EOS; `tokenize_texts` for one text.

    >>> from tokenizers import Tokenizer, models, pre_tokenizers
    >>> from transformers import PreTrainedTokenizerFast
    >>> words = Tokenizer(models.WordLevel({"</s>": 0, "Hi": 1, "Hello": 2, "What": 3}, unk_token="What"))
    >>> words.pre_tokenizer = pre_tokenizers.Whitespace()
    >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>")
    >>> response_ids("Hi", "Hello", tokenizer, separator=" ")
    [2, 0]
    """
    return tokenize_texts([prompt], [response], tokenizer, separator, eos)[1][0]


def tokenize_prompts(prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """`prompt_ids` of many prompts, in one call of the tokenizer."""
    return _fronted(prompts, _encode([_rendered(prompt, tokenizer) for prompt in prompts], tokenizer), tokenizer)


def tokenize_texts(
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    separator: str = "",
    eos: Sequence[int] | None = None,
) -> tuple[list[list[int]], list[list[int]]]:
    """Prompt ids and response ids of n texts.

    Prompt and response are tokenised together (plain text: prompt + separator + response; a conversation: what the chat
    template makes of prompt and answer) and cut where the prompt ends. Where a token reaches across that place,
    as SentencePiece and BPE merges can, the response is tokenised alone: at generation the prompt is tokenised before
    there is a response, so its ids are what they are. (TRL shortens the prompt instead, and trains on a context that
    generation never shows.)

    Every response ends in EOS once: where text or template end in one it stays, and what the template puts behind it
    is dropped; otherwise one is appended. `eos` are the ids at which generation stops, by default the tokenizer's own;
    of several, the one by which the chat template ends a turn is appended, else the first. A response that spells an
    end token within its text has it read as plain text, since nothing can follow an end. Raises BaseModelError if
    there is no EOS, or no chat template for a conversation, or one that renders the prompt otherwise once it is
    answered.

    >>> from tokenizers import Tokenizer, models, pre_tokenizers
    >>> from transformers import PreTrainedTokenizerFast
    >>> words = Tokenizer(models.WordLevel({"</s>": 0, "Hi": 1, "Hello": 2, "What": 3}, unk_token="What"))
    >>> words.pre_tokenizer = pre_tokenizers.Whitespace()
    >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>")
    >>> tokenize_texts(["Hi", "Hi"], ["Hello Hello", "What </s>"], tokenizer, separator=" ")
    ([[1], [1]], [[2, 2, 0], [3, 0]])
    """
    ends = tuple(eos) if eos else _own_eos(tokenizer)
    end = _appended(tokenizer, ends)
    texts = [_rendered(prompt, tokenizer) for prompt in prompts]
    tails = [
        separator + response if isinstance(prompt, str) else _answered(prompt, text, response, tokenizer)
        for prompt, text, response in zip(prompts, texts, responses, strict=True)
    ]
    heads = _encode(texts, tokenizer)
    joint = _encode([text + tail for text, tail in zip(texts, tails, strict=True)], tokenizer)
    apart = [i for i, (head, ids) in enumerate(zip(heads, joint, strict=True)) if ids[: len(head)] != head]
    found = [ids[len(head) :] for head, ids in zip(heads, joint, strict=True)]
    for i, ids in zip(apart, _encode([tails[i] for i in apart], tokenizer), strict=True):
        found[i] = ids
    closed = [_closed(ids, tokenizer, ends, end) for ids in found]
    spelt = [i for i, ids in enumerate(closed) if any(token in ends for token in ids[:-1])]
    plain = [separator + responses[i] if isinstance(prompts[i], str) else responses[i] for i in spelt]
    for i, ids in zip(spelt, _encode(plain, tokenizer, split_special_tokens=True), strict=True):
        closed[i] = [*ids, end]
    return _fronted(prompts, heads, tokenizer), closed


def tokenize_pairs(
    pairs: PreferencePairs,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    separator: str = "",
    eos: Sequence[int] | None = None,
) -> tuple[TokenPairs, list[int], int]:
    """Token ids of the pairs that fit, the indices of these, and the number of over-long pairs left out.

    A pair fits if prompt + chosen and prompt + rejected both have at most `max_length` tokens; none is ever cut (as in
    MODPO, arXiv:2310.03708, whose code filters by the same rule). Ids as in `tokenize_texts`. Raises DataError if no
    pair fits.

    >>> from tokenizers import Tokenizer, models, pre_tokenizers
    >>> from transformers import PreTrainedTokenizerFast
    >>> words = Tokenizer(models.WordLevel({"</s>": 0, "Hi": 1, "Hello": 2, "What": 3}, unk_token="What"))
    >>> words.pre_tokenizer = pre_tokenizers.Whitespace()
    >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>")
    >>> import numpy as np
    >>> pairs = PreferencePairs(["Hi"] * 2, ["Hello", "Hello Hi"], ["What"] * 2, np.ones(2), ["f:1", "f:2"])
    >>> tokenize_pairs(pairs, tokenizer, max_length=3, separator=" ")
    (TokenPairs(prompt=[[1]], chosen=[[2, 0]], rejected=[[3, 0]]), [0], 1)
    """
    twice, texts = [*pairs.prompts, *pairs.prompts], [*pairs.chosen, *pairs.rejected]
    prompt, both = tokenize_texts(twice, texts, tokenizer, separator, eos)
    prompt, chosen, rejected = prompt[: len(pairs)], both[: len(pairs)], both[len(pairs) :]
    lengths = [len(p) + max(len(c), len(r)) for p, c, r in zip(prompt, chosen, rejected, strict=True)]
    kept = [i for i, length in enumerate(lengths) if length <= max_length]
    if not lengths:
        raise DataError("there are no pairs to tokenise")
    if not kept:
        raise DataError(
            f"all {len(lengths)} pairs are longer than max_length={max_length}: the shortest has {min(lengths)} "
            "tokens; raise max_length as far as the base model reads, or use shorter texts"
        )
    tokens = TokenPairs([prompt[i] for i in kept], [chosen[i] for i in kept], [rejected[i] for i in kept])
    return tokens, kept, len(lengths) - len(kept)


def _encode(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, **options: Any) -> list[list[int]]:
    # Without the tokenizer's own BOS and EOS: those of a prompt are added once, and a template writes its own.
    distinct = list(dict.fromkeys(texts))  # pairs come with the same prompt many times
    if not distinct:
        return []
    ids = tokenizer(distinct, add_special_tokens=False, verbose=False, **options)["input_ids"]
    found = dict(zip(distinct, ids, strict=True))
    return [found[text] for text in texts]


def _fronted(
    prompts: Sequence[Prompt], ids: Sequence[list[int]], tokenizer: PreTrainedTokenizerBase
) -> list[list[int]]:
    """The ids of prompts with BOS where the tokenizer puts one; a chat template has written its own."""
    front = _front(tokenizer)
    return [
        front + own if isinstance(prompt, str) and own[: len(front)] != front else own
        for prompt, own in zip(prompts, ids, strict=True)
    ]


def _front(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer puts in front of every text, found by looking: what it puts behind is left out."""
    bare, full = tokenizer("a", add_special_tokens=False)["input_ids"], tokenizer("a")["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start]
    return []


def _rendered(prompt: Prompt, tokenizer: PreTrainedTokenizerBase) -> str:
    return prompt if isinstance(prompt, str) else _templated(prompt, tokenizer, add_generation_prompt=True)


def _answered(prompt: Messages, text: str, response: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """What the chat template writes from where the assistant begins."""
    whole = _templated([*prompt, {"role": "assistant", "content": response}], tokenizer)
    if not whole.startswith(text):
        raise BaseModelError(
            f"the chat template of {tokenizer.name_or_path!r} renders a prompt otherwise once it is answered, so "
            "training would not see what generation sees; expected the same beginning: use a template that keeps it "
            "(often the one without a thinking block), or give prompts as plain text"
        )
    return whole[len(text) :]


def _templated(messages: Messages, tokenizer: PreTrainedTokenizerBase, **options: Any) -> str:
    if tokenizer.chat_template is None:
        raise BaseModelError(
            f"tokenizer {tokenizer.name_or_path!r} has no chat template, which conversational data need; use an "
            "instruction-tuned base, set chat_template in its tokenizer_config.json, or give prompts as plain text"
        )
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, **options))
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise DataError(
            f"the chat template of {tokenizer.name_or_path!r} refuses a conversation of {roles}: {error}"
        ) from error


def _own_eos(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    own = tokenizer.eos_token_id
    if not isinstance(own, int):
        raise BaseModelError(
            f"tokenizer {tokenizer.name_or_path!r} has no EOS token, so no response could end; set its eos_token"
        )
    return (own,)


def _appended(tokenizer: PreTrainedTokenizerBase, ends: tuple[int, ...]) -> int:
    """The id that is appended: a base was taught one of its ends, and its chat template shows which."""
    if len(ends) == 1 or tokenizer.chat_template is None:
        return ends[0]
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    written = _encode([_templated(turns, tokenizer)], tokenizer)[0]
    return next((token for token in reversed(written) if token in ends), ends[0])


def _closed(ids: list[int], tokenizer: PreTrainedTokenizerBase, ends: tuple[int, ...], end: int) -> list[int]:
    """`ids` up to the EOS that ends them, or with one appended."""
    last = next((i for i in reversed(range(len(ids))) if ids[i] in ends), None)
    if last is None or str(tokenizer.decode(ids[last + 1 :])).strip():
        return [*ids, end]
    while last > 0 and ids[last - 1] in ends:  # a text that ends in EOS, in a template that adds another
        last -= 1
    return ids[: last + 1]
