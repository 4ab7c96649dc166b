"""One text for one wish."""

from collections.abc import Callable
from pathlib import Path

import pytest
from made_runs import THREE, made_run

from moalign.adapters import Adapter
from moalign.bank import AdapterBank
from moalign.errors import PreferenceError
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
    return made_run(tmp_path, tiny_base, adapters=adapters)


def test_a_text_comes_with_its_row_and_its_scores(run: Run) -> None:
    said = Speaker.load(run).say("Hello?", HALF, seed=3, max_new_tokens=12)
    assert set(said) == {"text", "preference", "row", "scores"}
    assert said["preference"] == {"brief": 0.25, "warm": 0.75}
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
