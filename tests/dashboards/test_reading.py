"""Read: stored texts of the points that are nearest to two trade-offs, and the scores of texts that are written now."""

import json
from pathlib import Path
from typing import Any

import pytest
from explored import Explored, many_run
from made_runs import made_run, point
from plotly.utils import PlotlyJSONEncoder

from moalign.dashboards.explorer.live import Live
from moalign.dashboards.explorer.scores import Told, difference, expected, scored, scores_of
from moalign.dashboards.explorer.stored import answers, five_points, nearest, shown_stored, some_texts, stored_prompts
from moalign.errors import DataError
from moalign.exploring import Scorers, Watch
from moalign.runs import Run

TAGS = "<script>alert(1)</script> [a link](javascript:alert(1)) \u202eevil"
LONG = "a question of many words " * 10


def read_run(folder: Path) -> Run:
    """Points w, m and b over warm and brief; each wrote three texts to each of two prompts, and the base one."""
    run = made_run(folder)
    for key, warm in (("w", 0.9), ("m", 0.5), ("b", 0.1)):
        rows = [
            {"prompt": prompt, "response": f"{key}{turn} {TAGS}", "scores": {"warm": warm + turn / 100, "brief": -warm}}
            for prompt in ("first", LONG)
            for turn in range(3)
        ]
        run.write_samples(key, rows)
    run.write_samples(
        "base", [{"prompt": p, "response": "base", "scores": {"warm": 0, "brief": 0}} for p in ("first", LONG)]
    )
    return run


def drawn(part: Any) -> str:
    """A part of the page as it is sent."""
    return json.dumps(part, cls=PlotlyJSONEncoder, ensure_ascii=False)


def stored(page: Explored, **given: Any) -> dict[str, Any]:
    weights = given.pop("weights", {"warm": 0.5, "brief": 0.5})
    values = {
        "source.value": "stored",
        "stored-prompt.value": 0,
        "another.n_clicks": 0,
        "plan.data": {"weights": weights},
        "other.value": "base",
        "weights.data": weights,
        **given,
    }
    return page.write("stored.data", values, "plan.data")


def test_without_a_server_the_stored_texts_of_the_nearest_points_stand_side_by_side(tmp_path: Path) -> None:
    """Weights (.8, .2) are .4 from w = (1, 0) and .6 from m = (.5, .5); B is the base, less warm by 0.9."""
    page = Explored(read_run(tmp_path / "run").folder)
    answer = stored(page, weights={"warm": 0.8, "brief": 0.2})
    a, b = answer["stored"]["data"]["two"]
    assert a["text"] == f"w0 {TAGS}"
    assert a["state"] == "nearest measured point: warm 1 · sample 1 of 3"
    assert (b["text"], b["state"]) == ("base", "base model · sample 1 of 1")
    table = json.dumps(answer["stored-scores"], ensure_ascii=False)
    assert "▼ 0.90 less in B" in table
    assert "mean 1.00" in table  # what w attains on average
    heads = [each["head"] for each in answer["stored"]["data"]["five"]]
    assert heads == ["brief 1", "warm 0.5 · brief 0.5", "warm 1"]
    assert "▲ most" in json.dumps(answer["stored-five-scores"], ensure_ascii=False)


def test_the_page_says_that_they_are_stored_and_how_to_have_texts_written(tmp_path: Path) -> None:
    run = read_run(tmp_path / "run")
    alone, live = Explored(run.folder).layout(), Explored(run.folder, Live(True, 64)).layout()
    assert "Stored samples" in alone
    assert "moalign serve run" in alone
    assert '"id": "ask"' not in alone
    assert "moalign serve" not in live
    assert '"id": "ask"' in live
    assert '"id": "stored-prompt"' in live


def test_another_sample_counts_on_in_a_circle_and_a_long_prompt_stands_whole(tmp_path: Path) -> None:
    page = Explored(read_run(tmp_path / "run").folder)
    states = [stored(page, **{"another.n_clicks": n})["stored"]["data"]["two"][0]["state"] for n in (1, 2, 3)]
    assert [state[-11:] for state in states] == ["mple 2 of 3", "mple 3 of 3", "mple 1 of 3"]
    assert stored(page, **{"stored-prompt.value": 1})["stored-asked"]["children"] == LONG
    assert stored(page)["stored-asked"]["children"] == ""


def test_b_may_be_any_point_or_what_was_kept(tmp_path: Path) -> None:
    page = Explored(read_run(tmp_path / "run").folder)
    options = page.write("other.options", {}, "state.data")["other"]["options"]
    assert [option["value"] for option in options] == ["base", "brief100", "brief50-warm50", "warm100"]
    named = stored(page, **{"other.value": "brief100"})["stored"]["data"]["two"][1]
    assert named["state"] == "measured point: brief 1 · sample 1 of 3"
    kept = {"weights": {"warm": 0.1, "brief": 0.9}, "policy": "soup", "label": ""}
    assert stored(page, **{"other.value": "kept", "kept.data": kept})["stored"]["data"]["two"][1]["text"][0] == "b"
    gone = stored(page, **{"other.value": "no such point"})["stored"]["data"]["two"][1]
    assert gone["state"] == "no point with stored texts has been measured"


def test_nothing_stored_is_shown_while_texts_are_written_now(tmp_path: Path) -> None:
    page = Explored(read_run(tmp_path / "run").folder, Live(True, 64))
    answer = stored(page, **{"source.value": "live"})
    assert answer["stored"]["data"] is None
    assert answer["stored-scores"]["children"] is None


