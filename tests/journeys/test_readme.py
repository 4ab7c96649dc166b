"""What the README says a user can type: every command and the Python, run as they stand, on a demo of seconds."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import moalign.demo.show as show
from moalign.cli import app
from moalign.config import SweepConfig
from moalign.progress import Reporter

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", README, re.S) for line in block.splitlines() if line.strip()
]
demo_config = show.demo_config


def quick_config(folder: Path, names: tuple[str, ...], **changes: object) -> SweepConfig:
    """The demo's sweep, cut down to its corners, a few steps and a few texts."""
    config = demo_config(folder, names, **{"preferences": {"corners": True}, "group_size": 1, **changes})
    sampled = config.data.responses.model_copy(update={"per_prompt": 2})
    return config.model_copy(
        update={
            "settings": {**config.settings, "steps": 3, "batch_size": 4},
            "data": config.data.model_copy(update={"responses": sampled, "pairs_per_prompt": 1}),
            "evaluation": config.evaluation.model_copy(update={"prompts": 2, "samples": 2}),
        }
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the demo has been run, with the checkout's examples beside it."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copytree(ROOT / "examples", folder / "examples")
    (folder / "moalign" / "demo").mkdir(parents=True)
    shutil.copytree(show.BASE_FOLDER, folder / "moalign" / "demo" / "base")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(show, "demo_config", quick_config)
        show.demonstrate(folder / "runs" / "demo", 2, Reporter(quiet=True))
    return folder


@pytest.fixture
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(show, "demo_config", quick_config)
    monkeypatch.chdir(home)
    return home


def test_the_readme_has_commands():
    assert {line.split()[0] for line in COMMANDS} == {"make", "moalign", "echo"}


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("make")])
def test_make_knows_its_targets(line: str):
    """`make -n` says what it would do; the demo itself takes minutes, and the suite is what is running now."""
    said = subprocess.run([*shlex.split(line, comments=True), "-n"], cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert ("moalign demo" if "demo" in line else "-m pytest") in said.stdout


@pytest.mark.parametrize("line", [line for line in COMMANDS if not line.startswith("make")])
def test_commands(line: str, at_home: Path):
    given = None
    if " | " in line:
        echo, line = line.split(" | ")
        given = shlex.split(echo)[1] + "\n"
    words = shlex.split(line, comments=True)
    assert words[0] == "moalign"
    result = CliRunner().invoke(app, words[1:], input=given, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip()


def test_the_python(at_home: Path, capsys: pytest.CaptureFixture[str]):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    exec(compile(code, "README.md", "exec"), {})
    said = capsys.readouterr().out.strip().splitlines()
    assert len(said) >= 7  # five points, the hypervolume, a text
    assert float(said[5]) >= 0


def test_the_tree_names_what_is_there():
    """Every module of the first level stands in the README's tree, and nothing that is gone."""
    (tree,) = re.findall(r"```\n(moalign/\n.*?)```", README, re.S)
    inside = tree.split("\nobjectives/")[0]
    named = set(re.findall(r"[a-z_]+\.py", inside)) | set(re.findall(r"^  ([a-z]+)/", inside, re.M))
    there = {p.name for p in (ROOT / "moalign").iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()}
    assert named == there - {"__init__.py"}


@pytest.mark.parametrize("example", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_examples(example: str, at_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "argv", [example])
    path = ROOT / "examples" / example
    namespace = {"__name__": "__main__", "__file__": str(path)}
    exec(compile(path.read_text(encoding="utf-8"), example, "exec"), namespace)
    assert capsys.readouterr().out.strip()
