import json
import re
from typing import Any

import pytest

from moalign.serving.api.reading import checked, parsed
from moalign.serving.api.refusals import RefusedError
from moalign.serving.api.schema import NEUTRAL, ChatRequest, CompletionRequest

CHAT = {"model": "moalign", "messages": [{"role": "user", "content": "Hi"}]}
TEXT = {"model": "moalign", "prompt": "Hi"}


def refusal(body: Any, model: type = ChatRequest) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        checked(body, model)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b"{", "the body is not JSON: Expecting property name"),
        (b'{"n": 1', "the body is not JSON"),
        (b"", "the body is not JSON"),
        (b'{"a": NaN}', "the body holds NaN, which is not JSON; expected finite numbers"),
        (b'{"a": -Infinity}', "the body holds -Infinity"),
        (b'{"a": "\xff"}', "the body is not UTF-8: byte 7"),
        ('{"a": "Hi"}'.encode("utf-16"), "the body is not UTF-8: byte 0"),
        (b'{"a": "\\ud83d"}', "half of a surrogate pair"),
        (b'{"\\uDC00": 1}', "half of a surrogate pair"),
        (b"[" * 100_000, "the body is nested too deeply"),
        (b'{"a":' * 100_000, "the body is nested too deeply"),
        (b"1" * 5000, "a number of too many digits"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "the body gives 'c' twice"),
    ],
)
def test_what_is_not_json_by_the_letter_is_refused(body: bytes, line: str) -> None:
    with pytest.raises(RefusedError, match=re.escape(line)) as caught:
        parsed(body)
    assert caught.value.status == 400


def test_a_whole_surrogate_pair_is_a_character() -> None:
    assert parsed(b'{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}


@pytest.mark.parametrize(
    ("change", "param", "line"),
    [
        ({"weigths": {}}, "weigths", "unknown field 'weigths'; did you mean 'weights'?"),
        ({"x" * 1000: 1}, "x" * 60 + "...", "unknown field 'xxx"),
        ({"n": 0}, "n", "n should be greater than or equal to 1; it is 0"),
        ({"n": True}, "n", "n should be a valid integer; it is true"),
        ({"n": "2"}, "n", 'n should be a valid integer; it is "2"'),
        ({"temperature": 2.5}, "temperature", "less than or equal to 2; it is 2.5"),
        ({"temperature": 1e999}, "temperature", "a finite number; it is Infinity"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"seed": 1 << 63}, "seed", "seed should be less than"),
        ({"seed": 10**4000}, "seed", "seed should be less than"),
        ({"weights": {"helpful": True}}, "weights.helpful", "should be a valid number; it is true"),
        ({"weights": {"helpful": "1"}}, "weights.helpful", "should be a valid number"),
        ({"weights": {"helpful": 1e999}}, "weights.helpful", "should be a finite number; it is Infinity"),
        ({"weights": {"helpful": 10**400}}, "weights.helpful", "should be a valid number"),
        ({"weights": {}}, "weights", "should have at least 1 item"),
        ({"weights": [0.5]}, "weights", "weights should be a valid dictionary"),
        ({"weights": {"content": True}}, "weights.content", "weights.content should be a valid number"),
        ({"metadata": {"stop": 1}}, "metadata.stop", "metadata.stop should be a valid string; it is 1"),
        ({"divergence": "kl"}, "divergence", "divergence should be 'reverse_kl', 'forward_kl' or 'jsd'"),
        ({"messages": []}, "messages", "at least 1 item"),
        ({"messages": "Hi"}, "messages", "should be a valid list"),
        ({"messages": [{"role": "tool", "content": ""}]}, "messages.0.role", "'system', 'developer', 'user' or"),
        ({"messages": [{"role": "user"}]}, "messages.0.content", "messages.0.content is missing"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content", "should be a string or a list of {"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content", "a list of {"),
        ({"messages": [{"role": "user", "content": "", "name": "Ann"}]}, "messages.0.name", "no names"),
        ({"stop": [1]}, "stop", "stop should be a string or a list of strings"),
        ({"top_logprobs": 3}, "top_logprobs", "top_logprobs go with logprobs: true"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "less than or equal to 20"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "go with stream: true"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_completion_tokens", "is 3 and max_completion_tokens 4"),
        ({"response_format": {"type": "json_object"}}, "response_format", "is not supported: answers are free text"),
        ({"tools": [{"type": "function"}]}, "tools", "tools is not supported"),
        ({"presence_penalty": 0.5}, "presence_penalty", "presence_penalty is not supported"),
        ({"presence_penalty": False}, "presence_penalty", "presence_penalty is not supported"),
        ({"model": None}, "model", "model should be a valid string; it is null"),
    ],
)
def test_a_wrong_field_is_named_with_what_was_expected(change: dict[str, Any], param: str, line: str) -> None:
    error = refusal({**CHAT, **change})
    assert line in error.message
    assert error.param == param
    assert len(error.message) < 300


@pytest.mark.parametrize(
    ("prompt"), [None, 1, [1, "a"], [[1], "a"], [True], [-1], [[1.5]], [[[1]]], {"a": 1}, [1 << 31], [None]]
)
def test_a_prompt_of_no_known_kind_is_refused(prompt: object) -> None:
    error = refusal({**TEXT, "prompt": prompt}, CompletionRequest)
    assert error.message.startswith("prompt should be a string, a list of strings, a list of token ids or")


@pytest.mark.parametrize("body", [[], None, 1, "Hi"])
def test_a_body_that_is_no_object_is_refused(body: object) -> None:
    assert refusal(body).message == "the body is not a JSON object"


def test_an_unknown_name_is_told_before_what_it_was_meant_for() -> None:
    """With `modle` for `model` two things are wrong; the first alone would send the reader the wrong way."""
    assert refusal({"modle": "base", "messages": CHAT["messages"]}).message == (
        "unknown field 'modle'; did you mean 'model'?"
    )


@pytest.mark.parametrize("name", list(NEUTRAL))
def test_values_that_change_nothing_are_taken(name: str) -> None:
    """A message as OpenAI's client dumps it has a null for each thing that it is not."""
    for value in (None, *NEUTRAL[name][0]):
        assert checked({**CHAT, name: value}, ChatRequest) == checked(CHAT, ChatRequest)
    message = {**CHAT["messages"][0], name: None}
    assert checked({**CHAT, "messages": [message]}, ChatRequest) == checked(CHAT, ChatRequest)


def test_a_field_that_is_null_counts_as_not_given() -> None:
    optional = [name for name, field in ChatRequest.model_fields.items() if not field.is_required()]
    assert checked({**CHAT, **dict.fromkeys(optional)}, ChatRequest) == checked(CHAT, ChatRequest)


def test_parts_of_a_message_are_joined_as_they_are() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": " b"}]
    request = checked({**CHAT, "messages": [{"role": "user", "content": parts}]}, ChatRequest)
    assert request.messages[0].text == "a b"


def test_log_probabilities_as_the_engine_is_asked_for_them() -> None:
    """A chat says whether and how many, a completion how many; 0 is that of the chosen token alone."""
    chat = [
        ({}, None),
        ({"logprobs": False}, None),
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 3}, 3),
    ]
    for change, wanted in chat:
        assert checked({**CHAT, **change}, ChatRequest).top_logprobs_wanted == wanted
    for given in (None, 0, 5):
        assert checked({**TEXT, "logprobs": given}, CompletionRequest).top_logprobs_wanted == given


def test_the_schema_is_what_json_can_hold() -> None:
    for model in (ChatRequest, CompletionRequest):
        assert json.loads(json.dumps(model.model_json_schema()))["additionalProperties"] is False
