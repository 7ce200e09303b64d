"""Conformal sets for K classes, their quantile, and agreement with MAPIE and crepes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from workzone.data.roles import CalibData
from workzone.decisions import create
from workzone.decisions.conformal import (
    CONFORMAL,
    Aps,
    Lac,
    Mondrian,
    Raps,
    binary,
    conformal_quantile,
    conformal_rank,
    n_needed,
    summarise_sets,
)
from workzone.decisions.policies.sets import SetPolicy
from workzone.errors import ConfigError
from workzone.predictions import sigmoid

ALL = pytest.mark.parametrize("name", list(CONFORMAL))


def classes(n: int, k: int, *, seed: int = 0, sharp: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, K) and labels that follow other probabilities: the model is not calibrated."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, k)) * sharp
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    truth = np.sqrt(p) / np.sqrt(p).sum(axis=1, keepdims=True)
    y = (rng.random(n)[:, None] > truth.cumsum(axis=1)).sum(axis=1)
    return p, np.minimum(y, k - 1)


@pytest.mark.parametrize(
    ("n", "alpha", "rank"),
    [(9, 0.1, 9), (8, 0.1, 9), (19, 0.05, 19), (49, 0.02, 49), (48, 0.02, 49), (99, 0.29, 71), (716, 0.1, 646)],
)
def test_rank_is_exact_where_floats_are_not(n: int, alpha: float, rank: int) -> None:
    assert conformal_rank(n, alpha) == rank


@pytest.mark.parametrize(("alpha", "n"), [(0.1, 9), (0.05, 19), (0.02, 49), (0.03, 33), (0.3, 3)])
def test_fewest_scores(alpha: float, n: int) -> None:
    assert n_needed(alpha) == n
    assert np.isfinite(conformal_quantile(np.arange(float(n)), alpha))
    assert np.isinf(conformal_quantile(np.arange(float(n - 1)), alpha))
    with pytest.raises(ValueError, match="NaN"):
        conformal_quantile(np.array([np.nan]), alpha)


@pytest.mark.stat
@ALL
@pytest.mark.parametrize("k", [2, 6])
def test_coverage_holds_in_expectation_for_any_number_of_classes(name: str, k: int) -> None:
    if name == "raps" and k == 2:
        pytest.skip("refused below")
    covered, by_class = [], []
    for seed in range(80):
        p, y = classes(360, k, seed=seed)
        sets = CONFORMAL[name](0.1).fit(p[:60], y[:60])(p[60:])
        inside = sets[np.arange(300), y[60:]]
        covered.append(inside.mean())
        by_class.append([inside[y[60:] == c].mean() for c in range(k)])
    error = 3 * np.std(covered) / np.sqrt(len(covered))
    assert np.mean(covered) >= 0.9 - error
    if name == "mondrian":
        assert (np.nanmean(by_class, axis=0) >= 0.9 - 0.02).all()
    if name == "lac":
        assert np.mean(covered) <= 0.9 + 1 / 61 + error


@pytest.mark.stat
def test_randomised_aps_is_exact_and_the_other_one_conservative() -> None:
    exact, safe = [], []
    for seed in range(120):
        p, y = classes(400, 5, seed=seed)
        u = np.random.default_rng(1000 + seed).random(400)
        exact.append(Aps(0.2).fit(p[:99], y[:99], u[:99])(p[99:], u[99:])[np.arange(301), y[99:]].mean())
        safe.append(Aps(0.2).fit(p[:99], y[:99])(p[99:])[np.arange(301), y[99:]].mean())
    assert np.mean(exact) == pytest.approx(0.8, abs=3 * np.std(exact) / np.sqrt(120))
    assert np.mean(safe) > np.mean(exact)


@ALL
def test_sets_do_not_depend_on_the_names_of_classes(name: str) -> None:
    p, y = classes(500, 4)
    order = np.array([2, 0, 3, 1])
    first = CONFORMAL[name](0.1).fit(p[:200], y[:200])(p[200:])
    second = CONFORMAL[name](0.1).fit(p[:200][:, order], np.argsort(order)[y[:200]])(p[200:][:, order])
    assert np.array_equal(first[:, order], second)


@ALL
def test_too_few_scores_give_every_label(name: str) -> None:
    p, y = classes(20, 3)
    assert CONFORMAL[name](0.01).fit(p, y)(p).all()
    assert CONFORMAL[name](0.01).fit(p, y).to_dict()["limits"] == [None] * 3
    with pytest.raises(ConfigError, match="alpha"):
        CONFORMAL[name](1.0)
    with pytest.raises(ValueError, match="fit first"):
        CONFORMAL[name](0.1)(p)
    with pytest.raises(ValueError, match="sum to 1"):
        CONFORMAL[name](0.1).fit(2 * p, y)
    with pytest.raises(ValueError, match="labels"):
        CONFORMAL[name](0.1).fit(p, y + 3)
    with pytest.raises(ValueError, match="classes"):
        CONFORMAL[name](0.1).fit(p, y)(binary(p[:, 0]))


def test_raps_is_refused_where_its_penalty_is_always_zero() -> None:
    p, y = classes(100, 2)
    with pytest.raises(ConfigError, match="always zero"):
        Raps(0.1, k_reg=5).fit(p, y)
    p, y = classes(3000, 8)
    sizes = [Raps(0.1, k_reg=2, lam=lam).fit(p[:1000], y[:1000])(p[1000:]).sum(axis=1) for lam in (0.0, 0.2)]
    assert np.array_equal(sizes[0], Aps(0.1).fit(p[:1000], y[:1000])(p[1000:]).sum(axis=1))
    assert sizes[1].max() < sizes[0].max()


def test_the_penalty_changes_no_set_of_two_classes() -> None:
    p, y = classes(400, 2)
    for alpha in (0.05, 0.2, 0.4):
        plain = Aps(alpha).fit(p, y)(p)
        assert np.array_equal(plain, Raps(alpha, k_reg=1, lam=0.3).fit(p, y)(p))
        assert np.array_equal(plain, Raps(alpha, k_reg=0, lam=0.3).fit(p, y)(p))


@pytest.mark.parametrize("name", ["lac", "mondrian", "aps"])
@pytest.mark.parametrize("alpha", [0.02, 0.1, 0.3, 0.45])
def test_the_policies_are_the_case_of_two_classes(name: str, alpha: float) -> None:
    rng = np.random.default_rng(0)
    y = (rng.random(400) < 0.5).astype(int)
    data = CalibData.from_arrays(y, 2 * (y - 0.5) + rng.normal(size=400))
    p = sigmoid(data.scores)
    policy = create(name, alpha=alpha).fit(data, p)
    at = np.r_[p, np.linspace(0.001, 0.999, 997)]
    assert np.array_equal(policy.decide(at).sets, CONFORMAL[name](alpha).fit(binary(p), y)(binary(at)))


def test_alpha_per_class() -> None:
    p, y = classes(4000, 3)
    sets = Mondrian([0.02, 0.1, 0.3]).fit(p, y)(p)
    found = summarise_sets(sets, y).class_coverage
    assert found == pytest.approx((0.98, 0.9, 0.7), abs=0.005)
    with pytest.raises(ConfigError, match="values of alpha"):
        Mondrian([0.1, 0.2]).fit(p, y)


def test_summary_counts_each_kind_of_set() -> None:
    sets = np.array([[1, 0], [0, 1], [1, 1], [0, 0], [1, 0]], dtype=bool)
    s = summarise_sets(sets, np.array([0, 1, 1, 0, 1]))
    assert (s.n, s.coverage, s.mean_size, s.singleton, s.empty, s.full) == (5, 0.6, 1.0, 0.6, 0.2, 0.2)
    assert s.class_coverage == (0.5, pytest.approx(2 / 3))
    assert s.singleton_error == pytest.approx(1 / 3)
    assert s.coverage_low < 0.6 < s.coverage_high
    assert np.isnan(summarise_sets(np.zeros((3, 2), dtype=bool), np.zeros(3, dtype=int)).singleton_error)
    with pytest.raises(ValueError, match="at least one image"):
        summarise_sets(np.zeros((0, 2), dtype=bool), np.zeros(0, dtype=int))


def test_ties_and_saturated_scores_keep_coverage_on_the_sample() -> None:
    p = np.round(classes(300, 2)[0][:, 1], 1)
    y = (np.arange(300) % 10 < p * 10).astype(int)
    data = CalibData.from_arrays(y, np.zeros(300))
    for name in ("lac", "mondrian", "aps"):
        policy = create(name, alpha=0.1).fit(data, p)
        assert isinstance(policy, SetPolicy)
        assert summarise_sets(policy.decide(p).sets, y).coverage >= 0.9


class Given:
    """Classifier for MAPIE that returns its input as probabilities."""

    def __init__(self, k: int) -> None:
        self.classes_ = np.arange(k)

    def fit(self, x: Any, y: Any) -> Given:
        return self

    def predict_proba(self, x: Any) -> np.ndarray:
        return np.asarray(x)

    def predict(self, x: Any) -> np.ndarray:
        return np.asarray(x).argmax(axis=1)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {"k": len(self.classes_)}


def mapie_sets(score: str, p: np.ndarray, y: np.ndarray, at: np.ndarray, level: float) -> np.ndarray:
    classification = pytest.importorskip("mapie.classification")
    model = classification.SplitConformalClassifier(
        Given(p.shape[1]), confidence_level=level, conformity_score=score, prefit=True, random_state=0
    )
    return np.asarray(model.conformalize(p, y).predict_set(at)[1][:, :, 0])


@pytest.mark.parity
@pytest.mark.parametrize("k", [2, 5])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_lac_agrees_with_mapie(k: int, level: float) -> None:
    p, y = classes(700, k)
    assert np.array_equal(
        Lac(round(1 - level, 2)).fit(p[:300], y[:300])(p), mapie_sets("lac", p[:300], y[:300], p, level)
    )


@pytest.mark.parity
@pytest.mark.parametrize("level", [0.8, 0.9])
def test_aps_agrees_with_mapie(level: float) -> None:
    # MAPIE randomises the scores of calibration, not the sets. It refuses APS for two classes.
    p, y = classes(700, 5)
    u = 1 - np.random.RandomState(0).uniform(size=300)
    ours = Aps(round(1 - level, 2)).fit(p[:300], y[:300], u)(p)
    assert np.array_equal(ours, mapie_sets("aps", p[:300], y[:300], p, level))


@pytest.mark.parity
def test_fixed_sequence_goes_at_least_as_far_as_that_of_mapie() -> None:
    control = pytest.importorskip("mapie.risk_control")
    from workzone.decisions.risk import certify_threshold

    rng = np.random.default_rng(0)
    y = (np.arange(2000) % 2 == 0).astype(int)
    p = sigmoid(2.0 * (2 * y - 1) + rng.normal(size=2000))
    grid = np.linspace(0.0, 0.9, 91)
    controller = control.BinaryClassificationController(
        lambda x: np.column_stack([1 - np.ravel(x), np.ravel(x)]),
        risk="recall",
        target_level=0.95,
        confidence_level=0.95,
        list_predict_params=grid,
        fwer_method="fixed_sequence",
    )
    controller.calibrate(p.reshape(-1, 1), y)
    theirs = float(np.max(controller.valid_predict_params))
    ours = certify_threshold(p[y == 1], grid, 0.05, 0.05).threshold
    assert ours is not None
    # Theirs is the Hoeffding-Bentkus p-value, ours the exact one.
    assert theirs <= ours <= theirs + 0.1


@pytest.mark.parity
def test_mondrian_agrees_with_crepes() -> None:
    crepes = pytest.importorskip("crepes", reason="crepes is not installed")
    extras = pytest.importorskip("crepes.extras")
    p, y = classes(700, 3)
    model = crepes.WrapClassifier(Given(3))
    # With 99 images of a class (n + 1) alpha is whole, and 1 - 0.9 in floats is below 0.1: theirs keeps one label more.
    model.calibrate(p[:305], y[:305], class_cond=True, nc=extras.hinge)
    found = model.predict_set(p, confidence=0.9, smoothing=False)
    theirs = np.array([np.isin(np.arange(3), labels) for labels in found])
    assert np.array_equal(Mondrian(0.1).fit(p[:305], y[:305])(p), theirs)
