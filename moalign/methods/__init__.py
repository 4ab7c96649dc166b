"""One paper per file; `METHODS` names them.

- `modpo`: multi-objective direct preference optimisation, offline, from preference pairs
- `online`: policy gradients on rollouts (GRPO, RLOO, REINFORCE, Dr. GRPO), from prompts and objectives that score
- `sft`: supervised fine-tuning, one adapter per seed; not in `METHODS`, because it knows no preference
"""

from moalign.methods import modpo, online
from moalign.methods.base import Method
from moalign.workplace import Job, PairData, Workplace

METHODS = {
    "modpo": Method(modpo.ModpoSettings, modpo.train),
    "online": Method(online.OnlineSettings, online.train, learns_from="prompts"),
}

__all__ = ["METHODS", "Job", "Method", "PairData", "Workplace"]
