"""What the commands' tests share: a run with three random adapters, and JSON as others read it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_runs import THREE, made_run

from moalign.adapters import Adapter
from moalign.models import load_base
from moalign.runs import Run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, random_adapter: Callable[..., Adapter]) -> Run:
    """Points over warm and brief; read only, but for the report."""
    model = load_base(str(tiny_base)).model
    adapters = {key: random_adapter(model, seed) for seed, key in enumerate(THREE)}
    return made_run(tmp_path_factory.mktemp("runs") / "mine", tiny_base, adapters=adapters)


@pytest.fixture(scope="session")
def strict() -> Callable[[str], Any]:
    """strict(text): one JSON value, and no NaN."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return lambda text: json.loads(text, parse_constant=refuse)
