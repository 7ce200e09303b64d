from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from workzone.metrics import METRICS, Interval, bootstrap, clopper_pearson, evaluate, replicates
from workzone.metrics.resampling import CHUNK_ELEMENTS, Plan, acceleration
from workzone.metrics.sample import Sample


def _sample(n: int, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-rng.normal(-0.3, 2, n)))
    return (rng.random(n) < p).astype(int), p


Y, P = _sample(300)
GROUPS = np.random.default_rng(1).integers(0, 40, 300)
EIGHT = ["accuracy", "precision", "recall", "f1", "mcc", "auroc", "average_precision", "brier"]


def test_interval_prints_as_value_and_ends() -> None:
    i = Interval(0.8731, 0.861, 0.8849, 0.95, "bca", 715, 0.3)
    assert str(i) == f"{i}" == "0.873 [0.861, 0.885]"
    assert f"{i:.1%}" == "87.3% [86.1%, 88.5%]"


@pytest.mark.parametrize(
    "options",
    [{}, {"stratified": True}, {"strata": GROUPS % 3}, {"groups": GROUPS}, {"groups": GROUPS, "stratified": True},
     {"groups": GROUPS, "strata": GROUPS % 3}],
)  # fmt: skip
def test_replicates_equal_a_loop_over_the_same_weights(options: dict[str, Any]) -> None:
    names = ["auroc", "average_precision", "brier", "aurc", "augrc", "ece", "nll", "coverage_at_risk_5pct"]
    if "groups" in options:
        names += ["accuracy", "mcc"]
    found = replicates(names, Y, P, n_resamples=20, **options)
    sample = Sample(Y, P)
    plan = Plan(sample, **options)
    rng = np.random.default_rng(np.random.SeedSequence(42).spawn(1)[0])
    weights = plan.to_images(plan.draw(rng, 20))
    for b in range(20):
        index = np.repeat(sample.order, weights[b])
        for name, value in evaluate(Y[index], P[index], names=names).items():
            assert found[name][b] == pytest.approx(value, abs=1e-12), name


def test_draws_keep_what_they_must() -> None:
    rng = np.random.default_rng(0)
    s = Sample(Y, P)
    plain, by_label = Plan(s).draw(rng, 50), Plan(s, stratified=True)
    assert (plain.sum(axis=1) == 300).all()
    w = by_label.to_images(by_label.draw(rng, 50))
    assert ((w * s.y).sum(axis=1) == Y.sum()).all()
    assert (by_label.draw_cells(rng, 50)[:, [0, 2]].sum(axis=1) == Y.sum()).all()
    grouped = Plan(s, GROUPS)
    w = grouped.to_images(grouped.draw(rng, 5))
    of_group = GROUPS[s.order]
    for g in np.unique(GROUPS):
        assert (np.ptp(w[:, of_group == g], axis=1) == 0).all()


def test_draws_have_multinomial_moments() -> None:
    w = Plan(Sample(*_sample(50))).draw(np.random.default_rng(0), 20_000)
    np.testing.assert_allclose(w.mean(axis=0), 1, atol=0.05)
    np.testing.assert_allclose(w.var(axis=0), 1 - 1 / 50, atol=0.06)
    assert np.cov(w[:, 0], w[:, 1])[0, 1] == pytest.approx(-1 / 50, abs=0.03)


def test_table_draws_agree_with_image_draws() -> None:
    direct = replicates(["mcc", "f1", "precision"], Y, P, n_resamples=6000)
    by_image = replicates(["mcc", "f1", "precision"], Y, P, groups=np.arange(300), n_resamples=6000)
    for name, values in direct.items():
        assert values.mean() == pytest.approx(by_image[name].mean(), abs=0.004)
        assert values.std() == pytest.approx(by_image[name].std(), rel=0.06)


def test_result_does_not_depend_on_workers_or_repetition() -> None:
    n = CHUNK_ELEMENTS // 8
    y, p = _sample(n)
    one = bootstrap(EIGHT, y, p, n_resamples=40, workers=1)
    assert one == bootstrap(EIGHT, y, p, n_resamples=40, workers=2)
    assert one["auroc"] != bootstrap(EIGHT, y, p, n_resamples=40, seed=43)["auroc"]


