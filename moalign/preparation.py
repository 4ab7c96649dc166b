"""Everything a sweep reads before it trains: the base, each objective's pairs, and the prompts to evaluate on."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from moalign.batches import PreferencePairs, Prompt, TokenPairs
from moalign.config import SampleSettings
from moalign.data import load_pairs, load_prompts, load_scored, pairs_from_scores, relabel, split_by_prompt
from moalign.data.tokenize import prompt_ids, tokenize_pairs, tokenize_prompts
from moalign.errors import ConfigError, DataError
from moalign.files import digest, read_json, write_json
from moalign.generation import generate
from moalign.logprobs import Scorer
from moalign.models import load_base
from moalign.objectives import build_objective
from moalign.prepared import Notice, Prepared
from moalign.reference import open_reference, start_of
from moalign.runs import Run


def prepare(run: Run, notice: Notice) -> Prepared:
    """Load the base and the data of a run, make each objective's pairs, and split off the held-out ones."""
    config = run.config
    base = load_base(config.base, device=config.device, dtype=config.dtype)
    scorers = {
        name: build_objective(name, {"type": settings.type, **settings.extras}, config.own_folder)
        for name, settings in config.objectives.items()
        if settings.type is not None
    }
    prepared = Prepared(run, base, Scorer.of(base.model), scorers, {}, {}, {}, [], [], notice)
    prepared.reference_policy, prepared.start = open_reference(run, base), start_of(run, base)
    if config.method_settings.learns_from == "prompts":
        _choose_prompts(prepared, _take_prompts(prepared))
        return prepared
    texts = _own_pairs(prepared)
    missing = [name for name in config.objectives if name not in texts]
    if missing:
        texts |= _made_pairs(prepared, texts, missing)
    heldout_prompts: dict[str, Prompt] = {}
    for name in config.objectives:
        _split(prepared, name, texts[name], heldout_prompts)
    _choose_prompts(prepared, list(heldout_prompts.values()))
    return prepared


def _take_prompts(prepared: Prepared) -> list[Prompt]:
    """Choose the prompts of rollouts; what is held out of them is returned."""
    config = prepared.run.config
    if prepared.implicit:
        raise ConfigError(
            f"method {config.method!r} scores what it generates, and objective {prepared.implicit[0]!r} has no 'type' "
            "to score with; give one (a rule, a reward_model or a function of yours), or use method 'modpo'"
        )
    found = list({json.dumps(prompt): prompt for prompt in _training_prompts(prepared)}.values())
    train, held = split_by_prompt(found, config.data.holdout, config.seed)
    settings = config.method_settings
    room = prepared.base.context - (settings.max_new_tokens or config.evaluation.max_new_tokens)
    ids = tokenize_prompts([found[i] for i in train], prepared.base.tokenizer)
    fitting = [number for number, prompt in enumerate(ids) if len(prompt) <= room]
    if not fitting:
        raise ConfigError(f"no training prompt is shorter than {room} tokens; lower max_new_tokens")
    if len(fitting) < len(ids):
        prepared.notice(f"{len(ids) - len(fitting)} of {len(ids)} training prompts leave no room for a response")
    prepared.train_prompts = [found[train[number]] for number in fitting]
    prepared.train_prompt_ids = [ids[number] for number in fitting]
    return [found[i] for i in held]


def _training_prompts(prepared: Prepared) -> list[Prompt]:
    """Those given for rollouts; otherwise those of the pairs, scores or responses that the config names."""
    config = prepared.run.config
    if config.data.train_prompts:
        return _prompts(prepared, "train_prompts", config.data.train_prompts, config.data.limit)
    pool = config.data.responses
    sources = [settings.pairs or settings.scores for settings in config.objectives.values()]
    sources.append(pool.prompts if isinstance(pool, SampleSettings) else pool)
    found = [
        prompt
        for source in dict.fromkeys(filter(None, sources))
        for prompt in _prompts(prepared, "train_prompts", source, config.data.limit)
    ]
    if not found:
        raise ConfigError(
            f"method {config.method!r} needs prompts to answer; give data.train_prompts (a file of prompts), or pairs "
            "or scores of an objective, whose prompts are then taken"
        )
    return found


