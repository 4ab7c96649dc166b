"""The explorer of a run in this process: its callbacks by what they write, asked as a page asks them."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI
from starlette.testclient import TestClient

from moalign.config import parse_config
from moalign.dashboards.explorer.app import PREFIX, explorer_app
from moalign.dashboards.explorer.live import Live
from moalign.frontiers import ParetoPoint
from moalign.preference import Preference
from moalign.runs import Run

_USUAL = {"n_clicks": 1, "n_intervals": 1, "state": "a state"}  # what a page has of its own


class Explored:
    """A page without a browser."""

    def __init__(self, folder: Path, live: Live | None = None):
        app = FastAPI()
        app.mount(PREFIX, explorer_app(folder, live))
        self.client = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)
        self.dependencies = self.client.get(f"{PREFIX}/_dash-dependencies").json()

    def layout(self) -> str:
        """The page as JSON."""
        return json.dumps(self.client.get(f"{PREFIX}/_dash-layout").json())

    def write(self, output: str, values: dict[str, Any], changed: str) -> dict[str, Any]:
        """What the callback that writes `output` answers: {id: {property: value}}.

        `values` are those of its inputs and states by "id.property", None for those that are not given; `changed` is
        the one that has changed.
        """
        found = next(
            each
            for each in self.dependencies
            if output in re.sub(r"@[0-9a-f]+", "", each["output"]).strip(".").split("...")
            and not each["clientside_function"]
            and changed in [f"{item['id']}.{item['property']}" for item in each["inputs"]]
        )

        def given(items: list[dict[str, str]]) -> list[dict[str, Any]]:
            named = [(item["id"], item["property"]) for item in items]
            return [
                {
                    "id": _id(name),
                    "property": kind,
                    "value": values.get(f"{name}.{kind}", _USUAL.get(kind, _USUAL.get(name))),
                }
                for name, kind in named
            ]

        outputs = [_output(part) for part in found["output"].strip(".").split("...")]
        body = {
            "output": found["output"],
            "outputs": outputs if found["output"].startswith("..") else outputs[0],
            "inputs": given(found["inputs"]),
            "state": given(found["state"]),
            "changedPropIds": [changed],
        }
        answer = self.client.post(f"{PREFIX}/_dash-update-component", json=body)
        assert answer.status_code in (200, 204), answer.text
        if answer.status_code == 204:
            return {}
        replied = answer.json()
        return {**replied.get("response", {}), "side": replied.get("sideUpdate", {})}


def many_run(folder: Path, n: int, m: int, names: list[str] | None = None) -> Run:
    """A run of n points, by hand, over m objectives, whose values lie around a sphere."""
    known = names or [f"objective{i}" for i in range(m)]
    run = Run.create(
        folder,
        parse_config(
            {
                "base": "org/base",
                "objectives": {name: {"type": "length"} for name in known},
                "preferences": {"lattice": 1},
            }
        ),
    )
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.full(m, 0.5), n)
    values = np.sqrt(weights) + rng.normal(0, 0.05, (n, m))

    def point(key: str, asked: np.ndarray, found: np.ndarray) -> ParetoPoint:
        by_name = dict(zip(known, found.tolist(), strict=True))
        return ParetoPoint(
            key,
            "modpo",
            Preference.of(dict(zip(known, asked.tolist(), strict=True))),
            by_name,
            dict.fromkeys(known, 0.05),
            {name: (value - 0.1, value + 0.1) for name, value in by_name.items()},
            kl_to_reference=1.0,
            length=3.0,
        )

    run.fix_reference(point("base", np.full(m, 1 / m), np.zeros(m)), dict.fromkeys(known, -1.0))
    for i in range(n):
        run.add_point(point(f"a{i:04d}", weights[i], values[i]))
    return run


def _id(written: str) -> Any:
    return json.loads(written) if written.startswith("{") else written


def _output(written: str) -> dict[str, Any]:
    name, _, attribute = re.sub(r"@[0-9a-f]+$", "", written).rpartition(".")
    return {"id": _id(name), "property": attribute}
