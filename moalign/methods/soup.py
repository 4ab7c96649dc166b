"""Rewarded soups (Rame et al. 2023, arXiv 2306.04488): an adapter per objective, and every preference between them.

One corner is trained for each objective, from one start; a preference w is served by the mixture sum_k w_k dW_k of
their deltas, with no further training. In a bank that mixture is a row. The code that the paper's authors released
averages the factors A and B instead, which is another adapter (`moalign.merging.factor_average`); `merge: factors`
measures that one, to compare.
"""

from collections.abc import Sequence
from typing import Literal

from moalign.adapters import Adapter
from moalign.methods import modpo, online
from moalign.methods.inner import InnerSettings
from moalign.workplace import Job, Workplace


class SoupSettings(InnerSettings):
    """Settings of rewarded soups: those of the corners' training, and what a mixture is."""

    merge: Literal["delta", "factors"] = "delta"


def train(jobs: Sequence[Job], workplace: Workplace, settings: SoupSettings) -> dict[str, Adapter]:
    """Train the corners side by side, each as the method named by `by` would."""
    method = {"modpo": modpo.train, "online": online.train}[settings.by]
    return method(jobs, workplace, settings.inner)  # pyright: ignore[reportArgumentType]
