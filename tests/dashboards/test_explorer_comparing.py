"""The view that compares: what it says of two runs that are as they should be, and of others."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explored import Explored, many_run
from made_runs import made_run, point

from moalign.dashboards.explorer import comparing
from moalign.exploring import Watch
from moalign.runs import Run

DRAWN = '{"name":"versus","part":"data"}'
PROMPTS = tuple(f"q{i}" for i in range(8))


def answered(run: Run, prompts: tuple[str, ...] = PROMPTS, noise: float = 0.05) -> Run:
    """The run, with texts behind its points that scatter around their values."""
    rng = np.random.default_rng(0)
    for each in run.front():
        rows = (
            {
                "prompt": prompt,
                "response": "",
                "scores": {name: value + rng.normal(0, noise) for name, value in each.values.items()},
            }
            for prompt in prompts
        )
        run.write_samples(each.adapter, rows)
    return run


def told(page: Explored, name: str, plane: str | None = None) -> tuple[str, dict[str, Any]]:
    """The words, and what the drawing is answered with."""
    values = {"against.value": name, "plane.value": plane}
    words = page.write("verdict.children", values, "against.value")
    drawn = page.write("versus-place.hidden", values, "against.value")
    return json.dumps([words.get("verdict"), words["side"], drawn["side"]], ensure_ascii=False), drawn


def test_bands_are_drawn_for_both_fronts_and_the_most_of_each_objective_is_told(tmp_path: Path) -> None:
    """The other run has one point less of warm: 1 against 0.75, with noise of 0.05 / sqrt(8)."""
    run = answered(made_run(tmp_path / "run"))
    answered(made_run(tmp_path / "other", points={"m": ((0.5, 0.5), (0.75, 0.5)), "b": ((0.0, 1.0), (0.25, 1.0))}))
    words, drawn = told(Explored(run.folder), "other")
    assert "run has 0." in words
    assert "more hypervolume than other" in words
    assert '"run"' in words
    assert "not told apart" in words
    assert [trace["fill"] for trace in drawn[DRAWN]["data"]["data"][:2]] == ["toself"] * 2
    assert "90 % of all samples of the prompts." in drawn["versus-about"]["children"]


def test_of_three_objectives_the_bands_are_those_of_the_two_that_are_drawn(tmp_path: Path) -> None:
    run = answered(many_run(tmp_path / "run", 5, 3))
    answered(many_run(tmp_path / "other", 5, 3))
    words, drawn = told(Explored(run.folder), "other", "0,2")
    assert "the same hypervolume on every draw" in words
    figure = drawn[DRAWN]["data"]
    assert figure["layout"]["xaxis"]["title"]["text"] == "objective0"
    assert figure["layout"]["yaxis"]["title"]["text"] == "objective2"
    assert [trace.get("fill") for trace in figure["data"][:2]] == ["toself"] * 2
    assert "of these two objectives alone" in drawn["versus-about"]["children"]
    assert told(Explored(run.folder), "other", "7,9")[1][DRAWN]["data"]["layout"]  # no pair of this page


def test_volumes_that_would_take_minutes_are_not_counted_and_the_page_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counted(*_: object) -> None:
        raise AssertionError("a hypervolume was counted")

    run = answered(many_run(tmp_path / "run", 10, 7))
    answered(many_run(tmp_path / "other", 10, 7))
    monkeypatch.setattr("moalign.comparing.compare_draws", counted)
    monkeypatch.setattr("moalign.dashboards.versus.hypervolume", counted)
    words, drawn = told(Explored(run.folder), "other")
    assert "over 7 objectives and 10 points that takes minutes" in words
    assert "objective6" in words  # the table of the most of each
    assert not drawn["versus-place"]["hidden"]


def test_draws_are_made_once_for_each_state_of_the_two_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, other = (answered(made_run(tmp_path / name)) for name in ("run", "other"))
    pairing, made, known = comparing.Pairing(Watch(run.folder)), [], comparing.together
    monkeypatch.setattr(comparing, "together", lambda *given: made.append(1) or known(*given))
    pairing.info("other")
    pairing.info("other", volumes=False)
    assert len(made) == 1
    other.add_point(point("new", (0.2, 0.8), (0.5, 0.9)))
    assert "not measured on the same prompts" in pairing.info("other").verdict
    assert len(made) == 2


def test_another_reference_point_is_told(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    other = made_run(tmp_path / "other")
    path = other.folder / "reference.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "reference_point": {"warm": -1.0, "brief": 0.0}}))
    words, _ = told(Explored(run.folder), "other")
    assert "That of other is another, and counts nothing here: warm \N{MINUS SIGN}1.00, brief 0.00." in words


def test_runs_that_are_not_whole_are_told_by_name_and_never_by_path(tmp_path: Path) -> None:
    """Empty, half written, without its settings' sense, of other objectives, with a NaN, and deleted."""
    run = answered(made_run(tmp_path / "run"))
    made_run(tmp_path / "empty", points={})
    half = made_run(tmp_path / "half", points={"m": ((0.5, 0.5), (0.75, 0.5))})
    (half.folder / "points" / "n.json").write_text('{"adapter": "n", "val')
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.yaml").write_text("objectives: [")
    many_run(tmp_path / "apart", 3, 2)
    nan = answered(made_run(tmp_path / "nan"))
    nan.write_samples(
        "m", ({"prompt": p, "response": "", "scores": {"warm": float("nan"), "brief": 1.0}} for p in PROMPTS)
    )
    gone = made_run(tmp_path / "gone")
    page = Explored(run.folder)
    shutil.rmtree(gone.folder)
    expected = {
        "empty": "No adapter of empty has been measured yet.",
        "half": "n is left out",
        "broken": "broken cannot be read",
        "apart": "other objectives, so they share no plane",
        "nan": "has a score that is no number",
        "gone": "no run of that name",
    }
    for name, sentence in expected.items():
        words, _ = told(page, name)
        assert sentence in words, (name, words)
        assert str(tmp_path) not in words
