"""What a page has picked, and the pair to pick from next: pure functions of the texts there are and what a page says.

A page holds it all, as JSON; the server keeps none of it. Texts are known by a word of their own, so that picks stay
what they are while a sweep adds texts, and score differences are kept in the objectives' own units.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float

from moalign.dashboards.explorer.stored import some_texts, text_key
from moalign.errors import DataError
from moalign.exploring import Seen
from moalign.frontiers.judging import Judgement, information, judge, next_pair, own_units

PICKS = 40  # at most; where nothing is settled by then, the texts do not show what is looked for
_PROMPTS = 6  # of which the most telling pair is chosen
_ASKED = 2000  # pairs that a page may have been shown
_OWN = 60  # texts written for prompts of one's own

_IN_OWN_UNITS = ("nearest", "calibrated")  # policies that look for the most of w.V, whatever the method divides by

State = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Text:
    """A text that can be picked, and its scores in the order of the objectives, in their own units."""

    key: str
    prompt: str
    response: str
    scores: Float[np.ndarray, " m"]


Pool = Mapping[str, Sequence[Text]]


@lru_cache(maxsize=2)
def candidates(seen: Seen) -> dict[str, list[Text]]:
    """The different texts of each prompt that have every score, for prompts with at least two."""
    names, found = seen.run.objectives, dict[str, dict[str, Text]]()
    for sample in some_texts(seen):
        scores = np.array([sample.scores.get(name, np.nan) for name in names], dtype=float)
        if np.isfinite(scores).all() and sample.response.strip():
            text = Text(text_key(sample.prompt, sample.response), sample.prompt, sample.response, scores)
            found.setdefault(sample.prompt, {}).setdefault(text.key, text)
    return {prompt: list(texts.values()) for prompt, texts in found.items() if len(texts) > 1}


@lru_cache(maxsize=2)
def units(seen: Seen) -> Float[np.ndarray, " m"]:
    """The range of each objective over all stored texts, or over the points where none are; 1 for a flat one."""
    names = seen.run.objectives
    rows = [text.scores for texts in candidates(seen).values() for text in texts]
    rows = rows or [np.array([point.values[name] for name in names]) for point in seen.front]
    span = np.ptp(np.array(rows), axis=0) if rows else np.zeros(len(names))
    return np.where(np.isfinite(span) & (span > 0), span, 1.0)


@lru_cache(maxsize=2)
def asked_units(seen: Seen) -> Float[np.ndarray, " m"]:
    """The units of the weights that a preference of this run names: 1, or deviations where its method divides by them.

    Deviations are those of the stored texts.
    """
    settings, m = seen.run.config.method_settings, len(seen.run.objectives)
    divided = (
        getattr(settings, "standardise_margins", False)
        or getattr(settings, "standardise", False)
        or getattr(settings, "aggregation", "") == "normalize_then_sum"
    )
    rows = [text.scores for texts in candidates(seen).values() for text in texts]
    if not divided or not rows:
        return np.ones(m)
    deviation = np.array(rows).std(axis=0)
    return np.where(deviation > 0, deviation, 1.0)


def begun(seen: Seen) -> State:
    """A page that has picked nothing."""
    return {
        "run": list(seen.run.objectives),
        "rows": [],
        "asked": [],
        "picked": [],
        "pair": None,
        "on": False,
        "own": [],
    }


def read_state(seen: Seen, sent: Any) -> State:
    """What a page sent, if a page of this run can have sent it; an empty one for a page of another run, or of none.

    Raises DataError for anything else.
    """
    names = list(seen.run.objectives)
    if not isinstance(sent, dict) or sent.get("run") != names:
        return begun(seen)
    state = {**begun(seen), **sent}
    try:
        rows = np.array(state["rows"], dtype=float).reshape(-1, len(names))
        texts = [np.array(each["scores"], dtype=float).reshape(-1, len(names)) for each in state["own"]]
        right = len(rows) <= PICKS and len(state["asked"]) == len(state["picked"]) <= _ASKED
        right = right and sum(map(len, texts)) <= _OWN and len(rows) == sum(map(bool, state["picked"]))
    except (TypeError, ValueError, KeyError) as error:
        raise DataError("the picks of this page are of another run; begin again") from error
    if not right or not all(np.isfinite(found).all() for found in (rows, *texts)):
        raise DataError(f"expected at most {PICKS} picks, and finite scores; begin again")
    return state


def pool_of(seen: Seen, state: State, own: bool) -> Pool:
    """The texts to pick from: those of the run, or those written for the last prompt of one's own."""
    if not own:
        return candidates(seen)
    return {each["prompt"]: _own_texts(each) for each in state["own"][-1:]}


