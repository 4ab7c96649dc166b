"""The wheel holds the whole package under one name, with the demo and the report's page, and nothing else."""

import configparser
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("moalign", "objectives", "frontiers", "dashboards")
DEMO_LIMIT = 4_000_000  # bytes of the demo in the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: a build leaves its own folders where it runs."""
    if importlib.util.find_spec("build") is None or importlib.util.find_spec("setuptools") is None:
        pytest.skip("needs build and setuptools")
    folder = tmp_path_factory.mktemp("build")
    for name in SOURCES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist"]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    (path,) = (folder / "dist").glob("*.whl")
    return path


def files(wheel: Path) -> dict[str, zipfile.ZipInfo]:
    with zipfile.ZipFile(wheel) as archive:
        return {info.filename: info for info in archive.infolist()}


def test_every_file_of_the_checkout_is_in_it_under_moalign(wheel: Path) -> None:
    """A package that is not listed in pyproject.toml would be left out without a word."""
    expected = set()
    for name in SOURCES:
        for path in (ROOT / name).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                parts = path.relative_to(ROOT).parts
                expected.add("/".join(parts if name == "moalign" else ("moalign", *parts)))
    found = {name for name in files(wheel) if ".dist-info/" not in name}
    assert found == expected


def test_nothing_else_is_at_the_top(wheel: Path) -> None:
    """A top-level `objectives` would hide a user's own objectives.py; tests are for the checkout."""
    tops = {name.partition("/")[0] for name in files(wheel)}
    (info,) = (top for top in tops if top.endswith(".dist-info"))
    assert tops == {"moalign", info}
    assert not [name for name in files(wheel) if "tests" in name or "/test_" in name]


def test_vllm_finds_the_plugin(wheel: Path) -> None:
    """A server looks through the metadata of what is installed, and imports what stands there."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        found = configparser.ConfigParser()
        found.read_string(archive.read(name).decode())
    place = found["vllm.general_plugins"]["moalign"]
    assert callable(EntryPoint("moalign", place, "vllm.general_plugins").load())


def test_the_demo_is_small(wheel: Path) -> None:
    """As stored in the wheel, its base model included."""
    sizes = [info.compress_size for name, info in files(wheel).items() if name.startswith("moalign/demo/")]
    assert sum(sizes) <= DEMO_LIMIT


def test_the_pages_of_the_report_come_along(wheel: Path) -> None:
    endings = {Path(name).suffix for name in files(wheel) if name.startswith("moalign/dashboards/")}
    assert {".html", ".css", ".js", ".py"} <= endings
    assert "moalign/py.typed" in files(wheel)


def test_it_runs_from_where_it_is_installed(wheel: Path, tmp_path: Path) -> None:
    """Every package is imported from the installed place, and the command answers."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in str(finder)]
import moalign, moalign.cli, moalign.frontiers, moalign.objectives, moalign.dashboards
for module in (moalign, moalign.cli, moalign.frontiers, moalign.objectives, moalign.dashboards):
    assert module.__file__.startswith({str(tmp_path)!r}), module.__file__
sys.argv = ["moalign", "--version"]
moalign.cli.main()
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == wheel.name.split("-")[1]
