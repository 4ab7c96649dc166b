"""Results as people read them; what a name holds is text, and no markup of the terminal's."""

from typing import Any

import pytest

from moalign.tables import describe_export, describe_merge

PLAN = {
    "lanes": [{"row": {"a[b]": 0.25, "c": 0.75}, "share": 1.0}],
    "predicted": {"[bold]": {"value": 1.0, "standard_error": None, "interval": None}},
    "source": "interpolated",
}
MERGED: dict[str, Any] = {
    "folder": "out[1]",
    "method": "factors",
    "rank": 4,
    "error": 0.123456,
    "worst_layer": {"name": "layers[0].q", "error": 0.5},
    "distance_from_soup": 0.3,
    "differs": ["merged by factors", "cut to rank 4"],
    "plan": PLAN,
}


def test_a_merge_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    describe_merge(MERGED)
    assert capsys.readouterr().out.splitlines() == [
        "factors: 0.25 of a[b], 0.75 of c",
        "  [bold] +1.000 (interpolated)",
        "  these are values of the exact soup; this adapter was merged by factors and cut to rank 4",
        "rank 4: 12.3 % of the change of the weights is lost, at most 50 % of layers[0].q",
        "30 % of the exact soup's length away from it",
        "wrote out[1]",
    ]


def test_one_adapter_alone_is_no_merge_and_what_is_unknown_is_not_said(capsys: pytest.CaptureFixture[str]) -> None:
    plan = {"lanes": [{"row": {"a[b]": 1.0}, "share": 1.0}], "predicted": {}, "source": "unknown"}
    whole = {"error": 0.0, "worst_layer": None, "distance_from_soup": None, "differs": []}
    describe_merge(MERGED | whole | {"plan": plan})
    assert capsys.readouterr().out.splitlines() == ["a[b]", "rank 4: nothing is lost", "wrote out[1]"]
    describe_merge(MERGED | whole | {"plan": plan, "method": "dare", "differs": ["merged by dare"]})
    assert capsys.readouterr().out.splitlines()[0] == "dare: 1 of a[b]"


def test_an_export_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    adapters = [{"name": "a[b]", "rank": 8, "error": 0.0}, {"name": "c", "rank": 4, "error": 0.25}]
    describe_export(
        {"folder": "out", "adapters": adapters, "directions": {"a[b]": "[a]*100"}, "files": ["serve.sh", "README.md"]}
    )
    assert capsys.readouterr().out.splitlines() == [
        "a[b]: rank 8",
        "c: rank 4, 25 % lost",
        "a[b] is told in the prompt: [a]*100",
        "wrote out: see serve.sh, README.md",
    ]
