"""DPA on the world of twelve answers: what is asked, what is judged, what is kept, and what a kill leaves."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_world
from pydantic import ValidationError

from moalign import rollouts
from moalign.adapters import Adapter
from moalign.bank import AdapterBank
from moalign.batches import Completions
from moalign.conditioning import condition
from moalign.data import tokenize_prompts
from moalign.direction import Direction
from moalign.errors import ConfigError, PreferenceError, UserError
from moalign.logprobs import Scorer
from moalign.methods import dpa
from moalign.methods.dpa import deviations, draws_of, train
from moalign.methods.dpa_settings import DpaSettings
from moalign.methods.sft import Demonstrations
from moalign.models import BaseModel, adapter_factory, load_base
from moalign.preference import Preference
from moalign.rollouts import Environment, roll_out
from moalign.workplace import Job, Workplace

NAMES = ("warm", "brief")
WORDS = {"names": {"warm": "thanks", "brief": "now"}, "style": "tally", "scale": 5, "separator": " "}  # of this world
SETTINGS = DpaSettings.model_validate(
    {"template": "{terms}", "completions": 4, "steps": 4, "batch_size": 8, "learning_rate": 0.02} | WORDS
)


def changed(**changes: Any) -> DpaSettings:
    return DpaSettings.model_validate(SETTINGS.model_dump() | changes)


def score(prompts: Sequence[Any], texts: Sequence[str]) -> np.ndarray:
    """Warmth, and minus the words."""
    warm = tiny_world.warm(Completions(prompts, texts))
    return np.column_stack([warm, [-float(len(text.split())) for text in texts]])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return load_base(str(tiny_world.build_base(tmp_path_factory.mktemp("base"))), device="cpu")


@pytest.fixture(scope="module")
def workplace(base: BaseModel) -> Workplace:
    prompts = list(tiny_world.PROMPTS)
    environment = Environment(base, prompts, tokenize_prompts(prompts, base.tokenizer), score, max_new_tokens=5)
    return Workplace(Scorer.of(base.model), base.pad_id, NAMES, {}, seed=3, environment=environment)


@pytest.fixture(scope="module")
def job(base: BaseModel) -> Job:
    start = adapter_factory(base, rank=4, alpha=8.0, target_modules="all-linear")(0)
    return Job("one", Preference.of({"warm": 0.5, "brief": 0.5}), "warm", start, SETTINGS.steps or 0, stage=1)


def scored_by(workplace: Workplace, judge: Callable[..., np.ndarray]) -> Workplace:
    assert workplace.environment is not None
    return replace(workplace, environment=replace(workplace.environment, score=judge))


def gap(one: Adapter, other: Adapter) -> float:
    """The largest difference of a factor's element."""
    pairs = [(one.layers[name], other.layers[name]) for name in one.layers]
    return max(float((getattr(a, f) - getattr(b, f)).abs().max()) for a, b in pairs for f in "AB")


