"""One equation per file: pure functions of tensors, one value per pair, no reduction.

- `dpo`: Bradley-Terry choices, direct preference optimisation
- `modpo`: DPO with the other objectives as a margin
"""

from moalign.losses.dpo import dpo_loss, preference_loss
from moalign.losses.modpo import modpo_loss

__all__ = ["dpo_loss", "modpo_loss", "preference_loss"]
