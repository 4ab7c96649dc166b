import csv
import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from logged import Moment, course

from moalign.dashboards.records import Blend, Sample
from moalign.dashboards.spreadsheet import points_csv, steps_csv, texts_csv
from moalign.frontiers.pareto_set import ParetoPoint, ParetoSet
from moalign.history import History, Trace
from moalign.preference import Preference

_WIDE = (
    "\N{FULLWIDTH EQUALS SIGN}",
    "\N{FULLWIDTH PLUS SIGN}",
    "\N{FULLWIDTH HYPHEN-MINUS}",
    "\N{FULLWIDTH COMMERCIAL AT}",
)
LIVE = ("=", "+", "-", "@", "\t", "\r", "\n", *_WIDE)


def make_point(adapter: str, names: tuple[str, ...], values: tuple[float, ...]) -> ParetoPoint:
    weights = dict.fromkeys(names, 1.0)
    return ParetoPoint(adapter, "modpo", Preference.of(weights), dict(zip(names, values, strict=True)), {}, {})


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def test_every_number_of_a_point_has_a_cell() -> None:
    """The second point dominates the first; the base stands before both and on no front."""
    names = ("warm", "brief")
    full = ParetoPoint(
        "a1",
        "soup",
        Preference.of({"warm": 3.0, "brief": 1.0}),
        {"warm": -1.5, "brief": 2.0},
        {"warm": 0.1},
        {"warm": (-1.7, -1.3)},
        kl_to_reference=0.25,
        length=31.5,
        row={"h": 0.75, "b": 0.25},
        direction={"warm": 1.0},
    )
    front = ParetoSet(names, np.zeros(2), [full, make_point("a2", names, (0.0, 3.0))])
    base, first, second = read(points_csv(front, make_point("x", names, (9.0, 9.0))))
    assert (base["adapter"], base["on_front"], base["value warm"]) == ("base", "", "9.0")
    assert (first["adapter"], first["method"], first["on_front"]) == ("a1", "soup", "false")
    assert (first["weight warm"], first["value warm"], first["standard_error warm"]) == ("0.75", "-1.5", "0.1")
    assert (first["low warm"], first["high warm"], first["low brief"]) == ("-1.7", "-1.3", "")
    assert (first["kl_to_reference (nats)"], first["kl_to_oracle (nats)"], first["length (tokens)"]) == (
        "0.25",
        "",
        "31.5",
    )
    assert json.loads(first["row"]) == {"h": 0.75, "b": 0.25}
    assert json.loads(first["direction"]) == {"warm": 1.0}
    assert (second["on_front"], second["row"]) == ("true", "")


@given(st.text(), st.text(min_size=1), st.floats(allow_nan=False, allow_infinity=False))
def test_reading_gives_back_what_was_written(adapter: str, name: str, value: float) -> None:
    """Commas, quotes, line feeds and all of Unicode; an apostrophe before what a spreadsheet would run."""
    if any("\ud800" <= letter <= "\udfff" or letter == "\0" for letter in adapter + name):
        return
    (row,) = read(points_csv(ParetoSet((name,), np.zeros(1), [make_point(adapter, (name,), (value,))])))
    assert row["adapter"].removeprefix("'" if adapter[:1] in LIVE and adapter else "") == adapter
    assert float(row[f"value {name}"]) == value
    assert math.copysign(1.0, float(row[f"value {name}"])) == math.copysign(1.0, value)


@pytest.mark.parametrize(
    "live", ["=1+1", "+1", "-1", "@sum", "\t=1", "\r=1", "\n=1", "\N{FULLWIDTH EQUALS SIGN}1+1", '=cmd|"/c calc"!A1']
)
def test_no_text_begins_like_a_formula(live: str) -> None:
    point = replace(make_point(live, (live, "b"), (1.0, 2.0)), method=live, row={live: 1.0})
    table = list(csv.reader(io.StringIO(points_csv(ParetoSet((live, "b"), np.zeros(2), [point])), newline="")))
    assert not any(cell.startswith(LIVE) for line in table for cell in line)


def test_a_number_below_zero_is_a_number_and_what_is_not_known_is_empty() -> None:
    point = replace(
        make_point("a", ("warm",), (-2.0,)), standard_errors={"warm": math.nan}, kl_to_oracle=-0.5, length=math.inf
    )
    (row,) = read(points_csv(ParetoSet(("warm",), np.zeros(1), [point])))
    assert (row["value warm"], row["kl_to_oracle (nats)"]) == ("-2.0", "-0.5")
    assert (row["standard_error warm"], row["length (tokens)"]) == ("", "")


def test_an_empty_set_has_its_headings() -> None:
    text = points_csv(ParetoSet(("warm",), np.zeros(1)))
    assert text.startswith("adapter,method,on_front,weight warm,value warm,")
    assert text.count("\r\n") == 1


def test_a_measured_blend_is_a_line_without_a_name() -> None:
    blend = Blend({"a1": 0.5, "a2": 0.5}, Preference.of({"warm": 1.0}), {"warm": 0.25}, {"warm": 0.1})
    (row,) = read(points_csv(ParetoSet(("warm",), np.zeros(1)), None, [blend]))
    assert (row["adapter"], row["method"], row["value warm"], row["low warm"]) == ("", "blend", "0.25", "")
    assert json.loads(row["row"]) == {"a1": 0.5, "a2": 0.5}


def test_a_step_has_all_that_was_logged_of_it_and_nothing_else() -> None:
    """Inner products 4, 1 and -1: a cosine of -1/2. Of the second step only the loss is known."""
    moments = [
        Moment(1, kl=0.5, rewards=(1.0, None), weights=(0.25, 0.75), gram=((4.0, -1.0), (-1.0, 1.0))),
        Moment(2, loss=-0.125),
    ]
    found = History(("warm", "=b"), (), (Trace("-a", ("-a",), None, 2, course(moments)),), ())
    first, second = read(steps_csv(found))
    assert (first["of"], first["unit"], first["step"], first["loss"]) == ("'-a", "step", "1", "")
    assert (first["kl (nats)"], first["reward warm"], first["reward =b"]) == ("0.5", "1.0", "")
    assert (first["weight =b"], first["cosine warm | =b"]) == ("0.75", "-0.5")
    assert [second[name] for name in ("step", "loss", "kl (nats)", "cosine warm | =b")] == ["2", "-0.125", "", ""]


def test_a_text_is_quoted_and_never_a_formula() -> None:
    samples = [Sample("a", "=1+1", 'he said "no",\r\nand left', {"warm": math.nan, "brief": -1.0})]
    (row,) = read(texts_csv(samples, ("warm", "brief")))
    assert (row["prompt"], row["response"]) == ("'=1+1", 'he said "no",\r\nand left')
    assert (row["score warm"], row["score brief"]) == ("", "-1.0")
