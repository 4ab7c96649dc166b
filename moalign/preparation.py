"""Everything a sweep computes once: the base, the pairs of each objective, and the constants of the data.

Reference log-probabilities, margins and scores do not depend on the preference; they are computed for the whole
sweep, cached by content, and never again.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from moalign.adapters import Adapter
from moalign.bank import AdapterBank
from moalign.batches import Completions, PreferencePairs, Prompt, TokenPairs
from moalign.cache import FloatCache, score_cached
from moalign.config import SampleSettings
from moalign.data import load_pairs, load_prompts, load_scored, pairs_from_scores, relabel, split_by_prompt
from moalign.data.tokenize import prompt_ids, tokenize_pairs, tokenize_texts
from moalign.errors import ConfigError, DataError, unknown
from moalign.files import digest, read_json, write_json
from moalign.generation import generate
from moalign.logprobs import Scorer
from moalign.methods import PairData
from moalign.models import BaseModel, load_base
from moalign.objectives import Implicit, Objective, ObjectiveSet, build_objective
from moalign.runs import Run

Notice = Callable[[str], None]


@dataclass
class Prepared:
    """A sweep that is ready to train.

    `scorers` holds the objectives that can score a text; one that is learned from its pairs joins them when its
    corner adapter is trained (`learn`). `pairs` and `heldout` are the texts of each objective's own comparisons.
    """

    run: Run
    base: BaseModel
    scorer: Scorer
    scorers: dict[str, Objective]
    pairs: dict[str, PreferencePairs]
    tokens: dict[str, TokenPairs]
    heldout: dict[str, TokenPairs]
    prompts: list[Prompt]
    prompt_ids: list[list[int]]
    notice: Notice
    _references: dict[str, Float[np.ndarray, " n"]] = field(default_factory=dict)

    @property
    def implicit(self) -> list[str]:
        """Objectives that are learned from their pairs."""
        return [name for name, settings in self.run.config.objectives.items() if settings.type is None]

    @property
    def data_digest(self) -> str:
        """A name for all that is learned from, by content: the pairs, and the rules that give their margins."""
        settings = self.run.config.objectives
        rules = {name: self.scorers[name].fingerprint for name in settings if settings[name].type is not None}
        texts = [json.dumps([name, *pairs_key(pairs)]) for name, pairs in sorted(self.pairs.items())]
        return digest(*texts, json.dumps(rules, sort_keys=True), self.run.config.data.separator)

    def learn(self, name: str, adapter: Adapter, key: str) -> None:
        """Make an objective of the adapter trained on its pairs: beta times its log-ratio to the base."""
        bank = AdapterBank(self.base.model, {name: adapter})
        row = bank.mixture({name: 1.0})

        def log_ratio(completions: Completions) -> Float[np.ndarray, " n"]:
            prompts, responses = self._ids(completions)
            rows = row.expand(len(prompts), -1)
            groups = [[response] for response in responses]
            own = self.scorer.batched(prompts, groups, self.base.pad_id, bank=bank, rows=rows)
            return own.double().numpy() - self.reference(prompts, responses)

        beta = self.run.config.method_settings.beta
        self.scorers[name] = Implicit(name, beta, log_ratio, key)

    def _ids(self, completions: Completions) -> tuple[list[list[int]], list[list[int]]]:
        separator = self.run.config.data.separator
        return tokenize_texts(
            completions.prompts, completions.responses, self.base.tokenizer, separator, self.base.eos_ids
        )

    def reference(self, prompts: Sequence[list[int]], responses: Sequence[list[int]]) -> Float[np.ndarray, " n"]:
        """log pi_ref of each response, from the cache where it was computed before."""
        cache = FloatCache(self.run.cache, "reference")
        keys = [digest(self.base.digest, json.dumps([p, r])) for p, r in zip(prompts, responses, strict=True)]
        known = cache.get_many(keys)
        missing = list({key: i for i, key in enumerate(keys) if key not in known}.values())
        for start in range(0, len(missing), 1024):
            part = missing[start : start + 1024]
            groups = [[responses[i]] for i in part]
            values = self.scorer.batched([prompts[i] for i in part], groups, self.base.pad_id).tolist()
            cache.put_many({keys[i]: value for i, value in zip(part, values, strict=True)})
            known.update({keys[i]: value for i, value in zip(part, values, strict=True)})
        return np.array([known[key] for key in keys])

    def pair_data(self, name: str) -> PairData:
        """The pairs of one objective with the margins of all others that can score by now."""
        pairs, tokens = self.pairs[name], self.tokens[name]
        if name not in self._references:
            both = self.reference([*tokens.prompt, *tokens.prompt], [*tokens.chosen, *tokens.rejected])
            self._references[name] = both[: len(tokens)] - both[len(tokens) :]
        names = self.run.objectives
        margins = np.full((len(pairs), len(names)), np.nan)
        others = [other for other in names if other != name and other in self.scorers]
        if others:
            scores = self.score(others, [*pairs.prompts, *pairs.prompts], [*pairs.chosen, *pairs.rejected])
            margins[:, [names.index(other) for other in others]] = scores[: len(pairs)] - scores[len(pairs) :]
        return PairData(tokens, pairs.probability, margins, self._references[name])

    def score(self, names: Sequence[str], prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        """Scores of texts under some objectives, from the cache where they were computed before."""
        objectives = ObjectiveSet([self.scorers[name] for name in names])
        return score_cached(objectives, Completions(prompts, responses), self.run.cache)

    @property
    def objectives(self) -> ObjectiveSet:
        """All objectives, in the order of the run; every implicit one must have been learned."""
        return ObjectiveSet([self.scorers[name] for name in self.run.objectives])


def prepare(run: Run, notice: Notice) -> Prepared:
    """Load the base and the data of a run, make each objective's pairs, and split off the held-out ones."""
    config = run.config
    base = load_base(config.base, device=config.device, dtype=config.dtype)
    scorers = {
        name: build_objective(name, {"type": settings.type, **settings.extras})
        for name, settings in config.objectives.items()
        if settings.type is not None
    }
    prepared = Prepared(run, base, Scorer.of(base.model), scorers, {}, {}, {}, [], [], notice)
    texts = _own_pairs(prepared)
    missing = [name for name in config.objectives if name not in texts]
    if missing:
        texts |= _made_pairs(prepared, texts, missing)
    heldout_prompts: dict[str, Prompt] = {}
    for name in config.objectives:
        _split(prepared, name, texts[name], heldout_prompts)
    _choose_prompts(prepared, list(heldout_prompts.values()))
    return prepared


