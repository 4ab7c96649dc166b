"""TRL's formats are read as TRL reads them, and every bad row has its reason."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moalign.data.formats import RowError, parse_completion, parse_pair, parse_prompt, parse_scored

USER, OTHER = {"role": "user", "content": "Hi"}, {"role": "user", "content": "Ho"}
GOOD, BAD = {"role": "assistant", "content": "Hello."}, {"role": "assistant", "content": "What?"}
SYSTEM = {"role": "system", "content": ""}


def test_the_three_forms_of_a_pair_say_the_same() -> None:
    """Plain text, explicit messages, and whole conversations whose beginning is the prompt."""
    assert parse_pair({"prompt": "Hi", "chosen": "Hello.", "rejected": "What?"}) == ("Hi", "Hello.", "What?")
    explicit = {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}
    implicit = {"chosen": [USER, GOOD], "rejected": [USER, BAD]}
    beside = {"prompt": "Hi", **implicit}
    null = {"prompt": None, **implicit}
    for values in (explicit, implicit, beside, null):
        assert parse_pair(values) == ([USER], "Hello.", "What?")


def test_a_longer_conversation_keeps_its_turns() -> None:
    """System, user, assistant, user: four messages are the prompt."""
    prompt = [SYSTEM, USER, GOOD, OTHER]
    assert parse_pair({"chosen": [*prompt, GOOD], "rejected": [*prompt, BAD]}) == (prompt, "Hello.", "What?")


def test_keys_that_arrow_filled_with_nulls_are_dropped() -> None:
    values = {"prompt": [{**USER, "tool_calls": None}], "chosen": [GOOD], "rejected": [BAD]}
    assert parse_pair(values)[0] == [USER]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"prompt": "Hi", "chosen": "", "rejected": "b"}, "'chosen' is empty"),
        ({"prompt": "Hi", "chosen": " \n", "rejected": "b"}, "'chosen' is empty"),
        ({"prompt": "", "chosen": "a", "rejected": "b"}, "'prompt' is empty"),
        ({"prompt": [], "chosen": [GOOD], "rejected": [BAD]}, "'prompt' is empty"),
        ({"prompt": "Hi", "chosen": "a", "rejected": "a"}, "chosen and rejected are the same text"),
        ({"chosen": [USER, GOOD], "rejected": [USER, GOOD]}, "chosen and rejected are the same text"),
        ({"prompt": "Hi", "chosen": "a"}, "no 'rejected' field; found: prompt, chosen"),
        (
            {"prompt": "Hi", "chosen": "a", "reject": "b"},
            "no 'rejected' field; found: prompt, chosen, reject; did you mean 'reject'?",
        ),
        (
            {"prompt": "Hi", "response": "a", "scores": {}},
            "no 'chosen' field; found: prompt, response, scores; did you mean a scored-responses source?",
        ),
        ({}, "no 'chosen' field; found: nothing"),
        (
            {"prompt": "Hi", "chosen": 3, "rejected": "b"},
            "'chosen' is a number (3); expected text or a list of messages",
        ),
        (
            {"prompt": 3, "chosen": "a", "rejected": "b"},
            "'prompt' is a number (3); expected text or a list of messages",
        ),
        (
            {"prompt": "Hi", "chosen": [GOOD], "rejected": "b"},
            "'chosen' is a list but 'rejected' is text; expected both of one kind",
        ),
        (
            {"prompt": [USER], "chosen": "a", "rejected": "b"},
            "'prompt' is a list but 'chosen' is text; expected both of one kind",
        ),
        (
            {"prompt": [USER], "chosen": [USER, GOOD], "rejected": [BAD]},
            "'chosen' holds messages of user, assistant after the prompt; expected one of the assistant",
        ),
        (
            {"prompt": [USER, GOOD], "chosen": [GOOD], "rejected": [BAD]},
            "'prompt' ends in an assistant's message; expected the user's (or a tool's) turn last",
        ),
        (
            {"prompt": ["Hi"], "chosen": [GOOD], "rejected": [BAD]},
            "message 1 of 'prompt' is text; expected {role, content}",
        ),
        (
            {"prompt": [{"role": "user"}], "chosen": [GOOD], "rejected": [BAD]},
            "'content' of message 1 of 'prompt' is missing; expected text",
        ),
        (
            {"prompt": [{**USER, "tool_calls": [1]}], "chosen": [GOOD], "rejected": [BAD]},
            "message 1 of 'prompt' has 'tool_calls'; only text can be used",
        ),
        (
            {"chosen": "ab", "rejected": "cd"},
            "no 'prompt' field, and chosen and rejected share no beginning that could be the prompt",
        ),
        ({"chosen": "ab", "rejected": "abc"}, "'chosen' is empty"),
        ({"prompt": "Hi", "chosen": "a\ud800", "rejected": "b"}, "'chosen' holds half a character (a lone surrogate)"),
    ],
)
def test_a_bad_pair_has_its_reason(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowError) as caught:
        parse_pair(values)
    assert str(caught.value) == reason


def test_a_prompt_is_read_from_prompt_rows_and_pair_rows() -> None:
    assert parse_prompt({"prompt": "Hi"}) == "Hi"
    assert parse_prompt({"prompt": [USER]}) == [USER]
    assert parse_prompt({"chosen": [USER, GOOD], "rejected": [USER, BAD]}) == [USER]
    assert parse_prompt({"prompt": "Hi", "chosen": "a", "rejected": "a"}) == "Hi"
    with pytest.raises(RowError, match="no 'prompt' field; found: promt; did you mean 'promt'"):
        parse_prompt({"promt": "Hi"})


def test_scored_responses_have_a_mapping_or_a_column() -> None:
    """A null score is absent; a column comes before the mapping, which stands in where the column is missing."""
    row = {"prompt": "Hi", "response": "a", "scores": {"warm": 1, "brief": None}}
    assert parse_scored(row) == ("Hi", "a", {"warm": 1.0})
    assert parse_scored({**row, "likes": 2.5}, "likes") == ("Hi", "a", {"likes": 2.5})
    assert parse_scored(row, "likes") == ("Hi", "a", {"warm": 1.0})
    conversation = {"prompt": [USER], "completion": [GOOD], "label": True}
    assert parse_scored(conversation, "label") == ([USER], "Hello.", {"label": 1.0})


@pytest.mark.parametrize(
    ("values", "column", "reason"),
    [
        ({"scores": {"warm": float("nan")}}, None, "score 'warm' is nan; expected a finite number"),
        ({"scores": {"warm": "4"}}, None, "score 'warm' is text; expected a number"),
        ({"scores": {"warm": None}}, None, "'scores' holds no score"),
        ({"scores": 4}, None, "'scores' is a number (4); expected a mapping from objective to number"),
        ({"likes": float("inf")}, "likes", "score 'likes' is inf; expected a finite number"),
        ({"like": 1}, "likes", "no 'likes' field; found: prompt, response, like; did you mean 'like'?"),
        ({"likes": 1}, None, "no 'scores' field; found: prompt, response, likes"),
        (
            {"response": None, "chosen": "a", "rejected": "b"},
            None,
            "no 'response' field; found: prompt, chosen, rejected; did you mean a pairs source?",
        ),
        ({"response": ""}, None, "'response' is empty"),
    ],
)
def test_a_bad_scored_row_has_its_reason(values: dict[str, Any], column: str | None, reason: str) -> None:
    with pytest.raises(RowError) as caught:
        parse_scored({"prompt": "Hi", "response": "a", **values}, column)
    assert str(caught.value) == reason


@pytest.fixture(scope="module")
def trl():
    return pytest.importorskip("trl.data_utils")


LETTERS = st.text(alphabet="ab ", min_size=1, max_size=6)
CONTENTS = st.lists(st.sampled_from(["x", "y"]), min_size=1, max_size=4)


@given(prompt=LETTERS, chosen=LETTERS, rejected=LETTERS)
def test_implicit_prompts_of_text_are_those_of_trl(trl, prompt: str, chosen: str, rejected: str) -> None:
    """Shared characters, the last space left to the response. Not where one text begins the other: TRL then splits
    by accident of its loop, and we refuse the empty response.
    """
    row = {"chosen": "Q" + prompt + chosen, "rejected": "Q" + prompt + rejected}
    if row["chosen"].startswith(row["rejected"]) or row["rejected"].startswith(row["chosen"]):
        return
    expected = trl.extract_prompt(row)
    try:
        ours = parse_pair(row)
    except RowError as error:
        assert "is empty" in str(error)  # noqa: PT017 (nothing but white space is left of a response)
        assert not expected["chosen"].strip() or not expected["rejected"].strip()
        return
    assert ours == (expected["prompt"], expected["chosen"], expected["rejected"])


@given(turns=CONTENTS, answers=st.permutations(["a", "b"]), explicit=st.booleans(), plain=st.booleans())
def test_conversations_are_those_of_trl(trl, turns: list[str], answers: list[str], explicit: bool, plain: bool) -> None:
    """Explicit, implicit, and a plain prompt beside whole conversations: TRL's prompt, and its one message's text."""
    prompt = [{"role": "user" if i % 2 == 0 else "assistant", "content": text} for i, text in enumerate(turns)]
    prompt.append({"role": "user", "content": "last"})
    replies = [[{"role": "assistant", "content": text}] for text in answers]
    if explicit:
        row = {"prompt": prompt, "chosen": replies[0], "rejected": replies[1]}
    else:
        row = {"chosen": prompt + replies[0], "rejected": prompt + replies[1]}
        row |= {"prompt": "last"} if plain else {}
    expected = trl.maybe_extract_prompt(row)
    assert trl.is_conversational(expected)
    assert parse_pair(row) == (
        expected["prompt"],
        expected["chosen"][0]["content"],
        expected["rejected"][0]["content"],
    )


def test_the_forms_of_a_completion_say_the_same() -> None:
    """Plain text, explicit messages, a whole conversation, and a field that another data set calls response."""
    for field in ("completion", "response"):
        assert parse_completion({"prompt": "Hi", field: "Hello."}) == ("Hi", "Hello.")
        assert parse_completion({"prompt": [USER], field: [GOOD]}) == ([USER], "Hello.")
    assert parse_completion({"messages": [USER, GOOD]}) == ([USER], "Hello.")
    assert parse_completion({"messages": [USER, GOOD], "prompt": "Ho", "completion": None}) == ([USER], "Hello.")


def test_of_a_conversation_the_last_answer_is_learnt() -> None:
    before = [SYSTEM, USER, BAD, OTHER]
    assert parse_completion({"messages": [*before, {**GOOD, "tool_calls": None}]}) == (before, "Hello.")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"prompt": "Hi"}, "no 'completion' field; found: prompt; expected prompt and completion, or messages"),
        (
            {"prompt": "Hi", "completon": "a"},
            "no 'completion' field; found: prompt, completon; did you mean 'completon'?; expected prompt and "
            "completion, or messages",
        ),
        ({"text": "a"}, "no 'messages' field; found: text; expected prompt and completion, or messages"),
        ({"completion": "a"}, "no 'prompt' field; found: completion"),
        ({"prompt": "Hi", "completion": " "}, "'completion' is empty"),
        (
            {"prompt": [USER], "completion": [GOOD, OTHER, GOOD]},
            "'completion' holds messages of assistant, user, assistant after the prompt; expected one of the assistant",
        ),
        ({"messages": "Hi"}, "'messages' is text; expected text or a list of messages"),
        ({"messages": []}, "'messages' is empty"),
        ({"messages": [GOOD]}, "'messages' holds an answer alone; expected what it answers before it"),
        ({"messages": [USER]}, "'messages' ends in a message of user; expected the assistant's answer last"),
        ({"messages": [USER, {**GOOD, "content": ""}]}, "'messages' is empty"),
        (
            {"messages": [USER, BAD, GOOD]},
            "'prompt' ends in an assistant's message; expected the user's (or a tool's) turn last",
        ),
    ],
)
def test_a_bad_completion_has_its_reason(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowError) as caught:
        parse_completion(values)
    assert str(caught.value) == reason
