"""Directional preference alignment: one adapter that follows a direction stated in its prompt.

Wang et al. 2024, "Arithmetic Control of LLMs for Diverse User Preferences: Directional Preference Alignment with
Multi-Objective Rewards" (arXiv 2402.18571), section 4. Its training code was never released; a round is

    for each prompt x:  draw a direction v, and y_1, ..., y_N ~ pi(. | x, v);  keep y* = argmax_i v . r(x, y_i)
    fine-tune pi by the likelihood of y* given (x, v)

and this trains one round, `job.stage`, from the adapter of the one before. Objectives judge the prompt as it was asked,
without its direction. Completions and their score vectors are written as they come, so that a round that was killed
reads them back.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from moalign.adapters import Adapter
from moalign.bank import AdapterBank
from moalign.conditioning import condition
from moalign.data import tokenize_prompts
from moalign.direction import Direction, along, choose, sample_directions
from moalign.errors import UserError
from moalign.files import atomic_write_text
from moalign.methods import sft
from moalign.methods.dpa_settings import DpaSettings
from moalign.rollouts import Environment, roll_out
from moalign.workplace import Job, Workplace

_SHARD = 256  # completions that are drawn in one batch, and written together


@dataclass(frozen=True)
class Draw:
    """A prompt, by its place, with d directions that choose from the same completions, drawn under the first.

    `ids[i]` are the tokens of the prompt that states direction `vectors[i]`.
    """

    place: int
    vectors: Float[np.ndarray, "d m"]
    ids: list[list[int]]


@dataclass(frozen=True)
class Answers:
    """g completions as token ids, with their scores; NaN where an objective gave no finite one.

    >>> answers = Answers([[3, 2]], np.array([[0.5, np.nan]]), np.array([False]))
    >>> Answers.from_dict(answers.as_dict()).scores.tolist()
    [[0.5, nan]]
    """

    responses: list[list[int]]
    scores: Float[np.ndarray, "g m"]
    truncated: Bool[np.ndarray, " g"]

    def as_dict(self) -> dict[str, Any]:
        """What JSON can hold: NaN becomes None."""
        scores = [[score if math.isfinite(score) else None for score in row] for row in self.scores.tolist()]
        return {"responses": self.responses, "scores": scores, "truncated": self.truncated.tolist()}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "Answers":
        """Read what `as_dict` wrote; other keys are left alone."""
        scores = np.array(record["scores"], dtype=np.float64)  # None becomes NaN
        return cls(record["responses"], scores, np.array(record["truncated"], dtype=bool))


def train(jobs: Sequence[Job], workplace: Workplace, settings: DpaSettings) -> dict[str, Adapter]:
    """One round for the one job. Raises UserError if no completion has finite scores, or no prompt leaves room."""
    (job,) = jobs
    draws = draws_of(job.stage, workplace, settings)
    answers = _sample(job, draws, workplace, settings)
    data = _kept(job, draws, answers, workplace, settings)
    tuned = sft.train({workplace.seed: job.start}, data, workplace, settings.tuning(job.steps))
    return {job.key: tuned[workplace.seed]}


def draws_of(stage: int, workplace: Workplace, settings: DpaSettings) -> list[Draw]:
    """The prompts of a round with their directions: a function of the seed and the round.

    Prompts come from a shuffle of all, the next `settings.prompts` in each round, and from a new shuffle once less
    than that are left. One whose text with a direction leaves no room for a completion is left out, with a notice.
    """
    environment, names = _environment(workplace), workplace.objectives
    total, wording = len(environment.prompts), settings.wording(names)
    size = min(settings.prompts or total, total)
    epoch, part = divmod(stage, total // size)
    shuffled = np.random.default_rng([workplace.seed, epoch]).permutation(total)
    places = np.repeat(shuffled[part * size : (part + 1) * size], settings.directions_per_prompt).tolist()
    d = settings.reuse_across_directions
    rng = np.random.default_rng([workplace.seed, stage, 1])
    drawn = sample_directions(len(places) * d, settings.middle(names), settings.cone, settings.kind, rng)
    drawn = rng.permutation(drawn).reshape(len(places), d, -1)  # a grid comes in order
    told = [
        condition(
            environment.prompts[place],
            Direction.of(dict(zip(names, vector, strict=True))),
            wording,
            environment.base.tokenizer,
        )
        for place, vectors in zip(places, drawn.tolist(), strict=True)
        for vector in vectors
    ]
    ids = tokenize_prompts(told, environment.base.tokenizer)
    draws = [Draw(p, v, ids[i * d : (i + 1) * d]) for i, (p, v) in enumerate(zip(places, drawn, strict=True))]
    room = environment.base.context - environment.max_new_tokens
    fitting = [draw for draw in draws if max(map(len, draw.ids)) <= room]
    if not fitting:
        raise UserError(
            f"no prompt with its direction is shorter than {room} tokens; lower max_new_tokens or shorten the template"
        )
    if len(fitting) < len(draws):
        workplace.notice(
            f"{len(draws) - len(fitting)} of {len(draws)} prompts with a direction leave no room to answer"
        )
    return fitting


def _environment(workplace: Workplace) -> Environment:
    assert workplace.environment is not None
    return workplace.environment


def _sample(job: Job, draws: Sequence[Draw], workplace: Workplace, settings: DpaSettings) -> list[Answers]:
    """The completions of all draws, shard by shard; those of a shard that was written are read."""
    environment, plain = _environment(workplace), job.stage < settings.plain_rounds
    asked = replace(
        environment,
        prompts=[environment.prompts[draw.place] for draw in draws],
        prompt_ids=[environment.prompt_ids[draw.place] if plain else draw.ids[0] for draw in draws],
    )
    found: list[Answers] = []
    with AdapterBank(environment.base.model, {job.key: job.start}) as bank:
        while len(found) < len(draws):
            numbers = range(len(found), min(len(found) + max(1, _SHARD // settings.completions), len(draws)))
            path = workplace.scratch and workplace.scratch / f"{job.key}-{numbers.start:06d}.jsonl"
            if path is not None and path.is_file():
                found += [Answers.from_dict(json.loads(line)) for line in path.read_text().splitlines()]
                continue
            stream = f"dpa/{workplace.seed}/{job.stage}"
            rolled = roll_out(asked, bank, [job.key], numbers, settings.completions, stream)
            part = [
                Answers(rolled.group(0, i), rolled.rewards[0, i].astype(np.float64), rolled.truncated[0, i])
                for i in range(len(numbers))
            ]
            if path is not None:
                _write(path, [draws[number] for number in numbers], part)
            found += part
    return found


def _write(path: Path, draws: Sequence[Draw], part: Sequence[Answers]) -> None:
    lines = [
        json.dumps({"prompt": draw.place, "directions": draw.vectors.tolist(), **answers.as_dict()})
        for draw, answers in zip(draws, part, strict=True)
    ]
    atomic_write_text(path, "".join(line + "\n" for line in lines))


def _kept(
    job: Job, draws: Sequence[Draw], answers: Sequence[Answers], workplace: Workplace, settings: DpaSettings
) -> sft.Demonstrations:
    """Of each draw and direction the completion that goes furthest; what the round was like goes into the log."""
    names, scores = workplace.objectives, np.stack([each.scores for each in answers])
    unit = deviations(scores.reshape(-1, len(names))) if settings.standardise else np.ones(len(names))
    asked = [(i, d) for i, draw in enumerate(draws) for d in range(len(draw.ids))]
    values = {(i, d): along(scores[i] / unit, draws[i].vectors[d]) for i, d in asked}
    best = {(i, d): choose(scores[i] / unit, draws[i].vectors[d]) for i, d in asked}
    kept = [(i, d, place) for (i, d), place in best.items() if place is not None]
    if not kept:
        missing = names[int(np.isfinite(scores).sum((0, 1)).argmin())]
        raise UserError(f"round {job.stage + 1}: no completion can be kept: objective {missing!r} gave no finite score")
    if len(kept) < len(asked):
        workplace.notice(
            f"round {job.stage + 1}: {len(asked) - len(kept)} of {len(asked)} prompts are left out: none of their "
            "completions has a finite score"
        )
    every = np.concatenate(list(values.values()))
    workplace.on_record(
        "dpa_round",
        {
            "adapter": job.key,
            "step": job.stage + 1,
            "along": float(every[np.isfinite(every)].mean()),
            "along_kept": float(np.mean([values[i, d][place] for i, d, place in kept])),
            "rewards": _means(names, scores.reshape(-1, len(names))),
            "rewards_kept": _means(names, np.array([scores[i, place] for i, _, place in kept])),
            "left_out": len(asked) - len(kept),
            "truncated": float(np.mean([each.truncated.mean() for each in answers])),
            "length": float(np.mean([len(response) for each in answers for response in each.responses])),
        },
    )
    return sft.Demonstrations(
        [draws[i].ids[d] for i, d, _ in kept], [answers[i].responses[place] for i, _, place in kept]
    )


def deviations(scores: Float[np.ndarray, "n m"]) -> Float[np.ndarray, " m"]:
    """The standard deviation of each objective over its finite scores; 1 for one that does not vary.

    It makes directions free of units. It is of the round's own completions, which spread as the policy learns to
    follow directions: by how much, the record of the round shows.

    >>> deviations(np.array([[1.0, 5.0], [3.0, 5.0], [np.nan, 5.0]])).tolist()
    [1.0, 1.0]
    """
    found = np.ones(scores.shape[1])
    for column in range(scores.shape[1]):
        finite = scores[np.isfinite(scores[:, column]), column]
        if len(finite) and finite.std() > 0:
            found[column] = finite.std()
    return found


def _means(names: Sequence[str], scores: Float[np.ndarray, "n m"]) -> dict[str, float]:
    """The mean of each objective over its finite scores, where it has any."""
    finite = {name: scores[np.isfinite(scores[:, column]), column] for column, name in enumerate(names)}
    return {name: float(values.mean()) for name, values in finite.items() if len(values)}
