"""C-MORL's constraint: the barrier's gradient, optima that are known, recovery, and what the release does instead.

A bandit with softmax policy p = softmax(logits) has J = p.r exactly, dJ_k / dlogits = p (r_k - J_k), and the natural
gradient r_k; the best J_1 with J_2 >= tau is a linear program over p.
"""

import json
import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, linprog

from moalign.errors import ConfigError
from moalign.testing import check_weighter
from moalign.weighting import (
    Constrained,
    Observation,
    barrier_multipliers,
    build_weighter,
    thresholds_from,
)

ARMS = np.array([[1.0, 0.0], [0.7, 0.6], [0.0, 1.0], [0.2, 0.3]])


def made(*thresholds, objective=0, **settings):
    m = len(thresholds)
    return Constrained(np.full(m, 1 / m), objective=objective, thresholds=list(thresholds), **settings)


def see(weighter, attained, step=0):
    """The weights after a validation (None: not measured at this step)."""
    m = len(weighter.thresholds)
    values = None if attained is None else np.array(attained, dtype=float)
    return weighter.update(Observation(step, np.zeros((0, m)), 1e-3, attained=values)).weights


def softmax(logits):
    return np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()


def climb(weighter, arms, steps, *, start=None, pace=0.2, kl=0.0):
    """J at each step of natural gradient ascent on w.J - kl KL(p | uniform), validated exactly at every step."""
    logits, path = np.zeros(len(arms)) if start is None else start, []
    for step in range(steps):
        path.append(softmax(logits) @ arms)
        logits = (1 - pace * kl) * logits + pace * arms @ see(weighter, path[-1], step)
    return np.array(path)


def best(arms, thresholds):
    """The most of objective 0 where the others are at least these: the linear program's value."""
    n = len(arms)
    solved = linprog(-arms[:, 0], -arms[:, 1:].T, -np.array(thresholds), np.ones((1, n)), [1.0])
    return -solved.fun


def slope(function, logits):
    """Central differences, as a direction."""
    steps = 1e-5 * np.eye(len(logits))
    found = np.array([function(logits + one) - function(logits - one) for one in steps])
    return found / np.linalg.norm(found)


def direction(arms, logits, weights):
    """sum_k w_k dJ_k / dlogits, as a direction."""
    p = softmax(logits)
    found = (p[:, None] * (arms - p @ arms)) @ weights
    return found / np.linalg.norm(found)


@pytest.fixture
def bandit():
    """Five arms, three objectives of very different units, and a policy."""
    generator = np.random.default_rng(3)
    return generator.normal(size=(5, 3)) * np.array([1.0, 40.0, 0.1]), generator.normal(size=5)


@pytest.mark.parametrize("objective", [0, 1, 2])
def test_the_weighted_gradient_is_that_of_the_log_barrier(bandit, objective):
    """f = J_l / R_l + (1/t) sum_{i != l} log((J_i - tau_i) / R_i), by finite differences of f itself."""
    arms, logits = bandit
    ranges, t = np.array([2.0, 90.0, 0.3]), 7.0
    thresholds = softmax(logits) @ arms - ranges * np.array([0.2, 0.05, 0.4])
    others = np.arange(3) != objective

    def barrier(logits):
        attained = softmax(logits) @ arms
        slack = (attained - thresholds) / ranges
        return attained[objective] / ranges[objective] + np.log(slack[others]).sum() / t

    settings = {"objective": objective, "ranges": ranges.tolist(), "sharpness": t}
    attained = softmax(logits) @ arms
    own = see(made(*thresholds.tolist(), units="own", **settings), attained)
    assert direction(arms, logits, own) == pytest.approx(slope(barrier, logits), abs=1e-8)
    standardised = see(made(*thresholds.tolist(), **settings), attained)
    assert direction(arms / ranges, logits, standardised) == pytest.approx(slope(barrier, logits), abs=1e-8)
    assert np.abs(direction(arms, logits, standardised) - slope(barrier, logits)).max() > 0.1


