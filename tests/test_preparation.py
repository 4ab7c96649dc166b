"""What a sweep computes once: pairs of every kind of source, constants of the data, prompts to evaluate on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_world
from made_runs import made_run

from moalign.adapters import Adapter
from moalign.bank import AdapterBank
from moalign.config import load_config
from moalign.data import tokenize_texts
from moalign.errors import BaseModelError, ConfigError, DataError, ObjectiveError
from moalign.logprobs import Scorer
from moalign.preparation import prepare
from moalign.prepared import Prepared
from moalign.runs import Run

WARM, SOON, BRIEF = {"type": "tiny_world:warm"}, {"type": "tiny_world:soon"}, {"type": "length"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_world.build_base(tmp_path_factory.mktemp("base"))


class Prepare:
    """Prepare a run of a config with these changes, in a folder of its own."""

    def __init__(self, folder: Path, base: Path):
        self.folder, self.base, self.said = folder, base, []

    def __call__(self, run: str = "run", **changes: Any) -> Prepared:
        path = tiny_world.write_config(self.folder, self.base, **changes)
        return prepare(Run.create(self.folder / run, load_config(path)), self.said.append)

    def write(self, name: str, rows: list[dict[str, Any]]) -> str:
        return tiny_world.write_rows(self.folder / name, rows).name


@pytest.fixture
def prepared(tmp_path: Path, base: Path) -> Prepare:
    return Prepare(tmp_path, base)


def data(**changes: Any) -> dict[str, Any]:
    return {"prompts": "prompts.jsonl", "holdout": 0.2, "separator": " "} | changes


def test_rules_judge_the_pool_and_ties_are_no_pairs(prepared: Prepare) -> None:
    """Each rule turns the pool's pairs its own way; the chosen one is always the one it prefers."""
    found = prepared()
    for name, rule in (("warm", tiny_world.warm), ("brief", None)):
        pairs = found.pairs[name]
        if rule is not None:
            scores = [np.array(rule(type("C", (), {"responses": texts}))) for texts in (pairs.chosen, pairs.rejected)]
        else:
            scores = [-np.array([len(text.split()) for text in texts]) for texts in (pairs.chosen, pairs.rejected)]
        assert (scores[0] > scores[1]).all()
        assert (pairs.probability == 1).all()


def test_texts_and_tokens_are_the_same_pairs(prepared: Prepare) -> None:
    """Row i of both is one pair, after some were left out and others held out."""
    found = prepared(data=data(responses="pairs.jsonl", prompts=None))
    decode = found.base.tokenizer.batch_decode
    for name, pairs in found.pairs.items():
        tokens = found.tokens[name]
        assert decode(tokens.prompt) == pairs.prompts
        assert decode(tokens.chosen) == [f"{text} <eos>" for text in pairs.chosen]
        assert decode(tokens.rejected) == [f"{text} <eos>" for text in pairs.rejected]


def test_held_out_prompts_are_held_out_of_every_objective(prepared: Prepare) -> None:
    found = prepared(data=data(responses="pairs.jsonl", prompts=None))
    trained = {prompt for pairs in found.pairs.values() for prompt in pairs.prompts}
    assert trained
    assert set(found.prompts).isdisjoint(trained)
    assert all(len(held) for held in found.heldout.values())


def test_pairs_of_an_objectives_own_are_judged_by_the_others_as_margins(prepared: Prepare) -> None:
    """warm learned from pairs, brief by rule: margins of warm's pairs are differences in words, its own column NaN."""
    found = prepared(objectives={"warm": {"pairs": "pairs.jsonl"}, "brief": BRIEF})
    assert found.implicit == ["warm"]
    constants = found.pair_data("warm")
    pairs = found.pairs["warm"]
    words = [len(r.split()) - len(c.split()) for c, r in zip(pairs.chosen, pairs.rejected, strict=True)]
    assert np.isnan(constants.margins[:, 0]).all()
    assert constants.margins[:, 1].tolist() == words


