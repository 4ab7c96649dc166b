"""The panel of the calibrated map: what it shows is what was fitted."""

import numpy as np
import pytest

from moalign.dashboards import calibration_figure, calibration_info
from moalign.frontiers import fit_calibration

NAMES = ("helpful", "brief")


def fitted(rows):
    """Three adapters between two objectives; what a row attains is its mixture, and 0.8 x_0 x_1 more."""
    rows = np.array(rows, dtype=float)
    ends = np.array([[4.0, 0.0], [2.0, 2.5], [0.0, 4.0]])
    values = rows @ ends + 0.8 * (rows[:, 0] * rows[:, 1])[:, None]
    return fit_calibration(rows, values, np.full(values.shape, 0.1), np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]))


BLENDED = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0], [0.25, 0.75, 0], [0.2, 0.5, 0.3]]


def test_adapters_blends_and_the_map_between_them() -> None:
    """Asked of a blend is the mixture of what its adapters asked; one pair was blended, so there is one curve."""
    known = fitted(BLENDED)
    info = calibration_info(known, NAMES)
    helpful, brief = info.panels
    assert helpful.adapters == ((1.0, 4.0), (0.5, 2.0), (0.0, 0.0))
    assert [asked for asked, _ in helpful.blends] == pytest.approx([0.75, 0.625, 0.45])
    assert [asked for asked, _ in brief.blends] == pytest.approx([0.25, 0.375, 0.55])
    assert [value for _, value in helpful.blends] == pytest.approx([3.2, 2.65, 1.88])
    (curve,) = helpful.curves
    assert len(curve) == 21
    assert curve[10] == pytest.approx((0.75, known.predict(np.array([0.5, 0.5, 0.0]))[0][0]))
    assert helpful.errors == pytest.approx((0.1,) * 3)


def test_the_table_is_the_error_and_its_share_of_the_range() -> None:
    known = fitted(BLENDED)
    row = calibration_info(known, NAMES).rows[0]
    assert (row.objective, row.spread) == ("helpful", "4.00")
    assert float(row.error) == pytest.approx(known.error[0], rel=0.01)
    assert float(row.share.removesuffix(" %")) == pytest.approx(100 * known.error[0] / 4.0, abs=0.05)


def test_the_figure_holds_every_layer() -> None:
    info = calibration_info(fitted(BLENDED), NAMES)
    figure = calibration_figure(info)
    assert [trace.name for trace in figure.data] == ["map", "blend", "adapter"] * 2
    assert figure.data[1].error_y.array == pytest.approx((0.196,) * 3)
    assert [len(part.panels) for part in info.split()] == [1, 1]


def test_blends_of_three_alone_have_no_curve() -> None:
    info = calibration_info(fitted([*BLENDED[:3], BLENDED[5]]), NAMES)
    assert info.panels[0].curves == ()
    assert [trace.name for trace in calibration_figure(info).data] == ["blend", "adapter"] * 2


def test_without_blends_a_sentence_stands_for_it() -> None:
    info = calibration_info(fitted(BLENDED[:3]), NAMES)
    assert info.rows == info.panels == info.split() == ()
    assert calibration_figure(info).layout.annotations[0].text == info.note
