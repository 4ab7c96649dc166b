"""A base (or adapters on it) and heads trained together by masked regression, from the heads that are best without.

[LP-FT]  Kumar, Raghunathan, Jones, Ma and Liang, "Fine-tuning can distort pretrained features and underperform
         out-of-distribution", arXiv 2202.10054: solve for the heads first, then train everything.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor, nn

from moalign.errors import MemoryLimitError, UserError
from moalign.files import atomic_write_bytes
from moalign.losses.regression import masked_squared_errors
from moalign.memory import in_parts, out_of_memory, release
from moalign.rewards.encoder import Encoder, features_of
from moalign.rewards.heads import Heads
from moalign.rewards.settings import FineTuning
from moalign.training import Optimisation, batch_order


@dataclass(frozen=True)
class Rows:
    """n inputs with their labels in training units (mean 0 and deviation 1 per head); NaN where there is none."""

    inputs: Sequence[list[int]]
    labels: Float[np.ndarray, "n m"]


@dataclass(frozen=True)
class Surroundings:
    """Where a fit keeps its state, and whom it tells."""

    folder: Path  # of checkpoints
    checkpoint_seconds: float
    batch_size: int  # of texts that are only read
    notice: Callable[[str], None]
    on_step: Callable[[int, int, dict[str, float]], None]
    on_epoch: Callable[[int, float], None]  # epoch 0 is the start


class Fit:
    """One model in training. `run` ends with the weights of the epoch that is best on the validation rows.

    What of the encoder asks for gradients is trained, and the heads. The loss is the mean over the labels that there
    are: a batch's sum over the number that a batch has on average, so that its expectation is the gradient of that mean
    however the labels fall. Order and result are functions of the seed; a fit that is stopped goes on from its
    checkpoint and ends in the same weights.
    """

    def __init__(self, encoder: Encoder, heads: Heads, settings: FineTuning, seed: int, around: Surroundings):
        self.encoder, self.settings, self.seed, self.around = encoder, settings, seed, around
        device = encoder.model.device
        weight, bias = (torch.tensor(part, dtype=torch.float32, device=device) for part in (heads.weight, heads.bias))
        self.weight, self.bias, self.penalty = nn.Parameter(weight), nn.Parameter(bias), heads.penalty
        trained = (parameter for parameter in encoder.model.parameters() if parameter.requires_grad)
        self.parameters = [*trained, self.weight, self.bias]
        self.adam = torch.optim.AdamW(self.parameters, weight_decay=settings.weight_decay)
        self.passes = 1
        self.best = (math.inf, 0)  # loss on the validation rows, and the step after which it was found
        self._saved = time.monotonic()

    @property
    def heads(self) -> Heads:
        """The heads as they are now."""
        weight, bias = (part.detach().double().cpu().numpy() for part in (self.weight, self.bias))
        return Heads(weight, bias, self.penalty)

    def run(self, training: Rows, validation: Rows) -> int:
        """Take all steps that are left, then go back to the best; the number of steps behind it."""
        count = len(training.inputs)
        steps, epoch = self.settings.steps_for(count), self.settings.epoch_of(count)
        plan = Optimisation(
            steps,
            self.settings.learning_rate,
            self.settings.weight_decay,
            self.settings.warmup,
            self.settings.max_gradient_norm,
        )
        lengths = [len(ids) for ids in training.inputs]
        start = self._restore()
        if start == 0:
            self._validate(validation, 0, 0)
        for step in range(start, steps):
            batch = batch_order(lengths, self.settings.batch_size, self.seed, step)
            loss = self._gradients(training, batch)
            norm = float(nn.utils.clip_grad_norm_(self.parameters, plan.max_gradient_norm))
            for group in self.adam.param_groups:
                group["lr"] = plan.rate(step)
            self.adam.step()
            self.around.on_step(step + 1, steps, {"loss": loss, "gradient_norm": norm})
            ended = (step + 1) % epoch == 0 or step + 1 == steps
            if ended:
                self._validate(validation, math.ceil((step + 1) / epoch), step + 1)
            if ended or time.monotonic() - self._saved >= self.around.checkpoint_seconds:
                self._save(step + 1)
        self._load(safetensors.torch.load_file(self._best_path(self.best[1])))
        return self.best[1]

    def _gradients(self, rows: Rows, batch: Sequence[int]) -> float:
        """The gradient of one batch into the parameters; a pass that does not fit in memory is halved and redone."""
        while True:
            try:
                return self._passes(rows, batch)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            # Outside the handler, so that nothing of the failed pass is held by its traceback.
            release()
            if self.passes >= len(batch):
                raise MemoryLimitError(
                    "out of memory with a single text; a smaller max_length, or 'train: heads' helps"
                )
            before, self.passes = math.ceil(len(batch) / self.passes), self.passes * 2
            self.around.notice(
                f"out of memory with {before} texts in one pass; going on with {math.ceil(len(batch) / self.passes)}"
            )

    def _passes(self, rows: Rows, batch: Sequence[int]) -> float:
        self.adam.zero_grad(set_to_none=True)
        share = len(batch) * float((~np.isnan(rows.labels)).sum()) / len(rows.inputs)
        size, total = math.ceil(len(batch) / self.passes), 0.0
        for start in range(0, len(batch), size):
            part = list(batch[start : start + size])
            features = self.encoder([rows.inputs[i] for i in part])
            labels = torch.tensor(rows.labels[part], dtype=torch.float32, device=features.device)
            errors = masked_squared_errors(features.float() @ self.weight.T + self.bias, labels).sum() / share
            errors.backward()
            total += errors.item()
        if not math.isfinite(total):
            raise UserError("the loss is no longer finite; a lower learning_rate helps")
        return total

    def _validate(self, rows: Rows, epoch: int, step: int) -> None:
        """Measure the loss on the validation rows, and keep the weights if it is the lowest so far."""
        order = sorted(range(len(rows.inputs)), key=lambda i: len(rows.inputs[i]))
        found = in_parts(
            [rows.inputs[i] for i in order],
            lambda part: features_of(self.encoder, part),
            self.around.batch_size,
            self.around.notice,
        )
        known = ~np.isnan(rows.labels[order])
        errors = (self.heads(np.array(found)) - rows.labels[order])[known] ** 2
        if not np.isfinite(errors).all():
            raise UserError("the loss on the validation rows is no longer finite; a lower learning_rate helps")
        loss = float(errors.mean())
        self.around.on_epoch(epoch, loss)
        if loss < self.best[0]:
            self.best = (loss, step)
            self._write(self._best_path(step), self._values())

    def _values(self) -> dict[str, Tensor]:
        return {f"{number}.value": parameter.detach() for number, parameter in enumerate(self.parameters)}

    def _save(self, step: int) -> None:
        """Write the checkpoint of so many steps; what was best before goes only when it is no longer named."""
        tensors = self._values() | {"step": torch.tensor([step, self.best[1]])}
        tensors["best"] = torch.tensor(self.best[0], dtype=torch.float64)
        for number, parameter in enumerate(self.parameters):
            tensors |= {f"{number}.{name}": tensor for name, tensor in self.adam.state.get(parameter, {}).items()}
        self._write(self._checkpoint, tensors)
        for path in self.around.folder.glob("best-*.safetensors"):
            if path != self._best_path(self.best[1]):
                path.unlink()
        self._saved = time.monotonic()

    def _restore(self) -> int:
        """Take up what was saved last; the number of steps behind it."""
        if not self._checkpoint.is_file():
            return 0
        tensors = safetensors.torch.load_file(self._checkpoint)
        self._load(tensors)
        for number, parameter in enumerate(self.parameters):
            if f"{number}.step" in tensors:
                moments = {name: tensors[f"{number}.{name}"].to(parameter.device) for name in ("exp_avg", "exp_avg_sq")}
                self.adam.state[parameter] = {"step": tensors[f"{number}.step"], **moments}
        step, best = tensors["step"].tolist()
        self.best = (tensors["best"].item(), best)
        return step

    def _load(self, tensors: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for number, parameter in enumerate(self.parameters):
                parameter.copy_(tensors[f"{number}.value"])

    @property
    def _checkpoint(self) -> Path:
        return self.around.folder / "fit.safetensors"

    def _best_path(self, step: int) -> Path:
        return self.around.folder / f"best-{step}.safetensors"

    def _write(self, path: Path, tensors: dict[str, Tensor]) -> None:
        data = safetensors.torch.save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})
        atomic_write_bytes(path, data)
