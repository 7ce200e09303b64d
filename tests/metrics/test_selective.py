from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from workzone import metrics as m

GRADED = np.linspace(0.9, 0.1, 10)
CONSTANT = np.full(10, 0.5)
UNKNOWN = np.full(10, np.nan)
SOME = np.array([1, 1, 1, 1, 1, 1, 1, 1, 0, 0], dtype=bool)


def _reference(correct: Any, confidence: Any) -> tuple[float, float]:
    """AURC and AUGRC by walking the curve, one tie at a time."""
    points = []
    for c in np.unique(confidence)[::-1]:
        inside = confidence >= c
        points.append((inside.mean(), (~correct[inside]).mean(), (~correct[inside]).sum() / len(correct)))
    x, sel, gen = (np.array(v) for v in zip(*points, strict=True))
    return float(np.trapezoid(np.r_[sel[0], sel], np.r_[0, x])), float(np.trapezoid(np.r_[0, gen], np.r_[0, x]))


@pytest.mark.parametrize("decimals", [1, 2, 8])
def test_areas_match_the_walked_curve_and_the_identity(decimals: int) -> None:
    rng = np.random.default_rng(decimals)
    for _ in range(20):
        n = int(rng.integers(2, 80))
        correct, confidence = rng.random(n) < 0.8, np.round(rng.random(n), decimals)
        aurc, augrc = _reference(correct, confidence)
        assert m.aurc(correct, confidence) == pytest.approx(aurc, abs=1e-12)
        assert m.augrc(correct, confidence) == pytest.approx(augrc, abs=1e-12)
        a, f = correct.mean(), m.auroc_f(correct, confidence)
        if 0 < a < 1:
            assert augrc == pytest.approx((1 - f) * a * (1 - a) + (1 - a) ** 2 / 2, abs=1e-12)


@pytest.mark.parity
def test_mistake_detection_matches_scikit_learn() -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score

    rng = np.random.default_rng(0)
    for decimals in (1, 9):
        correct, confidence = rng.random(300) < 0.8, np.round(rng.random(300), decimals)
        assert m.auroc_f(correct, confidence) == pytest.approx(roc_auc_score(correct, confidence))
        assert m.auprc_f(correct, confidence) == pytest.approx(average_precision_score(~correct, -confidence))


@pytest.mark.parametrize(
    ("correct", "confidence", "aurc", "augrc", "auroc", "auprc"),
    [
        (np.ones(10), GRADED, 0, 0, np.nan, np.nan),
        (np.ones(10), CONSTANT, 0, 0, np.nan, np.nan),
        (np.ones(10), UNKNOWN, 0, 0, np.nan, np.nan),
        (np.zeros(10), GRADED, 1, 0.5, np.nan, 1),
        (np.zeros(10), CONSTANT, 1, 0.5, np.nan, 1),
        (np.zeros(10), UNKNOWN, 1, 0.5, np.nan, 1),
        (SOME, CONSTANT, 0.2, 0.1, 0.5, 0.2),
        (SOME, UNKNOWN, 0.2, 0.1, 0.5, 0.2),
        (SOME, GRADED, (1 / 9 / 2 + (1 / 9 + 0.2) / 2) / 10, 0.02, 1, 1),
        (SOME, np.where(SOME, GRADED, np.nan), 0.2 / 2 * 0.2, 0.02, 1, 1),
    ],
)
def test_degenerate_cases(correct: Any, confidence: Any, aurc: float, augrc: float, auroc: float, auprc: float) -> None:
    assert m.aurc(correct, confidence) == pytest.approx(aurc)
    assert m.augrc(correct, confidence) == pytest.approx(augrc)
    assert m.auroc_f(correct, confidence) == pytest.approx(auroc, nan_ok=True)
    assert m.auprc_f(correct, confidence) == pytest.approx(auprc, nan_ok=True)
    assert m.e_augrc(correct, confidence) == pytest.approx(augrc - (1 - np.mean(correct)) ** 2 / 2)


def test_excess_is_zero_for_a_perfect_ranking() -> None:
    n = 20_000
    correct = np.arange(n) >= 0.1 * n
    confidence = np.arange(n) / n
    assert m.e_augrc(correct, confidence) == pytest.approx(0, abs=1e-12)
    assert m.e_aurc(correct, confidence) == pytest.approx(0, abs=1e-4)
    assert m.e_aurc(correct, -confidence) > 0.1


def test_coverage_at_risk_and_risk_at_coverage() -> None:
    assert m.coverage_at_risk(SOME, GRADED, 0.0) == pytest.approx(0.8)
    assert m.coverage_at_risk(SOME, GRADED, 1 / 9) == pytest.approx(0.9)
    assert m.coverage_at_risk(~SOME, GRADED, 0.1) == 0.0
    assert m.coverage_at_risk(SOME, CONSTANT, 0.1) == 0.0
    assert m.risk_at_coverage(SOME, GRADED, 0.8) == 0.0
    assert m.risk_at_coverage(SOME, GRADED, 0.85) == pytest.approx(1 / 9)
    assert m.risk_at_coverage(SOME, CONSTANT, 0.7) == pytest.approx(0.2)
    # The curve may leave a risk and return to it; the largest coverage counts.
    late = np.r_[False, np.ones(99, dtype=bool)]
    assert m.coverage_at_risk(late, -np.arange(100.0), 0.01) == pytest.approx(1.0)


def test_curve() -> None:
    c = m.risk_coverage_curve(SOME, np.r_[np.full(5, 0.9), np.full(3, 0.6), 0.6, np.nan])
    np.testing.assert_allclose(c.coverage, [0.5, 0.9, 1.0])
    np.testing.assert_allclose(c.risk, [0, 1 / 9, 0.2])
    np.testing.assert_allclose(c.generalised_risk, [0, 0.1, 0.2])
    np.testing.assert_array_equal(c.threshold, [0.9, 0.6, -np.inf])
    assert len(m.risk_coverage_curve([], []).coverage) == 0
    assert np.isnan(m.aurc([], []))


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="confidence"):
        m.aurc([1, 0], [0.5])
