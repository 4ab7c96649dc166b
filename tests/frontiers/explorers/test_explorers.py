"""What all explorers share: the contract, the book, their names; and which of them find a front with fewer points."""

import math

import numpy as np
import pytest

from moalign.errors import ConfigError, DataError, PreferenceError
from moalign.frontiers import Answers, corners, hypervolume, lattice, oracle_front
from moalign.frontiers.explorers import EXPLORERS, Explorer, Grid, build_explorer
from moalign.frontiers.explorers.base import Book, even
from moalign.testing import check_explorer


@pytest.mark.parametrize("m", [2, 3, 4])
@pytest.mark.parametrize("kind", EXPLORERS)
def test_built_in_explorers_keep_the_contract(kind, m, monkeypatch):
    """The promises do not depend on how well the volume is estimated, so few candidates and samples will do."""
    monkeypatch.setattr("moalign.frontiers.explorers.hypervolume.CANDIDATES", 16)
    monkeypatch.setattr("moalign.frontiers.explorers.hypervolume.SAMPLES", 4)
    check_explorer(lambda m, points, seed: build_explorer(kind, m, points, np.full(m, -0.1), seed), m)


class Broken:
    """A grid whose answers are changed by a function of the explorer and its answer."""

    def __init__(self, m, points, seed, change):
        self.grid, self.change, self.told, self.seed = Grid(m, points, seed), change, 0, seed

    def ask(self, count):
        return self.change(self, self.grid.ask(count))

    def tell(self, preferences, values, errors):
        self.told += 1
        self.grid.tell(preferences, values, errors)


def shifted(explorer, answer):
    """As it is, but different in each explorer that is made."""
    shares = np.arange(1, answer.shape[1] + 1) * (id(explorer) % 97 + 1) * 1e-5
    return (answer + shares) / (1 + shares.sum())


class Spoils(Broken):
    def tell(self, preferences, values, errors):
        super().tell(preferences, values, errors)
        values[:] = 0.25


class Takes(Broken):
    """Hands out one array again and again."""

    def ask(self, count):
        self.last = super().ask(count)
        return self.last

    def tell(self, preferences, values, errors):
        super().tell(preferences, values, errors)
        self.last += 1.0


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda explorer, answer: answer[:, :-1], "preferences of shape"),
        (lambda explorer, answer: np.vstack([answer, answer]), "it gave"),
        (lambda explorer, answer: answer * 1.01, "do not sum to 1"),
        (lambda explorer, answer: answer * np.nan, "a weight is negative or NaN"),
        (lambda explorer, answer: 2 * answer - 1 / answer.shape[1], "a weight is negative or NaN"),
        (lambda explorer, answer: np.roll(np.eye(answer.shape[1]), 1, axis=0)[: len(answer)], "asks again for"),
        (lambda explorer, answer: np.repeat(answer[:1], len(answer), axis=0), "asks again for"),
        (lambda explorer, answer: answer[:0], "made for one point, it asks for none"),
        (shifted, "asks for something else"),
    ],
)
def test_a_broken_explorer_is_noticed(change, line):
    made = []

    def make(m, points, seed):
        made.append(Broken(m, points, seed, change))  # kept, so that no two have one id
        return made[-1]

    with pytest.raises(AssertionError, match=line):
        check_explorer(make)


@pytest.mark.parametrize(("kind", "line"), [(Spoils, "changed what it was told"), (Takes, "answered has changed")])
def test_an_explorer_that_writes_to_others_arrays_is_noticed(kind, line):
    with pytest.raises(AssertionError, match=line):
        check_explorer(lambda m, points, seed: kind(m, points, seed, lambda explorer, answer: answer.copy()))


def test_one_that_asks_beyond_its_points_is_noticed():
    with pytest.raises(AssertionError, match=r"it gave|asks for more"):
        check_explorer(lambda m, points, seed: Grid(m, points + 1, seed))


@pytest.mark.parametrize("kind", EXPLORERS)
def test_they_are_built_by_name(kind):
    explorer = build_explorer(kind, 2, 5, np.zeros(2), seed=0)
    assert isinstance(explorer, Explorer)
    np.testing.assert_array_equal(explorer.ask(2), corners(2))


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ConfigError, match="unknown explorer 'crowdin'; did you mean 'crowding'"):
        build_explorer("crowdin", 2, 5, np.zeros(2), seed=0)
    for m, points in ((0, 5), (2, 0)):
        with pytest.raises(ConfigError, match=f"{m} objectives and {points} points; expected at least 1 of each"):
            build_explorer("crowding", m, points, np.zeros(m), seed=0)
    for reference in (np.zeros(3), np.array([0.0, np.nan])):
        with pytest.raises(ConfigError, match=r"reference point is .*; expected 2 finite numbers"):
            build_explorer("hypervolume", 2, 5, reference, seed=0)


