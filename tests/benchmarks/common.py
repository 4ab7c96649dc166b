"""What the benchmarks share: their arguments, clocks and peak memory, and how a figure is printed.

Everything that is compared runs in one process, in turns, so that a busy machine slows all sides alike. Nothing is
asserted: a benchmark prints what it found, and one JSON object on its last line.
"""

import argparse
import ctypes
import gc
import json
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers reads them
os.environ["TQDM_DISABLE"] = "1"

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel
from transformers.utils import logging

from moalign.adapters import Adapter, LowRank

SHARED = Path(__file__).resolve().parents[3] / "shared"  # real data and bases, where a developer has them
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def arguments(description: str) -> argparse.ArgumentParser:
    """The arguments that all benchmarks take; `description` is the module's docstring."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="of torch, for every side (default 2)")
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it runs; its figures are rough")
    return parser


def begin(options: argparse.Namespace) -> None:
    """Fix threads and seed, and keep libraries from talking between the figures."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore")
    load = ", ".join(f"{number:.1f}" for number in os.getloadavg())
    print(f"{Path(sys.argv[0]).name}: {options.threads} threads of {os.cpu_count()} cores, load {load}")
    print(f"torch {torch.__version__}{', quick' if options.quick else ''}")


@dataclass
class Cost:
    """What a block took, in seconds, and MiB of resident memory at its peak above what was there before it."""

    seconds: float = 0.0
    cpu: float = 0.0  # of all threads
    peak_mib: float = float("nan")


@contextmanager
def measured() -> Iterator[Cost]:
    """Measure a block. The peak is the kernel's own (VmHWM), exact and free; NaN where there is no Linux."""
    cost = Cost()
    _give_back_memory()
    before = _memory_mib("VmRSS")
    start, cpu = time.perf_counter(), time.process_time()
    yield cost
    cost.seconds, cost.cpu = time.perf_counter() - start, time.process_time() - cpu
    cost.peak_mib = _memory_mib("VmHWM") - before


@dataclass(frozen=True)
class Step:
    """What one step takes: wall seconds, processor seconds of all threads, and the peak of memory in MiB."""

    wall: float
    cpu: float
    peak_mib: float

    def __add__(self, other: "Step") -> "Step":
        return Step(self.wall + other.wall, self.cpu + other.cpu, max(self.peak_mib, other.peak_mib))

    def __mul__(self, count: float) -> "Step":
        return Step(count * self.wall, count * self.cpu, self.peak_mib)


def time_steps(run: Callable[[Callable[..., None]], object]) -> Step:
    """The mean step of a run that calls the function it is given after each step; the first is warm-up, left out."""
    ends: list[tuple[float, float]] = []
    with measured() as cost:
        run(lambda *_: ends.append((time.perf_counter(), time.process_time())))
    steps = len(ends) - 1
    return Step((ends[-1][0] - ends[0][0]) / steps, (ends[-1][1] - ends[0][1]) / steps, cost.peak_mib)


def _give_back_memory() -> None:
    """Return freed memory to the system and reset the peak, so that no side profits from what another one left."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
        _CLEAR.write_text("5")


def _memory_mib(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", _STATUS.read_text()) if _STATUS.is_file() else None
    return int(found[1]) / 1024 if found else float("nan")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table in plain text; numbers with three digits, text on the left."""
    cells = [[_cell(value) for value in row] for row in [columns, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    print(f"\n{title}")
    for first, *others in cells:
        aligned = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        print("  " + "  ".join([first.ljust(widths[0]), *aligned]), flush=True)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def print_json(found: Mapping[str, Any]) -> None:
    """The last line: everything found, for a program to read; NaN becomes null."""
    print(json.dumps(_plain(found)))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return None if value != value else float(f"{value:.6g}")
    return value


def random_llama(
    *, hidden: int, layers: int, heads: int, key_heads: int, between: int, vocabulary: int
) -> PreTrainedModel:
    """A Llama of random weights whose vocabulary begins with pad, bos and eos."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=between,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config).eval()


def shaken(adapter: Adapter, seed: int, size: float = 0.02) -> Adapter:
    """The adapter with a random B in place of its zero one: a trained adapter, as far as time is concerned."""
    generator = torch.Generator().manual_seed(seed)
    layers = {
        name: LowRank(layer.A, size * torch.randn(layer.B.shape, generator=generator), layer.scale)
        for name, layer in adapter.layers.items()
    }
    return Adapter(layers, adapter.target_modules, adapter.fan_in_fan_out)
