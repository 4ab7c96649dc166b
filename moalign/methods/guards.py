"""What ends a preference's training before its last step, and what is told of it."""

import math

from moalign.methods.online_settings import OnlineSettings


def reason_to_stop(settings: OnlineSettings, kl: float, entropy: float, length: float) -> str | None:
    """Why a policy with these rollouts may not go on; None if it may.

    KL in nats per completion, entropy in nats per token, length in tokens per completion, all of its own completions.

    >>> reason_to_stop(OnlineSettings(kl_budget=2.0), kl=2.5, entropy=0.7, length=30.0)
    'its KL of 2.5 nats passes the budget of 2'
    """
    if not (math.isfinite(kl) and math.isfinite(entropy)):
        return "its log-probabilities are no longer finite; a lower learning_rate helps"
    if settings.kl_budget is not None and kl > settings.kl_budget:
        return f"its KL of {kl:.3g} nats passes the budget of {settings.kl_budget:g}"
    if settings.length_budget is not None and length > settings.length_budget:
        return f"its completions of {length:.4g} tokens pass the budget of {settings.length_budget:g}"
    return None


def collapse(settings: OnlineSettings, entropy: float, first: float) -> str | None:
    """The warning that a policy says ever the same; None while its entropy is above the floor.

    >>> collapse(OnlineSettings(), entropy=0.05, first=1.0)
    'entropy has collapsed to 0.05 nats per token, from 1; a higher beta or a lower learning_rate helps'
    """
    if not entropy < settings.entropy_floor * first:
        return None
    return (
        f"entropy has collapsed to {entropy:.3g} nats per token, from {first:.3g}; a higher beta or a lower "
        "learning_rate helps"
    )