@pytest.fixture
def lessons(monkeypatch: pytest.MonkeyPatch) -> list[Demonstrations]:
    """What each round would be fine-tuned on; the training itself is left out."""
    found: list[Demonstrations] = []

    def noted(starts: Any, data: Demonstrations, *_: Any) -> Any:
        found.append(data)
        return starts

    monkeypatch.setattr(dpa.sft, "train", noted)
    return found


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Every prompt that a completion was generated for."""
    found: list[list[int]] = []

    def noted(base: Any, bank: Any, rows: Any, prompts: Any, **options: Any) -> list[list[int]]:
        found.extend(prompts)
        return generate(base, bank, rows, prompts, **options)

    generate = rollouts.generate
    monkeypatch.setattr(rollouts, "generate", noted)
    return found


# Prompts and directions


def test_every_round_has_fresh_prompts_until_all_were_asked(workplace: Workplace) -> None:
    """Six prompts, two per round: three rounds ask each once, and the fourth begins a new shuffle."""
    rounds = [[draw.place for draw in draws_of(stage, workplace, changed(prompts=2))] for stage in range(6)]
    assert sorted(rounds[0] + rounds[1] + rounds[2]) == sorted(rounds[3] + rounds[4] + rounds[5]) == list(range(6))
    assert rounds[:3] != rounds[3:]
    assert sorted(draw.place for draw in draws_of(5, workplace, changed(prompts=99))) == list(range(6))
    twice = [draw.place for draw in draws_of(0, workplace, changed(prompts=2, directions_per_prompt=3))]
    assert twice == [place for place in rounds[0] for _ in range(3)]


def test_directions_are_drawn_within_the_cone_and_stated(workplace: Workplace, base: BaseModel) -> None:
    """Of (0.8, 0.6), a cone of 20 degrees; every prompt states its own, and another round has others."""
    how = changed(centre={"warm": 4, "brief": 3}, cone=20.0, reuse_across_directions=2)
    draws = draws_of(1, workplace, how)
    vectors = np.stack([draw.vectors for draw in draws])
    assert vectors.shape == (6, 2, 2)
    angles = np.degrees(np.arccos(vectors @ [0.8, 0.6]))
    assert 10 < angles.max() <= 20
    for draw in draws:
        for vector, ids in zip(draw.vectors, draw.ids, strict=True):
            direction = Direction.of({"warm": float(vector[0]), "brief": float(vector[1])})
            told = condition(tiny_world.PROMPTS[draw.place], direction, how.wording(NAMES), base.tokenizer)
            assert ids == tokenize_prompts([told], base.tokenizer)[0]
    assert np.abs(vectors - np.stack([draw.vectors for draw in draws_of(2, workplace, how)])).max() > 0.01
    same = draws_of(1, workplace, how)
    assert all(np.array_equal(a.vectors, b.vectors) for a, b in zip(draws, same, strict=True))


def test_a_grid_is_dealt_out_to_the_prompts(workplace: Workplace) -> None:
    """Six prompts have the six angles from 0 to 90 degrees, in no order."""
    vectors = np.concatenate([draw.vectors for draw in draws_of(1, workplace, changed(kind="grid"))])
    angles = np.degrees(np.arctan2(vectors[:, 1], vectors[:, 0]))
    np.testing.assert_allclose(np.sort(angles), np.arange(0, 91, 18), atol=1e-9)
    assert (np.diff(angles) < 0).any()


def test_prompts_that_leave_no_room_with_their_direction_are_told(workplace: Workplace) -> None:
    """A model of 32 positions, completions of 5; a tally of 18 has 18 to 25 words before the prompt's two."""
    said: list[str] = []
    draws = draws_of(1, replace(workplace, notice=said.append), changed(scale=18, directions_per_prompt=20))
    assert 0 < len(draws) < 120
    assert max(len(ids) for draw in draws for ids in draw.ids) <= 27
    assert said == [f"{120 - len(draws)} of 120 prompts with a direction leave no room to answer"]
    with pytest.raises(UserError, match="no prompt with its direction is shorter than 27 tokens; lower max_new_tok"):
        draws_of(1, workplace, changed(scale=40))


# What is asked, and what is judged


@pytest.mark.parametrize("stage", [0, 1])
def test_the_policy_is_asked_with_its_direction_and_judged_without(
    workplace: Workplace, job: Job, lessons: list[Demonstrations], asked: list[list[int]], stage: int
) -> None:
    """Only in the first round it answers plain prompts; what it learns has the direction in any round."""
    judged: list[Any] = []

    def judge(prompts: Sequence[Any], texts: Sequence[str]) -> np.ndarray:
        judged.extend(prompts)
        return score(prompts, texts)

    how = changed(reuse_across_directions=2)
    draws = draws_of(stage, workplace, how)
    train([replace(job, stage=stage)], scored_by(workplace, judge), how)
    assert workplace.environment is not None
    plain = [workplace.environment.prompt_ids[draw.place] for draw in draws]
    assert asked == [ids for i, draw in enumerate(draws) for ids in [draw.ids[0] if stage else plain[i]] * 4]
    assert judged == [tiny_world.PROMPTS[draw.place] for draw in draws for _ in range(4)]
    assert lessons[0].prompt == [ids for draw in draws for ids in draw.ids]


# Selection


