"""What moalign relies on in an explorer of preferences."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from moalign.frontiers.explorers import Explorer

MakeExplorer = Callable[[int, int, int], Explorer]

# What is attained at the preferences asked for.
WORLDS: dict[str, Callable[[Float[np.ndarray, "n m"]], Float[np.ndarray, "n m"]]] = {
    "an uneven front": lambda asked: asked ** np.arange(1, asked.shape[1] + 1),
    "all points equal": lambda asked: np.full(asked.shape, 0.5),
    "a flat objective": lambda asked: np.where(np.arange(asked.shape[1]) > 0, np.sqrt(asked), 0.5),
    "a NaN row": lambda asked: np.where(asked[:, :1] < 1, asked, np.nan),
    "a NaN objective": lambda asked: np.where(np.arange(asked.shape[1]) > 0, asked, np.nan),
    "NaN alone": lambda asked: np.full(asked.shape, np.nan),
}


def check_explorer(make: MakeExplorer, objectives: int = 3) -> None:
    """Assert what moalign relies on in an explorer; AssertionError says which promise is broken.

    `make(m, points, seed)` must give a new explorer every time; the values that it is told lie in [0, 1]. It asks for
    at most as many preferences as it is asked for and has left, on the simplex, and never for one that it asked for or
    was told before: on an uneven front, with points that are all equal or flat in one objective, with NaN in a row,
    in an objective or everywhere, before it is told anything, after one point alone, after preferences that it never
    asked for, and after the same ones with other values. What it is given is left as it was, and what it has answered
    stays. One that is made anew with the same seed and told the same asks the same.

    >>> from moalign.frontiers.explorers import Grid
    >>> check_explorer(Grid)
    """
    m, name = objectives, type(make(objectives, 1, 0)).__name__
    for world, values in WORLDS.items():
        sweep = _Sweep(make, m, m + 5, f"{name}, {world}")
        for count in (m + 1, 2, m + 5):
            sweep.tell(asked := sweep.ask(count), values(asked))
        sweep.ask(1)  # of those left: none, unless it found nothing worth asking for before
    alone = _Sweep(make, m, 1, f"{name}, one point to train")
    assert len(alone.ask(9)) == 1, f"{name}: made for one point, it asks for none"
    assert len(alone.ask(9)) == 0, f"{name}: made for one point, it asks for more"
    before = _Sweep(make, m, m + 9, f"{name}, told before it asked")
    middle = np.vstack([np.full(m, 1 / m), (np.eye(m)[0] + np.eye(m)[1]) / 2])
    before.tell(middle[:1], middle[:1])
    before.ask(2)  # not told of: a worker is still at it
    before.tell(middle, middle[::-1].copy())  # measured again
    for count in (m, 3):
        before.ask(count)


class _Sweep:
    """An explorer, all that it was asked and told so far, and a check of every answer."""

    def __init__(self, make: MakeExplorer, m: int, points: int, name: str) -> None:
        self.make, self.m, self.points, self.name = make, m, points, name
        self.explorer = make(m, points, 7)
        self.asked: list[np.ndarray] = []
        self.answers: list[tuple[np.ndarray, np.ndarray]] = []
        self.told: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def ask(self, count: int) -> np.ndarray:
        answer = self.explorer.ask(count)
        known = [*self.asked, *(preferences for preferences, _, _ in self.told)]
        different = len(np.unique(np.vstack([np.zeros((0, self.m)), *known]).round(9), axis=0))
        limit = max(min(count, self.points - different), 0)
        assert answer.shape[1:] == (self.m,), f"{self.name}: preferences of shape {answer.shape}, not (q, {self.m})"
        assert len(answer) <= limit, f"{self.name}: asked for {count} with {limit} left, it gave {len(answer)}"
        assert (answer >= 0).all(), f"{self.name}: a weight is negative or NaN: {answer.tolist()}"
        assert (np.abs(answer.sum(axis=1) - 1) < 1e-9).all(), f"{self.name}: weights do not sum to 1: {answer.tolist()}"
        for row in answer:
            assert not any(np.abs(rows - row).max(axis=1, initial=0).min(initial=1) < 1e-9 for rows in known), (
                f"{self.name}: it asks again for {row.tolist()}"
            )
            known.append(row[None])
        self._check_anew(answer, count)
        self.asked.append(answer.copy())
        self.answers.append((answer, answer.copy()))
        return answer.copy()

    def _check_anew(self, answer: np.ndarray, count: int) -> None:
        """Only while nothing is asked for and not told: what is on its way, a new explorer cannot know."""
        preferences = [tuple(row) for told, _, _ in self.told for row in told]
        if all(tuple(row) in preferences for rows in self.asked for row in rows):
            anew = self.make(self.m, self.points, 7)
            for told in self.told:
                anew.tell(*told)
            line = f"{self.name}: made anew and told the same, it asks for something else"
            np.testing.assert_array_equal(anew.ask(count), answer, err_msg=line)

    def tell(self, preferences: np.ndarray, values: np.ndarray) -> None:
        given = preferences, values, np.where(np.isnan(values), np.nan, 0.01)
        self.told.append((given[0].copy(), given[1].copy(), given[2].copy()))
        self.explorer.tell(*given)
        for array, copy in zip(given, self.told[-1], strict=True):
            np.testing.assert_array_equal(array, copy, err_msg=f"{self.name}: it changed what it was told")
        for answer, copy in self.answers:
            np.testing.assert_array_equal(answer, copy, err_msg=f"{self.name}: what it had answered has changed")
