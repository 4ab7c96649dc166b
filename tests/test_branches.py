"""Branches: what they must keep, how they train, and which of what they attain on the way is taken."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_world
import torch
from made_runs import point

from moalign.adapters import WEIGHTS_FILE, Adapter
from moalign.bank import AdapterBank
from moalign.branches import Branch, Branching, branch_of
from moalign.config import FillSettings, load_config
from moalign.evaluation import Evaluator, Measurement
from moalign.files import write_json
from moalign.frontiers import clustered_mean
from moalign.measuring import open_evaluator
from moalign.methods import METHODS, Job, rollout_trainer
from moalign.methods.base import Method
from moalign.methods.pair_loss import PairLoss
from moalign.methods.steering import Steering
from moalign.preparation import prepare
from moalign.progress import Reporter
from moalign.runs import Run
from moalign.sweep import run_sweep
from moalign.weighting import Averaged, Constrained, Observation
from moalign.workplace import Workplace

NAMES = ("warm", "brief")
LOW, HIGH = np.array([0.0, -3.0]), np.array([2.0, -2.0])  # of warm, and of brief: answers have two words or three
ALMOST_NOTHING = {"preferences": {"list": [{"warm": 0.5, "brief": 0.5}]}}  # one step from the base
EVALUATION = {"prompts": 6, "samples": 8, "max_new_tokens": 4}
OFFLINE = {"settings": {"beta": 0.5, "steps": 1, "batch_size": 8, "learning_rate": 0.02}, "evaluation": EVALUATION}
ROLLOUTS = {"beta": 0.02, "steps": 1, "prompts": 3, "completions": 4, "learning_rate": 0.02}
ONLINE = {
    "method": "online",
    "settings": ROLLOUTS,
    "data": {"train_prompts": "prompts.jsonl", "prompts": "prompts.jsonl", "holdout": 0.0, "separator": " "},
    "evaluation": EVALUATION,
}
FILL = {"steps": 6, "every": 2, "validate_every": 2, "prompts": 6, "completions": 2, "pace": 1.0, "retain": 0.5}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_world.build_base(tmp_path_factory.mktemp("base"))


def swept(folder: Path, base: Path, **changes: Any) -> Run:
    return run_sweep(load_config(tiny_world.write_config(folder, base, **ALMOST_NOTHING | changes)), folder / "run")


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Run:
    """One adapter, by pairs; read only."""
    return swept(tmp_path_factory.mktemp("offline"), base, **OFFLINE)


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Run:
    """One adapter, by its own answers; read only."""
    return swept(tmp_path_factory.mktemp("online"), base, **ONLINE)


@pytest.fixture(params=["offline", "online"])
def either(request: pytest.FixtureRequest) -> Run:
    return request.getfixturevalue(request.param)


def opened(run: Run, folder: Path, checkpoint_seconds: float = 0.0, **fill: Any) -> Branching:
    """What trains branches of a copy of the run."""
    if not folder.is_dir():
        shutil.copytree(run.folder, folder)
    settings = {"fill": FillSettings(**FILL | fill), "checkpoint_seconds": checkpoint_seconds}
    run, quiet = Run(folder, run.config.model_copy(update=settings)), Reporter(quiet=True)
    write_json(folder / "fill" / "ranges.json", {"lowest": LOW.tolist(), "highest": HIGH.tolist()})
    prepared = prepare(run, print)
    evaluator = open_evaluator(prepared, quiet)
    return Branching(prepared, evaluator, quiet, folder / "fill" / "round-0", folder / "checkpoints" / "f.safetensors")


def branches_of(branching: Branching, *names: str) -> list[Branch]:
    """From the run's one adapter, one for each of these objectives."""
    (parent,) = branching.run.front()
    return [branch_of(parent, name, LOW, HIGH, branching.settings.retain) for name in names]


def offers(branching: Branching) -> dict[str, dict[str, Any]]:
    """What was offered, by name and step."""
    return {path.stem: json.loads(path.read_text()) for path in (branching.folder / "offers").iterdir()}


# What a branch must keep


def branch(values: tuple[float, float], low: list[float], high: list[float], retain: float = 0.9) -> Branch:
    return branch_of(point("parent", (0.5, 0.5), values), "warm", np.array(low), np.array(high), retain)


