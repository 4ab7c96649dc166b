"""Every module can be the first one that is imported, and the front door opens fast."""

import subprocess
import sys
from pathlib import Path

import pytest

import moalign

ROOT = Path(__file__).parents[1]

# Each module is tried in a fork that has every library, and none of ours: a fresh interpreter would take seconds.
TRY_EACH = """
import importlib, os, sys, traceback
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ImportError:
        pass  # told below, by the module itself
for name in [name for name in sys.modules if name.partition(".")[0] == "moalign"]:
    del sys.modules[name]
failed = []
for name in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        try:
            importlib.import_module(name)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(name)
sys.exit(", ".join(failed) or 0)
"""


def names() -> list[str]:
    found = []
    for folder in ("moalign", "objectives", "frontiers", "dashboards"):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts if folder == "moalign" else ("moalign", *parts))
            found.append(name.removesuffix(".__init__"))
    return sorted(found)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks a process that has loaded torch")
def test_no_module_needs_another_to_be_imported_first() -> None:
    """An import cycle shows only in the module that happens to come first."""
    result = subprocess.run([sys.executable, "-c", TRY_EACH, *names()], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr


def test_the_front_door_offers_every_name_it_lists() -> None:
    assert all(getattr(moalign, name) is not None for name in moalign.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Preferrence'"):
        _ = moalign.Preferrence


def test_asking_for_the_version_does_not_load_torch() -> None:
    """Seconds matter where a command is mistyped."""
    code = "import sys, moalign.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
