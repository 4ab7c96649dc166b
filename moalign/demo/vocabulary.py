"""The help desk's tokenizer: a token for each of its words, and one for each byte, so that any text comes back."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

PAD, END, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"
PAD_ID, END_ID = 0, 1  # the vocabulary begins with them

# A system message has no place in this world and is left out; a turn of the assistant ends in END and nothing else.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}<|user|>{{ message['content'] | trim }}"
    "{%- elif message['role'] == 'assistant' -%}<|assistant|>{{ message['content'] }}<|end|>"
    "{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
)


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE whose merges are whole words: every word of `texts` is one token, any other is its bytes.

    A word is what GPT-2's pattern cuts out, with the space in front of it. Part-words are left out on purpose: the
    base would never have read them.

    >>> tokenizer = train_tokenizer(["Open the page."])
    >>> tokenizer.convert_ids_to_tokens(tokenizer("Open the door.")["input_ids"])
    ['Open', 'Ġthe', 'Ġ', 'd', 'o', 'o', 'r', '.']
    """
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words = {word for text in texts for word, _ in cut.pre_tokenize_str(text)}
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    entries = [PAD, END, USER, ASSISTANT, *letters, *sorted(words.difference(letters))]
    vocabulary = {entry: number for number, entry in enumerate(entries)}
    # ignore_merges: a word of the vocabulary is taken whole, though no merges lead to it.
    tokens = Tokenizer(BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokens.pre_tokenizer = cut
    tokens.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )
