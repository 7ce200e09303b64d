from __future__ import annotations

import numpy as np
import pytest

from workzone.metrics.cascade import cascade_figures, deferral_curve, deferral_figures
from workzone.metrics.proportions import clopper_pearson


def test_stages_are_counted_with_exact_intervals() -> None:
    stage = np.array([1] * 6 + [2] * 4)
    correct = np.array([1, 1, 1, 1, 1, 0, 1, 1, 0, 0])
    cost = np.where(stage == 1, 1.0, 11.0)
    found = cascade_figures(stage, cost, correct)
    assert found.mean_cost.value == pytest.approx(5.0)
    assert found.mean_cost.low < 5.0 < found.mean_cost.high
    assert found.accuracy.value == pytest.approx(0.7)
    first, second = found.stages
    assert (first.n, second.n, second.mean_cost) == (6, 4, 11.0)
    assert (first.share.value, first.accuracy.value) == pytest.approx((0.6, 5 / 6))
    assert (second.accuracy.low, second.accuracy.high) == pytest.approx(clopper_pearson(2, 4))


def test_mean_cost_follows_the_images_and_widens_with_groups() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(30), 20)
    cost = (1.0 + 9.0 * (rng.random(30) < 0.5))[group]
    correct = rng.integers(0, 2, 600)
    alone = cascade_figures(np.ones(600, dtype=int), cost, correct).mean_cost
    grouped = cascade_figures(np.ones(600, dtype=int), cost, correct, groups=group).mean_cost
    assert alone.value == grouped.value == pytest.approx(cost.mean())
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def test_deferral_finds_the_wrong_images() -> None:
    correct = np.array([1, 1, 1, 0, 1, 0, 1, 1])
    perfect = deferral_figures(correct, 1 - correct, deferred=1 - correct)
    assert (perfect.auroc.value, perfect.accuracy.value) == (1.0, 1.0)  # type: ignore[union-attr]
    turned = deferral_figures(correct, 100.0 * correct, deferred=correct)
    assert (turned.auroc.value, turned.accuracy.value) == (0.0, 0.0)  # type: ignore[union-attr]
    assert deferral_figures(correct, np.zeros(8)).auroc.value == 0.5
    assert deferral_figures(correct, np.zeros(8)).accuracy is None
    assert np.isnan(deferral_figures(np.ones(8), np.arange(8)).auroc.value)


def test_curve_runs_from_small_to_large_between_random_and_oracle() -> None:
    rng = np.random.default_rng(1)
    small, large = (rng.random(400) < 0.7).astype(int), (rng.random(400) < 0.9).astype(int)
    score = 1 - small + rng.normal(0, 0.8, 400)
    curve = deferral_curve(small, large, score, small_cost=1.0, large_cost=10.0)
    assert (curve.deferred[0], curve.cost[0], curve.accuracy[0]) == pytest.approx((0, 1, small.mean()))
    assert (curve.deferred[-1], curve.cost[-1], curve.accuracy[-1]) == pytest.approx((1, 11, large.mean()))
    at = np.interp(curve.deferred, curve.oracle_deferred, curve.oracle_accuracy)
    assert (curve.accuracy <= at + 1e-12).all()
    assert 0 < curve.quality < 1
    assert deferral_curve(small, large, large - small).quality == pytest.approx(1, abs=0.02)
    assert deferral_curve(small, large, np.zeros(400)).quality == pytest.approx(0)
    assert deferral_curve(small, large, small - large).quality < 0
    assert np.isnan(deferral_curve(small, small, score).quality)


def test_random_deferral_is_what_shuffling_gives_on_average() -> None:
    rng = np.random.default_rng(2)
    small, large = (rng.random(200) < 0.6).astype(int), (rng.random(200) < 0.95).astype(int)
    curves = [deferral_curve(small, large, rng.permutation(200)) for _ in range(300)]
    mean = np.mean([c.accuracy for c in curves], axis=0)
    assert np.abs(mean - curves[0].random_accuracy).max() < 0.01


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="integer"):
        cascade_figures([0.5], [1.0], [1])
    with pytest.raises(ValueError, match="cost"):
        cascade_figures([1], [float("nan")], [1])
    with pytest.raises(ValueError, match="one value per image"):
        deferral_curve([1, 0], [1], [0.1, 0.2])
    with pytest.raises(ValueError, match="costs"):
        deferral_curve([1], [1], [0.1], large_cost=-1)