def test_recovery_climbs_the_violated_alone_as_their_squares_do(bandit):
    """f = -(1/2) sum_i min(slack_i, 0)^2: 0 of the target, 0 of what is met, and most of what is worst."""
    arms, logits = np.hstack([bandit[0], bandit[0][::-1, :1]]), bandit[1]
    ranges = np.array([2.0, 90.0, 0.3, 1.0])
    thresholds = softmax(logits) @ arms + ranges * np.array([5.0, 0.3, 0.1, -0.001])

    def violation(logits):
        slack = (softmax(logits) @ arms - thresholds) / ranges
        return -0.5 * (np.minimum(slack, 0)[1:] ** 2).sum()

    weighter = made(*thresholds.tolist(), ranges=ranges.tolist())
    assert see(weighter, softmax(logits) @ arms) == pytest.approx([0, 0.75, 0.25, 0])
    own = see(made(*thresholds.tolist(), ranges=ranges.tolist(), units="own"), softmax(logits) @ arms)
    assert direction(arms, logits, own) == pytest.approx(slope(violation, logits), abs=1e-7)


@pytest.mark.parametrize(("tau", "price"), [(0.3, 0.5), (0.7, 1.75)])
@pytest.mark.parametrize("t", [20.0, 50.0])
def test_the_barrier_ends_one_over_t_below_the_linear_program(tau, price, t):
    """On the edge of two arms J_1 falls by `price` per J_2: .3 / .6 and .7 / .4. So lambda = price at the optimum,
    slack = 1 / (t price), and J_1 is price slack = 1 / t below the linear program's.
    """
    weighter = made(None, tau, sharpness=t, margin=0.001)
    final = climb(weighter, ARMS, 1000, pace=0.5)[-1]
    assert final == pytest.approx([best(ARMS, [tau]) - 1 / t, tau + 1 / (t * price)], abs=1e-6)
    assert weighter.state_dict()["multipliers"] == pytest.approx([1.0, price], abs=1e-5)


def test_each_constraint_that_binds_costs_one_over_t():
    """Three pure arms, J_1 = 1 - J_2 - J_3: both prices are 1, both slacks 1 / t, the gap 2 / t."""
    final = climb(made(None, 0.3, 0.2), np.eye(3), 1000, pace=0.5)[-1]
    assert best(np.eye(3), [0.3, 0.2]) == pytest.approx(0.5)
    assert final == pytest.approx([0.5 - 2 / 20, 0.3 + 1 / 20, 0.2 + 1 / 20], abs=1e-6)


@pytest.mark.parametrize("tau", [0.3, 0.7])
def test_the_lagrangian_is_on_the_threshold_on_average(tau):
    """A linear game has no pure end: policy and multiplier circle around the linear program's solution and price."""
    path = climb(made(None, tau, kind="lagrangian"), ARMS, 3000)[1000:]
    assert path.mean(axis=0) == pytest.approx([best(ARMS, [tau]), tau], abs=5e-3)
    assert np.ptp(path[:, 1]) > 0.05


@pytest.mark.parametrize("every", [1, 5])
def test_with_a_kl_penalty_the_lagrangian_ends_on_the_threshold(every):
    """The optimum at weights (1 - v, v) is softmax(arms.w / kl); the one with J_2 = tau is where it ends."""
    kl, tau = 0.1, 0.7

    def attained(v):
        return softmax(ARMS @ np.array([1 - v, v]) / kl) @ ARMS

    expected = attained(brentq(lambda v: attained(v)[1] - tau, 0, 1))
    weighter, logits = made(None, tau, kind="lagrangian"), np.zeros(4)
    for step in range(1500):
        measured = None if step % every else softmax(logits) @ ARMS
        logits = (1 - 0.2 * kl) * logits + 0.2 * ARMS @ see(weighter, measured, step)
    assert softmax(logits) @ ARMS == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", ["barrier", "lagrangian"])
def test_a_constraint_that_does_not_bind_lets_the_objective_reach_its_best(kind):
    """J_2 = 0 at the best J_1, and -1 is asked for: a barrier of 1 / (20 * 1) is too little to move it."""
    weighter = made(None, -1.0, kind=kind)
    assert climb(weighter, ARMS, 500)[-1] == pytest.approx([1.0, 0.0], abs=1e-4)
    assert weighter.state_dict()["multipliers"][1] == pytest.approx(0.05 if kind == "barrier" else 0.0, abs=1e-5)


