"""One paper per file; `METHODS` names them.

- `modpo`: multi-objective direct preference optimisation, offline, from preference pairs
"""

from moalign.methods import modpo
from moalign.methods.base import Method
from moalign.workplace import Job, PairData, Workplace

METHODS = {"modpo": Method(modpo.ModpoSettings, modpo.train)}

__all__ = ["METHODS", "Job", "Method", "PairData", "Workplace"]