def written(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.iterdir()) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("standardise", [True, False])
def test_what_is_kept_is_what_enumeration_finds(
    workplace: Workplace, job: Job, lessons: list[Demonstrations], tmp_path: Path, standardise: bool
) -> None:
    """Of each prompt's completions the first with the largest sum of components times scores, worked out in Python."""
    records: list[tuple[str, dict[str, Any]]] = []
    place = replace(workplace, scratch=tmp_path, on_record=lambda *record: records.append(record))
    train([job], place, changed(standardise=standardise, reuse_across_directions=3, directions_per_prompt=2))
    rows = written(tmp_path)
    assert len(rows) == 12
    every = [scores for row in rows for scores in row["scores"]]
    means = [math.fsum(column) / len(every) for column in zip(*every, strict=True)]
    unit = [
        math.sqrt(math.fsum((x - mean) ** 2 for x in column) / len(every)) if standardise else 1.0
        for column, mean in zip(zip(*every, strict=True), means, strict=True)
    ]
    responses, values, best = [], [], []
    for row in rows:
        for v in row["directions"]:
            along = [sum(c * x / u for c, x, u in zip(v, scores, unit, strict=True)) for scores in row["scores"]]
            chosen = max(range(4), key=lambda i: round(along[i], 9))  # the first of a tie
            responses.append(row["responses"][chosen])
            values += along
            best.append(along[chosen])
    assert lessons[0].response == responses
    ((kind, numbers),) = records
    assert (kind, numbers["adapter"], numbers["step"], numbers["left_out"]) == ("dpa_round", "one", 2, 0)
    assert numbers["along"] == pytest.approx(np.mean(values))
    assert numbers["along_kept"] == pytest.approx(np.mean(best))
    assert numbers["rewards"] == pytest.approx(dict(zip(NAMES, means, strict=True)))
    assert numbers["length"] == np.mean([len(ids) for row in rows for ids in row["responses"]])
    assert numbers["truncated"] == np.mean([row["truncated"] for row in rows])


def test_deviations_leave_out_what_is_not_finite_and_do_not_divide_by_zero() -> None:
    scores = np.array([[1.0, 2.0, np.nan], [5.0, 2.0, np.inf], [np.nan, 2.0, np.nan]])
    assert deviations(scores).tolist() == [2.0, 1.0, 1.0]


def test_completions_without_a_score_are_never_kept(
    workplace: Workplace, job: Job, lessons: list[Demonstrations], tmp_path: Path
) -> None:
    """Those in which "later" stands, and all of q0's, whose prompt is left out and counted."""

    def judge(prompts: Sequence[Any], texts: Sequence[str]) -> np.ndarray:
        found = score(prompts, texts)
        found[[p == "q0 ?" or "later" in text for p, text in zip(prompts, texts, strict=True)], 1] = np.nan
        return found

    said: list[str] = []
    numbers: dict[str, Any] = {}
    place = scored_by(replace(workplace, scratch=tmp_path, notice=said.append), judge)
    place = replace(place, on_record=lambda _, values: numbers.update(values))
    train([job], place, changed(completions=8))
    later, q0 = tiny_world.WORDS.index("later"), tiny_world.WORDS.index("q0")
    rows = written(tmp_path)
    assert any(later in ids for row in rows for ids in row["responses"])
    assert not any(later in ids for ids in lessons[0].response)
    assert not any(q0 in ids for ids in lessons[0].prompt)
    lost = sum(all(None in scores for scores in row["scores"]) for row in rows)
    assert 1 <= lost < 6
    assert len(lessons[0]) == 6 - lost
    assert said == [f"round 2: {lost} of 6 prompts are left out: none of their completions has a finite score"]
    assert numbers["left_out"] == lost
    assert all(np.isfinite([numbers["along"], *numbers["rewards"].values(), *numbers["rewards_kept"].values()]))


def test_a_round_in_which_nothing_can_be_kept_says_whose_fault_it_is(workplace: Workplace, job: Job) -> None:
    def judge(prompts: Sequence[Any], texts: Sequence[str]) -> np.ndarray:
        return score(prompts, texts) * [1.0, np.nan]

    with pytest.raises(UserError, match=r"^round 2: no completion can be kept: objective 'brief' gave no finite score"):
        train([job], scored_by(workplace, judge), SETTINGS)


# Kills


