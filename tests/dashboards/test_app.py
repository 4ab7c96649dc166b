"""The explorer in this process: what its callbacks answer, for runs that are as they should be and others."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from explored import Explored, many_run
from made_runs import made_run, point

from moalign.dashboards.explorer.front import clicked
from moalign.dashboards.explorer.live import Live
from moalign.dashboards.explorer.scores import difference
from moalign.dashboards.explorer.snippets import snippets
from moalign.files import write_json
from moalign.runs import Run

FRONT, TEXTS = '{"name":"front","part":"data"}', "<script>alert(1)</script> [a link](javascript:alert(1)) <b>bold</b>"
LIVE = {"live.data": {"origin": "http://127.0.0.1:8000", "chat": True, "on": False}}
EVEN = {"warm": 0.5, "brief": 0.5}


def planned(page: Explored, weights: dict[str, float], policy: str | None = None) -> dict[str, Any]:
    values = {"weights.data": weights, "policy.value": policy, **LIVE}
    return page.write("plan.data", values, "weights.data")


def every(page: Explored) -> Iterator[tuple[str, dict[str, Any]]]:
    """What each callback that listens to the state of the folder answers."""
    weights = dict.fromkeys(page_weights(page), 1 / len(page_weights(page)))
    for each in page.dependencies:
        inputs = [f"{item['id']}.{item['property']}" for item in each["inputs"]]
        if "state.data" in inputs and not each["clientside_function"]:
            output = each["output"].strip(".").split("...")[0].split("@")[0]
            yield output, page.write(output, {"weights.data": weights, "brushes.data": {}, **LIVE}, "state.data")


def page_weights(page: Explored) -> list[str]:
    found: list[str] = []

    def look(part: Any) -> None:
        if isinstance(part, dict):
            if part.get("id") == "weights":
                found.extend(part["data"])
            for value in part.values():
                look(value)
        elif isinstance(part, list):
            for item in part:
                look(item)

    look(json.loads(page.layout()))
    return found


def test_a_slider_takes_the_others_along_and_the_row_follows(tmp_path: Path) -> None:
    """Weights (.75, .25) lie midway between the corner w and the middle m: half of each, and values midway."""
    page = Explored(made_run(tmp_path / "run").folder)
    moved = page.write("weights.data", {"weights.data": EVEN, "range-0.value": 0.75}, "range-0.value")
    assert moved["weights"]["data"] == {"warm": 0.75, "brief": 0.25}
    assert moved["range-1"]["value"] == 0.25
    assert "range-0" not in moved
    plan = planned(page, moved["weights"]["data"])
    assert plan["plan"]["data"]["values"] == pytest.approx([0.875, 0.375])
    assert "50 %" in json.dumps(plan["row"]["children"])
    assert json.loads(plan["code-weights"]["children"]) == {"warm": 0.75, "brief": 0.25}


def test_a_locked_weight_stays(tmp_path: Path) -> None:
    page = Explored(many_run(tmp_path / "run", 5, 3).folder)
    weights = {"objective0": 0.5, "objective1": 0.25, "objective2": 0.25}
    asked = {"weights.data": weights, "range-0.value": 0.6, "lock-1.value": [1]}
    after = page.write("weights.data", asked, "range-0.value")["weights"]["data"]
    assert after == pytest.approx({"objective0": 0.6, "objective1": 0.25, "objective2": 0.15})


def test_a_click_on_a_point_is_its_weights_and_is_forgotten(tmp_path: Path) -> None:
    page = Explored(made_run(tmp_path / "run").folder)
    graph = '{"name":"front","part":"graph"}'
    answer = page.write("wanted.data", {f"{graph}.clickData": {"points": [{"customdata": "w"}]}}, f"{graph}.clickData")
    assert answer["wanted"]["data"] == {"weights": {"warm": 1.0, "brief": 0.0}}
    assert answer[graph]["clickData"] is None
    assert clicked({"points": [{"customdata": ["a", 1]}]}) == ""


def test_the_front_is_drawn_with_a_ring_for_the_current_trade_off(tmp_path: Path) -> None:
    page = Explored(made_run(tmp_path / "run").folder)
    drawn = page.write(f"{FRONT}.data", {}, "state.data")[FRONT]["data"]
    assert drawn["data"][-1]["meta"] == {"axes": [0, 1]}
    assert drawn["data"][-1]["x"] == [None]
    assert {"w", "m", "b"} <= {key for trace in drawn["data"] for key in trace.get("customdata", [])}


def test_a_point_that_lands_is_seen_without_loading_the_page_again(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    page = Explored(run.folder)
    before = page.write("state.data", {"state.data": "other"}, "beat.n_intervals")["state"]["data"]
    assert "state" not in page.write("state.data", {"state.data": before}, "beat.n_intervals")
    run.add_point(point("new", (0.2, 0.8), (0.5, 0.9)))
    assert page.write("state.data", {"state.data": before}, "beat.n_intervals")["state"]["data"] != before
    options = page.write("goto.options", {}, "state.data")["goto"]["options"]
    assert "new" in [option["value"] for option in options]


def test_a_run_deleted_while_open_says_so_and_nothing_else_breaks(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    page = Explored(run.folder)
    shutil.rmtree(run.folder)
    answer = page.write("state.data", {"state.data": "x"}, "beat.n_intervals")
    assert "is gone: it was deleted or moved" in answer["gone"]["children"]
    assert not answer["gone"]["hidden"]
    side = planned(page, EVEN)["side"]  # told where it is taken back when the folder returns, and nowhere else
    assert "is gone" in side["gone"]["children"]
    assert not side["gone"]["hidden"]
    assert set(side) == {"gone"}
    assert "is gone" in page.layout()
    assert page.client.get("/explore/points.csv").status_code == 409


@pytest.mark.parametrize(
    ("points", "told"),
    [
        ({}, "No adapter has been measured yet"),
        ({"only": ((0.5, 0.5), (0.5, 0.5))}, "Only one adapter"),
        ({"a": ((1.0, 0.0), (0.5, 0.5)), "b": ((0.0, 1.0), (0.5, 0.5))}, "exactly the same values"),
        ({"a": ((1.0, 0.0), (0.5, 0.1)), "b": ((0.0, 1.0), (0.5, 0.9))}, ""),  # one flat objective
    ],
)
def test_poor_runs_are_shown_with_a_sentence(tmp_path: Path, points: dict[str, Any], told: str) -> None:
    page = Explored(made_run(tmp_path / "run", points=points).folder)
    answers = dict(every(page))
    assert all(not answer["side"] for answer in answers.values())
    assert json.dumps([answers["front-note.children"], answers[f"{FRONT}.data"]]).count(told) == 1 or not told


def test_a_point_that_is_nan_is_left_out_with_the_reason(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    record = point("bad", (0.5, 0.5), (0.1, 0.1)).as_dict()
    record["values"]["warm"] = None
    (run.folder / "points" / "bad.json").write_text(json.dumps(record))
    page = Explored(run.folder)
    assert "bad is left out" in json.dumps(page.write("goto.options", {}, "state.data")["front-note"])
    assert planned(page, EVEN)["plan"]["data"]["values"] == pytest.approx([0.75, 0.5])  # all else is as it was
    assert all(not answer["side"] for _, answer in every(page))


@pytest.mark.parametrize("m", [2, 3, 5])
def test_long_names_and_folders_called_by_a_tag_are_text(tmp_path: Path, m: int) -> None:
    run = many_run(tmp_path / "<b>run", 6, m, ["x" * 200, "y" * 200, "c", "d", "e"][:m])
    many_run(tmp_path / "<i>other", 6, m, list(run.objectives))
    page = Explored(run.folder)
    assert all(not answer["side"] for _, answer in every(page))
    assert '"children": "<b>run"' in page.layout()
    answer = page.write("versus-place.hidden", {"against.value": "<i>other"}, "against.value")
    assert "<i>" not in json.dumps(answer['{"name":"versus","part":"data"}'])  # Plotly would read it
    assert "Markdown" not in page.layout()


def test_a_name_that_no_config_allows_is_refused_in_a_sentence(tmp_path: Path) -> None:
    """Edited into the settings of a run by hand while the page is open."""
    run = made_run(tmp_path / "run")
    page = Explored(run.folder)
    path = run.folder / "config.yaml"
    path.write_text(path.read_text().replace("warm:", "<b>:"))
    assert "objective '<b>' needs another name" in page.layout()
    assert "objective '<b>' needs another name" in planned(page, EVEN)["side"]["problem"]["children"]


def with_texts(folder: Path) -> Run:
    run = made_run(folder)
    for key, warm in (("w", 0.9), ("m", 0.5), ("b", 0.1)):
        scores = {"warm": warm, "brief": 1 - warm}
        row = {"prompt": TEXTS, "response": f"{TEXTS} {key}", "scores": scores}
        run.write_samples(key, [row, {**row, "prompt": "Another?", "response": f"other {key}"}])
    return run


def test_texts_of_models_are_the_children_of_plain_elements(tmp_path: Path) -> None:
    """React puts a string into the page as text; only Markdown and raw HTML would read it."""
    page = Explored(with_texts(tmp_path / "run").folder, Live(True, 64))
    picked = page.write("picks.data", {}, "pick-reset.n_clicks")
    assert picked["pick-prompt"]["children"] in (TEXTS, "Another?")
    assert isinstance(picked["pick-text-a"]["children"], str)
    assert "Markdown" not in page.layout()
    assert "innerHTML" not in page.layout()
    script = page.client.get("/explore/assets/explorer.js").text
    assert "innerHTML" not in script
    assert "insertAdjacentHTML" not in script
    assert "document.write" not in script


def test_picks_move_the_weights_toward_who_picks(tmp_path: Path) -> None:
    page = Explored(with_texts(tmp_path / "run").folder)
    state = page.write("picks.data", {}, "pick-reset.n_clicks")
    for _ in range(4):
        scores = [json.loads(state[f"pick-text-{side}"]["data-scores"]) for side in "ab"]
        better = "a" if scores[0]["warm"] > scores[1]["warm"] else "b"
        state = page.write("picks.data", {"picks.data": state["picks"]["data"]}, f"pick-{better}.n_clicks")
    assert state["judged"]["data"]["warm"] > 0.7
    assert not state["pick-use"]["disabled"]
    used = page.write("wanted.data", {"judged.data": state["judged"]["data"]}, "pick-use.n_clicks")
    assert used["wanted"]["data"]["weights"] == state["judged"]["data"]


def test_two_pages_know_nothing_of_each_other(tmp_path: Path) -> None:
    """What a page remembers is sent with its question; the server keeps none of it."""
    page = Explored(with_texts(tmp_path / "run").folder)
    start = page.write("picks.data", {}, "pick-reset.n_clicks")["picks"]["data"]
    one = page.write("picks.data", {"picks.data": start}, "pick-a.n_clicks")["picks"]["data"]
    other = page.write("picks.data", {"picks.data": start}, "pick-b.n_clicks")["picks"]["data"]
    assert one["rows"][0] == pytest.approx([-value for value in other["rows"][0]])
    assert len(one["rows"]) == len(other["rows"]) == 1


def test_picks_that_no_page_sends_are_refused_in_a_sentence(tmp_path: Path) -> None:
    page = Explored(with_texts(tmp_path / "run").folder)
    start = page.write("picks.data", {}, "pick-reset.n_clicks")["picks"]["data"]
    for rows in ([["x", 1]], [[1.0]], [[1.0, 0.0]] * 500, "no"):
        answer = page.write("picks.data", {"picks.data": {**start, "rows": rows}}, "pick-skip.n_clicks")
        assert "problem" in answer["side"]


def test_at_least_so_much_becomes_weights_or_what_is_missing(tmp_path: Path) -> None:
    page = Explored(made_run(tmp_path / "run").folder)
    found = page.write("found.children", {"least-0.value": 0.7, "policy.value": "interpolate"}, "find.n_clicks")
    assert "can be had" in found["found"]["children"]
    weights = found["wanted"]["data"]["weights"]
    assert weights["warm"] == pytest.approx(0.45, abs=1e-3)  # .25 + .5 of the way from b to m is w.J = .7, no more
    assert planned(page, weights)["plan"]["data"]["values"] == pytest.approx([0.7, 0.55], abs=1e-3)
    missed = page.write("found.children", {"least-0.value": 5.0}, "find.n_clicks")
    assert "Nothing here reaches" in missed["found"]["children"]
    assert "Give a number" in page.write("found.children", {}, "find.n_clicks")["found"]["children"]


def test_runs_beside_it_are_compared_and_no_other_folder_is_opened(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    made_run(tmp_path / "other")
    page = Explored(run.folder)
    answer = page.write("versus-place.hidden", {"against.value": "other"}, "against.value")
    assert not answer["versus-place"]["hidden"]
    for name in ("../other", "/etc", str(tmp_path / "other"), "none"):
        refused = page.write("verdict.children", {"against.value": name}, "against.value")
        assert "no run of that name" in refused["side"]["problem"]["children"]


def test_scores_of_written_texts_are_told_apart_by_sign_and_word(tmp_path: Path) -> None:
    """In a run over words, brief is minus the count: two words less four is +2 for A."""
    run = many_run(tmp_path / "run", 4, 2, ["brief", "short"])
    page = Explored(run.folder, Live(True, 64))
    said = {"kind": "two", "prompt": "Hi", "texts": ["one two", "one two three four"], "heads": ["A", "B"]}
    shown = json.dumps(page.write("scores.children", {"said.data": said}, "said.data")["scores"], ensure_ascii=False)
    assert "▼ 2.00 less in B" in shown
    assert difference(0.0, 2) == "= the same"
    many = page.write("scores.children", {"said.data": {**said, "texts": ["x"] * 6}}, "said.data")
    assert "too much to score" in many["side"]["problem"]["children"]


def test_requests_for_elsewhere_are_quoted() -> None:
    """An objective's name may hold what a shell or Python would read."""
    found = snippets({"it's $HOME": 1.0}, "interpolate", "http://h:1", chat=True)
    assert json.loads(found["weights"]) == {"it's $HOME": 1.0}
    compile(found["python"], "snippet", "exec")
    import shlex

    assert json.loads(shlex.split(found["curl"])[3])["weights"] == {"it's $HOME": 1.0}


