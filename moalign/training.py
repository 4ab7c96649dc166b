"""Training the adapters of a bank in lockstep, each as if it were alone.

AdamW works element by element, so that one optimiser serves all adapters; only clipping looks at a whole gradient,
and here it looks at each adapter's own.
"""

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor

from moalign.bank import AdapterBank
from moalign.errors import MemoryLimitError
from moalign.files import atomic_write_bytes
from moalign.memory import out_of_memory, release
from moalign.workplace import Workplace

Entry = tuple[int, int]  # (job, what it is trained on: a pair, a prompt's completions)
Loss = Callable[[Sequence[Entry]], Float[Tensor, " n"] | Float[Tensor, "n c"]]


@dataclass(frozen=True)
class Optimisation:
    """AdamW with a linear warm-up and a cosine to zero."""

    steps: int
    learning_rate: float
    weight_decay: float
    warmup: float
    max_gradient_norm: float

    @classmethod
    def of(cls, steps: int, settings: Any) -> "Optimisation":
        """As a method's settings have it, for so many steps."""
        return cls(
            steps=steps,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            warmup=settings.warmup,
            max_gradient_norm=settings.max_gradient_norm,
        )

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


@runtime_checkable  # the tests check annotations at run time
class Steers(Protocol):
    """What decides something about a step before it is taken; `state` and `load` carry it over a restart."""

    def before(self, step: int) -> None:
        """Called before every step."""
        ...

    def state(self) -> dict[str, Any]:
        """JSON-able."""
        ...

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        ...


