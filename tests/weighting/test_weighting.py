"""Building a weighter from a config: the built-ins, one of a user's own, and every mistake in one line."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from moalign.errors import ConfigError
from moalign.testing import check_weighter
from moalign.weighting import WEIGHTERS, Observation, RewardWeighter, build_weighter

EXAMPLES = Path(__file__).parents[2] / "examples"
HALF = np.array([0.5, 0.5])

CODE = """
from moalign.weighting import Fixed

class Mine(Fixed):
    def __init__(self, preference, *, pace: float, label="x"):
        super().__init__(preference)
        assert isinstance(pace, float)
        if pace < 0:
            raise ValueError("pace is negative")

class Anything(Fixed):
    def __init__(self, preference, **settings):
        super().__init__(preference)
        self.settings = settings

def made(preference):
    return Fixed(preference)

class NoWeighter:
    def __init__(self, preference): ...
    def update(self, seen): ...

def nothing(): ...

NUMBER = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with weighters_for_test.py."""
    (tmp_path / "weighters_for_test.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("weighters_for_test", None)


@pytest.mark.parametrize("kind", [kind for kind in WEIGHTERS if kind != "constrained"])
def test_the_built_ins_that_follow_a_preference_need_no_settings(kind: str) -> None:
    weighter = build_weighter(kind, HALF, {})
    assert type(weighter) is WEIGHTERS[kind]
    assert isinstance(weighter, RewardWeighter)


def test_settings_arrive_and_a_whole_number_is_a_float_where_one_is_asked_for() -> None:
    found = vars(build_weighter("hypervolume", HALF, {"every": 3, "margin": 1}))
    assert (found["validation_every"], found["margin"]) == (3, 1.0)
    assert isinstance(found["margin"], float)
    assert vars(build_weighter("gradient", HALF, {"clip": None, "influence": "cosine"}))["clip"] is None


@pytest.mark.parametrize(
    ("kind", "settings", "line"),
    [
        (
            "gradeint",
            {},
            "unknown weighting 'gradeint'; did you mean 'gradient'? (known: fixed, hypervolume, gradient, ",
        ),
        ("gradient", {"muu": 1.0}, "unknown setting of weighting 'gradient' 'muu'; did you mean 'mu'? (known: mu, "),
        ("fixed", {"mu": 1.0}, "unknown setting of weighting 'fixed' 'mu' (known: none)"),
        ("fixed", {"preference": [1.0]}, "unknown setting of weighting 'fixed' 'preference' (known: none)"),
        ("gradient", {"mu": "1e-2"}, "weighting 'gradient': mu is '1e-2'; input should be a valid number"),
        ("gradient", {"include_self": 1}, "weighting 'gradient': include_self is 1; input should be a valid boolean"),
        (
            "gradient",
            {"influence": "sum"},
            "weighting 'gradient': influence is 'sum'; input should be 'dot' or 'cosine'",
        ),
        ("hypervolume", {"every": 2.5}, "weighting 'hypervolume': every is 2.5; input should be a valid integer"),
        ("hypervolume", {"every": 0}, "weighting 'hypervolume': every is 0; expected a number of steps, at least 1"),
        ("weighters_for_test:Mine", {}, "weighting 'weighters_for_test:Mine' needs the setting 'pace'"),
        ("weighters_for_test:Mine", {"pase": 1}, "'pase'; did you mean 'pace'? (known: pace, label)"),
        ("weighters_for_test:Mine", {"pace": "fast"}, "pace is 'fast'; input should be a valid number"),
        ("weighters_for_test:Mine", {"pace": -1}, "making it raised ValueError: pace is negative"),
        ("weighters_for_test:Mien", {}, "'Mien'; did you mean 'Mine'?"),
        ("weighters_for_test:NUMBER", {}, "is a int, not a function"),
        ("weighters_for_test:nothing", {}, "takes no parameters; expected Class(preference, **settings)"),
        (
            "weighters_for_test:NoWeighter",
            {},
            "has no needs, validation_every, state_dict, load_state_dict; see moalign.weighting.RewardWeighter",
        ),
        ("nowhere_for_test:Mine", {}, "weighting 'nowhere_for_test:Mine': there is no module 'nowhere_for_test'"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(folder: Path, kind: str, settings: dict, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_weighter(kind, HALF, settings)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_class_or_a_function_of_the_users_own_is_found_in_the_working_directory(folder: Path) -> None:
    assert isinstance(build_weighter("weighters_for_test:Mine", HALF, {"pace": 1, "label": 7}), RewardWeighter)
    assert vars(build_weighter("weighters_for_test:Anything", HALF, {"a": [1]}))["settings"] == {"a": [1]}
    assert isinstance(build_weighter("weighters_for_test:made", HALF, {}), RewardWeighter)


def test_the_example_keeps_the_contract_and_lifts_what_lags() -> None:
    """Ideal (1, 1), temperature 0.1, preference (.5, .5), means (.9, .1): odds exp(.5 (.9 - .1) / .1) = e^4."""

    def make(preference: np.ndarray, **settings: object) -> RewardWeighter:
        return build_weighter("tchebycheff:Tchebycheff", preference, settings, base=EXAMPLES)

    check_weighter(make)
    weighter = make(HALF, ideal=[1.0, 1.0], temperature=0.1)
    weights = weighter.update(Observation(0, np.array([[1.0, 0.0], [0.8, 0.2]]), 1e-3)).weights
    assert weights[1] / weights[0] == pytest.approx(np.exp(4))
    corner = make(np.array([1.0, 0.0]), ideal=[1.0, 1.0], temperature=0.1)
    assert corner.update(Observation(0, np.zeros((2, 2)), 1e-3)).weights.tolist() == [1.0, 0.0]


def test_the_example_runs_and_shows_the_inside_of_the_concave_part() -> None:
    """On sqrt(J1) + sqrt(J2) = 1 equal weights end at a corner, and equal Tchebycheff weights at (.25, .25)."""
    run = subprocess.run([sys.executable, EXAMPLES / "tchebycheff.py"], capture_output=True, text=True, check=True)
    middle = run.stdout.splitlines()[2]
    assert middle == "[0.5 0.5] fixed (0.97, 0.0) tchebycheff (0.25, 0.25)"


def test_a_weighter_does_not_load_torch() -> None:
    code = "import sys, moalign.weighting; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
