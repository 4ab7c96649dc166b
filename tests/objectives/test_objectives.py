"""Objectives from settings: every type by name, and no setting ignored."""

from pathlib import Path
from typing import Any

import pytest

from moalign.batches import Completions
from moalign.errors import ConfigError
from moalign.objectives import OBJECTIVES, Format, Length, Lexical, Repetition, RewardModel, build_objective

HERE = str(Path(__file__).parent)  # no model, but a folder; nothing is loaded before the first score
EXAMPLES: dict[str, tuple[dict[str, Any], object]] = {
    "format": ({"pattern": "a+"}, Format("x", pattern="a+")),
    "length": ({"per": 10, "unit": "characters"}, Length("x", unit="characters", per=10.0)),
    "lexical": ({"phrases": {"thank you": 1, "no": -0.5}, "cap": 2}, Lexical("x", {"thank you": 1.0, "no": -0.5}, 2.0)),
    "repetition": ({"n": 2}, Repetition("x", n=2)),
    "reward_model": ({"model": HERE, "column": "toxic", "scale": -1}, RewardModel("x", HERE, "toxic", -1.0)),
}


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_every_type_is_built_from_settings(kind: str) -> None:
    settings, expected = EXAMPLES[kind]
    assert build_objective("x", {"type": kind, **settings}) == expected


@pytest.mark.parametrize("kind", sorted(set(OBJECTIVES) - {"reward_model"}))
def test_the_empty_response_and_no_response_have_scores(kind: str) -> None:
    """One finite number for the empty text, no number for no text, and the same ones twice."""
    objective = build_objective("x", {"type": kind, **EXAMPLES[kind][0]})
    empty = Completions(["p", [{"role": "user", "content": "p"}]], ["", ""])
    assert abs(objective.score(empty)).max() < 10
    assert objective.score(empty).tolist() == objective.score(empty).tolist()
    assert objective.score(Completions([], [])).shape == (0,)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"type": "lenght"}, r"unknown type of objective 'x' 'lenght'; did you mean 'length'\?"),
        ({"type": "implicit"}, "unknown type of objective 'x' 'implicit'"),
        ({"per": 3}, "objective 'x' has no type; expected one of format, length"),
        ({"type": 3}, "objective 'x' has no type"),
        ({"type": "length", "pre": 3}, r"unknown setting of objective 'x' \(type length\) 'pre'; did you mean 'per'\?"),
        ({"type": "length", "name": "y"}, r"unknown setting of objective 'x' \(type length\) 'name'"),
        ({"type": "length", "per": "ten"}, "objective 'x': per is 'ten'; input should be a valid number"),
        (
            {"type": "length", "unit": "lines"},
            "objective 'x': unit is 'lines'; input should be 'words' or 'characters'",
        ),
        ({"type": "repetition", "n": 2.5}, "objective 'x': n is 2.5; input should be a valid integer"),
        ({"type": "repetition", "n": True}, "objective 'x': n is True; input should be a valid integer"),
        ({"type": "lexical"}, r"objective 'x' \(type lexical\) needs the setting 'phrases'"),
        ({"type": "lexical", "phrases": ["a"]}, r"objective 'x': phrases is \['a'\]; input should be a valid dict"),
        ({"type": "length", "per": 0}, "objective 'x': per is 0; expected a number above 0"),
    ],
)
def test_settings_that_cannot_be_used_are_named(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        build_objective("x", settings)


def test_the_settings_given_are_left_as_they_are() -> None:
    settings = {"type": "length", "per": 10}
    build_objective("x", settings)
    assert settings == {"type": "length", "per": 10}
