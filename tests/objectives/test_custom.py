"""A function of the user's own, found by name and checked before anything is trained."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from moalign.batches import Completions
from moalign.errors import ConfigError, ObjectiveError
from moalign.objectives import ObjectiveSet, build_objective, load_custom

CODE = """
BONUS = 1.0

def shouted(completions, mark="!", scale=1.0):
    return [scale * text.count(mark) + BONUS for text in completions.responses]

def anything(completions, **settings):
    return [len(settings)] * len(completions)

def broken(completions):
    raise RuntimeError("no server")

NOT_A_FUNCTION = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with my_rewards_for_test.py, which no other test finds imported."""
    (tmp_path / "my_rewards_for_test.py").write_text(CODE)
    path = list(sys.path)
    yield tmp_path
    assert sys.path == path, "the search path must be left as it was"
    for name in [name for name in sys.modules if name.endswith("_for_test")]:
        del sys.modules[name]


def test_a_function_beside_the_config_is_found_and_gets_its_parameters(folder: Path) -> None:
    """Two marks at scale 0.5, and the bonus: 2."""
    settings = {"type": "my_rewards_for_test:shouted", "mark": "?", "scale": 0.5}
    objectives = ObjectiveSet([build_objective("loud", settings, base=folder)])
    assert objectives.score(Completions(["p", "p"], ["what??", ""])).tolist() == [[2.0], [1.0]]


def test_a_function_in_the_working_directory_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert load_custom("many", "my_rewards_for_test:anything", {"a": 1, "b": 2}).score(
        Completions(["p"], ["r"])
    ).tolist() == [2.0]


def test_the_fingerprint_is_of_the_modules_code_and_the_parameters(folder: Path) -> None:
    """A helper that changes (BONUS) changes the scores, so it must change the fingerprint."""

    def made(**params: float) -> str:
        sys.modules.pop("my_rewards_for_test", None)
        return load_custom("x", "my_rewards_for_test:shouted", params, folder).fingerprint

    first = made()
    assert made() == first
    assert made(scale=2.0) != first
    (folder / "my_rewards_for_test.py").write_text(CODE.replace("BONUS = 1.0", "BONUS = 2.00"))
    assert made() != first


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("nowhere_for_test:f", r"there is no module 'nowhere_for_test' \(looked among what is installed, and in .*\)"),
        ("nowhere_for_test.rewards:f", "there is no module 'nowhere_for_test'"),
        (
            "my_rewards_for_test:shout",
            r"unknown function of module my_rewards_for_test 'shout'; did you mean 'shouted'\?",
        ),
        ("my_rewards_for_test:NOT_A_FUNCTION", "is a int, not a function"),
        ("needs_for_test:f", "module 'needs_for_test' needs 'no_such_package', which is not installed"),
        ("fails_for_test:f", "importing 'fails_for_test' raised ZeroDivisionError: division by zero"),
    ],
)
def test_what_cannot_be_found_says_what_and_where(folder: Path, path: str, reason: str) -> None:
    (folder / "needs_for_test.py").write_text("import no_such_package\n")
    (folder / "fails_for_test.py").write_text("1 / 0\n")
    with pytest.raises(ObjectiveError, match=f"objective 'mine': .*{reason}"):
        load_custom("mine", path, {}, folder)


def test_parameters_that_the_function_does_not_take_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown parameter of objective 'mine' .* 'scael'; did you mean 'scale'\?"):
        load_custom("mine", "my_rewards_for_test:shouted", {"scael": 1}, folder)
    (folder / "two_for_test.py").write_text("def f(completions, needed):\n    return []\n")
    with pytest.raises(ConfigError, match=r"cannot be called with .*missing a required argument: 'needed'"):
        load_custom("mine", "two_for_test:f", {}, folder)


def test_a_function_that_raises_is_named(folder: Path) -> None:
    objective = load_custom("mine", "my_rewards_for_test:broken", {}, folder)
    with pytest.raises(ObjectiveError, match="objective 'mine' raised RuntimeError: no server"):
        ObjectiveSet([objective]).score(Completions(["p"], ["r"]))


def test_a_function_built_into_python_has_a_fingerprint_too() -> None:
    assert len(load_custom("length", "builtins:len", {}).fingerprint) == 32