@pytest.mark.parametrize("kind", ["barrier", "lagrangian"])
def test_negative_objectives_are_no_different(kind):
    """Rewards less 10 and thresholds less 10 are the same problem; beta J_2 would there be another."""
    positive = climb(made(None, 0.7, kind=kind), ARMS, 200)
    negative = climb(made(None, -9.3, kind=kind), ARMS - 10, 200)
    assert (negative < 0).all()
    assert negative + 10 == pytest.approx(positive, abs=1e-9)


def test_an_infeasible_start_recovers_first_and_climbs_then():
    """From J_2 = .02, .7 asked: only J_2 is climbed until it is there, and the end is the same as from anywhere."""
    start = np.log(np.array([0.97, 0.01, 0.01, 0.01]))
    weighter = made(None, 0.7)
    path = climb(weighter, ARMS, 1000, start=start, pace=0.5)
    back = int((path[:, 1] >= 0.7).argmax())
    assert path[0, 1] < 0.02 < 0.7
    assert 5 < back < 100
    assert (np.diff(path[: back + 1, 1]) > 0).all()
    assert see(made(None, 0.7), path[0]).tolist() == [0.0, 1.0]
    assert (path[back:, 1] >= 0.7).all()
    assert path[-1] == pytest.approx([best(ARMS, [0.7]) - 0.05, 0.7 + 1 / 35], abs=1e-6)


def test_the_lagrangian_recovers_by_its_multiplier():
    """At .02 against .7 it gains rate * .68 per validation, while the target still counts."""
    weighter = made(None, 0.7, kind="lagrangian", rate=0.5)
    assert see(weighter, [0.97, 0.02]) == pytest.approx(np.array([1, 0.34]) / 1.34)
    assert see(weighter, [0.97, 0.02]) == pytest.approx(np.array([1, 0.68]) / 1.68)
    start = np.log(np.array([0.97, 0.01, 0.01, 0.01]))
    assert climb(made(None, 0.7, kind="lagrangian"), ARMS, 1500, start=start, kl=0.1)[-1, 1] == pytest.approx(0.7)


def released_barrier(ratio, returns, beta=0.9, t=20.0, clip=0.2):
    """What the authors' code takes from the loss (after its facts, not its text): `returns` enter by their mean."""
    mean = returns.mean(dim=0)
    cost = ratio.clamp(1 - clip, 1 + clip)[:, None] * mean
    violation = (beta * mean - cost).clamp(max=-1e-3)
    return -torch.log(-violation).mean(dim=0).sum() / t


@pytest.mark.parametrize("size", [1.0, 1000.0])
def test_the_barrier_as_released_constrains_nothing(size):
    """At ratio 1 each of 511 samples has d(loss)/d(ratio) = -1 / (511 * 20 * .1) = -9.785e-4 per objective, whatever
    its return, and 0 where returns are negative on average. So the expected gradient is a constant times
    sum_a p_a d(log p_a) / dlogits = 0. Weighted with lambda and its own return it is lambda dJ_2 / dlogits.
    """
    returns = size * torch.tensor(ARMS).repeat(128, 1)[:511]
    ratio = torch.ones(511, dtype=torch.float64, requires_grad=True)
    (positive,) = torch.autograd.grad(released_barrier(ratio, returns), ratio)
    assert positive.numpy() == pytest.approx(np.full(511, -2 * 9.785e-4), rel=1e-4)
    (negative,) = torch.autograd.grad(released_barrier(ratio, returns - 2 * size), ratio)
    assert not negative.any()

    logits = torch.tensor([0.3, -0.5, 0.8, 0.1], dtype=torch.float64, requires_grad=True)
    p = logits.softmax(dim=0)
    (multiplier,) = barrier_multipliers(np.array([0.05]), 20.0, 0.01)
    released, ours = (
        torch.autograd.grad((p.detach() * torch.tensor(each) * p.log()).sum(), logits, retain_graph=True)[0].numpy()
        for each in (511 * positive.numpy()[:4], multiplier * size * ARMS[:, 1])
    )
    p = softmax(logits.detach().numpy())
    assert np.abs(released).max() < 1e-15
    assert ours == pytest.approx(size * multiplier * p * (ARMS[:, 1] - p @ ARMS[:, 1]))
    assert np.abs(ours).max() > 0.05 * size


