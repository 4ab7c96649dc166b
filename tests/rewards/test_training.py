"""A reward model from a config: regression as on paper, labels masked, and the same result however often it stops."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from mistakes import whole
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

import moalign.rewards.fitting as reward_fitting
import moalign.rewards.training as reward_training
from moalign.batches import Completions
from moalign.claims import claim
from moalign.data import split_by_prompt
from moalign.errors import MemoryLimitError, UserError
from moalign.objectives import RewardModel, build_objective
from moalign.progress import Reporter
from moalign.rewards.encoder import Encoder
from moalign.rewards.settings import RewardModelConfig, load_reward_config
from moalign.rewards.training import run_reward_model, summarise_reward_model

ROOT = Path(__file__).parents[2]
WORDS = ("yes", "no", "well", "now", "perhaps", "so", "then")
LONG = {"prompt": "Say a.", "response": "a" * 600, "scores": {"length": 1, "vowels": 2}}  # the base reads 512


def rated(count: int = 120) -> list[dict[str, Any]]:
    """Random answers to 40 prompts, three to each, rated by two rules that an encoder can see."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        response = " ".join(rng.choice(WORDS, rng.integers(1, 7)))
        scores = {"length": len(response) / 4, "vowels": sum(map(response.count, "aeo"))}
        rows.append({"prompt": f"Question {number // 3}?", "response": response, "scores": scores})
    return rows


ROWS = rated()
HALVES = [  # of the first rows one attribute, of the last ones the other, of those between both
    row | {"scores": {name: row["scores"][name] for name in names}}
    for number, row in enumerate(ROWS)
    for names in [["length"] if number < 40 else ["vowels"] if number >= 90 else ["length", "vowels"]]
]
QUICK = {"epochs": 8, "batch_size": 16, "learning_rate": 0.003, "validation": 0.2}