def test_proportions_are_exact_without_groups() -> None:
    found = bootstrap(["fnr", "accuracy", "mcc"], Y, P, n_resamples=200)
    hat = P >= 0.5
    misses, n = int((~hat & (Y == 1)).sum()), int(Y.sum())
    assert (found["fnr"].low, found["fnr"].high) == pytest.approx(clopper_pearson(misses, n))
    assert found["fnr"].method == "clopper-pearson"
    assert found["mcc"].method == "percentile"
    assert found["mcc"].prevalence == pytest.approx(Y.mean())
    drawn = bootstrap(["accuracy"], Y, P, exact_proportions=False)["accuracy"]
    assert drawn.method == "percentile"
    assert drawn.low == pytest.approx(found["accuracy"].low, abs=0.02)


def test_no_seen_error_is_not_no_error() -> None:
    y = np.r_[np.ones(100, dtype=int), np.zeros(100, dtype=int)]
    p = np.where(y == 1, 0.9, 0.1)
    groups = np.arange(200) // 10
    plain = bootstrap(["fnr", "mcc", "f1", "balanced_accuracy"], y, p, n_resamples=50)
    assert plain["fnr"].high == pytest.approx(clopper_pearson(0, 100)[1])
    for name in ("mcc", "f1", "balanced_accuracy"):
        assert plain[name].method == "clopper-pearson box"
        assert plain[name].low < 0.98 < plain[name].high == plain[name].value == 1
    grouped = bootstrap(["fnr", "recall", "accuracy"], y, p, groups=groups, n_resamples=50)
    assert grouped["fnr"].method == "clopper-pearson over groups"
    assert (grouped["fnr"].low, grouped["fnr"].high) == pytest.approx(clopper_pearson(0, 10))
    assert (grouped["recall"].low, grouped["recall"].high) == pytest.approx(clopper_pearson(10, 10))
    assert grouped["accuracy"].low == pytest.approx(clopper_pearson(20, 20)[0])


def test_groups_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    centre = np.repeat(rng.integers(0, 2, 30), 20)
    p = np.clip(np.repeat(rng.normal(0.5, 0.25, 30), 20) + 0.2 * (centre - 0.5), 0, 1)
    groups = np.repeat(np.arange(30), 20)
    for name in ("brier", "accuracy", "auroc"):
        alone = bootstrap([name], centre, p, n_resamples=400)[name]
        together = bootstrap([name], centre, p, groups=groups, n_resamples=400)[name]
        assert together.high - together.low > 2 * (alone.high - alone.low)


def test_undefined_resamples_are_counted() -> None:
    i = bootstrap(["auroc"], [0, 1, 1, 1], [0.1, 0.4, 0.35, 0.8], n_resamples=500)["auroc"]
    assert 50 < i.undefined < 250
    assert bootstrap(["auroc"], [0, 1, 1, 1], [0.1, 0.4, 0.35, 0.8], stratified=True)["auroc"].undefined == 0