def test_the_largest_multiplier_is_that_of_the_margin():
    """lambda <= 1 / (20 * .01) = 5, so that the objective keeps a sixth; a slack of exactly 0 is no violation."""
    for slack in (0.0, 0.001, 0.01):
        assert see(made(None, 1.0), [0, 1 + slack]) == pytest.approx([1 / 6, 5 / 6])
    assert see(made(None, 1.0), [0, 1.02]) == pytest.approx([1 / 3.5, 2.5 / 3.5])
    assert barrier_multipliers(np.array([-3.0, np.nan]), 20.0, 0.01).tolist() == pytest.approx(
        [5, math.nan], nan_ok=True
    )


def test_before_the_first_validation_each_slack_counts_as_the_margin():
    assert see(made(None, 1.0, None), None) == pytest.approx([1 / 6, 5 / 6, 0])
    assert see(made(None, 1.0, None, kind="lagrangian"), None).tolist() == [1, 0, 0]


def test_the_last_weights_stay_between_validations_and_where_one_is_not_finite():
    weighter = made(None, 1.0, None)
    expected = see(weighter, [0, 1.05, 0]).tolist()
    for unknown in (None, [0, math.nan, 0], [0, math.inf, 0], [0, -math.inf, 0]):
        assert see(weighter, unknown).tolist() == expected
    assert see(weighter, [math.nan, 1.1, math.inf]) == pytest.approx([1 / 1.5, 0.5 / 1.5, 0])


def test_ranges_say_what_a_slack_is_worth():
    """5 of a range of 100 are as .05 of 1; in own units a weight is also per unit."""
    whole = see(made(None, -20.0, ranges=[1.0, 100.0]), [0, -15])
    assert whole == pytest.approx(see(made(None, 0.5), [0, 0.55]))
    own = see(made(None, -20.0, ranges=[2.0, 100.0], units="own"), [0, -15])
    assert own[1] / own[0] == pytest.approx((1 / 100) / (1 / 2))


@pytest.mark.parametrize("settings", [{}, {"kind": "lagrangian"}, {"units": "own"}])
@pytest.mark.parametrize("threshold", [3.2, None])
@pytest.mark.parametrize("m", [1, 2, 4])
def test_it_keeps_the_contract(m, threshold, settings):
    """The suite attains about 3 with a deviation of 1, so that 3.2 is met and violated in turn."""

    def make(preference):
        return Constrained(
            preference, objective=m - 1, thresholds=[threshold] * m, ranges=[2.0] * m, every=3, **settings
        )

    check_weighter(make, m)
    found = make(np.full(m, 1 / m)).update(Observation(0, np.ones((2, m)), 1e-3, attained=np.full(m, 2.0)))
    assert found.scale == 1.0
    assert (found.weights[-1] == 1) == (m == 1 or threshold is None)


@pytest.mark.parametrize("kind", ["barrier", "lagrangian"])
def test_it_goes_on_from_its_state(kind):
    """From a violated and from a met constraint; a restart between validations keeps what the last one gave."""
    seen = [[0, 1.2, -1.8], None, [0, 0.7, -2], None, [0, 0.9, -2.1], [0, 1.3, -1]]
    whole = made(None, 1.0, -2.0, kind=kind)
    expected = [see(whole, one).tolist() for one in seen]
    assert len({tuple(one) for one in expected}) >= 4
    for stop in range(len(seen)):
        first, resumed = made(None, 1.0, -2.0, kind=kind), made(None, 1.0, -2.0, kind=kind)
        for one in seen[:stop]:
            see(first, one)
        resumed.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
        assert [see(resumed, one).tolist() for one in seen[stop:]] == expected[stop:]