class Place:
    """Configs and data in a folder, and runs of them."""

    def __init__(self, folder: Path, base: Path):
        self.folder, self.base = folder, base
        self.write("rated.jsonl", ROWS)
        self.said: list[str] = []

    def write(self, name: str, rows: list[Any]) -> str:
        (self.folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return name

    def config(self, **changes: Any) -> RewardModelConfig:
        values = {"base": str(self.base), "data": "rated.jsonl", "train": "heads", "separator": " "}
        path = self.folder / "reward.yaml"
        path.write_text(yaml.safe_dump(values | {"checkpoint_seconds": 0} | changes))
        return load_reward_config(path)

    def run(self, name: str = "run", **changes: Any) -> Path:
        reporter = Reporter(quiet=True)
        reporter.notice = self.said.append  # type: ignore[method-assign]
        return run_reward_model(self.config(**changes), self.folder / name, reporter)

    def all(self, name: str = "run", **changes: Any) -> Path:
        return self.run(name, **{"train": "all", "finetune": QUICK} | changes)


@pytest.fixture
def place(tmp_path: Path, tiny_base: Path) -> Place:
    return Place(tmp_path, tiny_base)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """A model of which all was trained, on rows that lack labels. Read only."""
    place = Place(tmp_path_factory.mktemp("trained"), tiny_base)
    return place.all(data=place.write("halves.jsonl", HALVES))


def record(model: Path) -> dict[str, Any]:
    return json.loads((model / "record.json").read_text())


def rewards(model: Path, rows: list[dict[str, Any]], column: int | str) -> np.ndarray:
    texts = Completions([row["prompt"] for row in rows], [row["response"] for row in rows])
    return RewardModel("r", str(model), column=column, separator=" ").score(texts)


def same(one: Path, other: Path) -> None:
    for name in ("model.safetensors", "record.json", "config.json", "README.md"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


# Rightness


def test_frozen_it_is_least_squares_on_the_last_hidden_state(place: Place) -> None:
    """Another way: the base's own hidden state at the last token, a column of ones, and numpy's least squares.

    On all 120 rows with nothing held out, so that there are more rows than the 32 features; and the objective, which
    knows of a folder only, gives the same rewards less the recorded offset.
    """
    model = place.run(penalty=0.0, holdout=0)
    tokenizer, base = AutoTokenizer.from_pretrained(place.base), AutoModel.from_pretrained(place.base)
    with torch.no_grad():
        hidden = [
            base(**tokenizer(f"{row['prompt']} {row['response']}", return_tensors="pt")).last_hidden_state[0, -1]
            for row in ROWS
        ]
    features = np.hstack([torch.stack(hidden).double().numpy(), np.ones((len(ROWS), 1))])
    for name, head in record(model)["heads"].items():
        labels = np.array([row["scores"][name] for row in ROWS])
        expected = features @ np.linalg.lstsq(features, labels, rcond=None)[0]
        np.testing.assert_allclose(rewards(model, ROWS, name) + head["offset"], expected, atol=2e-4)
        assert head["heldout"] is None
        assert np.corrcoef(expected, labels)[0, 1] > 0.5


def test_missing_labels_are_as_if_each_head_had_its_own_run(place: Place) -> None:
    """Both at once on rows that lack one or the other; then each alone: the same heads, penalties and reports."""
    place.write("halves.jsonl", HALVES)
    together = place.run("both", data="halves.jsonl")
    for j, name in enumerate(("length", "vowels")):
        alone = place.run(name, data="halves.jsonl", heads=[name])
        np.testing.assert_allclose(rewards(together, ROWS, j), rewards(alone, ROWS, 0), atol=1e-4)
        one, other = record(together)["heads"][name], record(alone)["heads"][name]
        assert one.keys() == other.keys()
        assert (one["penalty"], one["labels"]) == (other["penalty"], other["labels"])
        assert one["heldout"] == pytest.approx(other["heldout"], abs=1e-4)
    assert record(together)["rows"]["training"] > record(together)["heads"]["vowels"]["labels"]


def test_the_report_is_of_what_the_folder_gives_on_held_out_prompts(trained: Path) -> None:
    """R2, ranks and pairs once more from the objective's rewards, on the prompts that the split keeps."""
    held = [HALVES[i] for i in split_by_prompt([row["prompt"] for row in HALVES], 0.2, 0)[1]]
    for name, head in summarise_reward_model(trained)["heads"].items():
        rows = [row for row in held if name in row["scores"]]
        labels = np.array([row["scores"][name] for row in rows])
        found = rewards(trained, rows, name) + head["offset"]
        report = head["heldout"]
        assert report["rows"] == len(rows) > 5
        r2 = 1 - np.mean((found - labels) ** 2) / np.var(labels)
        assert report["r2"] == pytest.approx(r2, abs=1e-4)
        wins = [
            found[i] > found[j]
            for i in range(len(rows))
            for j in range(len(rows))
            if labels[i] > labels[j] and rows[i]["prompt"] == rows[j]["prompt"]
        ]
        if report["same_prompt"]:
            assert (report["pairs"], report["pairwise_accuracy"]) == (len(wins), pytest.approx(np.mean(wins)))


def test_training_all_learns_what_frozen_heads_cannot(place: Place, trained: Path) -> None:
    """On prompts that neither has seen; and the rows of one attribute have taught the other's head nothing wrong."""
    frozen = place.run(data=place.write("halves.jsonl", HALVES))
    for name in ("length", "vowels"):
        before, after = (record(model)["heads"][name]["heldout"] for model in (frozen, trained))
        assert after["r2"] > before["r2"] + 0.2
        assert after["rank_correlation"] > before["rank_correlation"] + 0.1


def test_the_epoch_that_is_best_on_validation_is_kept(place: Place) -> None:
    """A rate that is far too high: no epoch is better than the heads on the base as it is, which are kept."""
    model = place.all(finetune=QUICK | {"learning_rate": 0.3})
    lines = [json.loads(line) for line in (model.parent / "metrics.jsonl").read_text().splitlines()]
    losses = [line["validation_loss"] for line in lines if line["kind"] == "epoch"]
    assert len(losses) == 9
    assert int(np.argmin(losses)) == 0
    assert record(model)["steps"] == 0
    base = AutoModel.from_pretrained(place.base).state_dict()
    kept = AutoModelForSequenceClassification.from_pretrained(model).model.state_dict()
    assert all(torch.equal(base[name], kept[name]) for name in base)


def test_the_best_epoch_is_some_steps_in(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained.parent / "metrics.jsonl").read_text().splitlines()]
    losses = [line["validation_loss"] for line in lines if line["kind"] == "epoch"]
    steps = [line["step"] for line in lines if line["kind"] == "step"][-1]
    assert losses[0] > min(losses)
    assert record(trained)["steps"] == steps * int(np.argmin(losses)) / 8


def test_lora_is_merged_and_the_rest_of_the_base_is_as_it_was(place: Place) -> None:
    """Rank 2: each linear layer differs by a matrix of rank 2; embeddings and norms are the base's to the bit."""
    adapter = {"rank": 2, "alpha": 4}
    data = place.write("halves.jsonl", HALVES)
    model = place.all(data=data, train="lora", adapter=adapter, finetune=QUICK | {"learning_rate": 0.01})
    base = AutoModel.from_pretrained(place.base).state_dict()
    made = AutoModelForSequenceClassification.from_pretrained(model).model.state_dict()
    for name, before in base.items():
        if name.endswith("_proj.weight"):
            assert torch.linalg.matrix_rank(made[name] - before, rtol=1e-4).item() == 2
        else:
            assert torch.equal(before, made[name])
    frozen = place.run("frozen", data=data)
    for name in ("length", "vowels"):
        before, after = (record(folder)["heads"][name]["heldout"]["r2"] for folder in (frozen, model))
        assert after > before + 0.1


def test_half_precision_is_reported_as_it_is_saved(place: Place) -> None:
    """A frozen base in bfloat16: the folder holds bfloat16, and the report is of its rounded rewards."""
    model = place.run(dtype="bfloat16")
    weights = AutoModelForSequenceClassification.from_pretrained(model).state_dict()
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}
    held = [ROWS[i] for i in split_by_prompt([row["prompt"] for row in ROWS], 0.2, 0)[1]]
    for name, head in record(model)["heads"].items():
        labels = np.array([row["scores"][name] for row in held])
        errors = rewards(model, held, name) + head["offset"] - labels
        assert head["heldout"]["r2"] == pytest.approx(1 - np.mean(errors**2) / np.var(labels), abs=0.01)


