"""What the journeys share: the base of the tiny world, a sweep over it, a browser and what it looks at."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_world
from browser import Visit, chromium, visit
from playwright.sync_api import Browser
from serving import Running, serving
from shown_run import add_adapters, shown_run

from moalign.adapters import Adapter
from moalign.config import load_config
from moalign.runs import Run
from moalign.sweep import run_sweep


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with twelve answers, and no chat template."""
    return tiny_world.build_base(tmp_path_factory.mktemp("tiny_world"))


@pytest.fixture
def sweep(tmp_path: Path, base: Path) -> Callable[..., Run]:
    """sweep(seed=1): a sweep in a folder of its own, with these settings changed."""

    def run(**changes: Any) -> Run:
        return run_sweep(load_config(tiny_world.write_config(tmp_path, base, **changes)), tmp_path / "run")

    return run


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium, or the reason why there is none."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def desk_run(tmp_path_factory: pytest.TempPathFactory, random_adapter: Callable[..., Adapter]) -> Run:
    """Ten adapters over three objectives of the help desk; a weaker run stands beside it."""
    folder = tmp_path_factory.mktemp("explored")
    shown_run(folder / "weaker", seed=3, reach=0.5)
    return add_adapters(shown_run(folder / "desk"), random_adapter)


@pytest.fixture(scope="module")
def desk(browser: Browser, desk_run: Run) -> Iterator[Running]:
    """`moalign serve` of that run."""
    with serving(desk_run.folder, desk_run.folder.parent / "desk.log") as running:
        yield running


@pytest.fixture(scope="module")
def visitor(browser: Browser, desk: Running) -> Iterator[Visit]:
    """Somebody who looks at it through all tests of a file: loading a page is half of a test's time."""
    with visit(browser, desk.address, permissions=["clipboard-read", "clipboard-write"]) as visitor:
        yield visitor
