"""What the README and its pages say a user can type, run as it stands, on a demo of seconds."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Running, serving
from typer.testing import CliRunner

import moalign.demo.show as show
from moalign.adapters import Adapter, read_adapter
from moalign.cli import app
from moalign.config import SweepConfig
from moalign.merging import soup
from moalign.progress import Reporter
from moalign.runs import Run

ROOT = Path(__file__).parents[2]
README, SERVING, MERGING = (
    (ROOT / f"{name}.md").read_text(encoding="utf-8") for name in ("README", "SERVING", "MERGING")
)
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


# The server: its commands and requests as they stand, but for the port, which may be taken.


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.S)


@pytest.fixture(scope="module")
def server(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The README's own command, with the run's folder spelt out."""
    (block,) = blocks(README, "console")
    words = shlex.split(block.splitlines()[0])
    assert words[:4] == ["$", "moalign", "serve", "runs/demo"]
    with serving(home / words[3], tmp_path_factory.mktemp("server") / "log", *words[4:]) as running:
        yield running


def asked(server: Running, command: str) -> str:
    """What a command of curl's prints."""
    assert command.startswith("curl ")
    words = shlex.split(command.replace("http://127.0.0.1:8000", server.address))
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def texts(answer: str) -> str:
    """The text of an answer, streamed or whole."""
    if not answer.startswith("data: "):
        (choice,) = json.loads(answer)["choices"]
        return choice["message"]["content"] if "message" in choice else choice["text"]
    *events, end = answer.strip().split("\n\n")
    assert end == "data: [DONE]"
    parts = [json.loads(event.removeprefix("data: "))["choices"][0]["delta"] for event in events]
    return "".join(part.get("content") or "" for part in parts)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_the_console_of_the_readme(server: Running, home: Path):
    """The answer names the adapters, as the text below says."""
    (block,) = blocks(README, "console")
    first, second = [asked(server, line.removeprefix("$ ")) for line in block.splitlines()[1:]]
    assert texts(first)
    assert texts(second)
    plan = json.loads(first)["moalign"]
    assert plan["preference"] == {"helpful": 0.7, "brief": 0.3}
    keys = {key for lane in plan["lanes"] for key in lane["row"]}
    assert keys == set(Run.open(home / "runs" / "demo").store.keys())
    assert set(plan["predicted"]) == {"helpful", "brief"}
    assert '"preference":{"brief":0.8,"helpful":0.2}' in second.replace(" ", "")


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_the_requests_of_the_page_on_serving(server: Running):
    (block,) = blocks(SERVING, "sh")
    lines = re.split(r"\n(?=curl )", block.strip().replace("\\\n", ""))
    *answers, models = [asked(server, line) for line in lines]
    assert len(answers) == 3
    assert all(texts(answer) for answer in answers)
    assert {each["id"] for each in json.loads(models)["data"]} >= {"moalign", "base", "helpful100", "brief100"}


def test_the_python_of_the_page_on_serving(server: Running, capsys: pytest.CaptureFixture[str]):
    (code,) = blocks(SERVING, "python")
    names: dict[str, object] = {}
    exec(compile(code.replace("http://127.0.0.1:8000", server.address), "SERVING.md", "exec"), names)
    names["client"].close()
    assert "'helpful': {'value':" in capsys.readouterr().out


def test_the_commands_of_the_page_on_merging(at_home: Path):
    lines = [line.strip() for line in MERGING.splitlines() if line.startswith("    moalign merge")]
    assert len(lines) == 2
    for line in lines:
        folder = at_home / f"merged{line.count('slerp')}"
        words = shlex.split(line.replace("RUN", "runs/demo").replace("DIR", str(folder)), comments=True)
        result = CliRunner().invoke(app, words[1:], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        assert read_adapter(folder).layers


def test_the_python_of_the_page_on_merging():
    """A mean by weights adds nothing up, and subtracts nothing: just what the example says that it breaks."""

    def my_merge(adapters: list[Adapter], weights: list[float]) -> Adapter:
        return soup(adapters, [weight / sum(weights) for weight in weights])

    (code,) = blocks(MERGING, "python")
    names: dict[str, object] = {"my_merge": my_merge}
    exec(compile(code, "MERGING.md", "exec"), names)
    names["test_my_merge"]()


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
