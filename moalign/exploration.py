"""Which preferences a sweep trains next: all known beforehand, or asked of an explorer wave by wave."""

from collections.abc import Iterator, Sequence

import numpy as np

from moalign.files import create_once, read_json
from moalign.frontiers.explorers import build_explorer
from moalign.planning import Plan, Planner, preferences_of
from moalign.preference import Preference
from moalign.runs import Run


class Exploration:
    """The waves of a run.

    What an explorer was answered is stored before it is trained, so that a continued run, and other workers, go on with
    the same preferences. The corners come first: they are the ends of every front, and what others may start from.
    """

    def __init__(self, run: Run, planner: Planner):
        self.run, self.planner, self.settings = run, planner, run.config.explorer_settings
        self._known = [] if self.settings.adaptive else planner.waves()
        self._points = self.settings.points or len(preferences_of(run.config))

    @property
    def total(self) -> int:
        """How many policies will be measured."""
        if self.settings.adaptive:
            return max(self._points, len(self.run.objectives))
        if self.planner.one_by_one:
            return sum(map(len, self._known))
        return len(self.planner.policies([]))

    @property
    def widest(self) -> int:
        """Adapters in the largest wave."""
        if self.settings.adaptive:
            return max(self._batch, len(self.run.objectives))
        return max(map(len, self._known))

    def waves(self) -> Iterator[list[Plan]]:
        """Adapters to train, wave by wave; the next one is asked for when the one before is measured."""
        if not self.settings.adaptive:
            yield from self._known
            return
        done = self.planner.corners()
        yield done
        number = 0
        while len(done) < self._points:
            asked = self._asked(number, done)
            known = {plan.key for plan in done}
            wave = [plan for plan in self.planner.further(asked) if plan.key not in known]
            if not wave:
                return
            yield wave
            done, number = [*done, *wave], number + 1

    @property
    def _batch(self) -> int:
        return self.settings.batch or len(self.run.objectives)

    def _asked(self, number: int, done: Sequence[Plan]) -> list[Preference]:
        path = self.run.folder / "asked" / f"{number}.json"
        if not path.is_file():
            weights = self._ask(done, min(self._batch, self._points - len(done)))
            create_once(path, {"preferences": [preference.weights for preference in weights]})
        return [Preference.of(weights) for weights in read_json(path)["preferences"]]

    def _ask(self, done: Sequence[Plan], count: int) -> list[Preference]:
        names, front = self.run.objectives, self.run.front()
        explorer = build_explorer(
            self.settings.type, len(names), self._points, front.reference_point, self.run.config.seed
        )
        order = [plan.key for plan in done]
        points = sorted((p for p in front if p.adapter in order), key=lambda point: order.index(point.adapter))
        explorer.tell(
            np.array([point.preference.vector(names) for point in points]),
            np.array([[point.values[name] for name in names] for point in points]),
            np.array([[point.standard_errors[name] for name in names] for point in points]),
        )
        asked = explorer.ask(count)
        return [Preference.of(dict(zip(names, row.tolist(), strict=True))) for row in asked]