def test_a_branch_into_a_gap_may_fall_to_its_middle() -> None:
    """Halfway to the other end where that has less; elsewhere, as without one, nine tenths."""
    values, names = ((4.0, -1.0), (2.0, -3.0)), ("warm", "brief")
    low, high = np.array([0.0, -4.0]), np.array([8.0, 0.0])
    one, other = (point(key, (0.5, 0.5), each) for key, each in zip("ab", values, strict=True))
    assert list(one.values) == list(names)
    found = branch_of(one, "warm", low, high, 0.9, other)
    assert found.least == {"warm": None, "brief": -2.0}
    assert found.drop["brief"] == 1.0
    back = branch_of(other, "brief", low, high, 0.9, one)  # the other end has more of all: nothing to give up for it
    assert back.least == {"warm": pytest.approx(1.8), "brief": None}


@pytest.mark.parametrize(
    ("attained", "low", "high", "retain", "least"),
    [
        (0.8, 0.0, 1.0, 0.9, 0.72),  # nine tenths of it
        (-20.0, -40.0, 0.0, 0.9, -22.0),  # halfway up: nine tenths of the way from -40, and not -18
        (-20.0, -20.0, 0.0, 0.9, -20.0),  # at the bottom there is nothing to lose
        (-24.0, -20.0, 0.0, 0.9, -20.0),  # below the bottom: climb back to it
        (7.0, 3.0, 5.0, 0.5, 5.0),  # twice the range: half of that
        (0.8, 0.0, 1.0, 1.0, 0.8),
    ],
)
def test_the_thresholds_are_shares_of_the_range(
    attained: float, low: float, high: float, retain: float, least: float
) -> None:
    """s = (J - low) / (high - low), tau = low + (high - low) max(s - (1 - retain) |s|, 0); negative values too."""
    found = branch((1.0, attained), [0.0, low], [2.0, high], retain)
    assert found.least["brief"] == pytest.approx(least)
    assert found.drop["brief"] == pytest.approx(attained - least)


def test_what_climbs_has_no_threshold_and_neither_has_what_is_flat() -> None:
    found = branch((1.0, -3.0), [0.0, -3.0], [2.0, -3.0])
    assert found.least == {"warm": None, "brief": None}
    assert found.drop == {"warm": pytest.approx(0.1), "brief": 0.0}


def test_branches_have_names_of_their_own() -> None:
    """By parent, objective and what is to be kept; short enough for a file."""
    parent = point("p" * 200, (0.5, 0.5), (1.0, -2.5))
    wishes = [("warm", 0.9), ("brief", 0.9), ("warm", 0.8)]
    found = {branch_of(parent, name, LOW, HIGH, retain).key for name, retain in wishes}
    assert len(found) == 3
    assert max(map(len, found)) < 100


# What is taken


class Scripted:
    """Trains nothing: after so many steps the branches attain what is written, (warm, brief) with an error of brief."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, script: Mapping[int, tuple[float, float, float]] = {}):
        self.script, self.measured, self.jobs, self.step = script, [], [], 0
        monkeypatch.setitem(METHODS, "modpo", Method(METHODS["modpo"].Settings, self.train))
        if script:
            monkeypatch.setattr(Evaluator, "measure", self.measure)

    def train(self, jobs: Sequence[Job], workplace: Workplace, settings: Any) -> dict[str, Adapter]:
        self.jobs, self.settings = list(jobs), settings
        with AdapterBank(workplace.scorer.model, {job.key: job.start for job in jobs}) as bank:
            for self.step in range(1, jobs[0].steps + 1):
                for job in jobs:
                    assert job.weighter is not None
                    job.weighter.update(Observation(self.step - 1, np.zeros((0, 2)), 1e-3))
                workplace.on_bank(self.step, bank)
        return {}

    def measure(self, bank: AdapterBank, rows: Mapping[str, torch.Tensor]) -> dict[str, Measurement]:
        self.measured.append(self.step)
        warm, brief, error = self.script[self.step]
        # Six prompts with means one deviation above and below: their standard error is the deviation over sqrt(5).
        scores = np.stack([np.full(6, warm), brief + error * 5**0.5 * np.array([1.0, -1.0] * 3)], axis=1)
        zeros = np.zeros(6)
        found = Measurement(np.arange(6), ["ok now"] * 6, scores, zeros, zeros, np.full(6, 3), np.zeros(6, dtype=bool))
        return dict.fromkeys(rows, found)


def taken(branching: Branching) -> list[int]:
    """The steps whose offers became points."""
    found = [each.adapter for each in branching.run.front() if each.method == "fill"]
    assert sorted(found) == sorted(name for name, offer in offers(branching).items() if offer["taken"])
    assert sorted(found) == [key for key in branching.run.store.keys() if "-warm-" in key]
    return sorted(int(name.rpartition("-")[2]) for name in found)


def test_an_offer_is_taken_if_it_holds_within_its_interval_and_widens_the_front(
    offline: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Warmth rises all the time; brevity is 1.9, then 2.1 standard errors below its threshold; the last is dominated.

    The second offer would have widened the front too: it was refused for its constraint alone.
    """
    branching = opened(offline, tmp_path / "run", steps=8)
    (climbing,) = branches_of(branching, "warm")
    least = climbing.least["brief"]
    assert least is not None
    script = {2: (1.5, least - 0.19, 0.1), 4: (1.7, least - 0.21, 0.1), 6: (1.9, least, 0.1), 8: (1.0, least, 0.1)}
    scripted = Scripted(monkeypatch, script)
    branching.train([climbing])
    assert taken(branching) == [2, 6]
    held = {int(name.rpartition("-")[2]): offer["held"] for name, offer in offers(branching).items()}
    assert held == {2: True, 4: False, 6: True, 8: True}
    assert scripted.measured == [2, 4, 6, 8]
    for each in branching.run.front():
        assert each.method != "fill" or each.values["brief"] + 1.96 * each.standard_errors["brief"] >= least


