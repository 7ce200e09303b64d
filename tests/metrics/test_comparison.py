from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from workzone.metrics import bootstrap, evaluate
from workzone.metrics.comparison import (
    bootstrap_p,
    delong,
    delong_covariance,
    mcnemar,
    midranks,
    paired_bootstrap,
)
from workzone.metrics.resampling import Plan
from workzone.metrics.sample import Sample

NAMES = ["mcc", "accuracy", "fnr", "auroc", "average_precision", "brier", "augrc"]


def _models(n: int, seed: int = 0, noise: float = 1.0) -> tuple[Any, Any, Any]:
    """Labels, a model, and a second one that sees the same with noise."""
    rng = np.random.default_rng(seed)
    z = rng.normal(-0.3, 2, n)
    y = (rng.random(n) < 1 / (1 + np.exp(-z))).astype(int)
    return y, 1 / (1 + np.exp(-z)), 1 / (1 + np.exp(-(z + rng.normal(0, noise, n))))


Y, A, B = _models(240)
GROUPS = np.random.default_rng(1).integers(0, 40, 240)


@pytest.mark.parametrize("options", [{}, {"groups": GROUPS}, {"stratified": True}, {"method": "bca"}])
def test_identical_models_differ_by_exactly_0(options: dict[str, Any]) -> None:
    # A different order of ties must not matter either, so scores are coarse.
    p = np.round(A, 1)
    shares = {"wrong": ((Y, Y + 1), (Y, Y + 1))}
    alike = paired_bootstrap(NAMES, Y, p, p.copy(), n_resamples=200, shares=shares, **options)
    for name, found in alike.items():
        assert (found.difference.value, found.difference.low, found.difference.high) == (0, 0, 0)
        assert found.p == 1
        assert not found.told
        # The number of roadwork images is kept where labels are strata, and so is this share of it.
        if not (name == "wrong" and "stratified" in options):
            assert found.a.low < found.a.value < found.a.high


@pytest.mark.parametrize("options", [{}, {"groups": GROUPS}, {"groups": GROUPS, "stratified": True}])
def test_both_models_are_resampled_alike(options: dict[str, Any]) -> None:
    b = 25
    found = paired_bootstrap(NAMES, Y, A, B, n_resamples=b, seed=3, **options)
    sample = Sample(Y, A)
    plan = Plan(sample, **options)
    weights = plan.to_images(plan.draw(np.random.default_rng(np.random.SeedSequence(3).spawn(1)[0]), b))
    gaps: dict[str, list[float]] = {name: [] for name in NAMES}
    for row in weights:
        index = np.repeat(sample.order, row)
        one, two = (evaluate(Y[index], p[index], names=NAMES) for p in (A, B))
        for name in NAMES:
            gaps[name].append(two[name] - one[name])
    for name in NAMES:
        low, high = np.quantile(gaps[name], [0.025, 0.975])
        assert found[name].difference.low == pytest.approx(low, abs=1e-12)
        assert found[name].difference.high == pytest.approx(high, abs=1e-12)
        assert found[name].p == pytest.approx(bootstrap_p(gaps[name]))


def test_exchanging_the_models_turns_the_sign() -> None:
    # The resamples follow the order of the first model, so the two agree only up to the noise of resampling.
    one, two = (paired_bootstrap(["mcc"], Y, *p, n_resamples=4000)["mcc"] for p in ((A, B), (B, A)))
    assert one.difference.value == -two.difference.value
    assert one.difference.low == pytest.approx(-two.difference.high, abs=0.02)


def test_pairing_shortens_the_interval() -> None:
    y, a, b = _models(600, noise=0.4)
    paired = paired_bootstrap(["auroc"], y, a, b)["auroc"].difference
    alone = bootstrap(["auroc"], y, a)["auroc"]
    assert paired.high - paired.low < 0.6 * (alone.high - alone.low)


def test_groups_widen_the_interval() -> None:
    y, a, b = _models(200)
    four = [np.repeat(v, 4) for v in (y, a, b)]
    by_image = paired_bootstrap(["brier"], *four)["brier"].difference
    by_group = paired_bootstrap(["brier"], *four, groups=np.repeat(np.arange(200), 4))["brier"].difference
    assert by_group.high - by_group.low == pytest.approx(2 * (by_image.high - by_image.low), rel=0.2)


def test_workers_and_shares() -> None:
    one, two = (paired_bootstrap(NAMES, Y, A, B, n_resamples=1500, workers=w) for w in (1, 2))
    assert one == two
    wrong_a, wrong_b = ((p >= 0.5) != Y for p in (A, B))
    every = np.ones(len(Y))
    found = paired_bootstrap(["accuracy"], Y, A, B, shares={"wrong": ((wrong_a, every), (wrong_b, every))})
    assert found["wrong"].difference.low == pytest.approx(-found["accuracy"].difference.high, abs=1e-12)
    assert found["wrong"].p == found["accuracy"].p


