"""The card: what the record says, and nothing that it does not."""

from typing import Any

import pytest

from moalign.cards import card, differs

RECORD: dict[str, Any] = {
    "base": {"name": "org/base", "digest": "d0"},
    "merged": {"rank": 4, "error": 0.0, "worst_layer": None, "distance_from_soup": None},
    "plan": {"source": "unknown", "predicted": {}, "direction": None},
    "versions": {"moalign": "1"},
    "method": "modpo",
    "preference": {"warm": 1.0},
    "recipe": {"parents": {"w": {"weight": 1.0}}, "merge": "soup", "options": {}, "rank": None},
    "measured": {"w": {"preference": {"warm": 1.0}, "values": {"warm": 0.5}, "intervals": {"warm": [0.25, 0.75]}}},
    "objectives": {"warm": {"pairs": "warm.jsonl"}, "brief": {"type": "length", "unit": "words", "per": 1.0}},
    "data": None,
    "seed": 0,
    "command": "moalign merge",
}
KNOWN = {"source": "measured", "predicted": {"warm": {"value": 0.5, "interval": None, "standard_error": None}}}


def changed(**changes: Any) -> str:
    record = {**RECORD, **{name: RECORD[name] | change for name, change in changes.items()}}
    return card("mine", record)


def test_what_is_not_known_is_said_to_be_unknown() -> None:
    page = changed()
    assert "Nothing is known of what this mixture attains" in page
    assert "| w | 1 | warm 1 | 0.5 (0.25 to 0.75) | unknown |" in page
    assert "data digest: unknown" in page
    assert "| objective | value" not in page


def test_units_stand_with_the_objectives() -> None:
    page = changed()
    assert "| warm | learned from its pairs: beta times the log-ratio to the base, in nats |" in page
    assert r'| brief | length | \{"unit": "words", "per": 1.0\} |' in page


@pytest.mark.parametrize(
    ("recipe", "merged", "expected"),
    [
        ({}, {}, ()),
        ({"merge": "ties"}, {}, ()),  # of one adapter it is that adapter
        ({"merge": "dare", "options": {"density": 0.5}}, {}, ("merged by dare",)),
        ({"parents": {"w": {"weight": 0.5}, "b": {"weight": 0.5}}, "merge": "slerp"}, {}, ("merged by slerp",)),
        ({"parents": {"w": {"weight": 0.5}, "b": {"weight": 0.5}}}, {}, ()),
        ({}, {"error": 0.1, "worst_layer": {"name": "q", "error": 0.1}}, ("cut to rank 4",)),
    ],
)
def test_values_are_of_the_exact_soup(recipe: dict[str, Any], merged: dict[str, Any], expected: tuple[str]) -> None:
    """Where the folder holds another adapter, the card says so below them."""
    page = changed(recipe=recipe, merged=merged, plan=KNOWN)
    assert differs(RECORD["recipe"] | recipe, RECORD["merged"] | merged) == expected
    assert ("These are values of the exact soup" in page) == bool(expected)
    assert all(part in page for part in expected)


def test_a_rank_above_all_that_vllm_takes_is_said() -> None:
    assert "--max-lora-rank 512" in changed(merged={"rank": 500})
    assert "vLLM takes ranks up to 512: merge with --rank for it." in changed(merged={"rank": 513})
