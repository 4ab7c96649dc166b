"""By example: hidden weights are found in the right units, picks can be undone, and the page says when to stop."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explored import Explored
from made_runs import made_run

from moalign.config import parse_config
from moalign.dashboards.explorer.examples import ending, progress
from moalign.dashboards.explorer.live import Live
from moalign.dashboards.explorer.picks import (
    PICKS,
    asked_units,
    begun,
    candidates,
    judged,
    offered,
    pool_of,
    read_state,
    taken,
    texts_by_key,
    units,
    weights_of,
    weights_under,
    with_own,
)
from moalign.errors import DataError
from moalign.exploring import Seen, Watch
from moalign.frontiers import ParetoPoint
from moalign.frontiers.judging import SETTLED
from moalign.preference import Preference
from moalign.runs import Run

NAMES, SCALES = ("share", "words", "nats"), np.array([1.0, 400.0, 0.02])


def scaled_run(folder: Path, method: dict[str, Any] | None = None, texts: int = 6, prompts: int = 8) -> Run:
    """Three objectives in units that have nothing in common: a share, hundreds of words, hundredths of nats."""
    objectives = {name: {"type": "length"} for name in NAMES}
    run = Run.create(folder, parse_config({"base": "org/base", "objectives": objectives, **(method or {})}))
    rng = np.random.default_rng(0)

    def measured(key: str) -> ParetoPoint:
        rows = [
            {"prompt": f"p{i}", "response": f"{key} {i} {j}", "scores": dict(zip(NAMES, scores.tolist(), strict=True))}
            for i in range(prompts)
            for j, scores in enumerate(rng.random((texts, 3)) * SCALES)
        ]
        run.write_samples(key, rows)
        means = {name: float(np.mean([row["scores"][name] for row in rows])) for name in NAMES}
        return ParetoPoint(key, "modpo", Preference.of(dict.fromkeys(NAMES, 1.0)), means, dict.fromkeys(NAMES, 0.1), {})

    run.fix_reference(measured("base"), dict.fromkeys(NAMES, -1.0))
    run.add_point(measured("a"))
    return run


def asked(seen: Seen, state: dict[str, Any]) -> dict[str, Any]:
    return {**state, "pair": offered(seen, state, judged(seen, state), pool_of(seen, state, False))}


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("hidden", [(0.7, 0.2, 0.1), (0.2, 0.6, 0.2)])
def test_a_judge_in_own_units_is_found_within_20_picks_though_units_have_nothing_in_common(
    tmp_path: Path, hidden: tuple[float, ...]
) -> None:
    """The judge counts w.r with w = hidden / SCALES: in these units any two such w point the same way to cosine .999,
    so that it is over the objectives' ranges that they are told apart, and by whom they rank other texts alike."""
    seen = Watch(scaled_run(tmp_path / "run").folder).now()
    own = np.array(hidden) / SCALES
    state = asked(seen, begun(seen))
    while not judged(seen, state).settled:
        assert len(state["rows"]) < 20
        texts = texts_by_key(seen, state)
        first, second = (texts[key].scores for key in state["pair"])
        state = asked(seen, taken(seen, state, "a" if own @ first > own @ second else "b"))
    used = np.array([weights_of(seen, judged(seen, state))[name] for name in NAMES])
    assert used.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(units(seen), SCALES, rtol=0.1)
    assert cosine(used * units(seen), own * units(seen)) >= 0.95
    rng = np.random.default_rng(1)
    others = rng.random((2000, 2, 3)) * SCALES  # a second derivation: who wins of texts that were never shown
    wins = [(pairs[:, 0] - pairs[:, 1]) @ weights > 0 for pairs in (others,) for weights in (used, own)]
    assert (wins[0] == wins[1]).mean() > 0.93
    even = (others[:, 0] - others[:, 1]) @ np.ones(3) > 0  # what forgetting the units would come to
    assert (even == wins[1]).mean() < (wins[0] == wins[1]).mean()


