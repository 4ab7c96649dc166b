"""A text as it grows: whole characters, and nothing of a stop string."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moalign.serving.text import GrowingText


def grown(tokenizer, text: str, stops: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    """What each token of a text brings, one token per byte, and whether a stop string ended it."""
    growing, shown = GrowingText(tokenizer, stops), []
    for token in tokenizer.encode(text, add_special_tokens=False):
        shown.append(growing.push(token))
        if growing.stopped:
            return shown, True
    shown.append(growing.end())
    return shown, growing.stopped


def cut(text: str, stops: tuple[str, ...]) -> str:
    """The text before the first stop string to be complete."""
    for end in range(len(text) + 1):
        found = [text[:end].find(stop) for stop in stops if stop in text[:end]]
        if found:
            return text[: min(found)]
    return text


def test_characters_come_whole(tokenizer) -> None:
    """Each of these letters has 2, 3 and 4 bytes: nothing is shown before the last of them."""
    shown, _ = grown(tokenizer, "é漢🎉!")
    assert shown == ["", "é", "", "", "漢", "", "", "", "🎉", "!", ""]


def test_a_text_that_ends_within_a_character_shows_that(tokenizer) -> None:
    growing = GrowingText(tokenizer)
    shown = [growing.push(token) for token in tokenizer.encode("a漢", add_special_tokens=False)[:-1]]
    assert "".join(shown) == "a"
    assert growing.end() == "\N{REPLACEMENT CHARACTER}"


def test_what_could_be_a_stop_string_is_held_back_until_it_is_not(tokenizer) -> None:
    shown, stopped = grown(tokenizer, "a##b###c", ("###",))
    assert shown == ["a", "", "", "##b", "", "", ""]
    assert stopped


def test_what_was_held_back_is_shown_at_the_end(tokenizer) -> None:
    assert grown(tokenizer, "ab##", ("###",)) == (["a", "b", "", "", "##"], False)


@settings(max_examples=300, deadline=None)
@given(
    st.text(alphabet="ab#é漢", max_size=12),
    st.lists(st.text(alphabet="ab#é漢", min_size=1, max_size=4), max_size=3).map(tuple),
)
def test_what_is_shown_is_the_text_before_the_first_complete_stop_string(tokenizer, text: str, stops) -> None:
    """Against the definition, on every prefix; and nothing that was shown is ever taken back."""
    shown, stopped = grown(tokenizer, text, stops)
    whole = cut(text, stops)
    assert "".join(shown) == whole
    assert stopped == (any(stop in text for stop in stops))


@pytest.mark.parametrize("stops", list(itertools.permutations(("ab", "abc"))))
def test_of_two_stop_strings_the_one_complete_first_counts(tokenizer, stops) -> None:
    assert "".join(grown(tokenizer, "xabcy", stops)[0]) == "x"


def test_special_tokens_are_no_text(tokenizer) -> None:
    growing = GrowingText(tokenizer)
    assert growing.push(tokenizer.eos_token_id) == ""
    assert growing.push(tokenizer.encode("a", add_special_tokens=False)[0]) == "a"


def test_spaces_that_a_decoder_puts_between_words_are_kept(tmp_path) -> None:
    """A word-level tokenizer has no spaces in its tokens: they appear when words are decoded together."""
    import tiny_world
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(tiny_world.build_base(tmp_path))
    shown, _ = grown(words, "sure now thanks")
    assert shown == ["sure", " now", " thanks", ""]
