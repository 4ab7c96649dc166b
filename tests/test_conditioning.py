"""A direction in words: the paper's text, in the place that the base reads."""

from typing import Any

import pytest
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast

from moalign.conditioning import Wording, condition
from moalign.data import tokenize_prompts
from moalign.direction import Direction
from moalign.errors import ConfigError, DataError, PreferenceError

EVEN = Direction.of({"helpful": 1.0, "long": 1.0})
PAPER = Wording(("helpful", "long"), names={"helpful": "helpfulness", "long": "verbosity"})
SHORT = Wording(("helpful", "long"), "<{terms}>", scale=10, separator=" ")
ASKED = [{"role": "user", "content": "Why?"}]
TALK = [*ASKED, {"role": "assistant", "content": "So."}, {"role": "user", "content": "Really?"}]
LEAVES_OUT = "{% for m in messages %}{% if m['role'] != 'system' %}<|{{ m['role'] }}|>{{ m['content'] }}{% endif %}"
REFUSES = "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"


def templated(tokenizer: PreTrainedTokenizerFast, template: str) -> PreTrainedTokenizerFast:
    other = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token="<eos>")
    other.chat_template = template + "{{ m['content'] }}{% endfor %}" * (template == REFUSES)
    other.chat_template += "{% endfor %}" * (template == LEAVES_OUT)
    return other


def test_the_papers_example() -> None:
    """The README's: cos 45 degrees is 0.7071, so 71 for each; and 20 degrees towards less verbosity: 94 and -34."""
    assert PAPER.render(EVEN) == (
        "You are a helpful, respectful, and honest assistant who always responds to the user in a harmless way. "
        "Your response should maximize weighted rating = helpfulness*71 + verbosity*71"
    )
    shorter = Direction.of({"helpful": 0.9397, "long": -0.3420})
    assert PAPER.render(shorter).endswith("= helpfulness*94 + verbosity*-34")


def test_terms_stand_in_their_order_and_scale() -> None:
    """What a direction does not mention has 0, never -0; braces of other kinds are left alone."""
    wording = Wording(("c", "a", "b"), "{terms} {x}", {"b": "B"}, scale=10)
    assert wording.render(Direction.parse("a=-3,b=4")) == "c*0 + a*-6 + B*8 {x}"
    assert wording.render(Direction.of({"a": -0.01, "b": 1.0})) == "c*0 + a*0 + B*10 {x}"
    with pytest.raises(PreferenceError, match="unknown objective 'd'"):
        wording.render(Direction.parse("d=1"))


def test_a_tally_is_the_number_as_a_row_of_words() -> None:
    """As often as the number says; less of something with a minus, and nothing for what rounds to 0."""
    wording = Wording(("c", "a", "b"), "Go: {terms}.", {"b": "up"}, scale=5, style="tally")
    assert wording.render(Direction.parse("a=-3,b=4")) == "Go: -a -a -a up up up up."
    assert wording.render(Direction.of({"a": -0.05, "b": 1.0})) == "Go: up up up up up."


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"order": ("a",), "template": "weights"}, r"the template 'weights' has no {terms}"),
        ({"order": ()}, "order is empty; expected each objective once"),
        ({"order": ("a", "a")}, "order is a, a; expected each objective once"),
        ({"order": ("helpful", "b"), "names": {"helpfull": "x"}}, "names: unknown objective 'helpfull'; did you mean"),
        ({"order": ("a", "b"), "names": {"a": "b"}}, "two objectives go by the word 'b'"),
        ({"order": ("a",), "scale": 0}, "scale is 0; expected at least 1"),
    ],
)
def test_wordings_that_say_nothing_or_too_much(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Wording(**settings)


def test_a_conversation_gets_a_system_message(tokenizer: PreTrainedTokenizerFast) -> None:
    """Rendered and tokenised it is what the base reads; what was asked stays as it was."""
    told = condition(TALK, EVEN, SHORT, tokenizer)
    assert told == [{"role": "system", "content": "<helpful*7 + long*7>"}, *TALK]
    assert len(TALK) == 3
    text = tokenizer.decode(tokenize_prompts([told], tokenizer)[0])
    assert text.startswith("<|system|><helpful*7 + long*7>\n<|user|>Why?\n")


def test_a_system_message_that_is_there_goes_on(tokenizer: PreTrainedTokenizerFast) -> None:
    asked = [{"role": "system", "content": "You are a cook."}, *ASKED]
    told = condition(asked, EVEN, SHORT, tokenizer)
    assert told == [{"role": "system", "content": "You are a cook. <helpful*7 + long*7>"}, *ASKED]
    assert asked[0]["content"] == "You are a cook."


def test_the_users_first_message_where_that_is_the_place(tokenizer: PreTrainedTokenizerFast) -> None:
    """A system message stays alone, and so do later turns; the template is not asked."""
    user = Wording(("helpful", "long"), "<{terms}>", scale=10, place="user", separator="\n")
    system = {"role": "system", "content": "You are a cook."}
    told = condition([system, *TALK], EVEN, user, templated(tokenizer, REFUSES))
    assert told == [system, {"role": "user", "content": "<helpful*7 + long*7>\nWhy?"}, *TALK[1:]]
    assert TALK[0]["content"] == "Why?"
    with pytest.raises(DataError, match="has no message of the user, in which the direction could stand"):
        condition([system], EVEN, user, tokenizer)


@pytest.mark.parametrize("place", ["system", "user"])
def test_a_plain_text_begins_with_it(place: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    wording = Wording(("helpful", "long"), "<{terms}>", place=place)
    assert condition("Why?", EVEN, wording, tokenizer) == "<helpful*71 + long*71>\n\nWhy?"


@pytest.mark.parametrize("asked", [ASKED, [{"role": "system", "content": "You are a cook."}, *ASKED]])
def test_a_template_that_leaves_out_system_messages_is_told(asked: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    """Otherwise every direction would be the same prompt."""
    silent = templated(tokenizer, LEAVES_OUT)
    with pytest.raises(ConfigError, match=r"leaves out system messages, .*; place: user puts it into the user's"):
        condition(asked, EVEN, SHORT, silent)


def test_a_template_that_refuses_system_messages_is_told(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ConfigError, match=r"no system role; with place: user the direction stands in") as caught:
        condition(ASKED, EVEN, SHORT, templated(tokenizer, REFUSES))
    assert isinstance(caught.value.__cause__, DataError)
    assert isinstance(caught.value.__cause__.__cause__, TemplateError)