def test_a_bad_attribute_is_turned_by_its_scale(place: Place) -> None:
    """Twice the negative: rewards, offset and label statistics, but not how well it does."""
    plain = place.run("plain", heads=["vowels"])
    turned = place.run("turned", heads={"few": {"column": "vowels", "scale": -2.0}})
    one, other = record(plain)["heads"]["vowels"], record(turned)["heads"]["few"]
    np.testing.assert_allclose(rewards(turned, ROWS, "few"), -2 * rewards(plain, ROWS, "vowels"), atol=1e-4)
    assert other["label_mean"] == pytest.approx(-2 * one["label_mean"])
    assert other["label_deviation"] == pytest.approx(2 * one["label_deviation"])
    assert other["heldout"]["r2"] == pytest.approx(one["heldout"]["r2"], abs=1e-4)


def test_a_batch_that_does_not_fit_is_halved(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for five texts at once: the same model but for rounding, and it is told; no room for one: one line."""
    short = QUICK | {"epochs": 1}
    undivided = place.all("undivided", batch_size=4, finetune=short)
    call, room = Encoder.__call__, 5

    def crowded(self: Encoder, inputs: list[list[int]]) -> Any:
        if len(inputs) > room:
            raise RuntimeError("DefaultCPUAllocator: not enough memory")
        return call(self, inputs)

    monkeypatch.setattr(Encoder, "__call__", crowded)
    halved = place.all("halved", batch_size=4, finetune=short)
    assert place.said == [
        "out of memory with 16 texts in one pass; going on with 8",
        "out of memory with 8 texts in one pass; going on with 4",
    ]
    np.testing.assert_allclose(rewards(halved, ROWS, 0), rewards(undivided, ROWS, 0), atol=1e-3)
    room = 3
    place.run("small", batch_size=8)
    assert place.said[2:] == [
        "out of memory with 8 sequences at once; going on with 4",
        "out of memory with 4 sequences at once; going on with 2",
    ]
    room = 0
    with pytest.raises(MemoryLimitError, match="out of memory with a single"):
        place.all("none")


# Data


def test_sources_with_different_attributes_are_united(place: Place) -> None:
    """One with a mapping and names of its own, one with numeric fields: the same as the rows written out."""
    first = [row | {"scores": {"length": row["scores"]["length"], "depth": 1}} for row in ROWS[:60]]
    second = [
        {"prompt": r["prompt"], "response": r["response"], "len": r["scores"]["length"], "v": r["scores"]["vowels"]}
        for r in ROWS[60:]
    ]
    place.write("first.jsonl", first)
    place.write("second.jsonl", second)
    sources = [
        "first.jsonl",
        {"scores": "second.jsonl", "columns": ["len", "v"], "names": {"len": "length", "v": "vowels"}},
    ]
    place.write("written.jsonl", [row | {"scores": {"length": row["scores"]["length"]}} for row in ROWS[:60]])
    with (place.folder / "written.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in ROWS[60:])
    heads = ["length", "vowels"]
    united, written = place.run("united", data=sources, heads=heads), place.run("written", data="written.jsonl")
    same(united, written)
    assert record(united)["heads"]["vowels"]["labels"] < record(united)["heads"]["length"]["labels"]


def test_what_is_left_out_is_told(place: Place) -> None:
    bad = {"prompt": "Hi", "response": "", "scores": {"length": 1}}
    other = {"prompt": "Hi", "response": "Hello.", "scores": {"depth": 1}}
    place.write("rated.jsonl", [*ROWS, bad, other, LONG])
    model = place.run(skip_bad_rows=True, heads=["length", "vowels"])
    assert place.said == [
        f"1 bad rows set aside in {model.parent / 'quarantine' / 'data-0.jsonl'}",
        "1 of 122 rows have a label for none of the heads and are left out",
        "1 of 121 rows are longer than 512 tokens and left out",
    ]
    assert record(model)["rows"]["overlong"] == 1


def test_longer_texts_where_positions_go_on(place: Place) -> None:
    place.write("rated.jsonl", [*ROWS, LONG])
    model = place.run(max_length=700, holdout=0)
    assert record(model)["rows"] == {"training": 121, "validation": 0, "heldout": 0, "overlong": 0}
    assert record(model)["max_length"] == 700
    assert math.isfinite(rewards(model, [LONG], "vowels")[0])


def test_the_folder_is_an_objective_and_says_how(trained: Path) -> None:
    card = (trained / "README.md").read_text()
    assert 'length: {type: reward_model, model: THIS_FOLDER, column: length, separator: " "}' in card
    assert record(trained)["data"][:12] in card
    settings = yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])["length"]
    objective = build_objective("length", settings | {"model": str(trained)})
    texts = Completions(["Question 1?"], ["yes"])
    assert objective.score(texts)[0] == rewards(trained, [{"prompt": "Question 1?", "response": "yes"}], 0)[0]
    config = AutoModelForSequenceClassification.from_pretrained(trained).config
    assert (config.id2label, config.problem_type) == ({0: "length", 1: "vowels"}, "regression")


# Stopped


def stop_at(moment: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupt at the so-manieth thing that is written: before it for even ones, after it for odd ones."""
    seen = 0

    def stopping(write: Callable[..., None]) -> Callable[..., None]:
        def stopped(*given: Any) -> None:
            nonlocal seen
            seen += 1
            if seen == moment and moment % 2 == 0:
                raise KeyboardInterrupt
            write(*given)
            if seen == moment:
                raise KeyboardInterrupt

        return stopped

    for module, name in (
        (reward_training, "atomic_write_bytes"),
        (reward_fitting, "atomic_write_bytes"),
        (reward_training, "write_json"),
        (reward_training, "flush"),
    ):
        monkeypatch.setattr(module, name, stopping(getattr(module, name)))


def test_stops_change_nothing(place: Place, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted every few writes: of origin, features, weights, checkpoints, record; the same to the bit."""
    data = place.write("halves.jsonl", HALVES)
    stops = 0
    for moment in [1, 2, 3, 4, 5] * 20:
        with monkeypatch.context() as patch:
            stop_at(moment, patch)
            try:
                model = place.all(data=data)
                break
            except KeyboardInterrupt:
                stops += 1
                assert not (place.folder / "run" / "model").exists()
    assert stops > 15
    same(model, trained)
    whole(model.parent)
    assert not (model.parent / "checkpoints").exists()


def test_stops_change_nothing_of_lora(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights are drawn again on the way back, and then taken from the checkpoint."""
    settings: dict[str, Any] = {"train": "lora", "finetune": QUICK | {"epochs": 2}}
    undisturbed = place.all("undisturbed", **settings)
    for moment in (6, 4, 5):
        with monkeypatch.context() as patch:
            stop_at(moment, patch)
            with pytest.raises(KeyboardInterrupt):
                place.all(**settings)
    same(place.all(**settings), undisturbed)


def test_what_was_read_or_trained_is_not_done_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped at the very end: the second time no text is read for features, and no step is taken."""
    with monkeypatch.context() as patch:
        patch.setattr(reward_training, "flush", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            place.all()
    monkeypatch.setattr(Encoder, "__call__", None)
    assert record(place.all())["steps"] > 0


def test_a_finished_run_is_left_as_it_is(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it runs, or how many texts are read at once, makes no other run."""
    model = place.run()
    before = {path: path.stat().st_mtime_ns for path in model.parent.rglob("*") if path.is_file()}
    monkeypatch.setattr(reward_training, "load_encoder", None)
    assert place.run(device="cpu", batch_size=7, checkpoint_seconds=9) == model
    assert {path: path.stat().st_mtime_ns for path in model.parent.rglob("*") if path.is_file()} == before


def test_other_settings_or_data_are_another_run(place: Place) -> None:
    place.run()
    with pytest.raises(UserError, match=r"holds a run with other settings \(holdout, separator differ\)"):
        place.run(holdout=0.3, separator="|")
    place.write("rated.jsonl", ROWS[1:])
    with pytest.raises(UserError, match=r"the data of .* changed since it was begun"):
        place.run()


def test_a_folder_that_is_taken_is_not_touched(place: Place) -> None:
    with claim(place.folder / "run" / "claims", "reward-model"):
        (place.folder / "run" / "config.yaml").write_text(place.config().to_yaml())
        with pytest.raises(UserError, match="is being trained by another process"):
            place.run()
    with pytest.raises(UserError, match="is not empty and holds no run"):
        place.run(".")
    (place.folder / "sweep").mkdir()
    (place.folder / "sweep" / "config.yaml").write_text("base: a/b\nobjectives: {}\n")
    with pytest.raises(UserError, match="holds a run that `moalign reward-model` did not begin"):
        place.run("sweep")


# Mistakes


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"heads": ["vowel"]}, "head 'vowel': no row has it: unknown attribute 'vowel'; did you mean 'vowels'"),
        ({"heads": ["length", "length"]}, "heads: 'length' stands there twice"),
        ({"heads": {"a": {"column": "length", "scal": 2}}}, "unknown key 'scal'; did you mean 'scale'"),
        ({"heads": {"a": {"column": "length", "scale": 0}}}, "scale is 0, so every label would be 0"),
        ({"data": "alike.jsonl"}, "head 'length' is 3 in all 30 rows to train on, so there is nothing to learn"),
        ({"data": "one.jsonl"}, "head 'vowels' has 1 labelled rows to train on; expected at least 2"),
        ({"data": "nan.jsonl"}, "nan.jsonl:1: score 'length' is nan; expected a finite number"),
        ({"data": "none.jsonl"}, "none.jsonl"),
        ({"data": []}, "data: "),
        ({"data": {"scores": "rated.jsonl", "column": ["a"]}}, "unknown key 'column'; did you mean 'columns'"),
        ({"data": {"score": "rated.jsonl"}}, "data.0.scores: Field required"),
        ({"data": {"scores": "rated.jsonl", "names": {"len": "x"}}}, "unknown attribute 'len'"),
        ({"data": {"scores": "rated.jsonl", "names": {"length": "vowels"}}}, "two attributes are called 'vowels'"),
        ({"data": {"scores": "rated.jsonl", "columns": ["depth"]}}, "unknown score 'depth'"),
        ({"data": "prompt.jsonl", "train": "all"}, "all rows to learn from have one prompt"),
        ({"data": "long.jsonl"}, "all 2 rows are longer than 512 tokens, the shortest has 607; raise max_length"),
        ({"holdout": 1}, "holdout: "),
        ({"hold_out": 0.1}, "unknown key 'hold_out'; did you mean 'holdout'"),
        ({"finetune": QUICK}, "'train: heads' leaves the base as it is and reads no 'finetune'"),
        ({"train": "all", "finetune": {"epoch": 1}}, "unknown key 'epoch'; did you mean 'epochs'"),
        ({"train": "all", "adapter": {"rank": 2}}, "'train: all' reads no 'adapter'; expected 'train: lora'"),
        ({"train": "lora", "adapter": {"target_modules": ["q_prj"]}}, "target_modules ['q_prj']: "),
        ({"train": "all", "dtype": "bfloat16"}, "'train: all' learns in float32, and dtype is bfloat16"),
        ({"train": "all", "finetune": QUICK | {"learning_rate": 1e20}}, "finite; a lower learning_rate helps"),
        ({"base": "nowhere/at/all"}, "base model 'nowhere/at/all' not found"),
        ({"base": "empty"}, "is not a model folder: it has no config.json"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line(place: Place, changes: dict[str, Any], names: str) -> None:
    scores = [{"length": 3, "vowels": i} for i in range(30)]
    place.write("alike.jsonl", [{"prompt": f"Q{i}", "response": "a", "scores": s} for i, s in enumerate(scores)])
    place.write("one.jsonl", [*({**row, "scores": {"length": i}} for i, row in enumerate(ROWS[:9])), ROWS[0]])
    place.write("nan.jsonl", [{"prompt": "Q", "response": "a", "scores": {"length": math.nan}}])
    place.write("prompt.jsonl", [row | {"prompt": "Question 0?"} for row in ROWS])
    place.write("long.jsonl", [LONG, LONG])
    (place.folder / "empty").mkdir(exist_ok=True)
    holdout = {} if "holdout" in changes else {"holdout": 0}
    with pytest.raises(UserError) as caught:
        place.run(**holdout | changes)
    assert names in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_stopped_a_run_can_be_mended(place: Place) -> None:
    """Nothing has come of it yet, so that nothing is lost."""
    with pytest.raises(UserError):
        place.run(heads=["vowel"])
    assert place.run(heads=["vowels"]).is_dir()


# The example


def test_the_example_can_be_given_as_it_stands(tmp_path: Path) -> None:
    """Made quick: two epochs; even so each head orders held-out answers better than chance."""
    path = ROOT / "examples" / "configs" / "reward_model.yaml"
    assert "moalign reward-model examples/configs/reward_model.yaml\n" in path.read_text()
    config = load_reward_config(path)
    assert config.finetune is not None
    quick = config.model_copy(update={"finetune": config.finetune.model_copy(update={"epochs": 2.0})})
    found = summarise_reward_model(run_reward_model(quick, tmp_path / "run"))
    assert found["rows"] == {"training": 275, "validation": 20, "heldout": 65, "overlong": 0}
    assert list(found["heads"]) == ["clear", "short", "warm"]
    assert all(head["heldout"]["pairwise_accuracy"] > 0.6 for head in found["heads"].values())
    assert [head["labels"] for head in found["heads"].values()] == [275, 155, 120]