def _own_pairs(prepared: Prepared) -> dict[str, PreferencePairs]:
    """The pairs of objectives that bring their own, as pairs or as scored responses."""
    config, found = prepared.run.config, {}
    for name, settings in config.objectives.items():
        if settings.pairs:
            loaded = load_pairs(settings.pairs, limit=config.data.limit, quarantine=_quarantine(prepared, name))
            _say_skipped(prepared, name, loaded.skipped)
            found[name] = loaded.pairs
        elif settings.scores:
            quarantine = _quarantine(prepared, name)
            column = str(settings.column or name)
            loaded = load_scored(settings.scores, column, limit=config.data.limit, quarantine=quarantine)
            _say_skipped(prepared, name, loaded.skipped)
            scored = loaded.scored
            found[name] = _pairs_of(
                prepared, name, scored.prompts, scored.responses, scored.scores[column], scored.source
            )
    return found


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Say whose data it is that cannot be used."""
    try:
        yield
    except DataError as error:
        raise DataError(f"objective {name!r}: {error}") from error


def _quarantine(prepared: Prepared, name: str) -> Path | None:
    return prepared.run.folder / "quarantine" / f"{name}.jsonl" if prepared.run.config.data.skip_bad_rows else None


def _say_skipped(prepared: Prepared, name: str, skipped: int) -> None:
    if skipped:
        prepared.notice(f"{name}: {skipped} bad rows set aside in {_quarantine(prepared, name)}")


def _pairs_of(
    prepared: Prepared,
    name: str,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    scores: Float[np.ndarray, " n"],
    source: Sequence[str],
) -> PreferencePairs:
    data = prepared.run.config.data
    rng = np.random.default_rng(prepared.run.config.seed)
    with _naming(name):
        return pairs_from_scores(
            prompts, responses, scores, source, rng, per_prompt=data.pairs_per_prompt, labels=data.labels
        )


def _made_pairs(
    prepared: Prepared, own: dict[str, PreferencePairs], missing: Sequence[str]
) -> dict[str, PreferencePairs]:
    """Pairs for objectives that only score: the responses of the pool, judged by each."""
    config = prepared.run.config
    responses = config.data.responses
    if isinstance(responses, SampleSettings):
        rows = _sampled(prepared, responses)
        prompts, texts = [row["prompt"] for row in rows], [row["response"] for row in rows]
        source = [f"sample {i}" for i in range(len(rows))]
        scores = prepared.score(missing, prompts, texts)
        return {name: _pairs_of(prepared, name, prompts, texts, scores[:, j], source) for j, name in enumerate(missing)}
    if responses is not None:
        loaded = load_pairs(responses, limit=config.data.limit, quarantine=_quarantine(prepared, "responses"))
        _say_skipped(prepared, "responses", loaded.skipped)
        pools = [loaded.pairs]
    else:
        pools = list(own.values())
    if not pools:
        raise ConfigError(
            f"objectives {', '.join(missing)} have no pairs and there are no others to judge; give data.responses "
            "(a file of pairs, or prompts to sample from the base)"
        )
    found = {}
    for name in missing:
        judged = []
        for pool in pools:
            chosen = prepared.score([name], pool.prompts, pool.chosen)[:, 0]
            rejected = prepared.score([name], pool.prompts, pool.rejected)[:, 0]
            with _naming(name):
                judged.append(relabel(pool, chosen, rejected, labels=config.data.labels))
        found[name] = _joined(judged)
    return found


def _joined(parts: Sequence[PreferencePairs]) -> PreferencePairs:
    return PreferencePairs(
        [prompt for part in parts for prompt in part.prompts],
        [text for part in parts for text in part.chosen],
        [text for part in parts for text in part.rejected],
        np.concatenate([part.probability for part in parts]),
        [source for part in parts for source in part.source],
    )


def _prompts(prepared: Prepared, name: str, source: str, limit: int | None) -> list[Prompt]:
    quarantine = _quarantine(prepared, name)
    prompts = load_prompts(source, limit=limit, quarantine=quarantine)
    if quarantine is not None and quarantine.is_file():
        _say_skipped(prepared, name, quarantine.read_bytes().count(b"\n"))
    return prompts


def _sampled(prepared: Prepared, settings: SampleSettings) -> list[dict]:
    """Responses of the base model to each prompt, drawn once and kept in the run."""
    config, base = prepared.run.config, prepared.base
    prompts = _prompts(prepared, "sampled", settings.prompts, config.data.limit)
    drawn = [settings.per_prompt, config.seed, config.evaluation.max_new_tokens]
    name = digest(base.digest, json.dumps(prompts), json.dumps(drawn))
    path = prepared.run.cache / "sampled" / f"{name}.json"
    if path.is_file():
        return read_json(path)
    work = [(p, s) for p in range(len(prompts)) for s in range(settings.per_prompt)]
    ids = [prompt_ids(prompt, base.tokenizer) for prompt in prompts]
    rows = []
    for start in range(0, len(work), config.evaluation.batch_size):
        batch = work[start : start + config.evaluation.batch_size]
        responses = generate(
            base,
            None,
            None,
            [ids[p] for p, _ in batch],
            seeds=[int(digest(f"sample/{config.seed}/{p}/{s}")[:15], 16) for p, s in batch],
            max_new_tokens=config.evaluation.max_new_tokens,
        )
        texts = base.tokenizer.batch_decode(responses, skip_special_tokens=True)
        rows += [{"prompt": prompts[p], "response": t.strip()} for (p, _), t in zip(batch, texts, strict=True)]
    write_json(path, rows)
    return rows


def _split(prepared: Prepared, name: str, pairs: PreferencePairs, heldout_prompts: dict[str, Prompt]) -> None:
    """Tokenise, filter by length, and part the held-out prompts from the rest."""
    config, tokenizer = prepared.run.config, prepared.base.tokenizer
    longest = min(config.data.max_length or prepared.base.context, prepared.base.context)
    with _naming(name):
        tokens, kept, overlong = tokenize_pairs(pairs, tokenizer, longest, config.data.separator, prepared.base.eos_ids)
    if overlong:
        prepared.notice(f"{name}: {overlong} of {len(pairs)} pairs are longer than {longest} tokens and are left out")
    pairs = pairs.select(kept)
    train, held = split_by_prompt(pairs.prompts, config.data.holdout, config.seed)
    if not len(train):
        raise DataError(f"objective {name!r} has no pairs left to train on; lower data.holdout ({config.data.holdout})")
    prepared.pairs[name] = pairs.select(train)
    prepared.tokens[name] = _select(tokens, train)
    prepared.heldout[name] = _select(tokens, held)
    for index in held:
        heldout_prompts.setdefault(json.dumps(pairs.prompts[index]), pairs.prompts[index])


def _select(tokens: TokenPairs, indices: Sequence[int]) -> TokenPairs:
    return TokenPairs(*([part[i] for i in indices] for part in (tokens.prompt, tokens.chosen, tokens.rejected)))


def _choose_prompts(prepared: Prepared, heldout: list[Prompt]) -> None:
    """The prompts to evaluate on: those given, or the held-out ones; too long ones are counted and left out."""
    config, base = prepared.run.config, prepared.base
    prompts = _prompts(prepared, "prompts", config.data.prompts, None) if config.data.prompts else heldout
    if not prompts:
        raise ConfigError("there are no prompts to evaluate on; give data.prompts, or a data.holdout above 0")
    room = base.context - config.evaluation.max_new_tokens
    ids = [prompt_ids(prompt, base.tokenizer) for prompt in prompts]
    fitting = [i for i, prompt in enumerate(ids) if len(prompt) <= room]
    if len(fitting) < len(ids):
        prepared.notice(f"{len(ids) - len(fitting)} of {len(ids)} evaluation prompts leave no room for a response")
    if not fitting:
        raise ConfigError(f"no evaluation prompt is shorter than {room} tokens; lower evaluation.max_new_tokens")
    # By content, not by position: any prefix of a file may be about one subject.
    fitting.sort(key=lambda i: digest(str(config.seed), json.dumps(prompts[i])))
    chosen = fitting[: config.evaluation.prompts]
    prepared.prompts = [prompts[i] for i in chosen]
    prepared.prompt_ids = [ids[i] for i in chosen]
