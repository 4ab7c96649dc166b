"""What moalign relies on in an objective."""

import numpy as np

from moalign.batches import Completions
from moalign.objectives import Objective, ObjectiveSet

SAMPLES = Completions(
    prompts=["Hi", "Hi", "What is 2 + 2?", [{"role": "user", "content": "Bonjour"}], "Write nothing."],
    responses=["Hello there, how are you?", "Hello there, how are you?", "It is 4.", "Salut \N{WAVING HAND SIGN}", ""],
)


def check_objective(objective: Objective, completions: Completions = SAMPLES) -> None:
    """Assert what moalign relies on in an objective; AssertionError says which promise is broken.

    One finite number per completion, the empty response included; the same number for the same text, whatever the
    order and whatever else is in the batch; a name, and a fingerprint that stays the same while nothing changes,
    because scores are cached under it.

    >>> from moalign.objectives import Length
    >>> check_objective(Length("brief"))
    """
    assert objective.name, "an objective needs a name"
    before = objective.fingerprint
    scores = ObjectiveSet([objective]).score(completions)[:, 0]  # checks length, NaN and infinity
    again = ObjectiveSet([objective]).score(completions)[:, 0]
    np.testing.assert_array_equal(again, scores, err_msg=f"{objective.name}: scored twice, two results")
    order = list(reversed(range(len(completions))))
    turned = Completions([completions.prompts[i] for i in order], [completions.responses[i] for i in order])
    np.testing.assert_allclose(
        ObjectiveSet([objective]).score(turned)[:, 0],
        scores[order],
        atol=1e-5,
        err_msg=f"{objective.name}: the order of the batch matters",
    )
    alone = [
        ObjectiveSet([objective]).score(Completions([prompt], [response]))[0, 0]
        for prompt, response in zip(completions.prompts, completions.responses, strict=True)
    ]
    np.testing.assert_allclose(alone, scores, atol=1e-5, err_msg=f"{objective.name}: what else is in the batch matters")
    assert objective.fingerprint == before, f"{objective.name}: the fingerprint changed by scoring"
