"""The server against its own OpenAPI document: whatever is sent, nothing that it answers is its own mistake."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from served import made_service, served

from moalign.models import load_base
from moalign.serving.limits import Limits

pytest.importorskip("schemathesis")
HOOKS = Path(__file__).parents[2] / "helpers" / "schemathesis_hooks.py"
CONFORMANCE = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "unsupported_method,allow_header_conformance"
)

OPTIONS = (
    *("--max-examples", "15", "--seed", "1", "--phases", "examples,coverage,fuzzing"),
    *("--no-color", "--no-shrink", "--generation-database", "none"),
)


@pytest.mark.parametrize(("hooks", "checks"), [(True, CONFORMANCE), (False, CONFORMANCE + ",negative_data_rejection")])
def test_the_server_keeps_its_own_document(tmp_path: Path, tiny_base: Path, hooks: bool, checks: str) -> None:
    """Random requests, valid and not: no 5xx, and every status, content type and body is one that the document has.

    With the hooks they name models that there are, and get further; without, what breaks the document is refused.
    """
    service = made_service(tmp_path / "run", load_base(str(tiny_base)), room=64, limits=Limits(max_tokens=64))
    more = {"SCHEMATHESIS_HOOKS": str(HOOKS)} if hooks else {}
    with served(service) as address:
        found = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json", "--checks", checks, *OPTIONS],
            env={**os.environ, **more},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert found.returncode == 0, found.stdout
    made = re.search(r"(\d+) generated, \1 passed", found.stdout)
    assert made is not None, found.stdout
    assert int(made[1]) > 150
    assert len(service.engine.seen) > 20 * hooks
