"""One text for one wish."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import moalign
from made_runs import THREE, made_run, point

from moalign import talking
from moalign.adapters import Adapter
from moalign.bank import AdapterBank
from moalign.batches import Completions
from moalign.direction import Direction
from moalign.errors import ConfigError, PreferenceError
from moalign.generation import generate
from moalign.models import load_base
from moalign.preference import Preference
from moalign.runs import BASE, Run
from moalign.talking import Speaker

HALF = Preference.of({"warm": 0.75, "brief": 0.25})  # between two trained points


@pytest.fixture(scope="module")
def adapters(tiny_base: Path, random_adapter: Callable[..., Adapter]) -> dict[str, Adapter]:
    model = load_base(str(tiny_base)).model
    return {key: random_adapter(model, seed) for seed, key in enumerate(THREE)}


@pytest.fixture
def run(tmp_path: Path, tiny_base: Path, adapters: dict[str, Adapter]) -> Run:
    return made_run(tmp_path / "run", tiny_base, adapters=adapters)


def test_a_text_comes_with_its_row_and_its_scores(run: Run) -> None:
    said = Speaker.load(run).say("Hello?", HALF, seed=3, max_new_tokens=12)
    assert set(said) == {"text", "preference", "policy", "row", "predicted", "source", "scores"}
    assert said["preference"] == {"brief": 0.25, "warm": 0.75}
    assert (said["policy"], said["source"]) == ("interpolate", "interpolated")
    assert said["predicted"]["warm"]["value"] == pytest.approx(0.875)
    assert said["row"] == pytest.approx({"w": 0.5, "m": 0.5})
    assert said["scores"] == {"warm": 0.0, "brief": -float(len(said["text"].split()))}


@pytest.mark.parametrize("converses", [True, False])
def test_the_text_is_what_the_mixed_adapters_write(run: Run, adapters: dict[str, Adapter], converses: bool) -> None:
    """The same tokens from a bank of all three adapters, with halves of two; the prompt in the form the run knows.

    The base has a chat template both times: adapters of a run over plain texts have never seen it.
    """
    speaker = Speaker.load(run)
    tokenizer = speaker.base.tokenizer
    messages = [{"role": "user", "content": "Hello?"}]
    run.write_samples(BASE, [{"prompt": messages if converses else "Hello?"}])
    templated = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    ids = templated if converses else tokenizer("Hello?")["input_ids"]
    assert templated != tokenizer("Hello?")["input_ids"]
    with AdapterBank(speaker.base.model, adapters) as bank:
        row = bank.mixture({"w": 0.5, "m": 0.5})[None]
        (expected,) = generate(speaker.base, bank, row, [ids], seeds=[3], max_new_tokens=12)
    text = tokenizer.decode(expected, skip_special_tokens=True).strip()
    assert speaker.say("Hello?", HALF, seed=3, max_new_tokens=12)["text"] == text


def test_the_seed_and_the_wish_make_the_text(run: Run) -> None:
    speaker = Speaker.load(run)

    def text(seed: int, wish: Preference) -> str:
        return speaker.say("Hello?", wish, seed=seed, max_new_tokens=12)["text"]

    assert text(0, HALF) == text(0, HALF)
    assert len({text(0, HALF), text(1, HALF), text(0, Preference.of({"brief": 1.0}))}) == 3


def test_a_speaker_leaves_no_adapter_on_the_model(run: Run) -> None:
    """One base serves any number of wishes; hooks that stayed would pile up."""
    speaker = Speaker.load(run)
    speaker.say("Hello?", HALF, max_new_tokens=2)
    assert not any(module._forward_hooks for module in speaker.base.model.modules())


def test_objectives_that_are_learned_from_pairs_do_not_score_here(
    tmp_path: Path, tiny_base: Path, adapters: dict[str, Adapter]
) -> None:
    """Not even when all of them are."""
    learned = {name: {"pairs": f"{name}.jsonl"} for name in ("warm", "brief")}
    run = made_run(tmp_path, tiny_base, adapters=adapters, objectives=learned)
    said = Speaker.load(run).say("Hello?", HALF, max_new_tokens=4)
    assert said["scores"] == {}
    assert said["row"] == pytest.approx({"w": 0.5, "m": 0.5})


def test_an_unknown_objective_is_refused(run: Run) -> None:
    with pytest.raises(PreferenceError, match="unknown objective 'wram'; did you mean 'warm'"):
        Speaker.load(run).say("Hello?", Preference.of({"wram": 1.0}))


@pytest.mark.parametrize(("policy", "row"), [("nearest", {"w": 1.0}), ("soup", {"w": 0.75, "b": 0.25})])
def test_a_policy_makes_the_row_and_so_the_text(run: Run, policy: str, row: dict[str, float]) -> None:
    """(3/4, 1/4) is best served by w, and is three parts of w and one of b; the text is the row's."""
    speaker = Speaker.load(run)
    said = speaker.say("Hello?", HALF, policy=policy, max_new_tokens=12)
    assert (said["policy"], said["row"]) == (policy, pytest.approx(row))
    assert said["text"] != speaker.say("Hello?", HALF, max_new_tokens=12)["text"]
    if policy == "nearest":
        assert said["text"] == speaker.say("Hello?", Preference.of({"warm": 1.0}), max_new_tokens=12)["text"]


