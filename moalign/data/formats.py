"""What a row may look like: the formats of TRL, unchanged, and scored responses.

    plain            {"prompt": "Hi", "chosen": "Hello.", "rejected": "What?"}
    conversational   {"prompt": [{"role": "user", "content": "Hi"}],
                      "chosen": [{"role": "assistant", "content": "Hello."}], "rejected": [...]}
    implicit prompt  {"chosen": [user, assistant], "rejected": [user, assistant]}; the shared beginning is the prompt
    prompt-only      {"prompt": "Hi"}
    scored           {"prompt": "Hi", "response": "Hello.", "scores": {"warm": 4, "brief": 5}}, or one numeric column
    completion       {"prompt": "Hi", "completion": "Hello."}, plain or conversational
    messages         {"messages": [user, ..., assistant]}; the last answer is the completion, all before it the prompt

A response is always handed on as text. A field that is null counts as absent, as in a data set with mixed columns.
"""

import math
from itertools import takewhile
from typing import Any

from moalign.batches import Messages, Prompt
from moalign.errors import unknown


class RowError(ValueError):
    """A row that cannot be used; its text is the reason. `load` adds where the row stands."""


def parse_pair(values: dict[str, Any]) -> tuple[Prompt, str, str]:
    """Prompt, chosen and rejected text of a preference row.

    Without a prompt (or with one beside whole conversations, as some data sets have it) the prompt is the longest
    shared beginning of chosen and rejected: of messages, or of characters for plain text, as TRL extracts it. Raises
    RowError if a field is missing, empty or of the wrong type, if both responses are the same text, or if a response
    is not exactly one assistant message.

    >>> parse_pair({"chosen": "Q: 2+2? A: 4", "rejected": "Q: 2+2? A: 5"})
    ('Q: 2+2? A:', ' 4', ' 5')
    """
    chosen, rejected = _field(values, "chosen"), _field(values, "rejected")
    if isinstance(chosen, list) != isinstance(rejected, list):
        raise RowError(f"'chosen' is {_kind(chosen)} but 'rejected' is {_kind(rejected)}; expected both of one kind")
    prompt = values.get("prompt")
    if prompt is None or (isinstance(prompt, str) and isinstance(chosen, list)):
        prompt, chosen, rejected = _extract_prompt(chosen, rejected)
    elif isinstance(prompt, list) != isinstance(chosen, list):
        raise RowError(f"'prompt' is {_kind(prompt)} but 'chosen' is {_kind(chosen)}; expected both of one kind")
    chosen, rejected = _response(chosen, "chosen"), _response(rejected, "rejected")
    if chosen == rejected:
        raise RowError("chosen and rejected are the same text")
    return _prompt(prompt), chosen, rejected


def parse_prompt(values: dict[str, Any]) -> Prompt:
    """The prompt of a row, which may be a preference row too.

    Raises RowError if it is missing, empty, of the wrong type, or ends in an assistant's message.

    >>> parse_prompt({"prompt": [{"role": "user", "content": "Hi"}]})
    [{'role': 'user', 'content': 'Hi'}]
    """
    chosen, rejected = values.get("chosen"), values.get("rejected")
    prompt = values.get("prompt")
    if chosen is not None and rejected is not None and (prompt is None or isinstance(chosen, list)):
        return parse_pair(values)[0]
    return _prompt(_field(values, "prompt"))


def parse_scored(values: dict[str, Any], column: str | None = None) -> tuple[Prompt, str, dict[str, float]]:
    """Prompt, response text (field `response` or `completion`) and scores by name.

    The score is the one number in `column`, under that name; a row without such a field gives all of its `scores`
    mapping. A score of null is left out. Raises RowError if there is no score, or one is NaN, infinite or no number.

    >>> parse_scored({"prompt": "Hi", "response": "Hello.", "likes": 3}, "likes")
    ('Hi', 'Hello.', {'likes': 3.0})
    """
    field = "response" if values.get("response") is not None else "completion"
    if values.get(field) is None:
        raise RowError(_missing("response", values))
    prompt, response = _prompt(_field(values, "prompt")), _response(values[field], field)
    if column is not None and values.get(column) is not None:
        found = {column: values[column]}
    else:
        found = _field(values, "scores" if column is None or values.get("scores") is not None else column)
    if not isinstance(found, dict):
        raise RowError(f"'scores' is {_kind(found)}; expected a mapping from objective to number")
    scores = {name: _number(name, score) for name, score in found.items() if score is not None}
    if not scores:
        raise RowError("'scores' holds no score")
    return prompt, response, scores


