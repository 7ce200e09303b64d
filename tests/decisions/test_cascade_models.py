"""Plans over several models: what a stage sees, what it costs, and what cannot be stored."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from workzone.calibration import create as create_calibrator
from workzone.decisions.cascade import Band, Model, Plan, Point, fit_plan
from workzone.errors import BundleError
from workzone.predictions import FloatArray, sigmoid

NONE = create_calibrator("none")
ORDER, STAGES = (0, 2, 0, 1, 2), (1, 2, 3, 5)
MODELS = (Model(3, 2, 1.0), Model(3, 3, 4.0))
OPEN = Band()


def plan(*, mean: bool = False, bands: tuple[Band, ...] = (OPEN,) * 3) -> Plan:
    points = [Point((OPEN,) * 3, 1.0, 0.1)]
    points += [Point(bands, 0.5, 0.1)] if bands != (OPEN,) * 3 else []
    return Plan(ORDER, STAGES, (NONE,) * 3, tuple(points), MODELS, mean)


def test_a_stage_belongs_to_a_model_and_sees_its_views() -> None:
    made = plan()
    assert [made.model(s) for s in (1, 2, 3, 4)] == [0, 0, 1, 1]
    assert [made.views(s) for s in (1, 2, 3, 4)] == [(0,), (0, 2), (0,), (0, 1, 2)]
    assert [made.last_stage(m) for m in (0, 1)] == [2, 4]


def test_cost_is_a_share_of_what_it_takes_to_pass_everyone_on() -> None:
    assert plan().shares == pytest.approx(np.array([1, 2, 6, 14]) / 12), "the large model alone costs 12"
    assert plan(mean=True).shares == pytest.approx(np.array([1, 2, 6, 14]) / 14), "both are needed for the mean"
    one = Plan((0, 1), (1, 2), (NONE,), (Point((OPEN,), 1.0),))
    assert one.shares.tolist() == [0.5, 1.0]


def test_a_model_in_which_nobody_stops_is_not_paid() -> None:
    late = (OPEN, OPEN, Band(0.2, 0.8))
    assert plan().used(late[:3]) == (False, True)
    assert plan().stage_costs(late) == pytest.approx(np.array([1, 2, 4, 12]) / 12)
    assert plan(mean=True).used(late) == (True, True)
    early = (Band(0.2, 0.8), OPEN, OPEN)
    assert plan().stage_costs(early) == pytest.approx(np.array([1, 2, 5, 13]) / 12), "nor looks behind the last exit"
    both = (Band(0.2, 0.8), Band(0.3, 0.7), OPEN)
    assert plan().stage_costs(both) == pytest.approx(np.array([1, 2, 6, 14]) / 12)
    made = plan(bands=late)
    assert made.cost(np.array([4, 3]), 1) == pytest.approx([1.0, 4 / 12])
    assert made.cost(np.array([4]), 0) == pytest.approx([1.0])


def scores(n: int) -> FloatArray:
    rng = np.random.default_rng(0)
    truth = np.where(np.arange(n) % 2, 3.0, -3.0) + rng.normal(size=n)
    return sigmoid(np.column_stack([truth + rng.normal(0, noise, n) for noise in (4.0, 2.0, 1.0, 0.1)]))


@pytest.mark.parametrize("mean", [False, True])
def test_the_path_over_models_is_nested_and_its_costs_are_true(mean: bool) -> None:
    p = scores(300)
    made = fit_plan(ORDER, STAGES, (NONE,) * 3, p, start=lambda _: 0.1, models=MODELS, mean=mean)
    costs = [point.cost for point in made.points]
    assert costs[0] == 1.0
    assert costs[-1] == pytest.approx(1 / (14 if mean else 12))
    assert len(costs) >= 5
    assert all(a > b for a, b in pairwise(costs))
    logits = np.log(p / (1 - p))
    named = {f"stage_{i + 1}": logits[:, i] for i in range(3)}
    stops = [made.walk(point, p[:, 3], named)[1] for point in range(len(costs))]
    assert [made.cost(s, i).mean() for i, s in enumerate(stops)] == pytest.approx(costs)
    assert all((b <= a).all() for a, b in pairwise(stops))
    assert Plan.from_dict(made.to_dict()).to_dict() == made.to_dict()


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "one model": lambda d: d["models"].pop(),
    "no models": lambda d: d.update(models=[]),
    "no word on the mean": lambda d: d.pop("mean"),
    "mean as a number": lambda d: d.update(mean=1),
    "cost of nothing": lambda d: d["models"][0].update(cost=0.0),
    "cost as text": lambda d: d["models"][0].update(cost="1"),
    "more looks than views": lambda d: d["models"][0].update(views=1),
    "looks as text": lambda d: d["models"][0].update(looks="2"),
    "looks that do not fit": lambda d: d["models"][0].update(looks=1),
    "last model looks away": lambda d: d["models"][1].update(views=4),
    "a view twice": lambda d: d.update(order=[0, 2, 0, 1, 1]),
    "a view that is not there": lambda d: d.update(order=[0, 3, 0, 1, 2]),
    "tile first": lambda d: d.update(order=[2, 0, 0, 1, 2]),
    "no stage at the end of a model": lambda d: d.update(stages=[1, 3, 4, 5]),
    "unknown key": lambda d: d["models"][0].update(more=1),
    "too many": lambda d: d.update(models=d["models"] * 5),
    "not a list": lambda d: d.update(models={}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_forged_plan_is_refused(name: str) -> None:
    stored = copy.deepcopy(plan().to_dict())
    assert Plan.from_dict(stored).to_dict() == stored
    CHANGES[name](stored)
    with pytest.raises(BundleError):
        Plan.from_dict(stored)


def test_a_plan_of_one_model_is_stored_as_before() -> None:
    one = Plan((0, 1), (1, 2), (NONE,), (Point((OPEN,), 1.0),))
    assert set(one.to_dict()) == {"order", "stages", "calibrators", "points"}
    assert Plan.from_dict(one.to_dict()).to_dict() == one.to_dict()
    with pytest.raises(ValueError, match="permutation"):
        Plan((0, 1), (1, 2), (NONE,), (Point((OPEN,), 1.0),), (), True)