def told(book, *rows):
    """Tell preferences of two objectives by their first weight, with the values (v, -v) and errors of 0.1."""
    weights, values = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    book.tell(np.stack([weights, 1 - weights], 1), np.stack([values, -values], 1), np.full((len(rows), 2), 0.1))


def test_the_book_replaces_what_is_told_again_and_keeps_the_order():
    book = Book(2, points=9)
    told(book, (1, 5.0), (0, 6.0))
    before = book.values
    told(book, (0.5, 7.0), (1 - 1e-8, 8.0))
    assert book.values[:, 0].tolist() == [8, 6, 7]
    assert before[:, 0].tolist() == [5, 6]
    assert book.preferences[:, 0].tolist() == [1, 0, 0.5]


def test_the_book_knows_what_is_on_its_way_and_what_is_left():
    book = Book(2, points=4)
    assert len(book.issue(lattice(2, 2), count=2)) == 2
    told(book, (1, 5.0), (0.25, math.nan), (0.3, math.inf))
    assert book.unmeasured[:, 0].tolist() == [0.25, 0.3, 0.5]
    assert book.measured.tolist() == [True, False, False]
    assert book.left == 0
    assert len(book.issue(lattice(2, 2), count=1)) == 0


def test_the_book_refuses_what_is_no_preference():
    for row in ([0.7, 0.7], [1.5, -0.5], [np.nan, 1.0]):
        with pytest.raises(PreferenceError, match="expected weights >= 0 that sum to 1"):
            Book(2, points=4).tell(np.array([row]), np.zeros((1, 2)), np.zeros((1, 2)))
    with pytest.raises(DataError, match="expected \\(2, 2\\) for each: 2 objectives"):
        Book(2, points=4).tell(np.eye(3)[:2], np.zeros((2, 3)), np.zeros((2, 3)))


def test_each_row_is_the_furthest_from_those_before_it():
    """Against the definition, by brute force; the first of equals."""
    rows, beside = lattice(3, 5), np.array([[0.2, 0.2, 0.6]])
    taken = list(beside)
    for row in even(rows, beside, count=9):
        gaps = np.array([min(np.linalg.norm(other - one) for one in taken) for other in rows])
        np.testing.assert_array_equal(row, rows[gaps.round(9).argmax()])
        taken.append(row)
    assert len(np.unique(even(rows, beside[:0], count=99), axis=0)) == len(rows)


def unlike_scales(seed=1):
    """Answers to six prompts; the second objective varies ten times as much as the third."""
    rng = np.random.default_rng(seed)
    return [Answers(rng.normal(size=40), rng.normal(size=(40, 3)) * [1.0, 3.0, 0.3]) for _ in range(6)]


@pytest.mark.parametrize(
    ("kind", "batch", "share", "divisions"), [("crowding", 1, 0.84, 7), ("hypervolume", 4, 0.92, 8)]
)
def test_they_need_fewer_points_than_the_grid(kind, batch, share, divisions):
    """Where the objectives' scales differ, equal steps of weight are unequal steps of value, as in real sweeps.

    Shares of the volume of the exact front at 66 preferences; the explorers see values with an error of 1 % of their
    range. With 16 points each reaches a share that no lattice reaches up to 36 points, or up to 45.
    """
    world, rng = unlike_scales(), np.random.default_rng(0)
    full = oracle_front(world, lattice(3, 10), beta=0.1)[0]
    widths = np.ptp(full, axis=0)
    reference = full.min(axis=0) - 0.05 * widths

    def reached(preferences):
        front = oracle_front(world, preferences, beta=0.1)[0]
        return hypervolume(front, reference) / hypervolume(full, reference)

    explorer = build_explorer(kind, 3, 16, reference, seed=0)
    asked = np.zeros((0, 3))
    while len(rows := explorer.ask(batch)):
        asked = np.vstack([asked, rows])
        values = oracle_front(world, rows, beta=0.1)[0]
        explorer.tell(rows, values + rng.normal(size=rows.shape) * 0.01 * widths, np.full(rows.shape, 0.01) * widths)
    assert len(asked) == 16
    assert reached(asked) > share > max(reached(lattice(3, steps)) for steps in range(1, divisions + 1))