def parse_completion(values: dict[str, Any]) -> tuple[Prompt, str]:
    """Prompt and answer of a row to be imitated: `prompt` and `completion` (or `response`), or `messages`.

    Of a conversation the last answer alone is learnt; the assistant's earlier ones are part of its prompt. (TRL learns
    those as well, unless its data are split beforehand.) Raises RowError if a field is missing, empty or of the wrong
    type, or if the conversation does not end in one message of the assistant.

    >>> parse_completion({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]})
    ([{'role': 'user', 'content': 'Hi'}], 'Hello.')
    """
    field = next((name for name in ("completion", "response") if values.get(name) is not None), None)
    if field is not None:
        return _prompt(_field(values, "prompt")), _response(values[field], field)
    if values.get("messages") is None:
        wanted = "messages" if values.get("prompt") is None else "completion"
        raise RowError(_missing(wanted, values) + "; expected prompt and completion, or messages")
    messages = _messages(values["messages"], "messages")
    if messages[-1]["role"] != "assistant":
        raise RowError(f"'messages' ends in a message of {messages[-1]['role']}; expected the assistant's answer last")
    if len(messages) == 1:
        raise RowError("'messages' holds an answer alone; expected what it answers before it")
    return _prompt(messages[:-1]), _text(messages[-1]["content"], "messages")


def _extract_prompt(chosen: Any, rejected: Any) -> tuple[Any, Any, Any]:
    if chosen == rejected:
        raise RowError("chosen and rejected are the same text")
    if not isinstance(chosen, str | list) or not isinstance(rejected, str | list):
        raise RowError(f"'chosen' is {_kind(chosen)}; expected text or a list of messages")
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False)))
    if shared and chosen[shared - 1] == " ":
        shared -= 1  # the space belongs to the response: tokenizers join it to the word that follows
    if shared == 0:
        raise RowError("no 'prompt' field, and chosen and rejected share no beginning that could be the prompt")
    return chosen[:shared], chosen[shared:], rejected[shared:]


def _field(values: dict[str, Any], name: str) -> Any:
    if values.get(name) is None:
        raise RowError(_missing(name, values))
    return values[name]


def _missing(name: str, values: dict[str, Any]) -> str:
    found = [key for key, value in values.items() if value is not None]
    text = f"no {name!r} field; found: {', '.join(found) or 'nothing'}"
    if name in ("chosen", "rejected") and {"response", "completion", "scores"} & set(found):
        return text + "; did you mean a scored-responses source?"
    if name in ("response", "scores") and {"chosen", "rejected"} <= set(found):
        return text + "; did you mean a pairs source?"
    near = unknown("field", name, found).partition("; did you mean ")[2].partition("?")[0]
    return text + (f"; did you mean {near}?" if near else "")


def _prompt(value: Any) -> Prompt:
    if isinstance(value, str):
        return _text(value, "prompt")
    messages = _messages(value, "prompt")
    if messages[-1]["role"] == "assistant":
        raise RowError("'prompt' ends in an assistant's message; expected the user's (or a tool's) turn last")
    return messages


def _response(value: Any, field: str) -> str:
    if isinstance(value, str):
        return _text(value, field)
    messages = _messages(value, field)
    roles = [message["role"] for message in messages]
    if roles != ["assistant"]:
        raise RowError(
            f"{field!r} holds messages of {', '.join(roles)} after the prompt; expected one of the assistant"
        )
    return _text(messages[0]["content"], field)


def _text(value: str, field: str) -> str:
    if not value.strip():
        raise RowError(f"{field!r} is empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RowError(f"{field!r} holds half a character (a lone surrogate)") from None
    return value


def _messages(value: Any, field: str) -> Messages:
    if not isinstance(value, list):
        raise RowError(f"{field!r} is {_kind(value)}; expected text or a list of messages")
    if not value:
        raise RowError(f"{field!r} is empty")
    messages: Messages = []
    for number, message in enumerate(value, 1):
        if not isinstance(message, dict):
            raise RowError(f"message {number} of {field!r} is {_kind(message)}; expected {{role, content}}")
        # Arrow fills the keys that a message lacks with nulls.
        message = {key: item for key, item in message.items() if item is not None}
        for key in ("role", "content"):
            if not isinstance(message.get(key), str):
                kind = _kind(message[key]) if key in message else "missing"
                raise RowError(f"{key!r} of message {number} of {field!r} is {kind}; expected text")
        other = next((key for key, item in message.items() if not isinstance(item, str)), None)
        if other is not None:
            raise RowError(f"message {number} of {field!r} has {other!r}; only text can be used")
        messages.append(message)
    return messages


def _number(name: str, value: Any) -> float:
    if not isinstance(value, int | float):
        raise RowError(f"score {name!r} is {_kind(value)}; expected a number")
    if not math.isfinite(value):
        raise RowError(f"score {name!r} is {value}; expected a finite number")
    return float(value)


def _kind(value: Any) -> str:
    kinds = {str: "text", list: "a list", dict: "a mapping", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), f"a number ({value})" if isinstance(value, int | float) else type(value).__name__)