def test_references_are_the_bases_log_probabilities_and_computed_once(
    prepared: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = prepared()
    constants = found.pair_data("warm")
    tokens = found.tokens["warm"]
    chosen = found.scorer.batched(tokens.prompt, [[text] for text in tokens.chosen], 0)
    rejected = found.scorer.batched(tokens.prompt, [[text] for text in tokens.rejected], 0)
    assert np.allclose(constants.reference, chosen - rejected, atol=1e-4)
    again = prepared()

    def twice(*_: object) -> None:
        raise AssertionError("computed twice")

    monkeypatch.setattr(Scorer, "batched", twice)
    assert np.array_equal(again.pair_data("warm").reference, constants.reference)


def test_an_objective_learned_from_pairs_scores_by_its_adapter(
    prepared: Prepare, random_adapter: Callable[..., Adapter]
) -> None:
    """beta times the log-ratio of the adapter to the base, over the response's tokens with EOS."""
    found = prepared(objectives={"warm": {"pairs": "pairs.jsonl"}, "brief": BRIEF})
    adapter = random_adapter(found.base.model, 1)
    found.learn("warm", adapter, "key")
    prompts, texts = list(tiny_world.PROMPTS[:3]), list(tiny_world.ANSWERS[:3])
    scores = found.score(["warm"], prompts, texts)[:, 0]
    assert len(set(scores.round(4))) == 3
    ids, answers = tokenize_texts(prompts, texts, found.base.tokenizer, " ", found.base.eos_ids)
    with AdapterBank(found.base.model, {"a": adapter}) as bank:
        groups = [[answer] for answer in answers]
        own = found.scorer.batched(ids, groups, 0, bank=bank, rows=bank.one_hot(["a"] * 3))
    reference = found.scorer.batched(ids, groups, 0)
    assert np.allclose(scores, 0.5 * (own - reference), atol=1e-4)


def test_scored_responses_make_pairs_per_objective(prepared: Prepare) -> None:
    """One numeric column for warm, a `scores` mapping for brief: the higher score is chosen."""
    rows = [
        {"prompt": p, "response": a, "stars": len(a), "scores": {"brief": -len(a), "other": 0.0}}
        for p in tiny_world.PROMPTS
        for a in tiny_world.ANSWERS
    ]
    name = prepared.write("scored.jsonl", rows)
    found = prepared(
        objectives={"warm": {"scores": name, "column": "stars"}, "brief": {"scores": name}},
        data=data(pairs_per_prompt=5),
    )
    for objective, sign in (("warm", 1), ("brief", -1)):
        pairs = found.pairs[objective]
        longer = [len(c) - len(r) for c, r in zip(pairs.chosen, pairs.rejected, strict=True)]
        assert all(sign * gap > 0 for gap in longer)
        assert max(pairs.prompts.count(prompt) for prompt in pairs.prompts) == 5
    assert found.implicit == ["warm", "brief"]


def test_bradley_terry_labels_say_how_surely_one_is_better(prepared: Prepare) -> None:
    """warm scores 0, 1 or 2: a difference of 1 wins with sigma(1) = .731, a tie with one half."""
    found = prepared(data=data(responses="pairs.jsonl", labels="bradley_terry"))
    chances = {round(float(p), 3) for p in found.pairs["warm"].probability}
    assert chances <= {0.5, 0.731, 0.881}
    assert 0.731 in chances


def test_sampled_responses_are_drawn_once_and_kept(prepared: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    sampled = data(responses={"prompts": "prompts.jsonl", "per_prompt": 6})
    first = prepared(data=sampled)
    assert set(first.pairs["warm"].chosen) | set(first.pairs["warm"].rejected) <= set(tiny_world.ANSWERS)

    def twice(*_: object, **__: object) -> None:
        raise AssertionError("sampled twice")

    monkeypatch.setattr("moalign.preparation.generate", twice)
    assert prepared(data=sampled).data_digest == first.data_digest


def test_the_data_have_one_name_wherever_they_lie(tmp_path: Path, base: Path) -> None:
    """The same rows in another folder, another run: the same digest; one word more, another."""
    here, there = (Prepare(tmp_path / name, base) for name in ("here", "there"))
    assert here().data_digest == there("other").data_digest
    changed = [*tiny_world.rows_preferring("thanks"), *tiny_world.rows_preferring("now")]
    changed[0]["chosen"] = "ok now"
    path = there.write("changed.jsonl", changed)
    assert there("third", data=data(responses=path)).data_digest != here().data_digest
    assert here("fourth", objectives={"warm": WARM, "brief": BRIEF | {"per": 2.0}}).data_digest != here().data_digest


def test_bad_rows_are_set_aside_and_counted_if_asked(prepared: Prepare) -> None:
    """A one-sided pair, an empty answer, and a prompt that is none; each count is shown with its file."""
    good = tiny_world.rows_preferring("thanks")
    pairs = prepared.write("bad.jsonl", [{"prompt": "q0 ?", "chosen": "yes"}, *good, {**good[0], "rejected": " "}])
    prompts = prepared.write("some.jsonl", [{"prompt": "q0 ?"}, {"question": "q1 ?"}])
    bad = data(responses=pairs, prompts=prompts, skip_bad_rows=True)
    found = prepared(objectives={"warm": {"pairs": pairs}, "brief": BRIEF}, data=bad)
    folder = found.run.folder / "quarantine"
    assert prepared.said == [
        f"warm: 2 bad rows set aside in {folder / 'warm.jsonl'}",
        f"responses: 2 bad rows set aside in {folder / 'responses.jsonl'}",
        f"prompts: 1 bad rows set aside in {folder / 'prompts.jsonl'}",
    ]
    aside = [json.loads(line) for line in (folder / "warm.jsonl").read_text().splitlines()]
    assert [row["where"] for row in aside] == ["bad.jsonl:1", f"bad.jsonl:{len(good) + 2}"]


def test_over_long_pairs_are_left_out_and_counted(prepared: Prepare) -> None:
    """Prompt 2, answer 2 or 3, EOS 1: six tokens with thanks, five without; a pair is as long as its longer side."""
    found = prepared(data=data(responses="pairs.jsonl", max_length=5), objectives={"soon": SOON, "now": SOON})
    assert any("are longer than 5 tokens and are left out" in line for line in prepared.said)
    assert all(len(p) + len(c) <= 5 for t in found.tokens.values() for p, c in zip(t.prompt, t.chosen, strict=True))


def test_prompts_that_leave_no_room_are_left_out_and_counted(prepared: Prepare) -> None:
    """The tiny base reads 32 tokens, of which 5 are for the response."""
    prompts = prepared.write("long.jsonl", [{"prompt": "q0 ?"}, {"prompt": "q1 ? " * 14}])
    found = prepared(data=data(responses="pairs.jsonl", prompts=prompts))
    assert found.prompts == ["q0 ?"]
    assert prepared.said == ["1 of 2 evaluation prompts leave no room for a response"]


def test_the_prompts_that_are_taken_do_not_depend_on_their_order(prepared: Prepare) -> None:
    rows = [{"prompt": prompt} for prompt in tiny_world.PROMPTS]
    few = {"prompts": 3, "samples": 2, "max_new_tokens": 5}
    chosen = []
    for name, order in (("one", rows), ("two", rows[::-1])):
        path = prepared.write(f"{name}.jsonl", order)
        chosen.append(prepared(name, data=data(responses="pairs.jsonl", prompts=path), evaluation=few).prompts)
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 3


@pytest.mark.parametrize(
    ("changes", "error", "expected"),
    [
        ({"objectives": {"warm": WARM, "odd": {"type": "lenght"}}}, ConfigError, "type of objective 'odd' 'lenght'"),
        ({"objectives": {"warm": WARM, "odd": {"type": "tiny_world:nan"}}}, ObjectiveError, "'odd' returned nan"),
        (
            {"objectives": {"warm": WARM, "odd": {"type": "tiny_world:too_few"}}},
            ObjectiveError,
            "'odd' returned an arr",
        ),
        ({"objectives": {"warm": WARM, "odd": {"type": "tiny_world:raises"}}}, ObjectiveError, "'odd' raised ZeroDiv"),
        ({"objectives": {"warm": WARM, "odd": {"type": "tiny_world:wram"}}}, ObjectiveError, "did you mean 'warm'"),
        (
            {"objectives": {"warm": WARM, "odd": {"type": "lexical", "phrases": {"no": 1}}}},
            DataError,
            "objective 'odd': none of .* pairs can be relabelled",
        ),
        ({"data": data(responses="nowhere.jsonl")}, DataError, "no file or folder 'nowhere.jsonl'"),
        ({"data": data()}, ConfigError, "warm, brief have no pairs .* give data.responses"),
        (
            {"data": data(responses="pairs.jsonl", max_length=3)},
            DataError,
            "objective 'warm': all .* longer than max_l",
        ),
        ({"data": data(responses="pairs.jsonl", prompts=None, holdout=0.0)}, ConfigError, "no prompts to evaluate on"),
        ({"evaluation": {"max_new_tokens": 31}}, ConfigError, "no evaluation prompt is shorter than 1 tokens"),
        ({"base": "nowhere/at/all"}, BaseModelError, "base model 'nowhere/at/all' not found"),
        ({"dtype": "float31"}, ConfigError, "unknown dtype 'float31'; did you mean 'float32'"),
        ({"device": "abacus"}, ConfigError, "device 'abacus' cannot be used here"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_prepared_is_named(
    prepared: Prepare, changes: dict[str, Any], error: type[Exception], expected: str
) -> None:
    with pytest.raises(error, match=expected) as caught:
        prepared(**changes)
    assert "\n" not in str(caught.value)


def test_made_runs_are_not_prepared_here(tmp_path: Path) -> None:
    """A hub name that nobody can reach is told as such, offline."""
    with pytest.raises(BaseModelError, match="cannot load base model 'org/base'"):
        prepare(made_run(tmp_path), print)
