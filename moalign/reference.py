"""The policy that KL is measured from, and the adapter that training begins at: the base, or a soup (SALSA)."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from moalign.adapters import WEIGHTS_FILE, Adapter, read_adapter
from moalign.bank import AdapterBank
from moalign.errors import AdapterError, ConfigError
from moalign.files import digest, file_digest
from moalign.models import BaseModel
from moalign.runs import Run
from moalign.store import AdapterStore


@dataclass(frozen=True)
class ReferencePolicy:
    """pi_ref as a context: ``with reference():`` the model is the reference policy.

    SALSA (Chegini et al. 2024, arXiv 2411.01798): pi_ref is the average of fine-tuned models, here the exact soup of
    their deltas as a row of a bank on the same base, so that no second model is loaded. `digest` names it by content
    and is empty for the base.
    """

    bank: AdapterBank | None = None
    weights: tuple[float, ...] = ()
    digest: str = ""

    def __call__(self) -> AbstractContextManager[None]:
        """The context; outside it nothing has changed."""
        return nullcontext() if self.bank is None else self.bank.rows([self.weights])


def open_reference(run: Run, base: BaseModel) -> ReferencePolicy:
    """The reference policy of a run. Raises AdapterError for a folder that holds no adapter of this base."""
    asked = run.config.method_settings.reference
    if asked == "base":
        return ReferencePolicy()
    weights = {path: weight for path, weight in asked.items() if weight}  # what counts 0 changes nothing, to the bit
    if not weights:
        return ReferencePolicy()
    adapters = {path: _own_copy(run, base, "reference", path) for path in weights}
    names = [f"{_digest(run, path)}:{weight!r}" for path, weight in weights.items()]
    return ReferencePolicy(AdapterBank(base.model, adapters), tuple(weights.values()), digest(*names))


def start_of(run: Run, base: BaseModel) -> tuple[Adapter, str] | None:
    """Where training begins, with its digest: `start`, or the first of a soup; None for a fresh adapter."""
    settings = run.config.method_settings
    setting, path = "start", settings.start
    if path is None and isinstance(settings.reference, Mapping):
        setting, path = "reference", next(iter(settings.reference), None)
    return None if path is None else (_own_copy(run, base, setting, path), _digest(run, path))


def _own_copy(run: Run, base: BaseModel, setting: str, path: str) -> Adapter:
    """The adapter of a folder, from the run's own copy of it: a run stays whole when the folder moves."""
    store, key = AdapterStore(run.folder / "reference"), _key(path)
    if key not in store and not Path(path).is_dir():
        raise ConfigError(
            f"settings.{setting}: there is no adapter folder {path!r}; expected one that `moalign sft` or PEFT wrote"
        )
    try:
        if key not in store:
            adapter = read_adapter(Path(path))
            AdapterBank(base.model, {path: adapter}).close()  # a copy that does not fit would outlive its mending
            store.save(key, adapter, {"source": path}, base.name)
        return store.load(key)
    except AdapterError as error:
        raise AdapterError(f"settings.{setting}: {path}: {error}") from error


def _key(path: str) -> str:
    return f"{Path(path).name[:40]}-{digest(path)[:8]}"


def _digest(run: Run, path: str) -> str:
    return file_digest(run.folder / "reference" / _key(path) / WEIGHTS_FILE)
