"""The card of a reward model, and what the command prints of it."""

from typing import Any

from moalign.rewards.card import card, head_lines

HELD = {"r2": 0.25, "rank_correlation": None, "pairwise_accuracy": 0.75, "rows": 9, "pairs": 21, "same_prompt": True}
HEAD = {"offset": 0.0, "label_mean": 3.5, "label_deviation": 1.25, "labels": 40, "penalty": 0.1, "heldout": HELD}


def record(**changes: Any) -> dict[str, Any]:
    return {
        "base": {"name": "org/base", "digest": "0123456789abcdef", "architecture": "BertForSequenceClassification"},
        "data": "fedcba9876543210",
        "settings": {"separator": "\n"},
        "max_length": 512,
        "steps": None,
        "rows": {"training": 40, "validation": 5, "heldout": 9, "overlong": 2},
        "heads": {"warm": HEAD, "clear": HEAD | {"heldout": None}},
        "versions": {"moalign": "1.2.3"},
    } | changes


def test_a_card_says_what_it_is_and_how_well_it_does() -> None:
    text = card(record())
    assert "heads on `org/base` (BertForSequenceClassification, digest 0123456789ab), which was left as it is." in text
    assert 'warm: {type: reward_model, model: THIS_FOLDER, column: warm, separator: "\\n"}' in text
    assert "| warm | 3.5 ± 1.25 | 9 | 0.250 |  | 0.750 | 21 pairs of one prompt |" in text
    assert "| clear | 3.5 ± 1.25 | 0 |  |  |  |  |" in text
    assert "less a constant" not in text
    assert "trained with it for 12 steps" in card(record(steps=12))


def test_a_constant_that_the_folder_cannot_hold_is_told() -> None:
    text = card(record(heads={"warm": HEAD | {"offset": -1.5}, "clear": HEAD}))
    assert text.endswith("each reward is the label less a constant. R2 is with it added: warm -1.5.\n")


def test_a_line_per_head() -> None:
    assert head_lines(record()["heads"]) == [
        "  warm   R2 0.250  rank correlation undefined  pairs right 0.750  (9 held-out rows, 21 pairs of one prompt)",
        "  clear  no held-out labels",
    ]