def test_undefined_and_bad_input() -> None:
    found = paired_bootstrap(["auroc", "brier"], np.ones(20, dtype=int), A[:20], B[:20], n_resamples=50)
    assert np.isnan(found["auroc"].p)
    assert not found["auroc"].told
    assert found["auroc"].difference.undefined == 50
    assert np.isfinite(found["brier"].p)
    for words, options in (
        ((["mcc"], Y[:0], A[:0], B[:0]), {}),
        ((["mcc"], Y, A, B[:9]), {}),
        ((["mcd"], Y, A, B), {}),
        ((["mcc"], Y, A, B), {"method": "normal"}),
        ((["mcc"], Y, A, B), {"shares": {"mcc": ((Y, Y), (Y, Y))}}),
    ):
        with pytest.raises(ValueError):
            paired_bootstrap(*words, **options)  # type: ignore[arg-type]


def test_bootstrap_p_by_hand() -> None:
    assert bootstrap_p([1.0] * 99) == pytest.approx(2 / 100)
    assert bootstrap_p([-1.0] + [1.0] * 98) == pytest.approx(4 / 100)
    assert bootstrap_p([-1.0, 1.0]) == 1
    assert np.isnan(bootstrap_p([]))


@pytest.mark.parity
def test_mcnemar_against_scipy() -> None:
    from scipy.stats import binomtest

    rng = np.random.default_rng(0)
    for n in (1, 5, 40, 700):
        a, b = rng.random(n) < 0.8, rng.random(n) < 0.7
        found = mcnemar(a, b)
        total = found.only_a + found.only_b
        assert found.p == pytest.approx(binomtest(found.only_b, total).pvalue if total else 1.0, abs=1e-12)
    assert mcnemar(a, a).p == 1
    with pytest.raises(ValueError):
        mcnemar(a, b[:3])


@pytest.mark.parity
@pytest.mark.parametrize("digits", [1, 12])
def test_delong_against_sklearn_and_the_definition(digits: int) -> None:
    from scipy.stats import norm, rankdata
    from sklearn.metrics import roc_auc_score

    scores = np.round(np.stack([A, B]), digits)
    np.testing.assert_array_equal(midranks(scores), rankdata(scores, axis=1))
    auc, cov = delong_covariance(Y, scores)
    parts = []
    for s in scores:
        x, z = s[Y == 1][:, None], s[Y == 0][None]
        kernel = (x > z) + 0.5 * (x == z)
        parts.append((kernel.mean(axis=1), kernel.mean(axis=0)))
    for k in range(2):
        assert auc[k] == pytest.approx(roc_auc_score(Y, scores[k]), abs=1e-12)
    m, n = int(Y.sum()), int((1 - Y).sum())
    wanted = sum(
        np.array(
            [[((u[i] - u[i].mean()) * (v[i] - v[i].mean())).sum() / (size - 1) / size for v in parts] for u in parts]
        )
        for i, size in ((0, m), (1, n))
    )
    np.testing.assert_allclose(cov, wanted, rtol=1e-10)
    found = delong(Y, *scores)
    z = (auc[1] - auc[0]) / np.sqrt(wanted[0, 0] + wanted[1, 1] - 2 * wanted[0, 1])
    assert found.p == pytest.approx(2 * norm.sf(abs(z)), rel=1e-9)


def test_delong_at_its_limits() -> None:
    assert delong(Y, A, A).p == 1
    assert delong(Y, A, 3 * A - 1).p == 1
    assert np.isnan(delong(np.ones(9, dtype=int), A[:9], B[:9]).a)
    few = delong([1, 0, 0], [0.9, 0.1, 0.2], [0.1, 0.5, 0.05])
    assert few.difference == pytest.approx(-0.5)
    assert np.isnan(few.p)
    perfect = delong([1, 1, 0, 0], [0.9, 0.8, 0.1, 0.2], [0.5, 0.5, 0.5, 0.5])
    assert perfect.difference == -0.5
    assert np.isnan(perfect.p), "components without spread say nothing about the error"


def test_delong_and_the_bootstrap_agree() -> None:
    y, a, b = _models(800, seed=5)
    boot, exact = paired_bootstrap(["auroc"], y, a, b)["auroc"].difference, delong(y, a, b)
    assert boot.value == pytest.approx(exact.difference, abs=1e-12)
    assert (boot.high - boot.low) / (2 * 1.96) == pytest.approx(exact.standard_error, rel=0.1)


@pytest.mark.stat
@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_paired_interval_covers_and_the_test_holds_its_level(method: Any) -> None:
    """300 draws: 95 % coverage has a standard error of 1.3 points; B is a noisier A with a known true difference."""
    y, a, b = _models(400_000, seed=9)
    truth = {name: evaluate(y, b, names=[name])[name] - evaluate(y, a, names=[name])[name] for name in ("mcc", "brier")}
    rng = np.random.default_rng(0)
    covered, alarms, trials = dict.fromkeys(truth, 0), 0, 300
    for k in range(trials):
        i = rng.integers(0, len(y), 250)
        found = paired_bootstrap(list(truth), y[i], a[i], b[i], n_resamples=400, method=method, seed=k)
        for name, value in truth.items():
            covered[name] += found[name].difference.low <= value <= found[name].difference.high
        # Two models that are equally good: which of the two scores an image gets is a coin.
        coin = rng.random(len(i)) < 0.5
        one, two = np.where(coin, a[i], b[i]), np.where(coin, b[i], a[i])
        alarms += paired_bootstrap(["brier"], y[i], one, two, n_resamples=400, seed=k)["brier"].told
    for name, hits in covered.items():
        assert 0.91 <= hits / trials <= 0.985, (name, hits)
    assert alarms / trials <= 0.09