def test_of_points_that_are_as_near_the_one_on_the_front_that_has_texts_is_nearest(tmp_path: Path) -> None:
    """d asks for what m asks for and is dominated by it; n is nearer than w, and nobody stored its texts."""
    run = read_run(tmp_path / "run")
    run.add_point(point("d", (0.5, 0.5), (0.1, 0.1)))
    run.add_point(point("n", (0.9, 0.1), (0.9, 0.3)))
    run.write_samples("d", run.samples("m"))
    seen = Watch(run.folder).now()
    found = [nearest(seen, {"warm": warm, "brief": 1 - warm}) for warm in (0.5, 0.9)]
    assert [each.adapter for each in found if each] == ["m", "w"]


def test_a_run_without_texts_says_so(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    assert "No texts are stored in this run" in Explored(run.folder).layout()
    seen = Watch(run.folder).now()
    assert nearest(seen, {"warm": 1.0, "brief": 0.0}) is None
    assert stored_prompts(seen) == some_texts(seen) == []
    found = shown_stored(seen, "first", 0, {"warm": 1.0, "brief": 0.0}, "base", None)
    assert {each["state"] for each in found["five"]} == {"no text is stored for this prompt"}


def test_an_empty_run_has_neither_others_nor_five_points(tmp_path: Path) -> None:
    page = Explored(made_run(tmp_path / "run", points={}).folder, Live(True, 64))
    answer = page.write("other.options", {}, "state.data")
    assert [option["value"] for option in answer["other"]["options"]] == ["base"]
    assert answer["points-five"]["data"] == []
    assert (
        "nothing to keep"
        in page.write("kept.data", {"plan.data": {"values": None}}, "keep.n_clicks")["side"]["problem"]["children"]
    )


def test_texts_are_read_again_when_they_are_written_again_and_not_before(tmp_path: Path) -> None:
    run = read_run(tmp_path / "run")
    watch = Watch(run.folder)
    before = answers(watch.now(), "w", "first")
    assert answers(watch.now(), "w", "first")[0] is before[0]
    run.write_samples("w", [{"prompt": "first", "response": "new", "scores": {"warm": 1.0, "brief": 1.0}}])
    assert [each.response for each in answers(watch.now(), "w", "first")] == ["new"]


def test_of_many_points_forty_are_read_from_one_end_to_the_other(tmp_path: Path) -> None:
    run = many_run(tmp_path / "run", 100, 2)
    for key in Watch(run.folder).now().points:
        run.write_samples(key, [{"prompt": "p", "response": key, "scores": {"objective0": 0.0, "objective1": 0.0}}])
    seen = Watch(run.folder).now()
    found = [sample.adapter for sample in some_texts(seen)]
    keys = list(seen.points)
    assert len(set(found)) == 40
    assert (found[0], found[-1]) == (keys[0], keys[-1])
    assert len(five_points(seen)) == 5


def test_what_is_predicted_for_who_wrote_a_text_is_what_its_plan_predicts(tmp_path: Path) -> None:
    """Midway between w and m the line says (.875, .375); a point and the base say what was measured."""
    seen = Watch(read_run(tmp_path / "run").folder).now()
    mixed = expected(seen, {"model": "moalign", "weights": {"warm": 0.75, "brief": 0.25}, "policy": "interpolate"})
    assert mixed == pytest.approx({"warm": 0.875, "brief": 0.375})
    assert expected(seen, {"model": "warm100"}) == {"warm": 1.0, "brief": 0.25}
    assert expected(seen, {"model": "base"}) == {"warm": 0.25, "brief": 0.25}
    assert expected(seen, {"model": "gone"}) == expected(seen, {}) == expected(seen, {"model": "moalign"}) == {}


def test_a_text_that_never_ended_leaves_its_place_empty_and_the_other_is_scored(tmp_path: Path) -> None:
    run = many_run(tmp_path / "run", 4, 2, ["brief", "short"])
    seen = Watch(run.folder).now()
    found = scores_of(seen, Scorers(), "Hi", ["one two", None], chat=True)
    assert found == [{"brief": -2.0, "short": -2.0}, None]
    table = drawn(scored(("brief",), [Told("A", found[0], {}), Told("B", None, {})], True))
    assert "\N{MINUS SIGN}2.00" in table
    assert "\N{EN DASH}" in table
    assert "in B" not in table
    assert scores_of(seen, Scorers(), "Hi", [None, None], chat=True) == [None, None]
    with pytest.raises(DataError, match="too much to score"):
        scores_of(seen, Scorers(), "Hi", ["x" * 200_001] * 2, chat=True)


def test_objectives_that_score_no_new_text_are_named_with_the_reason() -> None:
    told = [Told("A", {"brief": 1.0}, {}), Told("B", {"brief": 2.0}, {})]
    shown = drawn(scored(("helpful", "harmless", "brief"), told, True))
    assert "helpful and harmless are learned from pairs" in shown
    assert "Stored samples have all scores" in shown
    assert "no whole text" in drawn(scored(("brief",), [Told("A", None, {})], False))


def test_decimals_tell_texts_apart_on_the_scale_of_their_averages() -> None:
    """Texts that differ by .0001 under averages that differ by 1 do not differ by anything that counts."""
    told = [Told("A", {"brief": 1.0}, {"brief": 1.0}), Told("B", {"brief": 1.0001}, {"brief": 2.0})]
    assert "= the same" in drawn(scored(("brief",), told, True))
    assert difference(-0.25, 2) == "▼ 0.25 less in B"


@pytest.mark.parametrize(("context", "known"), [(32, (31, 16)), (1024, (512, 128)), (1, (1, 1))])
def test_the_page_asks_for_no_more_than_the_base_reads(context: int, known: tuple[int, int]) -> None:
    """A base of 32 tokens refuses 128 of them, and a prompt needs its room too."""
    live = Live.within(False, 512, context)
    assert (live.max_tokens, live.usual) == known