class GroupTrainer:
    """Steps, checkpoints and memory of one group of adapters.

    `run` takes steps whose losses are known from their number alone. A method whose steps depend on what the adapters
    say puts its own together from `restore`, `gradients`, `clip`, `update` and `save`. With `shared` adapters the jobs
    of a step are policies that all train them, and what is stepped along is the mean over jobs.
    """

    def __init__(self, bank: AdapterBank, optimisation: Optimisation, workplace: Workplace, shared: bool = False):
        self.bank, self.optimisation, self.workplace = bank, optimisation, workplace
        self.parameters = bank.parameters()
        self.adam = torch.optim.AdamW(self.parameters, weight_decay=optimisation.weight_decay)
        self.passes, self.shared = workplace.passes, shared
        self._saved = time.monotonic()

    def run(self, entries: Callable[[int], list[Entry]], loss: Loss, steering: Steers | None = None) -> None:
        """Take all the steps that are left after the last checkpoint."""
        start, state, _ = self.restore()
        if steering is not None and state:
            steering.load(state)
        for step in range(start, self.optimisation.steps):
            if steering is not None:
                steering.before(step)
            value, _ = self.gradients(entries(step), loss)
            norms = self.clip()
            self.update(step)
            self.workplace.on_step(
                step + 1, self.optimisation.steps, {"loss": value, "gradient_norm": norms.mean().item()}
            )
            self.workplace.on_bank(step + 1, self.bank)
            self.save(step + 1, None if steering is None else steering.state())

    def gradients(self, entries: list[Entry], loss: Loss) -> tuple[float, list[list[Tensor]]]:
        """Take the gradients of one step: each job's mean over its own entries, into the parameters.

        A loss of c columns, Float[n, c], has c gradients, all from one forward pass: they are returned, column by
        column, and the parameters are left without. A pass that does not fit in memory is halved and done again.
        Returns the mean loss (of the first column) and the columns' gradients.
        """
        while True:
            try:
                return self._passes(entries, loss)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            # Outside the handler, so that nothing of the failed pass is held by its traceback.
            self._halve(len(entries))

    def _halve(self, entries: int) -> None:
        release()
        if self.passes >= entries:
            raise MemoryLimitError(
                "out of memory with a single pair; a smaller max_length or rank, or a machine with more memory helps"
            )
        before, self.passes = math.ceil(entries / self.passes), self.passes * 2
        after = math.ceil(entries / self.passes)
        self.workplace.notice(f"out of memory with {before} pairs in one pass; going on with {after}")

    def _passes(self, entries: list[Entry], loss: Loss) -> tuple[float, list[list[Tensor]]]:
        self.adam.zero_grad(set_to_none=True)
        counts = Counter(job for job, _ in entries)
        size = math.ceil(len(entries) / self.passes)
        total, columns = 0.0, []
        for start in range(0, len(entries), size):
            part = entries[start : start + size]
            losses = loss(part)
            # The mean over each job's own entries, of which a small data set may have fewer than a batch.
            jobs = len(counts) if self.shared else 1
            share = torch.tensor([1 / (jobs * counts[job]) for job, _ in part], device=losses.device)
            if losses.ndim == 1:
                (losses * share).sum().backward()
                total += losses.sum().item()
            else:
                found = self._columns((losses * share[:, None]).sum(0))
                columns = [_sum(*each) for each in zip(columns, found, strict=True)] if columns else found
                total += losses[:, 0].sum().item()
        return total / len(entries), columns

    def _columns(self, totals: Float[Tensor, " c"]) -> list[list[Tensor]]:
        last = len(totals) - 1
        return [
            list(torch.autograd.grad(total, self.parameters, retain_graph=number < last))
            for number, total in enumerate(totals)
        ]

    def update(self, step: int) -> None:
        """One step of AdamW, at the learning rate of `step`."""
        for group in self.adam.param_groups:
            group["lr"] = self.optimisation.rate(step)
        self.adam.step()

    def clip(self) -> Float[Tensor, " k"]:
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

    def save(self, step: int, state: Mapping[str, Any] | None = None, kept: Sequence[Tensor] = ()) -> None:
        """Write the checkpoint of so many steps, if the last one is old enough.

        `state` (JSON) and `kept` (as many tensors as there are parameters, or none) are the method's own.
        """
        # After the last step too: the group's adapters are stored one by one, and a kill may fall between two of them.
        due = step == self.optimisation.steps or time.monotonic() - self._saved >= self.workplace.checkpoint_seconds
        if self.workplace.checkpoint is None or not due:
            return
        written = json.dumps(state or {}).encode()
        tensors = {"step": torch.tensor(step), "state": torch.frombuffer(bytearray(written), dtype=torch.uint8)}
        for number, parameter in enumerate(self.parameters):
            tensors[f"{number}.value"] = parameter.detach()
            moments = self.adam.state.get(parameter, {})  # none before the first update
            tensors |= {f"{number}.{name}": tensor for name, tensor in moments.items()}
            tensors |= {f"{number}.kept": tensor for tensor in kept[number : number + 1]}
        data = safetensors.torch.save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})
        atomic_write_bytes(self.workplace.checkpoint, data)
        self._saved = time.monotonic()

    def restore(self) -> tuple[int, dict[str, Any], list[Tensor]]:
        """Take up what was saved last: the number of steps behind it, the method's own `state` and `kept`."""
        path = self.workplace.checkpoint
        if path is None or not path.is_file():
            return 0, {}, []
        tensors = safetensors.torch.load(path.read_bytes())
        for number, parameter in enumerate(self.parameters):
            parameter.data.copy_(tensors[f"{number}.value"])
            if f"{number}.step" in tensors:
                self.adam.state[parameter] = {
                    "step": tensors[f"{number}.step"],
                    "exp_avg": tensors[f"{number}.exp_avg"].to(parameter.device),
                    "exp_avg_sq": tensors[f"{number}.exp_avg_sq"].to(parameter.device),
                }
        kept = [tensors[f"{number}.kept"] for number in range(len(self.parameters)) if f"{number}.kept" in tensors]
        return int(tensors["step"]), json.loads(tensors["state"].numpy().tobytes()), kept


def _sum(one: Sequence[Tensor], other: Sequence[Tensor]) -> list[Tensor]:
    return [a + b for a, b in zip(one, other, strict=True)]
