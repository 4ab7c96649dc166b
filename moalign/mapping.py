"""The calibrated map of a run: which mixture of its adapters attains what, fitted on all that was measured."""

import numpy as np

from moalign.blends import read_blends
from moalign.frontiers import Calibration, ParetoPoint, ParetoSet, fit_calibration
from moalign.runs import Run


def calibrated(run: Run, front: ParetoSet | None = None) -> Calibration | None:
    """Fitted on the run's points and measured blends; None with fewer than two adapters that are policies of their own.

    Columns of its rows are the adapters in the order of `run.front()`, or of `front` where its points are read already.
    A mixture of adapters that are no points counts nothing.
    """
    front, names = run.front() if front is None else front, run.objectives
    adapters = [point for point in front if point.row is None and point.direction is None]
    if len(adapters) < 2:
        return None
    places = {point.adapter: number for number, point in enumerate(adapters)}
    mixtures = [point for point in front if point.row is not None]
    mixtures += [ParetoPoint.from_dict(record) for record in read_blends(run)]
    # By name, since a blend may have become a point.
    own = {point.adapter: point for point in mixtures if set(point.mixture) <= places.keys()}
    measured = [*adapters, *own.values()]
    rows = np.zeros((len(measured), len(adapters)))
    for number, point in enumerate(measured):
        for name, weight in point.mixture.items():
            rows[number, places[name]] = weight
    return fit_calibration(
        rows,
        np.array([[point.values[name] for name in names] for point in measured]),
        np.array([[point.standard_errors.get(name, np.nan) for name in names] for point in measured]),
        np.array([point.preference.vector(names) for point in adapters]),
    )
