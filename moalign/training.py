"""Training the adapters of a bank in lockstep, each as if it were alone.

AdamW works element by element, so that one optimiser serves all adapters; only clipping looks at a whole gradient,
and here it looks at each adapter's own.
"""

import gc
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor

from moalign.bank import AdapterBank
from moalign.errors import MemoryLimitError
from moalign.files import atomic_write_bytes
from moalign.workplace import Workplace

Entry = tuple[int, int]  # (job, pair)
Loss = Callable[[Sequence[Entry]], Float[Tensor, " n"]]


@dataclass(frozen=True)
class Optimisation:
    """AdamW with a linear warm-up and a cosine to zero."""

    steps: int
    learning_rate: float
    weight_decay: float
    warmup: float
    max_gradient_norm: float

    def rate(self, step: int) -> float:
        """The learning rate of step 0, 1, ..., steps - 1."""
        warm = math.ceil(self.warmup * self.steps)
        if step < warm:
            return self.learning_rate * (step + 1) / (warm + 1)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm)))


def batch_order(lengths: Sequence[int], size: int, seed: int, step: int) -> list[int]:
    """The pairs of one step: a function of the seed and the step alone, so that any step can be done again.

    Each epoch shuffles, sorts by length within stretches of 16 batches (neighbours then pad little), and shuffles the
    batches; the last incomplete batch is left out, unless it is the only one.
    """
    count = max(1, len(lengths) // size)
    epoch, number = divmod(step, count)
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))[: count * size]
    stretches = [order[start : start + 16 * size] for start in range(0, len(order), 16 * size)]
    sizes = np.asarray(lengths)
    ordered = np.concatenate([stretch[np.argsort(sizes[stretch], kind="stable")] for stretch in stretches])
    batch = rng.permutation(count)[number]
    return ordered[batch * size : (batch + 1) * size].tolist()


class GroupTrainer:
    """Steps, checkpoints and memory of one group of adapters."""

    def __init__(self, bank: AdapterBank, optimisation: Optimisation, workplace: Workplace):
        self.bank, self.optimisation, self.workplace = bank, optimisation, workplace
        self.parameters = bank.parameters()
        self.adam = torch.optim.AdamW(self.parameters, weight_decay=optimisation.weight_decay)
        self.passes = workplace.passes

    def run(self, entries: Callable[[int], list[Entry]], loss: Loss) -> None:
        """Take all the steps that are left after the last checkpoint."""
        start = self._restore()
        saved = time.monotonic()
        for step in range(start, self.optimisation.steps):
            value = self._gradients(entries(step), loss)
            norms = self._clip()
            for group in self.adam.param_groups:
                group["lr"] = self.optimisation.rate(step)
            self.adam.step()
            self.workplace.on_step(
                step + 1, self.optimisation.steps, {"loss": value, "gradient_norm": norms.mean().item()}
            )
            # The last step too: the group's adapters are stored one by one, and a kill may fall between two of them.
            last = step + 1 == self.optimisation.steps
            if last or time.monotonic() - saved >= self.workplace.checkpoint_seconds:
                self._save(step + 1)
                saved = time.monotonic()

    def _gradients(self, entries: list[Entry], loss: Loss) -> float:
        """Sum the gradients of one step; a pass that does not fit in memory is halved and done again."""
        while True:
            try:
                return self._passes(entries, loss)
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error):
                    raise
            # Outside the handler, so that nothing of the failed pass is held by its traceback.
            self._halve(len(entries))

    def _halve(self, entries: int) -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self.passes >= entries:
            raise MemoryLimitError(
                "out of memory with a single pair; a smaller max_length or rank, or a machine with more memory helps"
            )
        before, self.passes = math.ceil(entries / self.passes), self.passes * 2
        after = math.ceil(entries / self.passes)
        self.workplace.notice(f"out of memory with {before} pairs in one pass; going on with {after}")

    def _passes(self, entries: list[Entry], loss: Loss) -> float:
        self.adam.zero_grad(set_to_none=True)
        pairs = Counter(job for job, _ in entries)
        size = math.ceil(len(entries) / self.passes)
        total = 0.0
        for start in range(0, len(entries), size):
            part = entries[start : start + size]
            losses = loss(part)
            # The mean over each job's own pairs, of which a small data set may have fewer than a batch.
            share = torch.tensor([1 / pairs[job] for job, _ in part], device=losses.device)
            (losses * share).sum().backward()
            total += losses.sum().item()
        return total / len(entries)

    def _clip(self) -> Float[Tensor, " k"]:
        """Scale each adapter's gradient to at most the largest norm; the norms before that."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        device = gradients[0].device
        norms = sum(gradient.square().sum((1, 2)).to(device) for gradient in gradients)
        assert isinstance(norms, Tensor)
        norms = norms.sqrt()
        factor = (self.optimisation.max_gradient_norm / norms.clamp_min(1e-12)).clamp_max(1.0)
        for gradient in gradients:
            gradient.mul_(factor[:, None, None].to(gradient.device))
        return norms

    def _save(self, step: int) -> None:
        if self.workplace.checkpoint is None:
            return
        tensors = {"step": torch.tensor(step)}
        for number, parameter in enumerate(self.parameters):
            state = self.adam.state[parameter]
            tensors[f"{number}.value"] = parameter.detach()
            tensors[f"{number}.mean"] = state["exp_avg"]
            tensors[f"{number}.square"] = state["exp_avg_sq"]
        data = safetensors.torch.save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})
        atomic_write_bytes(self.workplace.checkpoint, data)

    def _restore(self) -> int:
        """Take up the state that was saved last; the number of steps it has behind it."""
        path = self.workplace.checkpoint
        if path is None or not path.is_file():
            return 0
        tensors = safetensors.torch.load(path.read_bytes())
        for number, parameter in enumerate(self.parameters):
            parameter.data.copy_(tensors[f"{number}.value"])
            self.adam.state[parameter] = {
                "step": torch.tensor(float(tensors["step"])),
                "exp_avg": tensors[f"{number}.mean"].to(parameter.device),
                "exp_avg_sq": tensors[f"{number}.square"].to(parameter.device),
            }
        return int(tensors["step"])


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(text in str(error).lower() for text in ("out of memory", "can't allocate memory", "not enough memory"))
