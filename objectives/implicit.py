"""The reward that a trained policy implies: beta times its log-ratio to the reference."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from moalign.batches import Completions
from moalign.errors import ConfigError
from moalign.objectives import base

LogRatio = Callable[[Completions], Float[np.ndarray, " n"]]


class Implicit:
    """The implicit reward of a policy, up to a constant per prompt.

    score(x, y) = beta * (log pi(y|x) - log pi_ref(y|x)), in nats; sums over the response's tokens, EOS included

    Source: DPO (Rafailov et al. 2023, arXiv:2305.18290), section 4; MODPO (arXiv:2310.03708) takes it as the margin
    reward. The constant beta log Z(x) is left out, so scores compare responses to one prompt, not prompts. `log_ratio`
    is handed in, because only the floors above know the bank; `fingerprint` is a digest of all that determines it: the
    adapter and its base (beta is added to it). The empty response is the one token EOS, and scores as such. Raises
    ConfigError if beta is not positive.

    >>> Implicit("helpful", 0.1, lambda completions: np.array([2.0]), "d1").score(Completions(["Hi"], ["Hello"]))
    array([0.2])
    """

    def __init__(self, name: str, beta: float, log_ratio: LogRatio, fingerprint: str) -> None:
        if not 0 < beta < float("inf"):
            raise ConfigError(f"objective {name!r}: beta is {beta:g}; expected a number above 0")
        self.name = name
        self.beta = beta
        self.fingerprint = base.fingerprint("implicit", beta=float(beta), log_ratio=fingerprint)
        self._log_ratio = log_ratio

    def score(self, completions: Completions) -> Float[np.ndarray, " n"]:
        """beta * log-ratio for each completion."""
        return self.beta * np.asarray(self._log_ratio(completions), dtype=np.float64)