@pytest.mark.parametrize("policy", ["interpolate", "decode"])
def test_temperature_0_takes_the_likeliest_token_whatever_the_seed(run: Run, policy: str) -> None:
    """As at a temperature just above it, where the second one would be drawn too if their logits were near."""
    speaker = Speaker.load(run)
    texts = [
        speaker.say("Hello?", HALF, policy=policy, seed=seed, max_new_tokens=8, temperature=temperature)["text"]
        for seed, temperature in ((1, 0.0), (2, 0.0), (3, 1e-4))
    ]
    assert len(set(texts)) == 1
    assert texts[0] != speaker.say("Hello?", HALF, policy=policy, seed=1, max_new_tokens=8)["text"]


def test_several_lanes_are_combined_at_every_token(run: Run, adapters: dict[str, Adapter]) -> None:
    """At so low a temperature that only the likeliest token under 3/4 log pi_w + 1/4 log pi_b is drawn."""
    speaker = Speaker.load(run)
    said = speaker.say("Hello?", HALF, policy="decode", max_new_tokens=6, temperature=1e-3)
    assert said["lanes"] == [{"row": {"b": 1.0}, "share": 0.25}, {"row": {"w": 1.0}, "share": 0.75}]
    ids = speaker.base.tokenizer("Hello?")["input_ids"]
    with AdapterBank(speaker.base.model, adapters) as bank, bank.rows(bank.one_hot(["w", "b"])), torch.no_grad():
        for _ in range(6):
            logits = speaker.base.model(torch.tensor([ids] * 2)).logits[:, -1].log_softmax(-1)
            ids = [*ids, int((0.75 * logits[0] + 0.25 * logits[1]).argmax())]
    written = speaker.base.tokenizer.decode(ids[-6:], skip_special_tokens=True)
    assert said["text"] == written.strip()
    assert Speaker.load(run).say("Hello?", Preference.of({"warm": 1.0}), policy="decode", max_new_tokens=2)["row"] == {
        "w": 1.0
    }


def test_an_unknown_policy_is_refused(run: Run) -> None:
    with pytest.raises(ConfigError, match="unknown policy 'soap'; did you mean 'soup'"):
        Speaker.load(run).say("Hello?", HALF, policy="soap")


# The best of several answers


def vowels(text: str) -> float:
    return float(sum(letter in "aeiou" for letter in text))


class Scored:
    """An objective as tests need it: any number of a text."""

    def __init__(self, name: str, score: Callable[[str], float]):
        self.name, self.fingerprint, self._score = name, name, score

    def score(self, completions: Completions) -> np.ndarray:
        return np.array([self._score(text) for text in completions.responses])


@pytest.fixture
def scored(run: Run) -> Speaker:
    """Warmth is vowels, brevity the spaces that are not there."""
    return replace(
        Speaker.load(run), scorers=[Scored("warm", vowels), Scored("brief", lambda text: -float(text.count(" ")))]
    )


@pytest.mark.parametrize("wish", [HALF, Preference.of({"brief": 1.0}), Preference.of({"warm": 1.0})])
def test_the_best_of_some_answers_is_the_best_of_these_answers_one_by_one(scored: Speaker, wish: Preference) -> None:
    """Seeds 5 to 12 by themselves; of equals the first."""
    alone = [scored.say("Hello?", wish, seed=seed, max_new_tokens=12) for seed in range(5, 13)]
    along = [wish.vector(("warm", "brief")) @ [said["scores"]["warm"], said["scores"]["brief"]] for said in alone]
    assert len(set(along)) > 1
    found = scored.say("Hello?", wish, seed=5, max_new_tokens=12, best_of=8)
    assert found == alone[int(np.argmax(along))]
    assert found["scores"]["warm"] == vowels(found["text"])


def test_the_same_seed_has_the_same_best(scored: Speaker) -> None:
    one, two = (scored.say("Hello?", HALF, seed=2, max_new_tokens=12, best_of=4) for _ in range(2))
    assert one == two


