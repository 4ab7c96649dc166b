"""What policies read while they are measured: the plain prompts, or those with their direction."""

from pathlib import Path
from typing import Any

import pytest
import tiny_world

from moalign.config import load_config
from moalign.direction import Direction
from moalign.measuring import Measurer, directed_ids, planner_of
from moalign.planning import Policy
from moalign.preference import Preference
from moalign.preparation import prepare
from moalign.prepared import Prepared
from moalign.progress import Reporter
from moalign.runs import Run


@pytest.fixture
def prepared(tmp_path: Path, tiny_base: Path) -> Prepared:
    """One that follows directions, in words of its own."""
    settings: dict[str, Any] = {
        "template": "Go {terms}.",
        "names": {"warm": "warmth"},
        "order": ["soon", "warm"],
        "scale": 10,
        "place": "user",
        "separator": " ",
    }
    config = tiny_world.write_config(
        tmp_path,
        tiny_base,
        method="dpa",
        objectives={"warm": {"type": "tiny_world:warm"}, "soon": {"type": "tiny_world:soon"}},
        settings=settings,
        data={"train_prompts": "prompts.jsonl", "prompts": "prompts.jsonl", "holdout": 0.0},
    )
    return prepare(Run.create(tmp_path / "run", load_config(config)), print)


def test_evaluation_prompts_state_a_direction_as_the_settings_word_it(prepared: Prepared) -> None:
    tokenizer = prepared.base.tokenizer
    told = directed_ids(prepared, Direction.of({"warm": 0.6, "soon": -0.8}))
    assert len(told) == len(prepared.prompts) == 6
    for ids, plain, prompt in zip(told, prepared.prompt_ids, prepared.prompts, strict=True):
        said = f"Go soon*-8 + warmth*6. {prompt}"
        assert tokenizer.decode(ids) == tokenizer.decode(plain).replace(str(prompt), said)


def test_only_policies_with_a_direction_are_told_one(prepared: Prepared) -> None:
    direction, even = Direction.of({"warm": 1.0}), Preference.of({"warm": 1.0, "soon": 1.0})
    policies = [Policy("told", even, {"k": 1.0}, direction), Policy("plain", even, {"k": 1.0})]
    measurer = Measurer(prepared, Reporter(quiet=True), 2)
    assert measurer._asked(policies) == {"told": directed_ids(prepared, direction)}


def test_what_a_run_is_made_of_follows_its_data(prepared: Prepared) -> None:
    """All prompts count for every objective, where there are no pairs."""
    assert planner_of(prepared).amounts == {"warm": 6, "soon": 6}