def test_a_method_that_divides_by_deviations_is_asked_in_deviations(tmp_path: Path) -> None:
    """Weights v over r / s rank as weights u over r do if v = u s: here s is each objective's deviation."""
    plain = Watch(scaled_run(tmp_path / "plain").folder).now()
    divided = Watch(scaled_run(tmp_path / "divided", {"settings": {"standardise_margins": True}}).folder).now()
    assert asked_units(plain).tolist() == [1.0, 1.0, 1.0]
    rows = np.array([text.scores for texts in candidates(divided).values() for text in texts])
    np.testing.assert_allclose(asked_units(divided), rows.std(axis=0))
    state = {**begun(plain), "rows": [(np.array([0.4, -0.1, 0.2]) * SCALES).tolist()], "picked": [True]}
    u, v = (np.array(list(weights_of(seen, judged(seen, state)).values())) for seen in (plain, divided))
    np.testing.assert_allclose(v / v.sum(), u * rows.std(axis=0) / (u * rows.std(axis=0)).sum())


@pytest.mark.parametrize("policy", ["nearest", "calibrated", "interpolate"])
def test_a_policy_that_looks_for_the_most_is_given_weights_in_own_units(tmp_path: Path, policy: str) -> None:
    """Where adapters were asked in deviations: w.V ranks texts as the judge does, whose weights are per range."""
    seen = Watch(scaled_run(tmp_path / "run", {"settings": {"standardise_margins": True}}).folder).now()
    judgement = judged(seen, {**begun(seen), "rows": [(np.array([0.4, -0.1, 0.2]) * SCALES).tolist()]})
    asked_for = weights_of(seen, judgement)
    found = np.array(list(weights_under(seen, asked_for, policy).values()))
    expected = judgement.mean / units(seen)
    if policy == "interpolate":
        expected = expected * asked_units(seen)
    np.testing.assert_allclose(found, expected / expected.sum())


def test_undo_brings_back_the_pair_and_what_was_known_before(tmp_path: Path) -> None:
    seen = Watch(scaled_run(tmp_path / "run").folder).now()
    before = asked(seen, begun(seen))
    for answer in ("a", "b", "skip"):
        after = taken(seen, before, answer)
        assert taken(seen, after, "undo") == before
        assert len(after["rows"]) == (answer != "skip")
    twice = taken(seen, asked(seen, taken(seen, before, "skip")), "a")
    assert taken(seen, taken(seen, twice, "undo"), "undo") == before
    assert taken(seen, before, "undo") == before
    assert taken(seen, twice, "reset")["asked"] == []
    assert taken(seen, {**before, "pair": None}, "a") == {**before, "pair": None}  # a second click, too late


def test_picks_stay_when_a_sweep_adds_texts_meanwhile(tmp_path: Path) -> None:
    run = scaled_run(tmp_path / "run")
    page = Explored(run.folder)
    first = page.write("picks.data", {}, "pick-reset.n_clicks")
    pair = first["picks"]["data"]["pair"]
    rows = [{**row, "response": f"new {i}"} for i, row in enumerate(run.samples("a"))]
    run.write_samples("a", [*rows, *run.samples("a")])
    after = page.write("picks.data", {"picks.data": first["picks"]["data"]}, "pick-a.n_clicks")
    assert len(after["picks"]["data"]["rows"]) == 1
    assert after["picks"]["data"]["asked"] == [pair]
    (run.folder / "samples" / "a.jsonl").unlink()
    (run.folder / "samples" / "base.jsonl").unlink()
    gone = taken(Watch(run.folder).now(), first["picks"]["data"], "a")
    assert (gone["rows"], gone["pair"]) == ([], None)


def judge_all(page: Explored, weights: np.ndarray, most: int) -> list[dict[str, Any]]:
    """What the page answers to a scripted judge, pick by pick, until it offers no pair."""
    found = [page.write("picks.data", {}, "pick-reset.n_clicks")]
    while not found[-1]["pick-a"]["disabled"] and len(found) <= most:
        scores = [json.loads(found[-1][f"pick-text-{side}"]["data-scores"]) for side in "ab"]
        utility = [sum(w * score[name] for w, name in zip(weights, NAMES, strict=True)) for score in scores]
        better = "a" if utility[0] > utility[1] else "b"
        found.append(page.write("picks.data", {"picks.data": found[-1]["picks"]["data"]}, f"pick-{better}.n_clicks"))
    return found


