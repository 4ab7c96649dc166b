"""The two tables, indicators.py and points.py."""

import math

import numpy as np

from moalign.dashboards.indicators import INDICATORS, indicators_info
from moalign.dashboards.points import Cell, Column, points_info


def test_indicators_are_named_and_explained() -> None:
    """Known names get a title and a meaning, of an objective where they name one; unknown ones stand as they are."""
    given = {"hypervolume": 12.5, "kendall_tau helpful": 0.9, "my own": 3.0, "kendall_tau brief": 0.8}
    rows = indicators_info(given, ["helpful", "brief"], np.array([-1.0, 0.0])).rows
    assert [(row.title, row.of, row.value) for row in rows] == [
        ("Hypervolume", "", "12.5"),
        ("Kendall's tau", "helpful", "0.900"),
        ("my own", "", "3.00"),
        ("Kendall's tau", "brief", "0.800"),
    ]
    assert rows[1].meaning
    assert rows[2].meaning == rows[3].meaning == "", "unknown, and told already"


def test_reference_point_is_stated() -> None:
    info = indicators_info({}, ["helpful", "brief"], np.array([-1.5, 0.0]))
    assert info.reference_point == "helpful \N{MINUS SIGN}1.50, brief 0.00"


def test_missing_indicators_say_why() -> None:
    """None: nobody knows. NaN: these points do not define it."""
    rows = indicators_info({"hypervolume_ratio": None, "sparsity": math.nan}, [], np.zeros(0)).rows
    assert [row.value for row in rows] == ["\N{EN DASH}"] * 2
    assert rows[0].meaning.endswith("Not known for this run.")
    assert rows[1].meaning.endswith("Not defined for these points.")


def test_every_meaning_is_a_line() -> None:
    assert all(len(meaning) <= 120 and meaning.endswith(".") for _, meaning in INDICATORS.values())


def test_points_table(two) -> None:
    """The base first; values to the two digits of an error of 0.05; rows carry the numbers to sort by."""
    info = points_info(two.front, two.base)
    assert [column.shown for column in info.columns] == [
        "helpful",
        "brief",
        "KL to reference",
        "KL to optimum",
        "length",
    ]
    assert info.columns[2] == Column("KL to the reference", "KL to reference", "nats")
    assert (info.rows[0].asked, info.rows[0].standing) == ("base model", "base")
    assert info.rows[0].cells[0] == Cell("1.100 ± 0.050", 1.1)
    assert [row.standing for row in info.rows].count("dominated") == 2
    assert info.rows[1].asked == "brief 1"


def test_columns_that_nobody_has_are_left_out(make_set) -> None:
    points = make_set((1.0, 2.0))
    points.points[0] = type(points.points[0])(
        **{**vars(points.points[0]), "kl_to_oracle": None, "kl_to_reference": None, "length": None}
    )
    info = points_info(points)
    assert [column.title for column in info.columns] == ["helpful", "brief"]


def test_empty_table(make_set) -> None:
    assert points_info(make_set()).note == "No adapter has been measured yet."