def test_the_data_and_the_page_can_be_taken_away(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    before = sorted(path.name for path in run.folder.iterdir())
    page = Explored(run.folder)
    table = page.client.get("/explore/points.csv")
    assert table.text.count("\r\n") == 5
    assert "attachment" in table.headers["content-disposition"]
    report = page.client.get("/explore/report.html")
    assert report.status_code == 200
    assert "Plotly" in report.text
    assert "<script src" not in report.text
    assert sorted(path.name for path in run.folder.iterdir()) == before


def test_the_key_names_what_is_drawn_and_nothing_else(tmp_path: Path) -> None:
    """Three points with intervals, the base, and no blends; a blend adds its line and its marks."""

    def key(run: Run) -> str:
        return json.dumps(Explored(run.folder).write("goto.options", {}, "state.data")["front-key"], ensure_ascii=False)

    run = made_run(tmp_path / "run")
    assert all(word in key(run) for word in ("on the front", "its interval", "base model", "current trade-off"))
    assert not any(word in key(run) for word in ("dominated", "blend", "exact front", "band"))
    run.add_point(point("low", (0.5, 0.5), (0.1, 0.1)))
    blend = point("x", (0.75, 0.25), (0.9, 0.4), row={"w": 0.5, "m": 0.5}).as_dict()
    write_json(run.folder / "blends" / "x.json", blend)
    assert all(word in key(run) for word in ("dominated", "a blend of trained", "dashed: along the blends"))
    assert '"children": []' in key(made_run(tmp_path / "empty", points={}))


def test_points_are_kept_by_ends_that_are_typed_and_all_again(tmp_path: Path) -> None:
    """Without a mouse: the drawing, the matrix, and the list below follow."""
    run = many_run(tmp_path / "run", 20, 4)
    page, values = Explored(run.folder), [p.values["objective0"] for p in run.front()]
    ends = {"brushes.data": {}, "brush-of.value": "0", "brush-low.value": 0.4}
    kept = page.write("brushes.data", ends, "brush-set.n_clicks")
    count = sum(value >= 0.4 for value in values)
    assert 0 < count < 20
    assert kept["inside"]["children"] == f"{count} of 20 points are kept."
    assert len(kept["goto-inside"]["options"]) == count
    drawn = page.write('{"name":"parcoords","part":"data"}.data', ends, "brush-set.n_clicks")
    (lines,) = drawn['{"name":"parcoords","part":"data"}']["data"]["data"]
    assert lines["dimensions"][0]["constraintrange"] == [0.4, max(values)]
    ranges = {"brushes.data": kept["brushes"]["data"]}
    matrix = page.write('{"name":"matrix","part":"data"}.data', ranges, "brushes.data")
    traces = matrix['{"name":"matrix","part":"data"}']["data"]["data"]
    assert sum(len(trace["selectedpoints"]) for trace in traces) == count
    chosen = page.write("wanted.data", {"goto-inside.value": "a0003"}, "goto-inside.value")
    assert set(chosen["wanted"]["data"]["weights"]) == set(run.objectives)
    again = page.write("brushes.data", {**ranges, "brush-of.value": "0"}, "brush-clear.n_clicks")
    assert (again["brushes"]["data"], again["inside"]["children"]) == ({}, "")


def test_a_line_of_three_objectives_is_a_trade_off_too(tmp_path: Path) -> None:
    run = many_run(tmp_path / "run", 5, 3)
    page = Explored(run.folder)
    for name in ("front", "parallel"):
        graph = f'{{"name":"{name}","part":"graph"}}'
        click = {f"{graph}.clickData": {"points": [{"customdata": "a0002"}]}}
        weights = page.write("wanted.data", click, f"{graph}.clickData")["wanted"]["data"]["weights"]
        assert weights == run.front().points[[p.adapter for p in run.front()].index("a0002")].preference.weights


def test_a_crowd_is_small_and_without_bars(tmp_path: Path) -> None:
    """More than 200 points in the plane, more than 40 in a small one: intervals could not be told apart."""
    for m, name, crowd in ((2, "front", 201), (4, "pair-0", 41)):
        page = Explored(many_run(tmp_path / f"run{m}", crowd, m).folder)
        place = f'{{"name":"{name}","part":"data"}}'
        trace = next(
            t for t in page.write(f"{place}.data", {}, "state.data")[place]["data"]["data"] if "customdata" in t
        )
        assert trace["marker"]["size"] == 4
        assert "error_x" not in trace


def test_a_run_of_more_adapters_than_a_map_is_fitted_on_is_asked_among_its_points(tmp_path: Path) -> None:
    """By enumeration over the measured points, whose values are then what is promised."""
    run = many_run(tmp_path / "run", 81, 2)
    page, values = Explored(run.folder), run.front().values
    answer = page.write("found.children", {"least-0.value": 0.5, "policy.value": "interpolate"}, "find.n_clicks")
    assert "mixtures are predicted for up to 80 adapters" in answer["found"]["children"]
    weights = answer["wanted"]["data"]["weights"]
    attained = page.write("plan.data", {"weights.data": weights, **LIVE}, "weights.data")["plan"]["data"]["values"]
    assert attained == pytest.approx([*max(values[values[:, 0] >= 0.5].tolist(), key=lambda row: row[1])])


def test_the_first_point_of_an_empty_run_is_drawn_without_loading_the_page_again(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", points={})
    page = Explored(run.folder)
    assert not page.write(f"{FRONT}.data", {}, "state.data")[FRONT]["data"]["data"]
    run.add_point(point("first", (0.5, 0.5), (0.5, 0.5)))
    assert all(not answer["side"] for _, answer in every(page))
    assert planned(page, EVEN)["plan"]["data"]["values"] == [0.5, 0.5]


def test_long_lists_are_cut_to_what_a_browser_can_index(tmp_path: Path) -> None:
    page = Explored(many_run(tmp_path / "run", 450, 5).folder)
    options = page.write("goto.options", {}, "state.data")["goto"]["options"]
    assert len(options) == 150


def test_texts_that_come_after_the_page_was_first_made_can_be_read_and_picked(tmp_path: Path) -> None:
    """A page that is loaded anew has all that its callbacks were made for while the run was empty."""
    run = made_run(tmp_path / "run", points={})
    page = Explored(run.folder)
    assert "No two texts with all scores are stored" in page.layout()
    assert all(not answer["side"] for _, answer in every(page))
    for name, values in (("first", (0.9, 0.1)), ("second", (0.1, 0.9))):
        run.add_point(point(name, values, values))
        scores = dict(zip(run.objectives, values, strict=True))
        run.write_samples(name, [{"prompt": "Hi?", "response": f"from {name}", "scores": scores}])
    assert "No two texts with all scores are stored" not in page.layout()
    offer = page.write("picks.data", {}, "pick-reset.n_clicks")
    assert {offer[f"pick-text-{letter}"]["children"] for letter in "ab"} == {"from first", "from second"}
    stored = page.write("stored.data", {"source.value": "stored", "weights.data": EVEN}, "source.value")
    assert stored["stored-asked"]["children"] == ""
    assert {voice["text"] for voice in stored["stored"]["data"]["two"]} <= {"from first", "from second", ""}
    assert stored["stored"]["data"]["two"][0]["text"]
