"""Online sweeps of the tiny world, and what is read from their folders."""

import json
from collections.abc import Mapping
from typing import Any

from mistakes import World

from moalign.adapters import WEIGHTS_FILE
from moalign.runs import Run

SETTINGS = {"steps": 12, "prompts": 2, "completions": 4, "learning_rate": 0.02, "beta": 0.1}
ONLINE: dict[str, Any] = {
    "method": "online",
    "objectives": {"warm": {"type": "tiny_world:warm"}, "soon": {"type": "tiny_world:soon"}},
    "preferences": {"lattice": 3},
    "settings": SETTINGS,
    "data": {"train_prompts": "prompts.jsonl", "prompts": "prompts.jsonl", "holdout": 0.0, "separator": " "},
    "evaluation": {"prompts": 6, "samples": 4, "max_new_tokens": 5},
    "group_size": "auto",
}


def weights(run: Run) -> dict[str, bytes]:
    """The adapters of a run, byte by byte."""
    return {key: (run.folder / "adapters" / key / WEIGHTS_FILE).read_bytes() for key in sorted(run.store.keys())}


def rollouts(run: Run) -> dict[tuple[str, int], dict[str, Any]]:
    """What was logged of each preference and step, the last time that it was taken."""
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    return {
        (line["adapter"], line["step"]): {name: value for name, value in line.items() if name != "time"}
        for line in lines
        if line["kind"] == "rollouts"
    }


def stopped(run: Run) -> dict[str, dict[str, Any] | None]:
    """Why each preference stopped, by its name, such as warm100; None for those that went on to the end."""
    return {key.rpartition("-")[0]: run.store.record(key).get("stopped") for key in sorted(run.store.keys())}


def online(world: World, name: str = "run", /, settings: Mapping[str, Any] = {}, **changes: Any) -> tuple[Run, str]:
    """A sweep that ends well, and what it said."""
    world.run = world.folder / name
    ended = world.sweep(**ONLINE | {"settings": SETTINGS | settings} | changes)
    assert ended.code == 0, ended.err
    return Run.open(world.run), ended.err
