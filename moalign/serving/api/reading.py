"""From the bytes of a body to a checked request, or one line that says what is wrong with them."""

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from moalign.serving.api.refusals import RefusedError, shown
from moalign.serving.api.schema import NEUTRAL

M = TypeVar("M", bound=BaseModel)

# Fields of several kinds, where pydantic would list every kind that a value is not.
_EXPECTED = {
    "prompt": "a string, a list of strings, a list of token ids or a list of such lists",
    "stop": "a string or a list of strings",
    "content": 'a string or a list of {"type": "text", "text": ...}',
}

_OF_BROWSERS = ("origin", "referer", "sec-fetch-site", "sec-fetch-mode")
_SAID_BY_DEFAULT = ("", "application/x-www-form-urlencoded")


async def read(request: Request, model: type[M]) -> M:
    """The body of a request as `model`. Raises RefusedError: 415 unless it is said to be JSON, 400 for what is wrong.

    What a page in a browser may send here without asking first is of other types, so a browser must say JSON. A client
    that is none may leave it out, or say what `curl -d` does.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    browser = any(name in request.headers for name in _OF_BROWSERS)
    if kind != "application/json" and (browser or kind not in _SAID_BY_DEFAULT):
        raise RefusedError(
            415,
            f"the content type is {shown(kind) if kind else 'missing'}; expected application/json (curl: add -H "
            "'Content-Type: application/json')",
            code="not_json",
        )
    return checked(parsed(await request.body()), model)


def parsed(body: bytes) -> Any:
    """The value that a body is in JSON, by the letter: UTF-8, no NaN, no name twice, no half characters.

    Raises RefusedError (400).

    >>> parsed(b'{"n": 1}')
    {'n': 1}
    """
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_once)
        if b"\\ud" in body.lower():
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise RefusedError(400, f"the body is not UTF-8: byte {error.start} cannot be read", code="not_utf8") from error
    except UnicodeEncodeError as error:
        raise RefusedError(
            400,
            "a text holds half of a surrogate pair (\\ud800 to \\udfff alone), which is no character",
            code="not_utf8",
        ) from error
    except RecursionError as error:
        raise RefusedError(400, "the body is nested too deeply", code="not_json") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise RefusedError(400, f"the body is not JSON: {error.msg} at {place}", code="not_json") from error
    except ValueError as error:  # an integer of thousands of digits
        raise RefusedError(400, "the body holds a number of too many digits", code="not_json") from error
    return value


def checked(value: Any, model: type[M]) -> M:
    """The value as `model`. Raises RefusedError (400) about the first field that is wrong."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        # An unknown name first: what it was meant for is then often missing.
        faults = error.errors(include_url=False, include_context=True)
        fault = min(faults, key=lambda each: each["type"] not in ("unknown_field", "unsupported_field"))
        raise _refusal(fault, model) from None


def _refusal(fault: Mapping[str, Any], model: type[BaseModel]) -> RefusedError:
    place, context = list(fault["loc"]), fault.get("ctx", {})
    kinds = next((name for name in place if name in _EXPECTED), None)
    if kinds is not None and place[0] in (kinds, "messages"):
        place = place[: place.index(kinds) + 1]  # what follows names the kinds that were tried
    else:
        kinds = None  # a name that the caller chose, such as an objective's
    path = [*place, context["field"]] if "field" in context else place
    field = shown(".".join(map(str, path)))[1:-1]
    if fault["type"] == "unknown_field":
        return RefusedError(400, _unknown(field, place, model), param=field, code="unknown_field")
    if fault["type"] in ("unsupported_field", "fault"):
        return RefusedError(400, fault["msg"], param=field, code=fault["type"])
    if fault["type"] == "missing":
        return RefusedError(400, f"{field} is missing", param=field, code="missing_field")
    if not path:
        return RefusedError(400, "the body is not a JSON object", code="not_an_object")
    should = f"should be {_EXPECTED[kinds]}" if kinds else "should" + fault["msg"].partition("should")[2]
    given = fault["input"]
    came = "" if isinstance(given, dict | list) else f"; it is {shown(json.dumps(given, ensure_ascii=False))[1:-1]}"
    return RefusedError(400, f"{field} {should}{came}", param=field, code="bad_value")


def _unknown(field: str, place: Sequence[str | int], model: type[BaseModel]) -> str:
    """The near name, for a field of the request itself."""
    near = get_close_matches(field, [*model.model_fields, *NEUTRAL], n=1) if not place else []
    return f"unknown field {field!r}" + (f"; did you mean {near[0]!r}?" if near else "")


def _no_constant(name: str) -> NoReturn:
    raise RefusedError(400, f"the body holds {name}, which is not JSON; expected finite numbers", code="not_json")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise RefusedError(400, f"the body gives {shown(twice)} twice in one object", code="not_json")
    return found