def test_it_stops_when_settled_says_so_and_goes_on_only_when_told(tmp_path: Path) -> None:
    page = Explored(scaled_run(tmp_path / "run").folder)
    found = judge_all(page, np.array([0.6, 0.3, 0.1]) / SCALES, 25)
    last = found[-1]
    assert last["pick-state"]["children"].startswith("Settled. After ")
    assert "more picks would change little" in last["pick-state"]["children"]
    assert last["pick-pair"]["hidden"]
    assert not last["pick-use"]["disabled"]
    assert not last["pick-on"]["hidden"]
    assert not last["pick-copies"]["hidden"]
    assert all(each["pick-on"]["hidden"] for each in found[:-1])
    on = page.write("picks.data", {"picks.data": last["picks"]["data"]}, "pick-on.n_clicks")
    assert not on["pick-pair"]["hidden"]
    assert on["pick-on"]["hidden"]
    undone = page.write("picks.data", {"picks.data": last["picks"]["data"]}, "pick-undo.n_clicks")
    assert undone["picks"]["data"]["pair"] == last["picks"]["data"]["asked"][-1]


def test_it_stops_at_the_most_picks_and_where_no_pair_is_left(tmp_path: Path) -> None:
    page = Explored(scaled_run(tmp_path / "run").folder)
    rows = [[0.1, 0.0, 0.0], [-0.1, 0.0, 0.0]] * (PICKS // 2)
    asked = [[f"{i:012x}", f"{i + 1:012x}"] for i in range(PICKS)]
    full = {"run": list(NAMES), "rows": rows, "asked": asked, "picked": [True] * PICKS}
    answer = page.write("picks.data", {"picks.data": full}, "pick-from.value")
    assert "as many picks as this page takes" in answer["pick-state"]["children"]
    assert answer["pick-pair"]["hidden"]
    few = Explored(scaled_run(tmp_path / "few", texts=1, prompts=1).folder)  # one pair in all
    start = few.write("picks.data", {}, "pick-reset.n_clicks")["picks"]["data"]
    end = few.write("picks.data", {"picks.data": start}, "pick-a.n_clicks")
    assert "No pair is left that would say more. Use what is known." in end["pick-state"]["children"]
    assert not end["pick-use"]["disabled"]


def test_a_pair_that_is_left_among_many_prompts_is_found(tmp_path: Path) -> None:
    """All prompts but the last have been asked; whoever's turn it is, the last is offered."""
    seen = Watch(scaled_run(tmp_path / "run", texts=1, prompts=20).folder).now()
    pairs = [[text.key for text in texts] for texts in candidates(seen).values()]
    state = {**begun(seen), "asked": pairs[:-1], "picked": [False] * (len(pairs) - 1)}
    found = offered(seen, state, judged(seen, state), pool_of(seen, state, False))
    assert found is not None
    assert set(found) == set(pairs[-1])


def test_neither_side_is_the_side_of_one_point(tmp_path: Path) -> None:
    seen = Watch(scaled_run(tmp_path / "run", texts=1, prompts=20).folder).now()
    state, sides = asked(seen, begun(seen)), []
    for _ in range(20):
        sides.append(texts_by_key(seen, state)[state["pair"][0]].response.startswith("base"))
        state = asked(seen, taken(seen, state, "skip"))
    assert 4 <= sum(sides) <= 16


def test_what_is_known_can_be_copied_and_is_what_would_be_used(tmp_path: Path) -> None:
    page = Explored(scaled_run(tmp_path / "run").folder)
    judged = {"share": 0.7, "words": 0.00004321, "nats": 0.3}
    live = {"origin": "http://127.0.0.1:8000", "chat": True, "on": False}
    given = {"judged.data": judged, "policy.value": "soup", "live.data": live}
    answer = page.write("judged-weights.children", given, "judged.data")
    assert json.loads(answer["judged-weights"]["children"]) == judged
    assert "'policy': 'soup'" in answer["judged-python"]["children"]
    assert "curl http://127.0.0.1:8000/v1/chat/completions" in answer["judged-curl"]["children"]
    assert (
        page.write("wanted.data", {"judged.data": judged}, "pick-use.n_clicks")["wanted"]["data"]["weights"] == judged
    )


def test_texts_for_a_prompt_of_ones_own_are_scored_and_picked_from(tmp_path: Path) -> None:
    """Words are counted: of two words and of eight the longer one wins, and nothing else differs than the length."""
    page = Explored(scaled_run(tmp_path / "run").folder, Live(True, 64))
    start = page.write("picks.data", {"pick-from.value": "own"}, "pick-from.value")
    assert start["pick-state"]["children"] == "Have texts written for your prompt, and pick from them."
    assert not start["own"]["hidden"]
    said = {"prompt": "Mine?", "texts": ["one two", "one two three four five six seven eight"]}
    given = {"pick-from.value": "own", "own-said.data": said, "picks.data": start["picks"]["data"]}
    offer = page.write("picks.data", given, "own-said.data")
    assert offer["pick-prompt"]["children"] == "Mine?"
    texts = [offer[f"pick-text-{side}"]["children"] for side in "ab"]
    assert sorted(texts) == sorted(said["texts"])
    longer = "ab"[texts.index(said["texts"][1])]
    given = {"pick-from.value": "own", "picks.data": offer["picks"]["data"]}
    after = page.write("picks.data", given, f"pick-{longer}.n_clicks")
    assert after["picks"]["data"]["rows"] == [[-6.0, -6.0, -6.0]]
    assert "Have others written" in after["pick-state"]["children"]
    back = page.write("picks.data", {"picks.data": after["picks"]["data"], "pick-from.value": "run"}, "pick-from.value")
    assert not back["pick-pair"]["hidden"]
    assert len(back["picks"]["data"]["rows"]) == 1


def test_texts_for_the_same_prompt_stand_together_and_old_ones_make_room(tmp_path: Path) -> None:
    seen = Watch(scaled_run(tmp_path / "run").folder).now()
    state = with_own(begun(seen), "p", ["a", "b"], [[0.0] * 3, [1.0] * 3])
    state = with_own(state, "p", ["b", "c"], [[1.0] * 3, [2.0] * 3])
    assert state["own"][0]["texts"] == ["a", "b", "c"]
    for i in range(30):
        state = with_own(state, f"q{i}", [f"{i} {j}" for j in range(5)], [[float(j)] * 3 for j in range(5)])
    assert sum(len(each["texts"]) for each in state["own"]) == 60
    assert list(pool_of(seen, state, True)) == ["q29"]
    with pytest.raises(DataError, match="for one prompt"):
        with_own(state, "q", [str(j) for j in range(61)], [[0.0] * 3] * 61)


def test_objectives_learned_from_pairs_leave_the_prompts_of_the_run(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    path = run.folder / "config.yaml"
    settings = path.read_text().replace("    type: tiny_world:warm\n", "    pairs: pairs.jsonl\n")
    path.write_text(settings)
    for key in ("w", "b"):
        run.write_samples(key, [{"prompt": "p", "response": key, "scores": {"warm": ord(key), "brief": -ord(key)}}])
    page = Explored(run.folder, Live(True, 64))
    assert "New texts cannot be judged here: warm is learned from pairs." in page.layout()


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": [[1.0, 2.0]]},
        {"rows": [[float("nan")] * 3], "picked": [True], "asked": [["a", "b"]]},
        {"rows": "x"},
        {"rows": [[0.0] * 3] * (PICKS + 1)},
        {"asked": [["a", "b"]]},
        {"picked": [True], "asked": [["a", "b"]]},
        {"own": [{"prompt": "p", "texts": ["a"]}]},
        {"own": 3},
    ],
)
def test_a_state_that_no_page_sends_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    seen = Watch(scaled_run(tmp_path / "run").folder).now()
    with pytest.raises(DataError, match="begin again"):
        read_state(seen, {**begun(seen), **changes})
    assert read_state(seen, {"run": ["other"]}) == read_state(seen, None) == begun(seen)


def test_what_is_said_of_what_is_known(tmp_path: Path) -> None:
    seen = Watch(scaled_run(tmp_path / "run").folder).now()
    unknown = judged(seen, begun(seen))
    assert progress(0, unknown) == "No picks yet."
    assert progress(1, unknown).endswith(f"; at {SETTLED:.0f}° they are settled.")
    assert "do not differ in what they score" in ending(0, unknown, own=True, written=True)
