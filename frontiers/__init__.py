"""Fronts of values to be maximised: what is on them, how good they are, how sure we are, and the best there can be.

dominance     which points no other point beats
hypervolume   the volume that a front dominates, exactly
indicators    expected utility, sparsity, IGD+, mean inner product, Kendall's tau, violations of monotonicity
uncertainty   standard errors and intervals when the prompts are the sample
attainment    the surfaces that a share of all fronts attain, and fronts over other prompts
comparison    whether one front has more hypervolume than another
pareto_set    a measured adapter, and the set of them
crowding      which points of a front are in a crowd, and which to extend next
gaps          the neighbours on a front, and how far apart they lie
between       what an adapter between two neighbours can be expected to attain, before it is trained
explorers     which preference to train next, by ask and tell: grid, crowding, linear support, hypervolume
simplex       weights to train at, and the blend of trained weights that gives a wanted one
calibration   what a mixture of adapters attains, fitted on measured blends, and the mixture that attains what is wanted
wanted        at least so much of some objectives: the row, and the weights that ask for it
judging       weights from picks between pairs, and the pair that says most
scheffe       the quadratic polynomial of a mixture, fitted with the errors of what was measured
mixtures      the best mixture of neighbouring adapters for any score
oracle        the exact front of a world whose answers can be enumerated
"""

from moalign.frontiers.attainment import attainment_bands, resampled_fronts
from moalign.frontiers.between import expected_between, expected_gain, gain_noise, most_between
from moalign.frontiers.calibration import Calibration, fit_calibration
from moalign.frontiers.comparison import Comparison, compare_draws, compare_fronts
from moalign.frontiers.crowding import crowding_distance, select, truncate
from moalign.frontiers.dominance import non_dominated
from moalign.frontiers.gaps import Gap, gaps, neighbours
from moalign.frontiers.hypervolume import hypervolume, hypervolume_contributions, normalised_hypervolume
from moalign.frontiers.indicators import (
    Violation,
    expected_utility,
    igd_plus,
    kendall_tau,
    mean_inner_product,
    monotonicity_violations,
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
    "Calibration",
    "Comparison",
    "Gap",
    "ParetoPoint",
    "ParetoSet",
    "Violation",
    "attained",
    "attainment_bands",
    "blend",
    "bootstrap_interval",
    "clustered_mean",
    "compare_draws",
    "compare_fronts",
    "corners",
    "crowding_distance",
    "expected_between",
    "expected_gain",
    "expected_utility",
    "fit_calibration",
    "gain_noise",
    "gaps",
    "hypervolume",
    "hypervolume_contributions",
    "igd_plus",
    "kendall_tau",
    "lattice",
    "log_partition",
    "matched_beta",
    "matched_front",
    "mean_inner_product",
    "monotonicity_violations",
    "most_between",
    "neighbours",
    "non_dominated",
    "normalised_hypervolume",
    "oracle_front",
    "resampled_fronts",
    "riesz",
    "select",
    "sparsity",
    "tilt",
    "truncate",
]
