"""Every way to ask for a front: kinds of preferences, of objectives and of data, and against the exact optimum."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_world
from command import moalign

from moalign.adapters import WEIGHTS_FILE
from moalign.config import load_config
from moalign.enumeration import read_world
from moalign.errors import ConfigError, ObjectiveError
from moalign.frontiers import matched_front
from moalign.preference import Preference
from moalign.runs import Run
from moalign.summary import summarise
from moalign.sweep import run_sweep

Sweep = Callable[..., Run]
QUICK = {"beta": 0.5, "steps": 2, "batch_size": 8, "learning_rate": 0.01}
SMALL = {"prompts": 3, "samples": 2, "max_new_tokens": 5}
THREE = {"warm": {"type": "tiny_world:warm"}, "soon": {"type": "tiny_world:soon"}, "brief": {"type": "length"}}


@pytest.mark.parametrize(
    ("preferences", "count"),
    [
        ({"lattice": 2}, 6),  # C(2 + 2, 2)
        ({"corners": True}, 3),
        ({"riesz": 4}, 4),
        ({"list": [{"warm": 1, "soon": 1}, {"brief": 3, "soon": 1}]}, 2),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_three_objectives_with_every_kind_of_preferences(sweep: Sweep, preferences: dict[str, Any], count: int) -> None:
    run = sweep(objectives=THREE, preferences=preferences, settings=QUICK, evaluation=SMALL)
    summary = summarise(run)
    assert len(summary["points"]) == len(run.store.keys()) == count
    assert all(set(point["values"]) == {"warm", "soon", "brief"} for point in summary["points"])
    assert np.isfinite(summary["hypervolume"])


def test_objectives_learned_from_pairs_are_margins_scores_and_corners(sweep: Sweep, tmp_path: Path) -> None:
    """warm and soon come as pairs alone: their DPO corners are trained first and score everything else."""
    for name, word in (("warm", "thanks"), ("soon", "now")):
        tiny_world.write_rows(tmp_path / f"{name}.jsonl", tiny_world.rows_preferring(word))
    run = sweep(
        objectives={"warm": {"pairs": "warm.jsonl"}, "soon": {"pairs": "soon.jsonl"}, "brief": {"type": "length"}},
        preferences={"list": [{"warm": 1, "soon": 1, "brief": 1}, {"warm": 1}, {"warm": 0.4, "soon": 0.6}]},
        settings={"beta": 0.5, "steps": 20, "batch_size": 8, "learning_rate": 0.01},
    )
    points = {point.preference.key: point for point in run.front()}
    assert set(points) == {"warm100", "soon100", "brief33.33-soon33.33-warm33.33", "soon60-warm40"}
    for name in ("warm", "soon"):
        corner = points[f"{name}100"]
        whole = [row for row in run.samples(corner.adapter) if row["response"] in tiny_world.ANSWERS]
        assert whole  # others were cut off before their EOS, which scoring puts behind every text
        for row in whole:
            assert row["scores"][name] == pytest.approx(0.5 * row["log_ratio"], abs=1e-3)
    written = moalign("report", run.folder, "--blends", 1)
    assert written.code == 0, written.err
    assert len(list((run.folder / "blends").iterdir())) == 3  # each point and its nearest by weight
    said = moalign("generate", run.folder, "--prefer", "warm=1,brief=1", "q0 ?", "--max-new-tokens", 5, "--json")
    assert set(json.loads(said.out)["scores"]) == {"brief"}
    accuracy = summarise(run)["accuracy"]
    assert accuracy[points["warm100"].adapter]["warm"]["reward"] > 0.9
    assert accuracy["base"]["warm"]["reward"] == 0.5


def test_a_warm_start_begins_between_the_corners(sweep: Sweep) -> None:
    settings = QUICK | {"steps": 10, "warm_start": True, "warm_share": 0.3}
    run = sweep(preferences={"lattice": 4}, settings=settings, evaluation=SMALL)
    keys = run.store.keys()
    records = {key: run.store.record(key) for key in keys}
    corners = {key for key, record in records.items() if not record["parents"]}
    assert {records[key]["steps"] for key in corners} == {10}
    assert len(corners) == 2
    for key in set(records) - corners:
        assert records[key]["steps"] == 3
        assert set(records[key]["parents"]) == corners
    ranks = {layer.rank for key in records for layer in run.store.load(key).layers.values()}
    assert ranks == {2}  # as asked for, though a soup of two has rank 4


def test_scored_responses_from_a_column_and_from_mappings(sweep: Sweep, tmp_path: Path) -> None:
    rows = [
        {
            "prompt": prompt,
            "response": text,
            "stars": float("thanks" in text),
            "scores": {"quick": float("now" in text)},
        }
        for prompt in tiny_world.PROMPTS
        for text in tiny_world.ANSWERS
    ]
    tiny_world.write_rows(tmp_path / "scored.jsonl", rows)
    objectives = {
        "warm": {"scores": "scored.jsonl", "column": "stars", "type": "tiny_world:warm"},
        "quick": {"scores": "scored.jsonl"},
    }
    run = sweep(objectives=objectives, preferences={"lattice": 2}, settings=QUICK | {"steps": 10}, evaluation=SMALL)
    assert len(run.front()) == 3
    assert set(run.front().points[0].values) == {"warm", "quick"}


def test_bad_rows_are_set_aside_and_the_sweep_goes_on(sweep: Sweep, tmp_path: Path) -> None:
    rows = [{"prompt": "q0 ?", "chosen": "yes now"}, *tiny_world.rows_preferring("thanks"), {"prompt": 3}]
    tiny_world.write_rows(tmp_path / "mixed.jsonl", rows)
    data = {"responses": "mixed.jsonl", "prompts": "prompts.jsonl", "skip_bad_rows": True, "separator": " "}
    run = sweep(data=data, preferences={"corners": True}, settings=QUICK, evaluation=SMALL)
    aside = [json.loads(line) for line in (run.folder / "quarantine" / "responses.jsonl").read_text().splitlines()]
    assert [row["where"] for row in aside] == ["mixed.jsonl:1", f"mixed.jsonl:{len(rows)}"]
    assert len(run.front()) == 2


def test_conversations_are_trained_measured_and_continued(tmp_path: Path, tiny_base: Path) -> None:
    """A base with a chat template: what the user says is rendered in training as in `generate`."""
    rows = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "chosen": [{"role": "assistant", "content": row["chosen"]}],
            "rejected": [{"role": "assistant", "content": row["rejected"]}],
        }
        for row in tiny_world.rows_preferring("thanks")
    ]
    tiny_world.write_rows(tmp_path / "talk.jsonl", rows)
    data = {"responses": "talk.jsonl", "holdout": 0.4}
    changes = {"data": data, "preferences": {"corners": True}, "settings": QUICK, "evaluation": SMALL}
    run = run_sweep(load_config(tiny_world.write_config(tmp_path, tiny_base, **changes)), tmp_path / "run")
    asked = [row["prompt"] for row in run.samples("base")]
    assert all(isinstance(prompt, list) and prompt[0]["role"] == "user" for prompt in asked)
    said = moalign("generate", run.folder, "--prefer", "warm=1,brief=1", "q0 ?", "--max-new-tokens", 5, "--json")
    assert said.code == 0, said.err
    assert list(json.loads(said.out)["row"].values()) == pytest.approx([0.5, 0.5])
    assert moalign("report", run.folder).code == 0


def test_the_same_seed_gives_the_same_adapters_and_another_does_not(sweep: Sweep, tmp_path: Path) -> None:
    def weights(**changes: Any) -> dict[str, bytes]:
        run = sweep(preferences={"corners": True}, settings=QUICK, evaluation=SMALL, **changes)
        files = (run.folder / "adapters").glob(f"*/{WEIGHTS_FILE}")
        found = {path.parent.name.split("-")[0]: path.read_bytes() for path in files}
        run.folder.rename(tmp_path / f"run{len(list(tmp_path.iterdir()))}")
        return found

    assert weights() == weights()
    assert all(weights()[key] != other for key, other in weights(seed=1).items())


ORACLE = {
    "settings": {"beta": 0.5, "steps": 40, "batch_size": 32, "learning_rate": 0.005},
    "data": {
        "responses": {"prompts": "prompts.jsonl", "per_prompt": 24},
        "prompts": "prompts.jsonl",
        "labels": "bradley_terry",
        "pairs_per_prompt": 60,
        "holdout": 0.0,
        "separator": " ",
    },
    "preferences": {"lattice": 2},
    "evaluation": {"prompts": 6, "samples": 40, "max_new_tokens": 5},
    "group_size": 3,
    "checkpoint_seconds": 30,
    "oracle": "tiny_world:answers",
}


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Run:
    """A front in a world whose optimum is known; trained long enough to come near it."""
    folder = tmp_path_factory.mktemp("known")
    return run_sweep(load_config(tiny_world.write_config(folder, base, **ORACLE)), folder / "run")


def test_the_world_that_is_stored_is_the_one_that_is_enumerated(known: Run) -> None:
    """Twelve answers to each of six prompts, which carry nearly all of the base's probability."""
    world = read_world(known)
    assert world is not None
    assert [answers.scores.shape for answers in world] == [(12, 2)] * 6
    assert all(0.98 < np.exp(answers.log_reference).sum() <= 1 for answers in world)
    assert world[0].scores[:, 1].tolist() == [-float(len(text.split())) for text in tiny_world.ANSWERS]