def test_a_choice_needs_all_objectives_to_score(tmp_path: Path, tiny_base: Path, adapters: dict[str, Adapter]) -> None:
    objectives = {"warm": {"pairs": "warm.jsonl"}, "brief": {"type": "length"}}
    speaker = Speaker.load(made_run(tmp_path, tiny_base, adapters=adapters, objectives=objectives))
    with pytest.raises(ConfigError, match=r"^the best of 2 answers needs scores, and objective 'warm' has no type"):
        speaker.say("Hello?", HALF, best_of=2)


# Directions


@pytest.fixture
def directed(tmp_path: Path, tiny_base: Path, adapters: dict[str, Adapter]) -> Run:
    """A run of dpa: two points of one adapter, whose prompts state a direction."""
    run = made_run(tmp_path / "dpa", tiny_base, points={}, adapters={"round2": adapters["w"]}, method="dpa")
    for key in ("w", "b"):
        weights, values = THREE[key]
        told = dict(zip(("warm", "brief"), weights, strict=True))
        run.add_point(replace(point(key, weights, values), row={"round2": 1.0}, direction=told))
    return run


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Direction]:
    """The directions that prompts are told, as they are."""
    found: list[Direction] = []
    condition = talking.condition

    def listening(prompt: Any, direction: Direction, *rest: Any) -> Any:
        found.append(direction)
        return condition(prompt, direction, *rest)

    monkeypatch.setattr(talking, "condition", listening)
    return found


def test_a_preference_is_told_as_its_direction(directed: Run, told: list[Direction]) -> None:
    """(3/4, 1/4) points along (3, 1) / sqrt(10)."""
    said = Speaker.load(directed).say("Hello?", HALF, max_new_tokens=4)
    assert told == [Direction.parse("warm=3,brief=1")]
    assert said["direction"] == pytest.approx({"warm": 3 / 10**0.5, "brief": 1 / 10**0.5})
    assert said["preference"] == HALF.weights
    assert said["row"] == {"round2": 1.0}


def test_a_direction_may_ask_for_less_of_something(directed: Run, told: list[Direction]) -> None:
    """No preference says so; the answers are chosen along it, so that of two the longer one wins."""
    away = Direction.parse("brief=-1")
    speaker = Speaker.load(directed)
    alone = [speaker.say("Hello?", away, seed=seed, max_new_tokens=12) for seed in range(4)]
    found = speaker.say("Hello?", away, max_new_tokens=12, best_of=4)
    assert set(told) == {away}
    assert (found["direction"], found["preference"]) == ({"brief": -1.0}, None)
    assert found["scores"]["brief"] == min(said["scores"]["brief"] for said in alone)
    assert len({said["scores"]["brief"] for said in alone}) > 1


def test_answers_are_asked_for_within_the_spread_and_chosen_along_the_direction(
    directed: Run, told: list[Direction]
) -> None:
    """Five directions of at most 30 degrees, by the seed; without a spread all are the one that was asked for."""
    wish, speaker = Direction.parse("warm=1,brief=1"), Speaker.load(directed)
    first = speaker.say("Hello?", wish, seed=3, max_new_tokens=6, best_of=5, spread=30.0)
    around = list(told)
    assert len(set(around)) == 5
    assert max(direction.angle(wish) for direction in around) <= 30
    told.clear()
    assert speaker.say("Hello?", wish, seed=3, max_new_tokens=6, best_of=5, spread=30.0) == first
    assert told == around
    told.clear()
    speaker.say("Hello?", wish, seed=3, max_new_tokens=6, best_of=5)
    assert told == [wish] * 5
    assert first["direction"] == wish.components


@pytest.mark.parametrize(
    ("wish", "more"),
    [(Direction.parse("warm=1,brief=-0.5"), {}), (Direction.parse("warm=1"), {}), (HALF, {"spread": 30.0})],
)
def test_other_runs_follow_no_direction(run: Run, wish: Preference | Direction, more: dict[str, float]) -> None:
    with pytest.raises(ConfigError) as caught:
        Speaker.load(run).say("Hello?", wish, **more)
    assert "was trained by 'modpo', whose adapters read no direction" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_line_takes_weights_below_0_for_a_direction(directed: Run, run: Run) -> None:
    said = moalign("generate", directed.folder, "Hello?", "--prefer", "warm=3, brief= -4", "--max-new-tokens", 4)
    assert said.code == 0, said.err
    refused = moalign("generate", run.folder, "Hello?", "--prefer", "warm=3,brief=-4", "--best-of", 2)
    assert refused.code == 2
    (line,) = refused.err.splitlines()
    assert "adapters read no direction" in line
    chosen = moalign(
        "generate", run.folder, "Hello?", "--prefer", "warm=3,brief=1", "--best-of", 2, "--max-new-tokens", 4
    )
    assert chosen.code == 0, chosen.err
