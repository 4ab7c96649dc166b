"""The sweep's settings: every key known, every path resolved, every mistake one line that names it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from moalign.config import SweepConfig, differing, load_config, parse_config
from moalign.errors import ConfigError

TWO = {"brief": {"type": "length"}, "varied": {"type": "repetition"}}


def settings(**changes: Any) -> dict[str, Any]:
    return {"base": "org/name", "objectives": TWO, **changes}


def refusal(values: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(values, "sweep.yaml")
    text = str(caught.value)
    assert text.startswith("sweep.yaml: ")
    assert "\n" not in text
    return text


def test_defaults_are_an_eleven_point_front_by_modpo() -> None:
    config = parse_config(settings())
    assert config.method == "modpo"
    assert config.preferences.lattice == 10
    assert config.method_settings.beta == 0.1


def test_the_resolved_settings_read_back_as_the_same_settings() -> None:
    """What stands in a run's config.yaml is all that determines it, defaults of the method included."""
    config = parse_config(
        settings(
            preferences={"list": [{"brief": 1}, {"brief": 0.3, "varied": 0.7}]},
            settings={"steps": 5, "warm_start": True},
            data={"responses": {"prompts": "p.jsonl", "per_prompt": 4}},
            reference_point={"brief": -1.0, "varied": -2.5},
            trackers=["tensorboard"],
            explorer={"type": "crowding", "points": 7},
            fill={"steps": 9},
        )
    )
    again = parse_config(yaml.safe_load(config.to_yaml()))
    assert differing(config, again) == []
    assert again.method_settings == config.method_settings
    assert again.to_yaml() == config.to_yaml()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"objektives": {}}, "unknown key 'objektives'; did you mean 'objectives'?"),
        ({"evaluation": {"max_new_token": 3}}, "'max_new_token'; did you mean 'max_new_tokens'?"),
        ({"settings": {"betta": 1}}, "unknown key 'betta'; did you mean 'beta'?"),
        ({"data": {"responses": {"prompts": "p", "perprompt": 3}}}, "'perprompt'; did you mean 'per_prompt'?"),
        ({"objectives": {**TWO, "kind": {"pair": "x.jsonl"}}}, "needs 'type'"),
        ({"objectives": {**TWO, "kind": {"pairs": "x.jsonl", "per": 3}}}, "unknown key 'per'"),
        ({"objectives": {**TWO, "kind": {"pairs": "a", "scores": "b"}}}, "either 'pairs' or 'scores'"),
        ({"objectives": {**TWO, "kind": {"pairs": "a", "column": "c"}}}, "'column' is a column of 'scores'"),
        ({"objectives": {"brief": {"type": "length"}}}, "objectives: "),
        ({"preferences": {"lattice": 3, "corners": True}}, "exactly one of lattice, corners, riesz, list"),
        ({"preferences": {"lattices": 3}}, "unknown key 'lattices'; did you mean 'lattice'?"),
        ({"preferences": {"lattice": 0}}, "preferences.lattice: "),
        ({"preferences": {"list": [{"brief": "much"}]}}, "preferences.list.0.brief: "),
        ({"method": "mopdo"}, "unknown method 'mopdo'; did you mean 'modpo'?"),
        ({"settings": {"beta": 0}}, "settings.beta: "),
        ({"settings": {"beta": float("nan")}}, "settings.beta: "),
        ({"adapter": {"rank": 0}}, "adapter.rank: "),
        ({"group_size": "all"}, "group_size"),
        ({"trackers": ["tensorbord"]}, "trackers.0: "),
        ({"reference_point": {"brieff": 1, "varied": 1}}, "unknown objective 'brieff'; did you mean 'brief'?"),
        ({"reference_point": {"brief": 1}}, "reference_point lacks varied"),
        ({"reference_point": {"brief": float("nan"), "varied": 1}}, "reference_point.brief: "),
        ({"data": {"holdout": 1}}, "data.holdout: "),
        ({"data": {"labels": "bradley-terry"}}, "data.labels: "),
        ({"fill": {"step": 3}}, "unknown key 'step'; did you mean 'steps'?"),
        ({"fill": {"retain": 1.5}}, "fill.retain: "),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(change: dict[str, Any], expected: str) -> None:
    assert expected in refusal(settings(**change))


def test_a_missing_base_is_named() -> None:
    assert "base: " in refusal({"objectives": TWO})


@pytest.mark.parametrize("name", ["", "a/b", "a=b", "a,b", "..", "a b", ".hidden"])
def test_an_objective_needs_a_name_that_a_file_and_a_preference_can_bear(name: str) -> None:
    """helpful=0.7,brief=0.3 must be readable, and helpful70-brief30-... is a folder."""
    assert repr(name) in refusal(settings(objectives={**TWO, name: {"type": "length"}}))


def test_paths_are_taken_from_where_the_file_stands(tmp_path: Path) -> None:
    """What exists beside the file becomes absolute; a hub name, which does not, stays as it is."""
    (tmp_path / "pairs.jsonl").write_text("")
    (tmp_path / "saved").mkdir()
    text = {
        "base": "saved",
        "objectives": {"kind": {"pairs": "pairs.jsonl"}, "safe": {"pairs": "saved:test"}, "brief": {"type": "length"}},
        "data": {"prompts": "org/name", "responses": {"prompts": "pairs.jsonl"}},
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(text))
    config = load_config(tmp_path / "sweep.yaml")
    assert config.base == str(tmp_path / "saved")
    assert config.objectives["kind"].pairs == str(tmp_path / "pairs.jsonl")
    assert config.objectives["safe"].pairs == f"{tmp_path / 'saved'}:test"
    assert config.data.prompts == "org/name"
    assert config.data.responses.prompts == str(tmp_path / "pairs.jsonl")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", "holds a NoneType"), ("- a\n- b", "holds a list"), ("base: [1", "is not YAML"), ("a: b: c", "is not YAML")],
)
def test_what_is_no_mapping_of_settings_is_told_by_file(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=expected) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_config_that_is_not_there_shows_what_is(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text("")
    with pytest.raises(ConfigError, match=r"no such config: .*swep.yaml \(beside it: sweep.yaml\)"):
        load_config(tmp_path / "swep.yaml")
    with pytest.raises(ConfigError, match="no such config"):
        load_config(tmp_path / "nowhere" / "sweep.yaml")


def test_only_settings_that_change_what_is_found_make_another_run() -> None:
    """Where and how fast it runs may change between one start and the next."""

    def with_(**changes: Any) -> SweepConfig:
        return parse_config(settings(**changes))

    quick = with_(group_size=3, memory_gb=1.0, checkpoint_seconds=0, device="cpu", trackers=["wandb"])
    assert differing(with_(), quick) == []
    assert differing(with_(), with_(seed=1, settings={"beta": 0.2})) == ["settings", "seed"]
    assert differing(with_(oracle="a:b"), with_()) == ["oracle"]