def test_after_two_refusals_a_branch_is_no_longer_measured(
    offline: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One refusal is forgiven. Another branch, which asks for nothing, is measured on to the end."""
    branching = opened(offline, tmp_path / "run", steps=12)
    (climbing,) = branches_of(branching, "warm")
    free = Branch(climbing.parent, "warm", dict.fromkeys(NAMES), dict.fromkeys(NAMES, 0.0))
    least = climbing.least["brief"]
    assert least is not None
    brief = {2: least - 9, 4: least, 6: least - 9, 8: least - 9, 10: least, 12: least}
    Scripted(monkeypatch, {step: (1.0, value, 0.1) for step, value in brief.items()})
    branching.train([climbing, free])
    steps = {one.key: [step for step in brief if f"{one.key}-{step}" in offers(branching)] for one in (climbing, free)}
    assert steps == {climbing.key: [2, 4, 6, 8], free.key: [2, 4, 6, 8, 10, 12]}


def test_what_is_taken_says_where_it_comes_from(offline: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its record has all that an adapter's record has, its parent, and what it was to keep; its texts are stored."""
    branching = opened(offline, tmp_path / "run")
    (climbing,) = branches_of(branching, "warm")
    Scripted(monkeypatch, dict.fromkeys((2, 4, 6), (1.9, -2.1, 0.0)))
    branching.train([climbing])
    key, parent = f"{climbing.key}-2", climbing.parent
    record, before = branching.run.store.record(key), branching.run.store.record(parent)
    assert set(before) <= set(record)
    assert (record["parents"], record["primary"], record["steps"]) == ([parent], "warm", 2)
    assert record["filled"]["least"] == climbing.least
    assert len(branching.run.samples(key)) == 6
    logged = [json.loads(line) for line in (branching.run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["status"] for line in logged if line["kind"] == "point" and line["adapter"] == key] == ["REPLACES"]


# How it trains


def test_a_branch_starts_as_a_copy_of_its_parent(offline: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit; before it has moved it attains what its parent does, and so it adds nothing to the front."""
    branching = opened(offline, tmp_path / "run")
    scripted = Scripted(monkeypatch)
    branching.train(branches_of(branching, *NAMES))
    (parent,) = branching.run.front()
    copied = branching.run.store.load(parent.adapter)
    for job in scripted.jobs:
        for name, layer in copied.layers.items():
            assert torch.equal(layer.A, job.start.layers[name].A)
            assert torch.equal(layer.B, job.start.layers[name].B)
    found = offers(branching)
    assert len(found) == 6
    for offer in found.values():
        assert offer["values"] == parent.values
        assert (offer["held"], offer["taken"]) == (True, False)


def test_a_branch_trains_as_the_run_is_told_to(offline: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a share of the run's learning rate, with the constraint that is asked for."""
    branching = opened(offline, tmp_path / "run", pace=0.25, constraint="lagrangian", sharpness=7.0, validate_every=3)
    scripted = Scripted(monkeypatch)
    branching.train(branches_of(branching, "brief"))
    assert scripted.settings.learning_rate == pytest.approx(0.25 * 0.02)
    (job,) = scripted.jobs
    assert job.steps == 6
    assert isinstance(job.weighter, Averaged)
    constrained = job.weighter.inner
    assert isinstance(constrained, Constrained)
    assert (constrained.kind, constrained.sharpness, constrained.validation_every) == ("lagrangian", 7.0, 3)
    assert (constrained.objective, constrained.bound.tolist()) == (1, [True, False])
    assert constrained.ranges.tolist() == (HIGH - LOW).tolist()


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """shown(one, two, ...): what validations of the one branch show, first of the parent and then at each look."""

    def show(*attained: tuple[float, float]) -> None:
        looks = iter(attained)
        monkeypatch.setattr(Branching, "_validate", lambda *_: np.array([next(looks)]))
        # The online trainer looks by itself, along with the rollouts.
        monkeypatch.setattr(Steering, "validated", lambda *_: (np.zeros(2), np.array(next(looks))))

    return show


def test_pairs_are_weighed_by_the_measured_slack(
    offline: Run, tmp_path: Path, shown: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent is validated at -2.4, and its drop is d: the threshold there is -2.4 - d, wherever its own value lies.

    Slacks over the range of 1: d at first, then .02, then below 0: lambda = 1 / (20 slack), and then brevity alone. In
    their own units weights are lambda over the range: warm's 1/2 against lambda. A violated constraint also says whose
    pairs are read.
    """
    branching = opened(offline, tmp_path / "run")
    (climbing,) = branches_of(branching, "warm")
    drop = climbing.drop["brief"]
    assert drop > 0.05
    shown((1.0, -2.4), (1.0, -2.4), (1.0, -2.4 - drop + 0.02), (1.0, -2.4 - drop - 0.3))
    seen: list[tuple[list[float], str]] = []
    entries = PairLoss.entries

    def listening(self: PairLoss, step: int) -> list[tuple[int, int]]:
        seen.extend((learner.weights.tolist(), learner.primary) for learner in self.learners)
        return entries(self, step)

    monkeypatch.setattr(PairLoss, "entries", listening)
    branching.train([climbing])
    expected = [[0.5, 1 / (20 * slack)] for slack in (drop, drop, 0.02, 0.02)] + [[0.0, 1.0]] * 2
    weights = np.array(expected) / np.sum(expected, axis=1, keepdims=True)
    np.testing.assert_allclose([found for found, _ in seen], weights, rtol=1e-5)
    assert [primary for _, primary in seen] == [NAMES[int(np.argmax(row))] for row in weights]
    assert {primary for _, primary in seen} == set(NAMES)
    preferences = [offers(branching)[f"{climbing.key}-{step}"]["preference"]["warm"] for step in (2, 4, 6)]
    assert preferences == pytest.approx([weights[i, 0] for i in (0, 2, 4)])


def test_rollouts_are_weighed_by_the_measured_slack(online: Run, tmp_path: Path, shown: Callable[..., None]) -> None:
    """The same thresholds; advantages come in deviations, so that lambda itself is the weight: 1 against it.

    Offers at every third step carry the mean weights since the last: two parts of one validation and one of the next.
    """
    branching = opened(online, tmp_path / "run", every=3)
    (climbing,) = branches_of(branching, "warm")
    drop = climbing.drop["brief"]
    shown((1.0, -2.4), (1.0, -2.4), (1.0, -2.4 - drop + 0.02), (1.0, -2.4 - drop - 0.3))
    branching.train([climbing])
    lines = [json.loads(line) for line in (branching.run.folder / "metrics.jsonl").read_text().splitlines()]
    found = [line["weights"]["warm"] for line in lines if line.get("adapter") == climbing.key and "weights" in line]
    one, two = 1 / (1 + 1 / (20 * drop)), 1 / (1 + 1 / (20 * 0.02))
    assert found[:6] == pytest.approx([one, one, two, two, 0.0, 0.0])
    preferences = [offers(branching)[f"{climbing.key}-{step}"]["preference"]["warm"] for step in (3, 6)]
    assert preferences == pytest.approx([(2 * one + two) / 3, two / 3])


def test_branches_train_to_their_end_and_are_offered_on_the_way(either: Run, tmp_path: Path) -> None:
    """By pairs and by rollouts, side by side: after 3, 6 and 7 steps of 7; what was taken meets its thresholds."""
    branching = opened(either, tmp_path / "run", steps=7, every=3)
    branches = branches_of(branching, *NAMES)
    branching.train(branches)
    found = offers(branching)
    assert set(found) == {f"{branch.key}-{step}" for branch in branches for step in (3, 6, 7)}
    values = [offer["values"] for name, offer in found.items() if name.startswith(branches[0].key)]
    assert len({json.dumps(each) for each in values}) > 1
    points = [each for each in branching.run.front() if each.method == "fill"]
    assert points
    for branch in branches:
        for each in points:
            if each.adapter.startswith(branch.key):
                rows = branching.run.samples(each.adapter)
                scores = np.array([[row["scores"][name] for name in NAMES] for row in rows])
                mean, error = clustered_mean(scores, np.array([row["prompt"] for row in rows]))
                least = [-np.inf if branch.least[name] is None else branch.least[name] for name in NAMES]
                assert (mean + 1.96 * error >= least).all()


@pytest.mark.parametrize("bound", [True, False])
def test_the_constraint_binds(online: Run, tmp_path: Path, bound: bool) -> None:
    """Thanks are warm, and a third word. Warmth rises either way; brevity falls to -3 only where nothing holds it."""
    learnt = online.config.settings | {"completions": 8, "prompts": 6}
    run = Run(online.folder, online.config.model_copy(update={"settings": learnt}))
    branching = opened(run, tmp_path / "run", steps=12, every=12, validate_every=1, completions=8, retain=0.4)
    (parent,) = branching.run.front()
    (climbing,) = branches_of(branching, "warm")
    least = climbing.least["brief"]
    assert least is not None
    assert -2.75 < least < parent.values["brief"] - 0.3
    free = Branch(climbing.parent, "warm", dict.fromkeys(NAMES), climbing.drop)
    branching.train([climbing if bound else free])
    (offer,) = offers(branching).values()
    assert offer["values"]["warm"] > parent.values["warm"] + 0.25
    if bound:
        assert offer["taken"]
        assert offer["values"]["brief"] > least - 0.1
    else:
        assert offer["values"]["brief"] < -2.9


# Stops


class StoppedError(Exception):
    pass


def interrupt(branching: Branching, step: int) -> None:
    """Stop when a step is taken, before it is measured or saved."""

    def bar(name: str, done: int, total: int, detail: str = "") -> None:
        if (name, done) == ("training branches", step):
            raise StoppedError

    branching.reporter.bar = bar


def test_a_stop_changes_nothing(either: Run, tmp_path: Path) -> None:
    """The same offers, preferences too, and adapters, as if nobody had.

    One stop is after an offer, with nothing saved; the next, in a run from the start, has a checkpoint behind it.
    """
    whole = opened(either, tmp_path / "whole", every=3)
    branches = branches_of(whole, *NAMES)
    whole.train(branches)
    for checkpoint_seconds, step in ((1e9, 4), (0.0, 5)):
        stopped = opened(either, tmp_path / "stopped", checkpoint_seconds, every=3)
        interrupt(stopped, step)
        with pytest.raises(StoppedError):
            stopped.train(branches)
        assert len(offers(stopped)) == 2
        assert stopped.workplace.checkpoint is not None
        assert stopped.workplace.checkpoint.is_file() == (checkpoint_seconds == 0)
    last = opened(either, tmp_path / "stopped", every=3)
    last.train(branches)
    assert offers(last) == offers(whole)
    assert any(offer["taken"] for offer in offers(whole).values())
    assert _weights(last) == _weights(whole)


def _weights(branching: Branching) -> dict[str, bytes]:
    store = branching.run.store
    return {key: (store.folder / key / WEIGHTS_FILE).read_bytes() for key in store.keys()}


def test_a_branch_that_has_stopped_is_offered_once_more_and_then_left(
    online: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of two passes a budget in step 3: the adapter it keeps is offered after step 4, and not after 6."""
    looks = iter(["", "", "", "", "too far"])
    monkeypatch.setattr(rollout_trainer, "reason_to_stop", lambda *_: next(looks, "") or None)
    branching = opened(online, tmp_path / "run")
    one, two = branches_of(branching, *NAMES)
    branching.train([one, two])
    assert set(offers(branching)) == {f"{key}-{step}" for key in (one.key, two.key) for step in (2, 4, 6)} - {
        f"{one.key}-6"
    }


# Of what a run was trained by


@pytest.mark.parametrize("by", ["modpo", "online"])
def test_a_soups_branch_is_trained_by_the_method_of_its_corners(base: Path, tmp_path: Path, by: str) -> None:
    inner = {"modpo": OFFLINE, "online": ONLINE}[by]
    changes = {**inner, "method": "soup", "settings": {"by": by, "settings": inner["settings"]}}
    branching = opened(swept(tmp_path, base, **changes, preferences={"corners": True}), tmp_path / "copy", steps=2)
    assert branching.method == by
    corner = next(each for each in branching.run.front() if each.preference.weights["brief"] == 1)
    climbing = branch_of(corner, "warm", LOW, HIGH, 0.5)
    branching.train([climbing])
    assert set(offers(branching)) == {f"{climbing.key}-2"}
