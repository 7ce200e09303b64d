"""The plan of a cascade, its path of operating points, and the policy that walks it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workzone.calibration import create as create_calibrator
from workzone.data.roles import CalibData
from workzone.decisions import Code, apply_policy
from workzone.decisions.cascade import Band, Plan, Point, fit_plan, greedy_order, starting_threshold
from workzone.decisions.cascade.search import _best, divergence
from workzone.decisions.cascade.tested import climbed
from workzone.decisions.policies.cascade import CascadePolicy
from workzone.decisions.risk import GRID
from workzone.errors import BundleError, CheckFailedError, ConfigError, DataError
from workzone.files import canonical_json
from workzone.predictions import FloatArray, logit, sigmoid

NONE = create_calibrator("none")
ORDER = tuple(range(10))


def scores(n: int, seed: int = 0) -> tuple[CalibData, FloatArray]:
    """Labels and log-odds (N, 3) of three stages that see more and more."""
    rng = np.random.default_rng(seed)
    y = (np.arange(n) % 2).astype(int)
    truth = 6.0 * (y - 0.5) + rng.normal(size=n)
    u = np.column_stack([truth * 0.6 + rng.normal(0, noise, n) for noise in (2.0, 1.0, 0.1)])
    return CalibData.from_arrays(y, u[:, 2]), u


def plan_of(u: FloatArray, start: float = 0.3) -> Plan:
    return fit_plan(ORDER, (1, 4, 10), (NONE, NONE), sigmoid(u), start=lambda _: start)


def named(u: FloatArray) -> dict[str, FloatArray]:
    return {f"stage_{i + 1}": u[:, i] for i in range(u.shape[1] - 1)}


def test_the_path_goes_from_all_views_to_one_and_is_nested() -> None:
    _, u = scores(600)
    plan = plan_of(u)
    costs = [p.cost for p in plan.points]
    assert 6 <= len(plan.points) <= 12
    assert costs[0] == 1.0
    assert costs[-1] == pytest.approx(0.1)
    assert all(a > b for a, b in pairwise(costs))
    stops = [plan.walk(i, sigmoid(u[:, 2]), named(u))[1] for i in range(len(costs))]
    assert all((b <= a).all() for a, b in pairwise(stops)), "what a cheap point passes on, a dear one passes on too"
    spent = [plan.cost(stop, point).mean() for point, stop in enumerate(stops)]
    assert spent == pytest.approx(costs), "the stated cost is the one on these images"


def test_the_path_is_nearer_to_the_full_model_than_stopping_at_random() -> None:
    _, u = scores(2000)
    plan = plan_of(u)
    _, fresh = scores(2000, seed=1)
    full = sigmoid(fresh[:, 2])
    ends = divergence(sigmoid(fresh)).mean(axis=0)
    middle = [(i, point) for i, point in enumerate(plan.points) if 0.2 < point.cost < 1.0]
    assert len(middle) >= 3
    for i, point in middle:
        answer, _ = plan.walk(i, full, named(fresh))
        reached = divergence(np.column_stack([answer, full]))[:, 0].mean()
        at_random = ends[0] * (1 - point.cost) / 0.9
        assert reached < 0.7 * at_random, point


@pytest.mark.parametrize("seed", range(20))
def test_a_band_is_the_best_of_all_intervals(seed: int) -> None:
    rng = np.random.default_rng(seed)
    q, gain = rng.integers(1, 12, 30) / 12, rng.normal(size=30)
    outer = [Band(), Band(0.2, 0.8), Band(None, 0.5)][seed % 3]
    found = _best(q, gain, outer)
    assert found.inside(outer)
    ends = [*np.unique(q).tolist(), 1.0]
    values = [
        gain[~Band(a, b).stops(q) & ~outer.stops(q)].sum() for i, a in enumerate(ends) for b in ends[i:]
    ]
    assert gain[~found.stops(q)].sum() == pytest.approx(max(0.0, *values))


def test_the_order_takes_the_view_that_helps_most_first() -> None:
    rng = np.random.default_rng(0)
    y = (np.arange(400) % 2).astype(np.int64)
    strength = [0.2, 0.1, 2.0, 0.0, 1.0]
    views = np.column_stack([s * (2 * y - 1) + 0.3 * rng.normal(size=400) for s in strength])

    def total(seen: Sequence[int]) -> FloatArray:
        return np.asarray(views[:, list(seen)].sum(axis=1))

    assert greedy_order(total, y, 5)[:3] == (0, 2, 4)
    assert greedy_order(total, y, 1) == (0,)
    assert sorted(greedy_order(total, y, 5)) == list(range(5))
    assert greedy_order(total, y, 5, first=2) == (0, 2, 1, 3, 4)
    assert greedy_order(total, y, 5, first=1) == tuple(range(5))


def test_the_starting_threshold_leaves_room_for_the_exits() -> None:
    data, u = scores(1000)
    p = sigmoid(u[:, 0])
    start = starting_threshold(data, p, 0.02, 0.05, "image")
    misses = int((p[data.labels == 1] < start).sum())
    assert misses <= 2, "5 of 500 are allowed, half of them are left to the exits"
    above = p[data.labels == 1]
    assert (above < start + 0.02).sum() >= misses
    assert starting_threshold(data, p, 0.2, 0.05, "image") > start
    assert starting_threshold(data, p, 0.9, 0.05, "image") <= 0.6, "never above the MCC-optimal threshold"


def test_a_cheap_point_gets_a_lower_threshold_of_its_own() -> None:
    data, u = scores(2000)
    p = sigmoid(u)
    stages = ((1, 10), ORDER, [NONE])
    plan = fit_plan(
        stages[1], stages[0], stages[2], p[:, [0, 2]], start=lambda a: starting_threshold(data, a, 0.02, 0.05, "image")
    )
    starts = [point.start for point in plan.points]
    assert starts[0] > 5 * starts[-1]
    fresh, v = scores(2000, seed=3)
    policy = CascadePolicy(plan=plan, budget=0.1).fit(fresh, sigmoid(v[:, 2]), {"stage_1": v[:, 0]})
    assert policy.certified_points == len(plan.points)
    assert policy.coverage < policy.at(1.0).decide(sigmoid(v[:, 2])).accepted.mean()


@pytest.mark.parametrize(
    "change",
    [
        {"order": (1, *range(2, 10), 0)},
        {"order": (0, 0, *range(2, 10))},
        {"stages": (1, 4, 9)},
        {"stages": (4, 1, 10)},
        {"calibrators": (NONE,)},
        {"points": ()},
        {"points": (Point((Band(0.1), Band()), 1.0),)},
        {"points": (Point((Band(), Band()), 1.0), Point((Band(),), 0.5))},
        {"points": (Point((Band(), Band()), 1.0, 0.1), Point((Band(0.5, 0.5),) * 2, 0.5))},
    ],
)
def test_impossible_plans_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"views|stage|point|threshold"):
        replace(plan_of(scores(200)[1]), **change)


def test_points_that_are_not_nested_are_refused() -> None:
    wide, narrow = Point((Band(0.1, 0.9),), 0.8, 0.1), Point((Band(0.2, 0.8),), 0.6, 0.1)
    full = Point((Band(),), 1.0, 0.1)
    Plan((0, 1), (1, 2), (NONE,), (full, wide, narrow))
    with pytest.raises(ValueError, match="nested"):
        Plan((0, 1), (1, 2), (NONE,), (full, narrow, wide))


def test_a_plan_survives_json_bit_for_bit() -> None:
    plan = plan_of(scores(300)[1])
    again = Plan.from_dict(json.loads(canonical_json(plan.to_dict())))
    assert canonical_json(again.to_dict()) == canonical_json(plan.to_dict())


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("order", [0, 1]),
        ("order", [True] * 10),
        ("stages", [1, 4.0, 10]),
        ("stages", list(range(300))),
        ("calibrators", [1, 2]),
        ("calibrators", [{"method": "none", "parameters": {}}]),
        ("points", []),
        ("points", [{"bands": [[None, None], [None, None]], "cost": 0.0, "start": 0.1}]),
        ("points", [{"bands": [[0.9, 0.1], [None, None]], "cost": 1.0, "start": 0.1}]),
        ("points", [{"bands": [[None, None], [None]], "cost": 1.0, "start": 0.1}]),
        ("points", [{"bands": [[None, None], [None, None]], "cost": 1.0, "start": 2.0}]),
        ("points", [{"bands": [[None, None], [None, None]], "cost": 1.0}]),
    ],
)
def test_stored_plans_that_were_changed_are_refused(key: str, wrong: Any) -> None:
    stored = plan_of(scores(300)[1]).to_dict()
    with pytest.raises(BundleError):
        Plan.from_dict({**stored, key: wrong})
    with pytest.raises(BundleError):
        Plan.from_dict({**stored, "surprise": 1})


def fitted(n: int = 2000, **options: Any) -> tuple[CascadePolicy, CalibData, FloatArray]:
    _, first = scores(n)
    data, second = scores(n, seed=7)
    policy = CascadePolicy(plan=plan_of(first), **options).fit(data, sigmoid(second[:, 2]), named(second))
    return policy, data, second


def test_what_lies_behind_the_stop_is_not_read() -> None:
    _, data, u = fitted()
    points = (plan_of(u).points[0], Point((Band(0.1, 0.9), Band(0.2, 0.8)), 0.5, 0.3))
    at = CascadePolicy(plan=replace(plan_of(u), points=points), budget=0.5).fit(data, sigmoid(u[:, 2]), named(u))
    whole = at.decide(sigmoid(u[:, 2]), named(u))
    assert whole.stage is not None
    stop = whole.stage
    assert 0.1 < (stop == 1).mean() < 0.9
    assert (stop == 3).any()
    blind = u.copy()
    blind[stop == 1, 1:] = np.nan
    blind[stop == 2, 2] = np.nan
    p = np.where(np.isnan(blind[:, 2]), 0.123, sigmoid(blind[:, 2]))
    lazy = at.decide(p, named(blind))
    assert np.array_equal(lazy.codes, whole.codes)
    assert np.array_equal(lazy.probability, whole.probability)
    assert list(lazy.reasons) == list(whole.reasons)
    chosen = np.take_along_axis(u, stop[:, None] - 1, axis=1)[:, 0]
    assert np.array_equal(whole.probability, sigmoid(chosen))
    blind[np.flatnonzero(stop == 3)[0], 1] = np.nan
    with pytest.raises(DataError, match="stage 2"):
        at.decide(p, named(blind))


def test_the_full_point_is_the_full_model() -> None:
    policy, _, u = fitted()
    full = policy.at(1.0)
    assert full.needs == ()
    p = sigmoid(u[:, 2])
    assert np.array_equal(full.decide(p).probability, p)
    assert np.array_equal(apply_policy(full, p, None).codes, full.decide(p, named(u)).codes)
    with pytest.raises(DataError, match="stage 1"):
        policy.at(0.3).decide(p)


def test_a_budget_takes_the_dearest_point_that_it_pays_for() -> None:
    policy, _, _ = fitted()
    points = policy.plan.points
    for budget in (0.1, 0.2, 0.35, 0.5, 0.99, 1.0):
        at = policy.at(budget)
        assert points[at.active].cost <= budget + 1e-9
        assert at.active == 0 or points[at.active - 1].cost > budget
        assert policy.at(budget * 10).active == at.active or budget <= 0.1, "3.5 views are a share of 0.35"
    assert policy.active == policy.at(0.35).active, "the policy itself is left alone"
    for wrong in (0.0, -1.0, 0.05, 11.0, float("nan")):
        with pytest.raises(ConfigError, match="budget"):
            policy.at(wrong)


def test_a_lone_stage_costs_everything_whatever_the_budget() -> None:
    policy = CascadePolicy(budget=0.2)
    assert policy.active == 0
    assert policy.needs == ()


def test_certified_points_are_the_first_ones_and_keep_the_target_here() -> None:
    policy, data, u = fitted(target_fnr=0.05)
    held = policy.certified_points
    assert 2 <= held < len(policy.plan.points), "some are certified and the cheapest is not"
    positives = data.labels == 1
    for i, result in enumerate(policy.results):
        at = policy.at_point(i)
        decided = at.decide(sigmoid(u[:, 2]), named(u))
        missed = int((decided.codes[positives] == Code.NO_ROADWORK).sum())
        (promise,) = at.guarantees
        assert (promise.status == "certified") == (i < held)
        if i < held:
            assert missed == result.errors == promise.errors
            assert promise.bound <= 0.05
            assert f"the {held} dearest points hold at once" in promise.sentence()
        else:
            answered = decided.codes != Code.ABSTAIN
            assert all("uncertified" in r for r, a in zip(decided.reasons, answered, strict=True) if a)


def crafted(first: FloatArray, points: Sequence[Band]) -> tuple[CascadePolicy, CalibData, dict[str, FloatArray]]:
    """Positives that all views find, whose first look gives ``first`` (N,), and clear negatives."""
    n = len(first)
    plan = Plan(
        (0, 1),
        (1, 2),
        (NONE,),
        (Point((Band(),), 1.0, 0.05), *(Point((b,), 0.9 - 0.1 * i, 0.05) for i, b in enumerate(points))),
    )
    y = np.r_[np.ones(n, dtype=int), np.zeros(50, dtype=int)]
    data = CalibData.from_arrays(y, np.where(y == 1, 3.0, -6.0))
    return CascadePolicy(plan=plan, budget=1.0), data, {"stage_1": logit(np.r_[first, np.full(50, 0.5)])}


def test_nothing_behind_a_failure_is_certified_even_where_it_passes_alone() -> None:
    first = np.r_[np.full(20, 0.01), np.full(380, 0.5)]
    bands = [Band(0.02, 0.9), Band(0.02, 0.8)]
    policy, data, stages = crafted(first, bands)
    policy.fit(data, sigmoid(data.scores), stages)
    assert [r.status for r in policy.results] == ["certified", "uncertified", "uncertified"]
    assert "20 misses among 400 roadwork images" in policy.promise(1).sentence()
    # The same misses, but rescued by the last point: alone it would pass.
    first = np.r_[np.full(20, 0.01), np.full(380, 0.5)]
    policy, data, stages = crafted(first, [Band(0.02, 0.9), Band(0.005, 0.005)])
    with_rescue = replace(policy.plan, points=(*policy.plan.points[:2], Point((Band(0.5, 0.5),), 0.5, 0.05)))
    policy = policy.with_plan(with_rescue, 1.0)
    y = data.labels
    full = np.where(y == 1, 0.95, 0.0025)
    answers = {"stage_1": logit(np.where(np.arange(len(y)) < 20, 0.01, np.where(y == 1, 0.9, 0.01)))}
    policy.fit(data, full, answers)
    assert policy.results[1].errors == 20
    assert policy.certified_points == 1


def test_a_point_that_passes_alone_says_so() -> None:
    # All views miss 20 of 400, and the first look finds them all: only the cheap point would keep the promise.
    policy, data, stages = crafted(np.full(400, 0.9), [Band(0.5, 0.5)])
    full = sigmoid(data.scores).copy()
    full[:20] = 1e-6
    policy.fit(data, full, stages)
    assert [r.status for r in policy.results] == ["uncertified", "uncertified"]
    assert policy.results[1].errors == 0
    assert "this one alone passes" in policy.promise(1).sentence()


@pytest.mark.parametrize("rule", ["uncertified", "abstain", "stop"])
def test_what_happens_without_a_promise(rule: Any) -> None:
    options = {"target_fnr": 1e-4, "if_not_certifiable": rule}
    if rule == "stop":
        with pytest.raises(CheckFailedError, match="Not certifiable"):
            fitted(**options)
        return
    policy, _, u = fitted(**options)
    decided = policy.decide(sigmoid(u[:, 2]), named(u))
    assert policy.guarantees[0].status == "not_certifiable"
    assert bool((decided.codes == Code.NO_ROADWORK).any()) == (rule == "uncertified")
    assert (decided.codes == Code.ROADWORK).any()


def test_stop_looks_at_the_chosen_point_alone() -> None:
    policy, _, _ = fitted(target_fnr=0.05, budget=1.0, if_not_certifiable="stop")
    assert policy.guarantees[0].status == "certified"
    with pytest.raises(CheckFailedError, match="Operating point"):
        fitted(target_fnr=0.05, budget=0.1, if_not_certifiable="stop")


@pytest.mark.parametrize(
    "change",
    [
        {"active": 0},
        {"active": 1.0},
        {"results": []},
        {"n": 1},
        {"budget": 0.01},
        {"t_high": 0.0},
        {"plan": None},
    ],
)
def test_stored_policies_that_contradict_themselves_are_refused(change: dict[str, Any]) -> None:
    policy, _, _ = fitted(target_fnr=0.05)
    stored = policy.parameters()
    CascadePolicy.from_parameters(stored)
    with pytest.raises(BundleError):
        CascadePolicy.from_parameters({**stored, **change})


def test_a_certified_point_behind_an_uncertified_one_is_refused() -> None:
    policy, _, _ = fitted(target_fnr=0.05)
    stored = json.loads(canonical_json(policy.parameters()))
    stored["results"][-1]["status"] = "certified"
    with pytest.raises(BundleError, match="above its target"):
        CascadePolicy.from_parameters(stored)
    stored["results"][-1]["bound"] = 0.01
    with pytest.raises(BundleError, match="behind one that is not"):
        CascadePolicy.from_parameters(stored)


# The promise, over many draws. A positive image has a first look q uniform in (0, 1). All views miss it if and only if
# q lies in the last RATE of the interval, and point j stops early what lies in its first j steps (a miss) or its last
# ones (a rescue), so every point misses exactly RATE of the positives, just above the target, but other ones.
ALPHA, DELTA, RATE, N, STEPS = 0.02, 0.05, 0.0201, 600, 15
STEP = RATE / STEPS


def rolling() -> Plan:
    bands = [Band()] + [Band(j * STEP, 1 - j * STEP) for j in range(1, STEPS + 1)]
    points = [Point((b,), 1.0 - 0.01 * j, 0.05) for j, b in enumerate(bands)]
    return Plan((0, 1), (1, 2), (NONE,), tuple(points))


def misses(q: FloatArray) -> FloatArray:
    """Misses (draws, points) among positives q (draws, N), counted without the policy."""
    return np.stack(
        [((q < j * STEP) | ((q >= 1 - RATE) & (q < 1 - j * STEP))).sum(axis=1) for j in range(STEPS + 1)], axis=1
    )


@pytest.mark.stat
def test_the_promise_of_all_points_at_once_holds_and_broken_rules_are_caught() -> None:
    from workzone.decisions.risk import allowed_errors

    rng = np.random.default_rng(0)
    draws, few = 4000, 60
    allowed = allowed_errors(N, ALPHA, DELTA)
    counted = misses(rng.random((draws, N)))
    limit = DELTA + 3 * float(np.sqrt(DELTA * (1 - DELTA) / draws))
    passes = counted <= allowed
    ordered = np.cumprod(passes, axis=1).astype(bool)
    assert 0.02 < ordered.any(axis=1).mean() <= limit, "every point is above the target, so each certificate is wrong"
    assert passes.any(axis=1).mean() > limit, "each point at delta, without an order, is caught"
    assert (counted <= ALPHA * N).any(axis=1).mean() > limit + 0.2, "the empirical rate itself is caught"
    # The policy is that rule: the same points are certified, draw by draw, whatever the draw.
    seen = set()
    for row in range(few):
        share = 0.25 + 0.75 * (row % 2)
        q = rng.random(N)
        q = np.where(q < RATE, np.where(rng.random(N) < share, q, 0.5), q)
        q = np.where(q >= 1 - RATE, np.where(rng.random(N) < share, q, 0.5), q)
        y = np.r_[np.ones(N, dtype=int), np.zeros(60, dtype=int)]
        full = np.r_[np.where(q >= 1 - RATE, 0.02, 0.9), np.full(60, 0.01)]
        stages = {"stage_1": logit(np.r_[q, np.full(60, 0.5)])}
        policy = CascadePolicy(plan=rolling(), target_fnr=ALPHA, delta=DELTA, budget=1.0)
        policy.fit(CalibData.from_arrays(y, logit(full)), full, stages)
        expected = misses(q[None])[0] <= allowed
        held = int(np.cumprod(expected).sum())
        # Where all views fail at the threshold of the points, they may still pass at a lower one, without a miss.
        assert policy.certified_points == max(held, 1)
        assert held or policy.results[0].threshold <= 0.02
        seen.add(held)
    assert {0, STEPS + 1} <= seen


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(0, 6))
def test_points_that_have_passed_rise_together_until_one_fails(seed: int, points: int, allowed: int) -> None:
    rng = np.random.default_rng(seed)
    answers = [rng.beta(2, 2, size=30) for _ in range(points)]
    starts = rng.uniform(0.01, 0.4, size=points).tolist()
    tops, over = list(starts), False
    for threshold in GRID[min(starts) < GRID].tolist():
        for point in range(points):
            if threshold > starts[point]:
                over = over or int((answers[point] < threshold).sum()) > allowed
                tops[point] = tops[point] if over else threshold
        if over:
            break
    assert climbed(answers, starts, allowed) == tops


@pytest.mark.stat
def test_thresholds_that_rise_behind_the_points_keep_the_promise() -> None:
    rng = np.random.default_rng(1)
    draws, n, alpha = 1500, 300, 0.1
    plan = Plan((0, 1), (1, 2), (NONE,), (Point((Band(),), 1.0, 0.01), Point((Band(0.005, 0.5),), 0.6, 0.01)))
    known, lifted, broken = CascadePolicy(plan=plan, target_fnr=alpha, delta=DELTA, budget=1.0), 0, 0
    # Negatives that put the MCC-optimal threshold, which caps the others, well above the target.
    labels = np.r_[np.ones(n, dtype=int), np.zeros(600, dtype=int)]
    for _ in range(draws):
        full, first = rng.random(n), rng.random(n)
        # Of the second point half stop with a first look above 0.5, so it misses half as many at each threshold.
        p = np.r_[full, np.full(600, 0.25)]
        stages = {"stage_1": logit(np.r_[first, np.full(600, 0.1)])}
        data = CalibData.from_arrays(labels, logit(p))
        policy = known.with_plan(plan, 1.0).fit(data, p, stages)
        assert policy.certified_points == 2
        low = [r.threshold for r in policy.results]
        lifted += low[0] > 0.05
        broken += low[0] > alpha or 0.005 + 0.495 * low[1] > alpha
    assert lifted > 0.9 * draws, "the start of 0.01 is left behind"
    limit = DELTA + 3 * float(np.sqrt(DELTA * (1 - DELTA) / draws))
    assert 0.01 < broken / draws <= limit
