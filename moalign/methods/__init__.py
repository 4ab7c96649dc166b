"""One paper per file; `METHODS` names them.

- `modpo`: multi-objective direct preference optimisation, offline, from preference pairs
- `online`: policy gradients on rollouts (GRPO, RLOO, REINFORCE, Dr. GRPO), from prompts and objectives that score
- `soup`: an adapter per objective by one of these, and every preference a mixture of them
- `conditioned`: adapters per objective that are trained through their mixtures
- `dpa`: one adapter that follows the direction its prompt states, by rejection sampling
- `sft`: supervised fine-tuning, one adapter per seed; not in `METHODS`, because it knows no preference
"""

from moalign.methods import conditioned, dpa, modpo, online, soup
from moalign.methods.base import Method
from moalign.workplace import Job, PairData, Workplace

METHODS = {
    "modpo": Method(modpo.ModpoSettings, modpo.train),
    "online": Method(online.OnlineSettings, online.train),
    "soup": Method(soup.SoupSettings, soup.train, adapters="corners"),
    "conditioned": Method(conditioned.ConditionedSettings, conditioned.train, adapters="corners", together=True),
    "dpa": Method(dpa.DpaSettings, dpa.train, adapters="rounds"),
}

__all__ = ["METHODS", "Job", "Method", "PairData", "Workplace"]