def test_a_round_killed_while_it_draws_goes_on_to_the_same_adapter(
    workplace: Workplace, job: Job, asked: list[list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In shards of two prompts the second is killed; the first is not drawn again, and nothing has changed by it."""
    whole = train([job], workplace, SETTINGS)["one"]  # in one shard
    monkeypatch.setattr(dpa, "_SHARD", 8)
    calls = 0

    def judge(prompts: Sequence[Any], texts: Sequence[str]) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return score(prompts, texts)

    place = replace(scored_by(workplace, judge), scratch=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train([job], place, SETTINGS)
    asked.clear()
    found = train([job], place, SETTINGS)["one"]
    assert len(asked) == 16
    assert gap(found, whole) == 0
    asked.clear()
    assert gap(train([job], place, SETTINGS)["one"], whole) == 0
    assert asked == []


def test_a_round_killed_while_it_learns_goes_on_to_the_same_adapter(
    workplace: Workplace, job: Job, asked: list[list[int]], tmp_path: Path
) -> None:
    whole = train([job], workplace, SETTINGS)["one"]
    taken: list[int] = []

    def stop(step: int, *_: object) -> None:
        taken.append(step)
        if len(taken) == 3:
            raise KeyboardInterrupt

    place = replace(workplace, scratch=tmp_path / "drawn", checkpoint=tmp_path / "c", checkpoint_seconds=0.0)
    with pytest.raises(KeyboardInterrupt):
        train([job], replace(place, on_step=stop), SETTINGS)
    asked.clear()
    assert gap(train([job], replace(place, on_step=stop), SETTINGS)["one"], whole) == 0
    assert asked == []
    assert taken == [1, 2, 3, 3, 4]


# What is learnt


def test_turning_the_direction_turns_the_answers(workplace: Workplace, base: BaseModel, job: Job) -> None:
    """After three rounds of a few seconds, warmth is asked for and given, and so is brevity; the base knows neither."""
    how = changed(completions=6, directions_per_prompt=4, learning_rate=0.03)
    adapter = job.start
    for stage in range(3):
        adapter = train([replace(job, start=adapter, stage=stage, steps=40)], workplace, how)["one"]
    means = []
    assert workplace.environment is not None
    with AdapterBank(base.model, {"one": adapter}) as bank:
        for degrees in (0, 90):
            v = Direction.of({"warm": math.cos(math.radians(degrees)), "brief": math.sin(math.radians(degrees))})
            told = [condition(prompt, v, how.wording(NAMES), base.tokenizer) for prompt in tiny_world.PROMPTS]
            there = replace(workplace.environment, prompt_ids=tokenize_prompts(told, base.tokenizer))
            means.append(roll_out(there, bank, ["one"], range(6), 20, "after").rewards.mean((0, 1, 2)))
    (warm, brief), (cold, briefest) = means
    assert warm > cold + 0.3
    assert briefest > brief + 0.3


# Settings


def test_the_papers_wording_and_cone_are_the_defaults() -> None:
    """Around helpfulness alone, +-45 degrees: at the rim both numbers are 71, which the README suggests."""
    settings = DpaSettings(centre={"helpfulness": 1.0})
    names = ("helpfulness", "verbosity")
    rim = Direction.of({"helpfulness": math.cos(math.radians(45)), "verbosity": math.sin(math.radians(45))})
    assert settings.wording(names).render(rim).endswith("weighted rating = helpfulness*71 + verbosity*71")
    assert settings.middle(names).tolist() == [1.0, 0.0]
    assert DpaSettings().middle(names) == pytest.approx([0.5**0.5] * 2)
    assert settings.facts == {"rounds": "4, best of 8", "directions": "within 45 degrees, uniform angle"}
    assert settings.oracle_beta is None


def test_a_report_says_that_completions_were_reused() -> None:
    """They were drawn under one direction, and chosen from for others."""
    said = DpaSettings(reuse_across_directions=4).facts["directions"]
    assert said == "within 45 degrees, uniform angle; 4 choose from completions drawn under the first"


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, 12),
        ({"epochs": 1.0}, 6),
        ({"prompts": 50}, 6),
        ({"prompts": 500}, 12),
        ({"directions_per_prompt": 2, "reuse_across_directions": 3}, 74),
        ({"steps": 7}, 7),
    ],
)
def test_steps_of_a_round(changes: dict[str, Any], steps: int) -> None:
    """100 prompts are 6 batches of 16, and 600 lessons 37; two epochs of these unless told."""
    assert DpaSettings(**changes).steps_for(100) == steps


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plain_rounds": 5}, "plain_rounds is 5, of 4 rounds; expected at most as many"),
        ({"centre": {"a": 0.0}}, "all components are 0"),
        ({"template": "weights"}, r"the template 'weights' has no \{terms\}"),
        ({"order": ["a", "a"]}, "order is a, a; expected each objective once"),
        ({"cone": 0.0}, "cone"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DpaSettings(**changes)


def test_names_that_do_not_fit_the_objectives_are_told() -> None:
    with pytest.raises(PreferenceError, match="unknown objective 'worm'; did you mean 'warm'"):
        DpaSettings(order=["worm", "brief"]).wording(NAMES)
    with pytest.raises(PreferenceError, match="unknown objective 'warm'"):
        DpaSettings(order=["brief"]).wording(NAMES)
    with pytest.raises(ConfigError, match="names: unknown objective 'worm'"):
        DpaSettings(names={"worm": "x"}).wording(NAMES)
    with pytest.raises(PreferenceError, match="unknown objective 'worm'"):
        DpaSettings(centre={"worm": 1.0}).middle(NAMES)
    assert DpaSettings(order=["brief", "warm"]).wording(NAMES).order == ("brief", "warm")
