"""Online alignment: every preference of a sweep trained by policy gradients on rollouts of one bank.

One step: all policies answer the same prompts in one batch, the answers are scored once as vectors, each preference
turns its own into advantages (GRPO, RLOO, REINFORCE, Dr. GRPO; normalised before or after the weighted sum), and one
backward pass updates all adapters. The reference policy is the same base without them, or with a soup.
"""

from collections.abc import Sequence

from moalign.adapters import Adapter
from moalign.bank import AdapterBank
from moalign.methods.online_settings import OnlineSettings
from moalign.methods.rollout_trainer import RolloutTrainer
from moalign.workplace import Job, Workplace


def train(jobs: Sequence[Job], workplace: Workplace, settings: OnlineSettings) -> dict[str, Adapter]:
    """Train the jobs, which must take equally many steps, side by side.

    The result for a preference does not depend on its neighbours: completions are drawn by (seed, step, prompt, place),
    and advantages, gradients, clipping and weights are each preference's own. A preference whose reward or gradient is
    no longer finite, or that passes a budget, stops with its last good adapter; the others go on.
    """
    with AdapterBank(workplace.scorer.model, {job.key: job.start for job in jobs}, trainable=True) as bank:
        RolloutTrainer(bank, jobs, workplace, settings).run()
        return {job.key: bank.adapter(job.key) for job in jobs}