def pairs_key(pairs: PreferencePairs) -> list[object]:
    """The contents of pairs, for a digest."""
    return [list(pairs.prompts), list(pairs.chosen), list(pairs.rejected), pairs.probability.tolist()]


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
            if column not in scored.scores:
                raise DataError(f"{settings.scores}: " + unknown("score", column, scored.scores))
            found[name] = _pairs_of(prepared, scored.prompts, scored.responses, scored.scores[column], scored.source)
    return found


def _quarantine(prepared: Prepared, name: str):
    return prepared.run.folder / "quarantine" / f"{name}.jsonl" if prepared.run.config.data.skip_bad_rows else None


def _say_skipped(prepared: Prepared, name: str, skipped: int) -> None:
    if skipped:
        prepared.notice(f"{name}: {skipped} bad rows set aside in {_quarantine(prepared, name)}")


def _pairs_of(prepared: Prepared, prompts, responses, scores, source) -> PreferencePairs:
    data = prepared.run.config.data
    rng = np.random.default_rng(prepared.run.config.seed)
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
        return {name: _pairs_of(prepared, prompts, texts, scores[:, j], source) for j, name in enumerate(missing)}
    if responses is not None:
        pools = [load_pairs(responses, limit=config.data.limit, quarantine=_quarantine(prepared, "responses")).pairs]
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


def _sampled(prepared: Prepared, settings: SampleSettings) -> list[dict]:
    """Responses of the base model to each prompt, drawn once and kept in the run."""
    config, base = prepared.run.config, prepared.base
    prompts = load_prompts(settings.prompts, limit=config.data.limit, quarantine=_quarantine(prepared, "sampled"))
    name = digest(base.digest, json.dumps(prompts), str(settings.per_prompt), str(config.seed))
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
    longest = config.data.max_length or _context(prepared.base)
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


def _context(base: BaseModel) -> int:
    return getattr(base.model.config.get_text_config(), "max_position_embeddings", None) or 2048


def _choose_prompts(prepared: Prepared, heldout: list[Prompt]) -> None:
    """The prompts to evaluate on: those given, or the held-out ones; too long ones are counted and left out."""
    config, base = prepared.run.config, prepared.base
    prompts = (
        load_prompts(config.data.prompts, quarantine=_quarantine(prepared, "prompts"))
        if config.data.prompts
        else heldout
    )
    if not prompts:
        raise ConfigError("there are no prompts to evaluate on; give data.prompts, or a data.holdout above 0")
    room = _context(base) - config.evaluation.max_new_tokens
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
