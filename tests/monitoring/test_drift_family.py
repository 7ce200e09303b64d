"""Every drift test joins this battery as a row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from workzone.monitoring.drift import DRIFT_TESTS, DriftTest, members_of
from workzone.monitoring.drift.base import Result
from workzone.monitoring.drift.psi import size_word

ROWS = list(DRIFT_TESTS.values())
rows = pytest.mark.parametrize("test", ROWS, ids=list(DRIFT_TESTS))


def draw(test: DriftTest, rng: np.random.Generator, n: int, shift: float = 0.0) -> Any:
    if test.kind == "vectors":
        return rng.normal(size=(n, 12)) + shift / 2
    scores = rng.normal(shift, 1.0, n)
    return scores if test.kind == "scores" else np.searchsorted([-0.8, 0.9], scores)


def rejections(test: Any, n: int, repeats: int, shift: float = 0.0, n_reference: int = 700, kind: Any = None) -> int:
    source = test if kind is None else kind
    found = 0
    for seed in range(repeats):
        rng = np.random.default_rng(seed)
        reference, new = draw(source, rng, n_reference), draw(source, rng, n, shift)
        found += test(reference, new, seed=10_000 + seed).p <= 0.05
    return found


def near_nominal(count: int, repeats: int) -> bool:
    """Whether a test of size 0.05 would reject so often with a chance of more than one in a thousand at either end."""
    from scipy.stats import binom

    return bool(binom.ppf(0.0005, repeats, 0.05) <= count <= binom.ppf(0.9995, repeats, 0.05))


@rows
def test_names_itself(test: DriftTest) -> None:
    assert DRIFT_TESTS[test.name] is test
    assert test in members_of(test.kind)
    assert test.title
    assert test.source


@pytest.mark.stat
@rows
@pytest.mark.parametrize("n", [100, 300, 1000])
def test_size_is_near_nominal(test: DriftTest, n: int) -> None:
    repeats = 60 if test.kind == "vectors" else 500
    assert near_nominal(rejections(test, n, repeats), repeats)


@pytest.mark.stat
def test_a_p_value_that_is_too_small_is_seen() -> None:
    good = DRIFT_TESTS["ks"]

    def halved(reference: Any, new: Any, *, seed: int) -> Result:
        r = good(reference, new, seed=seed)
        return Result(r.statistic, r.p / 2, r.n_reference, r.n_new)

    assert not near_nominal(rejections(halved, 300, 500, kind=good), 500)


@pytest.mark.stat
def test_fixed_cutoff_of_psi_fires_without_drift() -> None:
    psi, rng = DRIFT_TESTS["psi"], np.random.default_rng(0)
    values = [psi(rng.normal(size=700), rng.normal(size=100)).statistic for _ in range(300)]
    assert np.mean(np.array(values) > 0.1) > 0.3


@pytest.mark.stat
@rows
def test_power_grows_with_the_shift(test: DriftTest) -> None:
    repeats = 20 if test.kind == "vectors" else 100
    found = [rejections(test, 200, repeats, shift) / repeats for shift in (0.0, 0.3, 1.0)]
    assert found[0] < 0.25
    assert found[0] < found[1] <= found[2]
    assert found[2] > 0.95


@rows
def test_same_seed_same_answer(test: DriftTest) -> None:
    rng = np.random.default_rng(4)
    a, b = draw(test, rng, 600), draw(test, rng, 90, 0.2)
    assert test(a, b, seed=5) == test(a, b, seed=5)


@rows
def test_constant_samples(test: DriftTest) -> None:
    shape = (60, 3) if test.kind == "vectors" else (60,)
    same = test(np.ones(shape), np.ones(shape))
    assert same.p == 1.0
    assert same.statistic == pytest.approx(0.0, abs=1e-12)
    for other in (np.zeros(shape), np.full(shape, 2)):
        assert test(np.ones(shape), other).p < 0.01


@rows
def test_smallest_samples_have_a_p_value(test: DriftTest) -> None:
    rng = np.random.default_rng(0)
    r = test(draw(test, rng, 2), draw(test, rng, 2))
    assert 0 < r.p <= 1
    assert np.isfinite(r.statistic)


@rows
def test_wrong_input_is_refused(test: DriftTest) -> None:
    rng = np.random.default_rng(0)
    good = draw(test, rng, 10)
    with pytest.raises(ValueError, match="two rows"):
        test(good, good[:1])
    with pytest.raises(ValueError, match="dimension"):
        test(good, good[..., None])
    if test.kind != "classes":
        bad = np.array(good)
        bad[0] = np.nan
        with pytest.raises(ValueError, match="finite"):
            test(bad, good)


def test_vectors_of_unlike_width_are_refused() -> None:
    for test in members_of("vectors"):
        with pytest.raises(ValueError, match="dimensions"):
            test(np.zeros((5, 3)), np.zeros((5, 4)))


@pytest.mark.parametrize("new_value", [0.0, 0.4, 1.0])
def test_psi_sees_a_move_off_a_saturated_value(new_value: float) -> None:
    rng = np.random.default_rng(0)
    reference = np.where(rng.random(500) < 0.6, 0.5, rng.random(500))
    new = np.where(rng.random(200) < 0.6, new_value, rng.random(200))
    assert DRIFT_TESTS["psi"](reference, new).p < 1e-6


@pytest.mark.parity
def test_psi_is_the_textbook_sum() -> None:
    rng = np.random.default_rng(1)
    ref, new = rng.normal(size=700), rng.normal(0.2, 1, 150)
    inner = np.quantile(ref, np.linspace(0, 1, 11)[1:-1])
    p, q = (np.histogram(x, [-np.inf, *inner, np.inf])[0] + 0.5 for x in (ref, new))
    p, q = p / p.sum(), q / q.sum()
    assert DRIFT_TESTS["psi"](ref, new).statistic == pytest.approx(float(((q - p) * np.log(q / p)).sum()), abs=1e-3)


@pytest.mark.parity
def test_mmd_is_the_sum_over_pairs() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(40, 3)), rng.normal(0.4, 1, (25, 3))
    z = np.r_[x, y]
    d = ((z[:, None] - z[None]) ** 2).sum(-1)
    k = np.exp(-d / np.median(d[np.triu_indices(65, 1)]))
    a, b, c = k[:40, :40], k[40:, 40:], k[:40, 40:]
    value = (a.sum() - 40) / (40 * 39) + (b.sum() - 25) / (25 * 24) - 2 * c.mean()
    assert DRIFT_TESTS["mmd"](x, y).statistic == pytest.approx(value, rel=1e-9)


@pytest.mark.parity
def test_sliced_wasserstein_in_one_dimension_is_scipys() -> None:
    from scipy.stats import wasserstein_distance

    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(80, 1)), rng.normal(0.5, 2, (55, 1))
    wanted = wasserstein_distance(x[:, 0], y[:, 0])
    assert DRIFT_TESTS["sliced_wasserstein"](x, y).statistic == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parity
def test_chi_square_is_scipys() -> None:
    from scipy.stats import chi2_contingency

    rng = np.random.default_rng(4)
    x, y = rng.choice(3, 700, p=[0.5, 0.3, 0.2]), rng.choice(3, 200, p=[0.4, 0.4, 0.2])
    table = np.array([np.bincount(x, minlength=3), np.bincount(y, minlength=3)])
    found = DRIFT_TESTS["chi_square"](x, y)
    wanted = chi2_contingency(table, correction=False)
    assert found.p == pytest.approx(wanted.pvalue, rel=1e-9)
    assert found.statistic == pytest.approx(np.sqrt(wanted.statistic / 900), rel=1e-9)


def test_sizes_of_psi_have_names() -> None:
    assert [size_word(v) for v in (0.05, 0.1, 0.2)] == ["small", "moderate", "large"]
