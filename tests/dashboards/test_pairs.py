import numpy as np

from moalign.dashboards import front_info, pairs_figure, pairs_info
from moalign.frontiers.pareto_set import ParetoPoint, ParetoSet
from moalign.preference import Preference


def set_of(values: np.ndarray) -> ParetoSet:
    names = tuple("abcd"[: values.shape[1]])
    points = [
        ParetoPoint(str(i), "modpo", Preference.of({"a": 1.0}), dict(zip(names, row, strict=True)), {}, {})
        for i, row in enumerate(values.tolist())
    ]
    return ParetoSet(names, np.zeros(len(names)), points)


def test_strongest_conflict_comes_first() -> None:
    """b falls where a rises (tau -1), c rises with a (tau 1), d is flat (no tau, counts 0).

    So a-b and b-c conflict fully, the three pairs with d not at all, and a-c agrees; ties keep the order of columns.
    """
    ramp = np.arange(4.0)
    info = pairs_info(front_info(set_of(np.stack([ramp, -ramp, 2 * ramp, 0 * ramp], axis=1))), most=5)
    assert info.pairs == ((0, 1), (1, 2), (0, 3), (1, 3), (2, 3))
    assert info.left_out == 1


def test_one_panel_each_and_all_together(five) -> None:
    info = pairs_info(front_info(five.front, five.base, five.blends, five.oracle))
    parts = info.split()
    assert [part.pairs for part in parts] == [(pair,) for pair in info.pairs]
    x, y = info.pairs[0]
    figure = pairs_figure(parts[0])
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == (
        five.front.objectives[x],
        five.front.objectives[y],
    )
    assert not [trace for trace in figure.data if trace.mode == "lines"], "a projection has no order to follow"
    groups = [trace.legendgroup for trace in pairs_figure(info).data if trace.showlegend]
    assert len(groups) == len(set(groups)), "each kind of mark stands in the legend once"


def test_nothing_to_pair() -> None:
    info = pairs_info(front_info(set_of(np.empty((0, 3)))))
    assert pairs_figure(info).layout.annotations[0].text == info.front.note