def test_stated_prevalence() -> None:
    i = bootstrap(["precision", "recall", "auroc", "average_precision"], Y, P, prevalence=0.5, n_resamples=200)
    expected = evaluate(Y, P, prevalence=0.5)
    for name, interval in i.items():
        assert interval.value == pytest.approx(expected[name])
        assert interval.low < interval.value < interval.high
        assert interval.prevalence == 0.5
    assert i["precision"].method == "percentile"
    assert i["recall"].method == "clopper-pearson"


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        bootstrap(["auroc"], [], [])
    with pytest.raises(ValueError, match="unknown method"):
        bootstrap(["auroc"], Y, P, method="basic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="two strata"):
        bootstrap(["auroc"], Y, P, groups=GROUPS, strata=np.arange(300))
    with pytest.raises(ValueError, match="not both"):
        bootstrap(["auroc"], Y, P, strata=GROUPS, stratified=True)
    with pytest.raises(ValueError, match="groups must have shape"):
        bootstrap(["auroc"], Y, P, groups=[1])


def test_acceleration_of_a_mean_is_a_sixth_of_its_skewness() -> None:
    x = np.random.default_rng(0).exponential(size=400)
    left_out = (x.sum() - x) / 399
    d = x - x.mean()
    expected = (d**3).sum() / (6 * (d**2).sum() ** 1.5)
    assert acceleration(left_out, np.zeros(400, dtype=int)) == pytest.approx(expected)
    assert acceleration(np.full(9, 0.3), np.zeros(9, dtype=int)) == 0.0


def test_blocks_estimate_the_acceleration_of_single_units() -> None:
    y, p = _sample(6000)
    plan = Plan(Sample(y, p))
    loss = (Sample(y, p).p - Sample(y, p).y) ** 4
    found = []
    for seed in range(30):
        blocks, stratum = plan.blocks(seed)
        total, size = np.bincount(blocks, loss), np.bincount(blocks)
        found.append(acceleration((loss.sum() - total) / (6000 - size), stratum))
    one_by_one = acceleration((loss.sum() - loss) / 5999, np.zeros(6000, dtype=int))
    assert len(stratum) == 400
    assert one_by_one > 0.005
    assert np.mean(found) == pytest.approx(one_by_one, abs=6e-4)
    assert np.std(found) < 2e-3


@pytest.mark.parity
@pytest.mark.parametrize("name", ["mcc", "auroc", "brier"])
def test_bca_matches_scipy(name: str) -> None:
    from scipy import stats

    y, p = _sample(120, 5)
    hat = (p >= 0.5).astype(int)

    def one(a: Any, b: Any) -> float:
        return evaluate(a.astype(int), b, (b >= 0.5).astype(int), [name])[name]

    theirs = stats.bootstrap((y, p), one, paired=True, vectorized=False, n_resamples=1500, method="BCa", rng=0)
    ours = bootstrap([name], y, p, hat, n_resamples=20_000, method="bca")[name]
    spread = float(theirs.standard_error)
    low, high = theirs.confidence_interval
    # The 2.5 % quantile of 1,500 draws has a standard error of about 0.07 standard deviations.
    assert ours.low == pytest.approx(low, abs=0.25 * spread)
    assert ours.high == pytest.approx(high, abs=0.25 * spread)
    assert ours.method == "bca"


@pytest.mark.stat
@pytest.mark.parametrize(("method", "exact"), [("percentile", False), ("bca", False), ("percentile", True)])
def test_interval_covers_a_known_rate(method: Any, exact: bool) -> None:
    rng, truth, covered = np.random.default_rng(0), 0.8, []
    for trial in range(300):
        right = rng.random(150) < truth
        y = rng.integers(0, 2, 150)
        hat = np.where(right, y, 1 - y)
        i = bootstrap(["accuracy"], y, hat * 1.0, hat, method=method, exact_proportions=exact, seed=trial)["accuracy"]
        covered.append(i.low <= truth <= i.high)
    # Three standard errors of 300 trials below the nominal 95 %, plus a point for the bootstrap's own error.
    assert np.mean(covered) >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 300) - 0.01
    assert exact or np.mean(covered) < 0.995


@pytest.mark.stat
def test_auroc_interval_covers() -> None:
    rng, covered = np.random.default_rng(0), []
    truth = 0.8413447  # P(N(sqrt 2, 1) > N(0, 1)) = Phi(1)
    for trial in range(150):
        y = (rng.random(200) < 0.4).astype(int)
        p = 1 / (1 + np.exp(-(rng.normal(size=200) + np.sqrt(2) * y)))
        i = bootstrap(["auroc"], y, p, n_resamples=400, method="bca", seed=trial)["auroc"]
        covered.append(i.low <= truth <= i.high)
    assert np.mean(covered) >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 150)


def test_all_metrics_at_once_keep_their_order() -> None:
    assert list(bootstrap(METRICS, Y, P, n_resamples=5)) == list(METRICS)
