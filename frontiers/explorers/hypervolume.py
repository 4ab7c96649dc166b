"""The preferences whose values are expected to add most to the volume that the front dominates.

[qNEHVI] Daulton, Balandat and Bakshy, "Parallel Bayesian optimization of multiple noisy objectives with expected
         hypervolume improvement", NeurIPS 2021 (arXiv 2105.08195).
"""

import contextlib
import warnings
from math import comb
from typing import Any

import moocore
import numpy as np
from jaxtyping import Float, Int

from moalign.errors import ConfigError
from moalign.frontiers.explorers.base import Book, even, opening
from moalign.frontiers.simplex import lattice

CANDIDATES = 256  # of the lattice, and as many drawn: with three objectives 0.05 apart
SAMPLES = 64  # of the posterior, quasi-random; the time is proportional to it
LEAST_NOISE = 1e-4  # a variance, of values of unit variance: below it Cholesky factors fail


class Hypervolume:
    """The corners, the centre, and then where a Gaussian process expects the front to grow most.

        y_k(w) ~ GP_k, Matern 5/2 over the m weights;   measured value = y_k(w) + N(0, error_k^2)
        argmax over w of  E[ HV(Y u y(w); z) - HV(Y; z) ]                                           [qNEHVI]

    One process per objective, of values standardised by those told; the measured standard errors are its noise, and
    where one is not known the median of the objective's others (all unknown: it is fitted). The expectation is over
    what the known preferences truly attain, Y, as well as over y(w), so that a lucky measurement closes no region. A
    batch is chosen one by one, each given that the others will be there, from a lattice of the simplex and as many
    random preferences. Where no sample sees a gain, the preference furthest from all others is asked for.

    A NaN leaves out that value alone. A preference that has one, or is asked for and not yet told, is taken to be there
    with values that are not known. While some objective has no value at all, the furthest preference is asked for.

    Unlike botorch's, whose processes and fits these are, the volume is computed anew for each sample and candidate, by
    moocore: for a finite set of candidates the same estimate, and 10 times as fast (box decompositions take 20 s).

    Args:
        m: the number of objectives; the volume makes it slow above 6.
        points: how many preferences the sweep may train.
        reference_point: z, in the objectives' units; only what is above it in every objective counts.
        seed: of the candidates and the samples, together with the number of preferences known.

    Raises ConfigError if the reference point is not one finite number per objective.

    >>> Hypervolume(2, points=9, reference_point=np.zeros(2)).ask(3).tolist()
    [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]
    """

    def __init__(self, m: int, points: int, reference_point: Float[np.ndarray, " m"], seed: int = 0) -> None:
        self._book = Book(m, points)
        if reference_point.shape != (m,) or not np.isfinite(reference_point).all():
            raise ConfigError(
                f"explorer 'hypervolume': the reference point is {reference_point.tolist()}; expected {m} finite "
                "numbers, one per objective"
            )
        self._reference = reference_point.copy()
        self._seed = seed

    def ask(self, count: int) -> Float[np.ndarray, "q m"]:
        """The rest of the opening, then the largest expected gains: seconds for each batch."""
        book = self._book
        found = book.issue(opening(book.m), count)
        wanted = min(count - len(found), book.left)
        seed = int(np.random.SeedSequence([self._seed, len(book.known)]).generate_state(1)[0])
        candidates = _candidates(book.m, seed)
        candidates = candidates[book.fresh(candidates)]
        if wanted <= 0 or len(candidates) == 0:
            return found
        if np.isfinite(book.values).any(axis=0).all():
            candidates = _best(book, self._reference, candidates, wanted, seed)
        else:
            candidates = even(candidates, book.known, wanted)
        return np.vstack([found, book.issue(candidates, wanted)])

    def tell(
        self,
        preferences: Float[np.ndarray, "n m"],
        values: Float[np.ndarray, "n m"],
        errors: Float[np.ndarray, "n m"],
    ) -> None:
        """What the processes are fitted to."""
        self._book.tell(preferences, values, errors)


def _candidates(m: int, seed: int) -> Float[np.ndarray, "n m"]:
    """The largest lattice of at most so many preferences, and as many random ones of the simplex."""
    divisions = 1
    while m > 1 and comb(divisions + m, m - 1) <= CANDIDATES:
        divisions += 1
    drawn = np.random.default_rng(seed).dirichlet(np.ones(m), size=CANDIDATES)
    return np.vstack([lattice(m, divisions), drawn])


