"""A world whose answers can be listed: the base's probability and the scores of every answer to every prompt."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from moalign.batches import Completions, Prompt
from moalign.data import tokenize_texts
from moalign.errors import ConfigError
from moalign.frontiers.oracle import Answers
from moalign.objectives import find_function
from moalign.prepared import Prepared
from moalign.runs import Run


def known_world(prepared: Prepared) -> list[Answers] | None:
    """The answers to each evaluation prompt, where the config names a function that lists them; None otherwise.

    Computed once per run and stored as oracle.npz.
    """
    run = prepared.run
    if run.config.oracle is None:
        return None
    if prepared.implicit:
        raise ConfigError(f"an oracle needs objectives that score; {prepared.implicit[0]!r} is learned from its pairs")
    stored = read_world(run)
    if stored is not None:
        return stored
    list_answers = find_function(f"oracle {run.config.oracle!r}", run.config.oracle, run.config.own_folder)
    world = [_answers(prepared, prompt, list_answers(prompt)) for prompt in prepared.prompts]
    starts = np.cumsum([0, *(len(answers.log_reference) for answers in world)])
    run.write_arrays(
        "oracle",
        {
            "starts": starts,
            "log_reference": np.concatenate([answers.log_reference for answers in world]),
            "scores": np.concatenate([answers.scores for answers in world]),
        },
    )
    return world


def read_world(run: Run) -> list[Answers] | None:
    """The world as it is stored in the run; None if there is none."""
    path = run.folder / "oracle.npz"
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        starts, reference, scores = arrays["starts"], arrays["log_reference"], arrays["scores"]
    return [Answers(reference[start:stop], scores[start:stop]) for start, stop in pairwise(starts)]


def _answers(prepared: Prepared, prompt: Prompt, texts: Sequence[str]) -> Answers:
    base = prepared.base
    separator = prepared.run.config.data.separator
    prompts, responses = tokenize_texts([prompt] * len(texts), texts, base.tokenizer, separator, base.eos_ids)
    # Not through the cache: these are many, read once, and stored together.
    groups = [[response] for response in responses]
    with prepared.reference_policy():
        log_reference = prepared.scorer.batched(prompts, groups, base.pad_id).double().numpy()
    scores = prepared.objectives.score(Completions([prompt] * len(texts), list(texts)))
    return Answers(log_reference, scores)
