"""From a config to a front: every preference trained and measured, nothing twice, whatever interrupts it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_world
import torch
import workers

from moalign.adapters import Adapter
from moalign.config import load_config
from moalign.errors import AdapterError
from moalign.measuring import planner_of
from moalign.methods import METHODS, Job
from moalign.methods.base import Method
from moalign.preference import Preference
from moalign.preparation import prepare
from moalign.progress import Reporter
from moalign.runs import Run
from moalign.store import AdapterStore
from moalign.sweep import run_sweep

STEPS = 8


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_world.build_base(tmp_path_factory.mktemp("base"))


def sweep(folder: Path, base: Path, *, reporter: Reporter | None = None, **changes: Any) -> Run:
    """A sweep with these changes, in folder/run."""
    return run_sweep(load_config(tiny_world.write_config(folder, base, **changes)), folder / "run", reporter)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Run:
    """Three preferences in groups of two; read only."""
    return sweep(tmp_path_factory.mktemp("finished"), base)


@pytest.fixture
def copy(finished: Run, tmp_path: Path) -> Run:
    """The finished run with its data, in another place."""
    shutil.copytree(finished.folder, tmp_path / "run")
    return Run.open(tmp_path / "run")


def resume(run: Run, **changes: Any) -> Run:
    return run_sweep(run.config.model_copy(update=changes), run.folder)


def lines(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]


class Spy:
    """Counts what is trained, as (key, steps); raises once `limit` groups are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.trained: list[str] = []
        train = METHODS["modpo"].train

        def counting(jobs: list[Job], *rest: Any) -> dict[str, Adapter]:
            self.trained += [job.key for job in jobs]
            return train(jobs, *rest)

        monkeypatch.setitem(METHODS, "modpo", Method(METHODS["modpo"].Settings, counting))


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever trains, generates or scores fails."""

    def twice(*_: object, **__: object) -> None:
        raise AssertionError("done twice")

    monkeypatch.setitem(METHODS, "modpo", Method(METHODS["modpo"].Settings, twice))
    for where in ("evaluation.generate", "preparation.generate", "objectives.custom.Custom.score"):
        monkeypatch.setattr(f"moalign.{where}", twice)
    monkeypatch.setattr("moalign.objectives.length.Length.score", twice)


def weights(store: AdapterStore, key: str) -> torch.Tensor:
    layers = store.load(key).layers
    return torch.cat([factor.flatten() for layer in layers.values() for factor in (layer.A, layer.B)])


def test_every_preference_has_its_adapter_its_point_and_its_texts(finished: Run) -> None:
    front = finished.front()
    wishes = {point.preference.vector(finished.objectives).tolist()[0] for point in front}
    assert wishes == {1.0, 0.5, 0.0}
    assert {point.adapter for point in front} == set(finished.store.keys())
    for point in front:
        assert len(finished.samples(point.adapter)) == 6 * 4
        assert point.kl_to_reference > 0
        means = [np.mean([row["scores"][name] for row in finished.samples(point.adapter)]) for name in point.values]
        assert means == pytest.approx(list(point.values.values()))


def test_what_is_asked_for_is_got(finished: Run) -> None:
    """The corner of each objective has more of it than the other corner."""
    values = {point.preference.weights["warm"]: point.values for point in finished.front()}
    assert values[1.0]["warm"] > values[0.0]["warm"]
    assert values[0.0]["brief"] > values[1.0]["brief"]


def test_a_record_says_how_its_adapter_came_to_be(finished: Run, base: Path) -> None:
    for record in map(finished.store.record, finished.store.keys()):
        assert record["base"]["name"] == str(base)
        assert record["method"] == "modpo"
        assert record["settings"]["beta"] == 0.5
        assert (record["steps"], record["seed"], record["parents"]) == (STEPS, 0, [])
        assert set(record["versions"]) == {"moalign", "torch", "transformers", "peft"}
        assert record["preference"][record["primary"]] >= 0.5


def test_metrics_are_lines_of_json_a_group_a_step_or_a_point_each(finished: Run) -> None:
    kinds = [line["kind"] for line in lines(finished)]
    assert kinds.count("training") == 2  # groups, as they begin
    assert kinds.count("point") == 3
    assert kinds.count("step") == 2  # the last of each group; every tenth before it
    for line in lines(finished):
        if line["kind"] == "point":
            assert line["status"] in {"NEW", "REPLACES", "DOMINATED"}
            assert line["hypervolume"] >= 0
        elif line["kind"] == "training":
            assert (line["steps"], bool(line["adapters"])) == (STEPS, True)
        else:
            assert {"loss", "gradient_norm", "step", "group"} <= set(line)


def test_the_reference_point_is_two_deviations_below_the_base(finished: Run) -> None:
    rows = [list(row["scores"].values()) for row in finished.samples("base")]
    assert finished.base_point().values == pytest.approx(  # type: ignore[union-attr]
        dict(zip(finished.objectives, np.mean(rows, axis=0), strict=True))
    )
    assert finished.front().reference_point == pytest.approx(np.mean(rows, axis=0) - 2 * np.std(rows, axis=0))


def test_a_finished_run_leaves_no_scaffolding(finished: Run) -> None:
    """No checkpoints, no claims, and nothing half written."""
    assert not (finished.folder / "checkpoints").exists()
    assert list((finished.folder / "claims").iterdir()) == []
    assert list(finished.folder.rglob(".*")) == []


def test_the_same_command_again_does_nothing_again(copy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """In another place, too: what is known is known by content."""
    before = (copy.folder / "metrics.jsonl").read_bytes()
    forbid(monkeypatch)
    assert len(resume(copy).front()) == 3
    assert (copy.folder / "metrics.jsonl").read_bytes() == before


def test_keys_are_the_same_wherever_run_and_data_lie(finished: Run, base: Path, tmp_path: Path) -> None:
    path = tiny_world.write_config(tmp_path / "elsewhere", shutil.copytree(base, tmp_path / "base"))
    prepared = prepare(Run.create(tmp_path / "other", load_config(path)), print)
    assert sorted(plan.key for wave in planner_of(prepared).waves() for plan in wave) == finished.store.keys()


def test_a_point_that_is_missing_is_measured_without_training(copy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the storing of an adapter and its point; the scores of its texts are in the cache."""
    expected = copy.front()
    gone = expected.points[1]
    (copy.folder / "points" / f"{gone.adapter}.json").unlink()
    spy = Spy(monkeypatch)
    again = {point.adapter: point for point in resume(copy).front()}[gone.adapter]
    assert spy.trained == []
    assert again.values == pytest.approx(gone.values)
    assert again.kl_to_reference == pytest.approx(gone.kl_to_reference, abs=1e-5)


