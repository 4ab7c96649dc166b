"""The texts of a plan without a server."""

from collections.abc import Sequence

import torch

from moalign.bank import AdapterBank
from moalign.errors import BaseModelError
from moalign.generation import check_room
from moalign.models import BaseModel
from moalign.serving.batch import Batch
from moalign.serving.limits import Limits
from moalign.serving.plan import Plan
from moalign.serving.sampling import Sampling
from moalign.serving.slots import check_architecture


@torch.inference_mode()
def decode(
    base: BaseModel, bank: AdapterBank, plan: Plan, prompts: Sequence[list[int]], samplings: Sequence[Sampling]
) -> list[list[int]]:
    """The texts of a plan, of several lanes too, as token ids up to and including EOS, all at once.

    One sampling per prompt. Raises BaseModelError for an architecture that cannot be batched in slots, for a text that
    outgrows the model's attention window, and for probabilities that are not finite; otherwise as
    `generation.generate`.
    """
    check_architecture(base)
    most = max(sampling.max_tokens for sampling in samplings)
    longest = check_room(base, prompts, most)
    batch = Batch(base, bank, Limits(slots=len(prompts) * len(plan.rows)))
    if longest + most > batch.context:
        raise BaseModelError(
            f"a prompt of {longest} tokens and {most} new ones exceed the {batch.context} that {base.name} attends to"
        )
    choices = [batch.choices(prompt, plan, [each])[0] for prompt, each in zip(prompts, samplings, strict=True)]
    for choice in choices:
        batch.admit(choice)
    while len(batch):
        if error := next((piece.error for _, piece in batch.step() if piece.error), None):
            raise BaseModelError(f"{base.name}: {error}; an adapter in the mixture is damaged")
    return [choice.written for choice in choices]
