"""Fronts of values to be maximised: what is on them, how good they are, how sure we are, and the best there can be.

dominance     which points no other point beats
hypervolume   the volume that a front dominates, exactly
indicators    expected utility, sparsity, IGD+, mean inner product, Kendall's tau
uncertainty   standard errors and intervals when the prompts are the sample
pareto_set    a measured adapter, and the set of them
simplex       weights to train at, and the blend of trained weights that gives a wanted one
oracle        the exact front of a world whose answers can be enumerated
"""

from moalign.frontiers.dominance import non_dominated
from moalign.frontiers.hypervolume import hypervolume, normalised_hypervolume
from moalign.frontiers.indicators import (
    expected_utility,
    igd_plus,
    kendall_tau,
    mean_inner_product,
    sparsity,
)
from moalign.frontiers.oracle import (
    Answers,
    attained,
    log_partition,
    matched_beta,
    matched_front,
    oracle_front,
    tilt,
)
from moalign.frontiers.pareto_set import AddStatus, ParetoPoint, ParetoSet
from moalign.frontiers.simplex import blend, corners, lattice, riesz
from moalign.frontiers.uncertainty import bootstrap_interval, clustered_mean

__all__ = [
    "AddStatus",
    "Answers",
    "ParetoPoint",
    "ParetoSet",
    "attained",
    "blend",
    "bootstrap_interval",
    "clustered_mean",
    "corners",
    "expected_utility",
    "hypervolume",
    "igd_plus",
    "kendall_tau",
    "lattice",
    "log_partition",
    "matched_beta",
    "matched_front",
    "mean_inner_product",
    "non_dominated",
    "normalised_hypervolume",
    "oracle_front",
    "riesz",
    "sparsity",
    "tilt",
]