def test_no_point_is_better_than_any_policy_of_its_kl_can_be(known: Run) -> None:
    """The tilt has the highest w.r at its KL; a point above it by more than its interval was measured wrongly."""
    world = read_world(known)
    assert world is not None
    points = list(known.front())
    weights = np.array([point.preference.vector(known.objectives) for point in points])
    best = matched_front(world, weights, np.array([point.kl_to_reference for point in points]))
    for point, w, most in zip(points, weights, best, strict=True):
        values = np.array([point.values[name] for name in known.objectives])
        above = [point.intervals[name][1] - point.values[name] for name in known.objectives]
        assert w @ values <= w @ most + w @ np.array(above)


def test_the_front_comes_near_the_oracle(known: Run) -> None:
    """This is a check that all parts point the same way; the demo's own numbers are in the benchmarks."""
    summary = summarise(known)
    assert 0.8 < summary["hypervolume_ratio"] < 1.1
    assert summary["hypervolume_ratio_at_beta"] > 0.6
    assert summary["kendall_tau"]["warm"] > 0.9
    for point in summary["points"]:
        assert -0.2 < point["kl_to_oracle"] < 0.7  # it is sampled, so it may fall a little below 0
    assert np.mean([point["kl_to_reference"] for point in summary["points"]]) > 0.15


def test_an_oracle_needs_objectives_that_score(sweep: Sweep) -> None:
    with pytest.raises(ConfigError, match="an oracle needs objectives that score; 'warm' is learned from its pairs"):
        sweep(
            objectives={"warm": {"pairs": "pairs.jsonl"}, "brief": {"type": "length"}},
            oracle="tiny_world:answers",
        )


def test_an_oracle_that_is_not_there_is_told(sweep: Sweep) -> None:
    with pytest.raises(ObjectiveError, match=r"oracle 'tiny_world:answer': unknown function .* mean 'answers'"):
        sweep(oracle="tiny_world:answer")


def test_the_preferences_of_a_front_are_its_own(known: Run) -> None:
    assert {point.preference for point in known.front()} == {
        Preference.of({"warm": k / 2, "brief": 1 - k / 2}) for k in range(3)
    }