@pytest.mark.parametrize("measured", [True, False])
def test_an_adapter_that_is_missing_is_trained_again_to_the_same_weights(
    copy: Run, monkeypatch: pytest.MonkeyPatch, measured: bool
) -> None:
    """What a damaged adapter's error advises: delete the folder. Its neighbour in the group is not trained again."""
    key = plans(copy)[0]
    expected = weights(copy.store, key)
    (copy.folder / "adapters" / key / "adapter_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(AdapterError, match=r"was damaged or changed; delete the folder to train it again"):
        copy.store.load(key)
    shutil.rmtree(copy.folder / "adapters" / key)
    if not measured:
        (copy.folder / "points" / f"{key}.json").unlink()
    spy = Spy(monkeypatch)
    resume(copy)
    assert spy.trained == [key]
    assert torch.allclose(weights(copy.store, key), expected, atol=1e-4)
    assert len(copy.front()) == 3


def plans(run: Run) -> list[str]:
    """Keys in the order of training: the first group holds the first two."""
    return [line["adapter"] for line in lines(run) if line["kind"] == "point"]


def test_a_kill_between_two_adapters_of_a_group_trains_no_step_again(
    tmp_path: Path, base: Path, finished: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group's last checkpoint still holds both; the one that was not stored is, byte for byte."""
    saved: list[str] = []
    save = AdapterStore.save

    def stop(self: AdapterStore, key: str, *rest: Any) -> None:
        if len(saved) == 1:
            raise KeyboardInterrupt
        saved.append(key)
        save(self, key, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(AdapterStore, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            sweep(tmp_path, base)
    run = sweep(tmp_path, base)
    steps = [line["step"] for line in lines(run) if line["kind"] == "step"]
    assert steps == [STEPS, STEPS]
    for point in finished.front():
        mine, theirs = (r.folder / "adapters" / point.adapter / "adapter_model.safetensors" for r in (run, finished))
        assert mine.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize("size", [1, "auto"])
def test_the_group_size_changes_the_speed_and_not_the_adapters(
    tmp_path: Path, base: Path, finished: Run, size: int | str
) -> None:
    run = sweep(tmp_path, base, group_size=size)
    assert run.store.keys() == finished.store.keys()
    for point in finished.front():
        assert torch.allclose(*(weights(each.store, point.adapter) for each in (run, finished)), atol=1e-4)
    plan = tmp_path / "run" / "plan.json"
    assert plan.exists() == (size == "auto")
    if size == "auto":
        plan.write_text('{"group_size": 3}')  # as another machine might have found
        assert resume(run).store.keys() == finished.store.keys()
        assert json.loads(plan.read_text()) == {"group_size": 3}


def test_another_group_size_halfway_trains_nothing_again(copy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of two were [a b] [c]; c is lost, and in a group of three with what is there."""
    key = plans(copy)[2]
    shutil.rmtree(copy.folder / "adapters" / key)
    spy = Spy(monkeypatch)
    resume(copy, group_size=3)
    assert spy.trained == [key]


def test_two_workers_share_a_run_and_train_nothing_twice(tmp_path: Path, base: Path, finished: Run) -> None:
    """Each finished step of each group is logged by one of them, and the adapters are those of one worker."""
    path = tiny_world.write_config(tmp_path, base, group_size=1)
    logs = [tmp_path / "one.log", tmp_path / "two.log"]
    both = [workers.start(["sweep", str(path), "--out", str(tmp_path / "run")], log) for log in logs]
    for process, log in zip(both, logs, strict=True):
        process.join(120)
        assert process.exitcode == 0, log.read_text()
    run = Run.open(tmp_path / "run")
    ended = [line["group"] for line in lines(run) if line["kind"] == "step" and line["step"] == STEPS]
    assert sorted(ended) == run.store.keys() == finished.store.keys()
    assert len([line for line in lines(run) if line["kind"] == "point"]) == 3
    for key in ended:
        assert torch.allclose(weights(run.store, key), weights(finished.store, key), atol=1e-4)


def test_a_tracker_sees_every_step_that_is_logged(tmp_path: Path, base: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    few = {"beta": 0.5, "steps": 2, "batch_size": 4}
    run = sweep(tmp_path, base, trackers=["tensorboard"], preferences={"corners": True}, settings=few)
    events = accumulator.EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    (group,) = {line["group"] for line in lines(run) if line["kind"] == "step"}
    (logged,) = [line for line in lines(run) if line["kind"] == "step"]
    assert [event.value for event in events.Scalars(f"{group}/loss")] == [pytest.approx(logged["loss"], rel=1e-5)]


def test_a_line_is_said_for_every_point_that_lands(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = {"beta": 0.5, "steps": 1, "batch_size": 4}
    sweep(tmp_path, base, reporter=Reporter(), preferences={"corners": True}, settings=few)
    out, err = capsys.readouterr()
    assert out == ""
    first, second = [line for line in err.splitlines() if not line.startswith("note:")]
    assert first.strip().startswith("1/2 ")
    assert second.strip().startswith("2/2 ")
    for line in (first, second):
        assert "hypervolume" in line
        assert "±" in line
        assert any(status in line for status in ("NEW", "REPLACES", "DOMINATED"))


def test_a_preference_may_leave_objectives_out(tmp_path: Path, base: Path) -> None:
    few = {"beta": 0.5, "steps": 1, "batch_size": 4}
    run = sweep(tmp_path, base, preferences={"list": [{"warm": 2.0}]}, settings=few)
    (point,) = run.front()
    assert point.preference.vector(run.objectives).tolist() == [1.0, 0.0]
    assert Preference.of({"warm": 1.0}).key in point.adapter