def test_thresholds_retain_a_share_above_the_nadir():
    """tau~ = .9 J~ inside [nadir, ideal], whatever the sign of J; the release's .9 * -20 = -18 would tighten."""
    lowest, highest = np.array([-40.0, 0.0, -1.0, 5.0]), np.array([0.0, 2.0, 1.0, 6.0])
    attained = np.array([-20.0, 2.0, -1.0, 4.5])
    found = thresholds_from(attained, lowest, highest, 0.9)
    assert found == pytest.approx([-40 + 40 * 0.45, 1.8, -1.0, 5.0])
    assert found[0] < attained[0] < 0.9 * attained[0]
    assert thresholds_from(attained, lowest, highest, 1.0) == pytest.approx([-20.0, 2.0, -1.0, 5.0])
    assert thresholds_from(attained, lowest, highest, 0.0) == pytest.approx(lowest)
    assert np.isnan(thresholds_from(np.array([math.nan]), np.zeros(1), np.ones(1), 0.9)[0])


@pytest.mark.parametrize(
    ("lowest", "highest", "retain", "line"),
    [
        (0.0, 1.0, 1.1, "retain is 1.1; expected a share from 0 to 1"),
        (0.0, 1.0, math.nan, "retain is nan; expected a share"),
        (2.0, 2.0, 0.9, "objective 1 has no range: lowest 2, highest 2"),
        (0.0, math.inf, 0.9, "objective 1 has no range: lowest 0, highest inf"),
    ],
)
def test_thresholds_need_a_share_and_a_range(lowest, highest, retain, line):
    with pytest.raises(ConfigError, match=line):
        thresholds_from(np.ones(2), np.array([0.0, lowest]), np.array([1.0, highest]), retain)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"objective": 2}, "objective is 2; expected a place from 0 to 1"),
        ({"objective": -1}, "objective is -1; expected a place from 0 to 1"),
        ({"thresholds": [1.0]}, "1 thresholds for 2 objectives; expected one each, null for none"),
        ({"thresholds": [None, math.nan]}, "thresholds are null, nan; expected finite numbers, null or -inf for none"),
        ({"thresholds": [None, math.inf]}, "thresholds are null, inf; expected finite numbers"),
        ({"thresholds": "0.5"}, "thresholds is '0.5'; input should be a valid list"),
        ({"ranges": [1.0, 2.0, 3.0]}, "3 ranges for 2 objectives; expected one each"),
        ({"ranges": [1.0, 0.0]}, "ranges are 1, 0; expected finite numbers > 0"),
        ({"ranges": [1.0, math.inf]}, "ranges are 1, inf; expected finite numbers > 0"),
        ({"kind": "cpo"}, "kind is 'cpo'; input should be 'barrier' or 'lagrangian'"),
        ({"units": "tokens"}, "units is 'tokens'; input should be 'deviations' or 'own'"),
        ({"sharpness": 0.0}, "sharpness is 0; expected a finite number > 0"),
        ({"margin": math.nan}, "margin is nan; expected a finite number > 0"),
        ({"rate": math.inf}, "rate is inf; expected a finite number > 0"),
        ({"every": 0}, "every is 0; expected a number of steps, at least 1"),
    ],
)
def test_a_bad_setting_is_one_clear_line(settings, line):
    with pytest.raises(ConfigError) as caught:
        build_weighter("constrained", np.array([0.5, 0.5]), {"objective": 0, "thresholds": [None, 0.5], **settings})
    assert str(caught.value).startswith(f"weighting 'constrained': {line}")
    assert "\n" not in str(caught.value)


def test_what_is_not_asked_for_and_the_objectives_own_are_no_thresholds():
    """None, -inf, and whatever stands at the objective itself, a NaN too."""
    for own in (None, math.nan, 9.0):
        weighter = build_weighter(
            "constrained", np.full(3, 1 / 3), {"objective": 1, "thresholds": [-math.inf, own, None]}
        )
        assert see(weighter, [-9, -9, -9]).tolist() == [0, 1, 0]
    assert weighter.validation_every == 5
