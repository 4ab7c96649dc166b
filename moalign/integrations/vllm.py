"""Any trade-off of a run in stock vLLM: `model: "moalign@helpful=0.7,brief=0.3"`, by a LoRAResolver plugin.

It has NOT been run inside vLLM: vLLM does not run on the machines that moalign is made on. It is written, and tested,
against vLLM's published interface: LoRAResolver.resolve_lora(base_model_name, lora_name) and
LoRAResolverRegistry.register_resolver(name, resolver) of vllm/lora/resolver.py (f011f1c), LoRARequest(lora_name,
lora_int_id, lora_path) of vllm/lora/request.py (8539e44), and how vllm/entrypoints/openai/models/serving.py (4fe4500)
uses them. vLLM finds `register` by the entry point `moalign` of the group vllm.general_plugins. To use it:

    VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 VLLM_PLUGINS=moalign MOALIGN_RUN=runs/mine \
        vllm serve BASE --enable-lora --max-lora-rank 16

MOALIGN_RUN              the run; without it the plugin does nothing
MOALIGN_MAX_LORA_RANK    what vLLM is given as --max-lora-rank; 16, as there
MOALIGN_LORA_CACHE       where merged adapters are kept; a folder of this process, removed when it ends
MOALIGN_LORA_CACHE_SIZE  how many of them, 64; further trade-offs are then refused

vLLM remembers the folder of every name that it has resolved, and reads it again after it has dropped the adapter from
memory: so no folder is removed while it may be asked for, and a full cache refuses. The run is read once, at the first
request: adapters that it gets later are seen after a restart.
"""

import asyncio
import atexit
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from moalign.errors import ConfigError, UserError
from moalign.files import digest
from moalign.preference import Preference
from moalign.recipes import recipe_of, single_row, write_blend
from moalign.runs import Run
from moalign.serving.plan import Planner

PREFIX = "moalign@"
_LOGGED = 100  # characters of what a request said, and of what is wrong with it
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """A merged adapter: its folder, and a positive number made from its contents (31 bits)."""

    folder: Path
    number: int


@dataclass(frozen=True)
class Merges:
    """The merged adapters of one run, each made when it is first asked for, one at a time."""

    run: Run
    rank: int = 16
    cache: Path | None = None
    size: int = 64
    # One worker of our own: merges do not compete for memory, nor for the threads that vLLM answers from.
    _worker: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "moalign-merge"))

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Merges":
        """As the variables MOALIGN_* say. Raises RunError if MOALIGN_RUN is no run, ConfigError for a bad number."""
        cache = environment.get("MOALIGN_LORA_CACHE")
        return cls(
            Run.open(environment["MOALIGN_RUN"]),
            _positive(environment, "MOALIGN_MAX_LORA_RANK", 16),
            None if not cache else Path(cache),
            _positive(environment, "MOALIGN_LORA_CACHE_SIZE", 64),
        )

    async def find(self, base: str, name: str) -> Found | None:
        """The adapter for a model name, merged where it is new; None if the name is not ours or cannot be served.

        Why it cannot is one line in the log, with no more of the request than its first characters, quoted. The event
        loop goes on meanwhile.
        """
        if not name.startswith(PREFIX):
            return None
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, self._made, base, name)
        except (UserError, OSError) as error:
            _log.warning("no adapter for %.100s: %.100s", repr(name[:_LOGGED]), repr(str(error)))
            return None

    def _made(self, base: str, name: str) -> Found:
        if not same_base(base, self.run.config.base):
            raise ConfigError(
                f"the run's base is {self.run.config.base!r}; serve that, or name yours in its config.yaml"
            )
        plan = self._planner.plan(Preference.parse(name.removeprefix(PREFIX)))
        row = single_row(self.run, plan)
        key = digest(json.dumps(recipe_of(self.run, row, "soup", {}, self.rank), sort_keys=True))
        folder = self._folder / key
        if not folder.is_dir() and sum(1 for _ in self._folder.glob("[!.]*")) >= self.size:
            raise ConfigError(f"the cache holds its {self.size} adapters; see MOALIGN_LORA_CACHE_SIZE")
        write_blend(self.run, plan, folder, "moalign.integrations.vllm", row=row, rank=self.rank)
        return Found(folder, int(key[:15], 16) % (2**31 - 1) + 1)

    @cached_property
    def _planner(self) -> Planner:
        return Planner.of(self.run)

    @cached_property
    def _folder(self) -> Path:
        """Made with the first adapter: vLLM registers plugins in processes, too, that are never asked for one."""
        if self.cache is not None:
            return self.cache.absolute()
        folder = tempfile.mkdtemp(prefix="moalign-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)


def same_base(served: str, trained: str) -> bool:
    """Whether two names are of one base: the same name or folder, or folders with equal configs and weight files.

    Weights are compared by name and size: reading them all would take longer than anyone waits for an answer.
    """
    if served == trained:
        return True
    folders = [Path(name) for name in (served, trained)]
    if not all((folder / "config.json").is_file() for folder in folders):
        return False
    one, other = (
        (
            (folder / "config.json").read_bytes(),
            sorted((p.name, p.stat().st_size) for p in folder.glob("*.safetensors")),
        )
        for folder in folders
    )
    return one == other


def register() -> None:
    """Tell vLLM of the resolver, in each of its processes; without MOALIGN_RUN nothing is done, or imported.

    Raises RunError or ConfigError, which end vLLM's start, for variables that cannot be followed.
    """
    if not os.environ.get("MOALIGN_RUN"):
        return
    from vllm.lora.request import LoRARequest  # pyright: ignore[reportMissingImports]
    from vllm.lora.resolver import LoRAResolver, LoRAResolverRegistry  # pyright: ignore[reportMissingImports]

    merges = Merges.of(os.environ)

    class MoalignResolver(LoRAResolver):
        """vLLM's interface to `Merges.find`."""

        async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
            """The adapter of a trade-off; None leaves the name to other resolvers."""
            found = await merges.find(base_model_name, lora_name)
            if found is None:
                return None
            return LoRARequest(lora_name=lora_name, lora_int_id=found.number, lora_path=str(found.folder))

    LoRAResolverRegistry.register_resolver("moalign", MoalignResolver())


def _positive(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ConfigError(f"{name} is {text!r}; expected a whole number of at least 1")
    return int(text)
