"""One equation per file: pure functions of tensors, one value per pair, completion or token, no reduction.

- `dpo`: Bradley-Terry choices, direct preference optimisation
- `modpo`: DPO with the other objectives as a margin
- `regression`: squared errors of several heads, whose labels may be missing
- `sft`: the log-likelihood of texts to imitate
- `advantages`: from the rewards of groups of completions to advantages, under several objectives
- `policy`: the clipped policy gradient, and divergences from a reference
"""

from moalign.losses.advantages import Aggregation, Baseline, Estimator, advantage_parts, combine, whitening
from moalign.losses.dpo import dpo_loss, preference_loss
from moalign.losses.modpo import modpo_loss
from moalign.losses.policy import LENGTH, clipped_objective, kl_advantages, kl_per_token, per_sequence
from moalign.losses.regression import masked_squared_errors
from moalign.losses.sft import sft_loss

__all__ = [
    "LENGTH",
    "Aggregation",
    "Baseline",
    "Estimator",
    "advantage_parts",
    "clipped_objective",
    "combine",
    "dpo_loss",
    "kl_advantages",
    "kl_per_token",
    "masked_squared_errors",
    "modpo_loss",
    "per_sequence",
    "preference_loss",
    "sft_loss",
    "whitening",
]