def _best(
    book: Book, reference: Float[np.ndarray, " m"], candidates: Float[np.ndarray, "n m"], wanted: int, seed: int
) -> Float[np.ndarray, "q m"]:
    """The candidates to ask for; where no sample of the posterior sees a gain, those furthest from all known."""
    known = len(book.known)
    fronts = _samples(book, np.vstack([book.known, candidates]), seed)
    chosen = candidates[greedy(fronts[:, :known], fronts[:, known:], reference, wanted)]
    others = candidates[~(candidates[:, None] == chosen[None]).all(axis=2).any(axis=1)]
    return np.vstack([chosen, even(others, np.vstack([book.known, chosen]), wanted - len(chosen))])


def greedy(
    fronts: Float[np.ndarray, "s n m"],
    candidates: Float[np.ndarray, "s c m"],
    reference_point: Float[np.ndarray, " m"],
    count: int,
) -> Int[np.ndarray, " q"]:
    """Up to `count` candidates: the largest mean gain in volume over the samples, then the largest beside it, ...

    gain(c) = mean over s of HV(fronts_s u candidates_sc; z) - HV(fronts_s; z)   [qNEHVI]

    Fewer where nothing more is gained in any sample. A candidate's gain only shrinks as others are added, so its last
    one bounds it, and it is computed again only when that bound is the largest.

    >>> candidates = np.array([[[1.0, 3.0], [2.0, 2.0], [0.5, 0.5]]])
    >>> greedy(np.array([[[3.0, 1.0]]]), candidates, np.zeros(2), count=9).tolist()
    [0, 1]
    """
    volume = moocore.Hypervolume(ref=reference_point, maximise=True)
    front = list(fronts)
    volumes = [volume(sample) for sample in front]
    # In which samples a candidate gains nothing: not above the reference point, or some point is above it.
    beaten = np.logical_not((candidates > reference_point).all(axis=2))
    beaten |= np.any(np.all(fronts[:, None] >= candidates[:, :, None], axis=3), axis=2)

    def gain(c: int) -> float:
        samples = np.flatnonzero(~beaten[:, c])
        return sum(volume(np.vstack([front[s], candidates[s, c]])) - volumes[s] for s in samples) / len(front)

    gains = np.array([gain(c) for c in range(candidates.shape[1])])
    current = np.ones(len(gains), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < min(count, len(gains)) and gains.max() > 0:
        best = int(gains.argmax())
        if not current[best]:
            gains[best], current[best] = gain(best), True
            continue
        chosen.append(best)
        front = [np.vstack([sample, row]) for sample, row in zip(front, candidates[:, best], strict=True)]
        volumes = [volume(sample) for sample in front]
        beaten |= (candidates[:, best, None] >= candidates).all(axis=2)
        gains[best], current[:] = -np.inf, False
    return np.array(chosen, dtype=int)


def _samples(book: Book, preferences: Float[np.ndarray, "n m"], seed: int) -> Float[np.ndarray, "s n m"]:
    """What the preferences attain, drawn from the posterior of the processes, jointly; in the objectives' units."""
    centres, scales = np.nanmean(book.values, axis=0), np.nanstd(book.values, axis=0)
    scales = np.where(scales > 0, scales, 1.0)
    values, errors = (book.values - centres) / scales, book.errors / scales
    # What botorch says of its imports, its inputs and its numerics is no business of a sweep's.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from botorch.sampling.normal import SobolQMCNormalSampler

        drawn = []
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            for k in range(book.m):
                process = _process(book.preferences, values[:, k], errors[:, k])
                sampler = SobolQMCNormalSampler(torch.Size([SAMPLES]), seed=(seed + k) % 2**31)
                drawn.append(sampler(process.posterior(torch.tensor(preferences))).numpy()[..., 0])
    return np.stack(drawn, axis=2) * scales + centres


def _process(
    preferences: Float[np.ndarray, "n m"], values: Float[np.ndarray, " n"], errors: Float[np.ndarray, " n"]
) -> Any:
    """The Gaussian process of one objective, fitted to the values that are known."""
    import torch
    from botorch.exceptions import ModelFittingError
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from botorch.models.utils.gpytorch_modules import get_covar_module_with_dim_scaled_prior
    from gpytorch.mlls import ExactMarginalLogLikelihood

    known = np.isfinite(values)
    noise = None
    if np.isfinite(errors[known]).any():
        noise = np.where(np.isfinite(errors), errors, np.nanmedian(errors[known]))[known] ** 2
        noise = torch.tensor(np.maximum(noise, LEAST_NOISE))[:, None]
    model = SingleTaskGP(
        torch.tensor(preferences[known]),
        torch.tensor(values[known])[:, None],
        noise,
        covar_module=get_covar_module_with_dim_scaled_prior(preferences.shape[1], use_rbf_kernel=False),
        outcome_transform=None,
    )
    # Where no optimiser ends well, the process with the mode of the priors is still a sound one.
    with contextlib.suppress(ModelFittingError), torch.enable_grad():
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    return model
