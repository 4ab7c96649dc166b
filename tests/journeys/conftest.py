"""What the journeys share: the base of the tiny world, and a sweep over it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_world

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