def with_own(state: State, prompt: str, texts: Sequence[str], scores: Sequence[Sequence[float]]) -> State:
    """The state with texts for a prompt of one's own; more texts for the same prompt stand with the others.

    Raises DataError when there are too many.
    """
    before = [each for each in state["own"] if each["prompt"] != prompt]
    same = next((each for each in state["own"] if each["prompt"] == prompt), {"texts": [], "scores": []})
    known = dict(zip(same["texts"], same["scores"], strict=True))
    known |= dict(zip(texts, map(list, scores), strict=True))
    own = [*before, {"prompt": prompt, "texts": list(known), "scores": list(known.values())}]
    while sum(len(each["texts"]) for each in own) > _OWN and len(own) > 1:
        own = own[1:]
    if len(known) > _OWN:
        raise DataError(f"{len(known)} texts for one prompt; expected at most {_OWN}: ask for another prompt")
    return {**state, "own": own}


def _own_texts(each: Mapping[str, Any]) -> list[Text]:
    prompt = each["prompt"]
    pairs = zip(each["texts"], each["scores"], strict=True)
    return [Text(text_key(prompt, text), prompt, text, np.array(scores, dtype=float)) for text, scores in pairs]


def texts_by_key(seen: Seen, state: State) -> dict[str, Text]:
    """Every text that a pair may name."""
    own = (text for each in state["own"] for text in _own_texts(each))
    return {text.key: text for text in (*(t for texts in candidates(seen).values() for t in texts), *own)}


def taken(seen: Seen, state: State, answer: str) -> State:
    """The state after an answer: "a", "b", "skip", "undo", "reset", or "on", which goes on though it is settled.

    Any other changes nothing.
    """
    if answer == "reset":
        return {**begun(seen), "own": state["own"]}
    if answer == "on":
        return {**state, "on": True}
    if answer == "undo":
        return _undone(state)
    pair = state["pair"]
    if answer not in ("a", "b", "skip") or not pair:
        return state
    rows = list(state["rows"])
    if answer != "skip":
        texts = texts_by_key(seen, state)
        if not set(pair) <= set(texts):  # the run has other texts now
            return {**state, "pair": None}
        first, second = (texts[key].scores for key in pair)
        rows.append((first - second if answer == "a" else second - first).tolist())
    picked = [*state["picked"], answer != "skip"]
    return {**state, "rows": rows, "asked": [*state["asked"], pair], "picked": picked, "pair": None}


def _undone(state: State) -> State:
    """Back before the last answer, with its pair to be picked from again."""
    if not state["asked"]:
        return state
    rows = state["rows"][:-1] if state["picked"][-1] else state["rows"]
    asked, picked = state["asked"][:-1], state["picked"][:-1]
    return {**state, "rows": rows, "asked": asked, "picked": picked, "pair": state["asked"][-1]}


def judged(seen: Seen, state: State) -> Judgement:
    """What the picks say, per range of the texts' scores."""
    m = len(seen.run.objectives)
    return judge(np.array(state["rows"], dtype=float).reshape(-1, m) / units(seen), 0)


def weights_of(seen: Seen, judgement: Judgement) -> dict[str, float]:
    """The weights as a preference of this run names them."""
    own = own_units(judgement.mean, units(seen) / asked_units(seen))
    return dict(zip(seen.run.objectives, own.tolist(), strict=True))


def weights_under(seen: Seen, weights: Mapping[str, float], policy: str | None) -> dict[str, float]:
    """The weights of `weights_of` as a policy reads them: "nearest" and "calibrated" count objectives in their units.

    The others mix by the weights that adapters were trained at, which a method that divides means in deviations: there
    w of deviations is w / deviation of the objectives' own.
    """
    if policy not in _IN_OWN_UNITS:
        return dict(weights)
    own = own_units(np.array([weights[name] for name in seen.run.objectives]), asked_units(seen))
    return dict(zip(seen.run.objectives, own.tolist(), strict=True))


def offered(seen: Seen, state: State, judgement: Judgement, pool: Pool) -> list[str] | None:
    """The pair of texts that says most, of a few prompts whose turn it is; None where no pair says anything.

    Which of the two stands first is as good as drawn: nobody's texts stand on one side.
    """
    prompts, scale, turn = list(pool), units(seen), len(state["asked"])
    best: tuple[float, list[str]] | None = None
    # The next prompts, and the others after them should these have no pair left.
    for at in range(len(prompts)):
        if at and at % _PROMPTS == 0 and best is not None:
            break
        texts = pool[prompts[(turn * _PROMPTS + at) % len(prompts)]]
        found = _telling(texts, scale, judgement, state["asked"])
        if found is not None and (best is None or found[0] > best[0]):
            best = found
    return None if best is None else best[1]


def _telling(
    texts: Sequence[Text], scale: Float[np.ndarray, " m"], judgement: Judgement, asked: Iterable[Sequence[str]]
) -> tuple[float, list[str]] | None:
    """The most telling pair of one prompt's texts that was not shown yet, and its bits."""
    places = {text.key: i for i, text in enumerate(texts)}
    done = [(places[a], places[b]) for a, b in asked if a in places and b in places]
    scores = np.array([text.scores for text in texts]) / scale
    pair = next_pair(scores, judgement, done) if len(texts) > 1 else None
    if pair is None:
        return None
    bits = float(information((scores[pair[0]] - scores[pair[1]])[None], judgement)[0])
    keys = [texts[i].key for i in pair]
    return bits, keys if (int(keys[0], 16) ^ int(keys[1], 16)) & 1 else keys[::-1]
