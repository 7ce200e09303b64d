from __future__ import annotations

import numpy as np
import pytest

from workzone import metrics as m


def test_confusion_cells() -> None:
    c = m.confusion([1, 1, 1, 0, 0, 0, 0], [1, 1, 0, 1, 0, 0, 0])
    assert (c.tp, c.fp, c.fn, c.tn) == (2, 1, 1, 3)
    assert m.accuracy(c) == pytest.approx(5 / 7)
    assert f"{m.precision(c):.3f}" == "0.667"
    assert m.fnr(c) == pytest.approx(1 / 3)
    assert m.fpr(c) == pytest.approx(1 / 4)
    assert m.balanced_accuracy(c) == pytest.approx((2 / 3 + 3 / 4) / 2)


def test_metrics_of_many_tables() -> None:
    c = m.Confusion(tp=np.array([2, 0]), fp=np.array([0, 0]), fn=np.array([0, 0]), tn=np.array([2, 4]))
    np.testing.assert_array_equal(m.mcc(c), [1.0, 0.0])
    np.testing.assert_array_equal(m.recall(c), [1.0, np.nan])
    np.testing.assert_array_equal(m.f1(c), [1.0, np.nan])


def test_mcc_of_large_counts_does_not_overflow() -> None:
    c = m.Confusion(tp=np.int64(10**9), fp=0, fn=0, tn=np.int64(10**9))
    assert m.mcc(c) == pytest.approx(1.0)


def test_at_prevalence() -> None:
    c = m.Confusion(tp=90, fp=10, fn=10, tn=890)
    half = m.at_prevalence(c, 0.5)
    assert m.recall(half) == pytest.approx(0.9)
    assert m.precision(half) == pytest.approx(0.9 / (0.9 + 10 / 900))
    assert half.tp + half.fp + half.fn + half.tn == pytest.approx(1000)
    with pytest.raises(ValueError, match="between"):
        m.at_prevalence(c, 1.0)


def test_threshold_is_the_middle_of_the_widest_plateau() -> None:
    # Cutting at the gap 0.2-0.3 or at 0.4-0.8 gives one mistake either way (two positives, two negatives crossed).
    t = m.best_mcc_threshold([0, 1, 0, 1], [0.2, 0.3, 0.4, 0.8])
    assert t.mcc == pytest.approx(1 / np.sqrt(3))
    assert (t.low, t.high) == (0.4, 0.8)
    assert t.value == pytest.approx(0.6)


def test_threshold_reaches_the_best_mcc_of_an_exhaustive_search() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        n = int(rng.integers(1, 30))
        y, p = rng.integers(0, 2, n), np.round(rng.random(n), 1)
        t = m.best_mcc_threshold(y, p)
        best = max(float(m.mcc(m.confusion(y, (p >= c).astype(int)))) for c in np.r_[np.unique(p), 2.0])
        assert t.mcc == pytest.approx(best)
        for value in (t.value, np.nextafter(t.low, np.inf), t.high):
            assert m.mcc(m.confusion(y, (p >= value).astype(int))) == pytest.approx(best)


def test_threshold_between_neighbouring_floats() -> None:
    low = 0.5
    t = m.best_mcc_threshold([0, 1], [low, np.nextafter(low, 1)])
    assert low < t.value <= np.nextafter(low, 1)
    assert t.mcc == 1.0


def test_threshold_of_constant_scores() -> None:
    t = m.best_mcc_threshold([0, 1, 1], [0.4, 0.4, 0.4])
    assert t.mcc == 0.0
    assert t.value == pytest.approx(0.4)


def test_auroc_and_ap_with_ties_and_weights() -> None:
    y, p = np.array([0, 1, 1, 0]), np.array([0.5, 0.5, 0.9, 0.1])
    assert m.auroc(y, p) == pytest.approx((0.5 + 1 + 2) / 4)
    assert m.average_precision(y, p) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    w = np.array([2.0, 1.0, 0.0, 1.0])
    assert m.auroc(y, p, w) == pytest.approx((1 * (2 * 0.5 + 1)) / 3)
    with pytest.raises(ValueError, match="negative"):
        m.auroc(y, p, -w)


@pytest.mark.parametrize(("errors", "n"), [(0, 149), (1, 236), (2, 313), (3, 386), (4, 456), (5, 523)])
def test_images_needed_for_two_percent(errors: int, n: int) -> None:
    assert m.n_needed_for(errors, 0.02, 0.05) == n
    assert m.clopper_pearson_upper(errors, n, 0.05) <= 0.02 < m.clopper_pearson_upper(errors, n - 1, 0.05)


def test_proportion_intervals() -> None:
    low, high = m.clopper_pearson(0, 20)
    assert low == 0.0
    assert high == pytest.approx(1 - 0.025 ** (1 / 20))
    assert m.clopper_pearson(0, 0) == (0.0, 1.0)
    assert m.clopper_pearson(5, 5)[1] == 1.0
    lows, highs = m.clopper_pearson(np.array([0, 3, 9]), 9)
    assert lows.shape == highs.shape == (3,)
    assert m.wilson(0, 10)[0] == 0.0
    with pytest.raises(ValueError, match="between 0 and n"):
        m.clopper_pearson(3, 2)


@pytest.mark.parity
def test_proportions_match_scipy() -> None:
    from scipy.stats import binomtest

    for k, n in [(0, 7), (3, 40), (40, 40), (1, 2)]:
        for name, ours in (("exact", m.clopper_pearson), ("wilson", m.wilson)):
            theirs = binomtest(k, n).proportion_ci(0.9, method=name)
            np.testing.assert_allclose(ours(k, n, 0.9), (theirs.low, theirs.high), atol=1e-12)


@pytest.mark.parity
def test_match_scikit_learn() -> None:
    from sklearn import metrics as sk

    rng = np.random.default_rng(7)
    for decimals in (1, 2, 9):
        y = rng.integers(0, 2, 200)
        p = np.round(np.clip(0.3 * y + 0.7 * rng.random(200), 0, 1), decimals)
        w = rng.random(200)
        c, hat = m.confusion(y, (p >= 0.5).astype(int)), (p >= 0.5).astype(int)
        pairs = [
            (m.accuracy(c), sk.accuracy_score(y, hat)),
            (m.precision(c), sk.precision_score(y, hat)),
            (m.recall(c), sk.recall_score(y, hat)),
            (m.f1(c), sk.f1_score(y, hat)),
            (m.f05(c), sk.fbeta_score(y, hat, beta=0.5)),
            (m.mcc(c), sk.matthews_corrcoef(y, hat)),
            (m.balanced_accuracy(c), sk.balanced_accuracy_score(y, hat)),
            (m.auroc(y, p), sk.roc_auc_score(y, p)),
            (m.auroc(y, p, w), sk.roc_auc_score(y, p, sample_weight=w)),
            (m.average_precision(y, p), sk.average_precision_score(y, p)),
            (m.average_precision(y, p, w), sk.average_precision_score(y, p, sample_weight=w)),
            (m.brier(y, p), sk.brier_score_loss(y, p)),
        ]
        for ours, theirs in pairs:
            assert ours == pytest.approx(theirs, abs=1e-12)
        q = np.clip(p, 0.01, 0.99)
        assert m.nll(y, q) == pytest.approx(sk.log_loss(y, q), abs=1e-12)
        assert m.brier_skill(y, p) == pytest.approx(sk.d2_brier_score(y, p), abs=1e-12)
