"""What is gained by trusting the most confident images first.

Images of equal confidence enter together. ``confidence`` that is NaN is read as least confident of all, as one tie.
Constant confidence gives a curve of one point, so AURC is the error rate and AUGRC half of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from workzone.metrics.sample import FloatArray, Rows, as_labels, one_row, ratio

RISKS = (0.005, 0.01, 0.02, 0.05, 0.10)
COVERAGES = (0.70, 0.80, 0.90, 0.95)


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """Risk-coverage curve, one point per distinct confidence, most confident first.

    Attributes:
        coverage: (T,) share of images accepted, rising to 1.
        risk: (T,) share of errors among the accepted (selective risk).
        generalised_risk: (T,) errors accepted as a share of all images.
        threshold: (T,) accept where confidence >= threshold; -inf is the group of NaN confidence.
    """

    coverage: FloatArray
    risk: FloatArray
    generalised_risk: FloatArray
    threshold: FloatArray


def _row(correct: Any, confidence: Any) -> Rows:
    ok = as_labels(np.asarray(correct).astype(np.int64), "correct")
    trust = np.asarray(confidence, dtype=np.float64)
    # Labels 1 against decisions 1/0 put a mistake wherever ``correct`` is 0.
    return one_row(np.ones_like(ok), np.zeros(len(ok)), ok, confidence=trust)


def risk_coverage_curve(correct: Any, confidence: Any) -> RiskCoverage:
    """Curve of ``correct`` (N,) bool or 0/1 by falling ``confidence`` (N,); empty arrays for an empty sample.

    Raises:
        ValueError: unequal lengths.
    """
    rows = _row(correct, confidence)
    accepted, errors = (v[0].astype(np.float64) for v in rows.trust)
    n = max(rows.sample.n, 1)
    s = rows.sample
    threshold = s.confidence[s.trust_order[s.trust_ends]]
    return RiskCoverage(accepted / n, errors / np.maximum(accepted, 1), errors / n, threshold)


def _steps(rows: Rows) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Running weight and errors as shares (B, T) of all, and the same one group earlier."""
    accepted, errors = rows.trust
    total = rows.total[:, None]
    cover, wrong = ratio(accepted, total), ratio(errors, total)
    blank = np.zeros((len(cover), min(1, cover.shape[1])))
    return cover, wrong, np.concatenate([blank, cover[:, :-1]], axis=1), np.concatenate([blank, wrong[:, :-1]], axis=1)


def _undefined_if_empty(value: FloatArray, rows: Rows) -> FloatArray:
    return np.where(rows.total > 0, value, np.nan)


def error_rate_rows(rows: Rows) -> FloatArray:
    """(B,) share of wrong decisions under each set of weights."""
    return rows.mean(rows.sample.error.astype(np.float64))


def aurc_rows(rows: Rows) -> FloatArray:
    """(B,) AURC under each set of weights."""
    cover, wrong, cover_before, wrong_before = _steps(rows)
    risk = ratio(wrong, cover)
    # Before the first accepted image the risk is that of the first group, not 0.
    risk_before = np.where(cover_before > 0, ratio(wrong_before, cover_before), risk)
    area = np.where(cover > cover_before, (risk + risk_before) / 2 * (cover - cover_before), 0.0)
    return _undefined_if_empty(area.sum(axis=1), rows)


def e_aurc_rows(rows: Rows) -> FloatArray:
    """(B,) AURC above its optimum under each set of weights."""
    e = error_rate_rows(rows)
    log = np.log1p(-np.minimum(e, 1 - 1e-300), out=np.zeros_like(e), where=e < 1)
    return aurc_rows(rows) - (e + (1 - e) * log)


def augrc_rows(rows: Rows) -> FloatArray:
    """(B,) AUGRC under each set of weights."""
    cover, wrong, cover_before, wrong_before = _steps(rows)
    return _undefined_if_empty(((wrong + wrong_before) / 2 * (cover - cover_before)).sum(axis=1), rows)


def e_augrc_rows(rows: Rows) -> FloatArray:
    """(B,) AUGRC above its optimum under each set of weights."""
    return augrc_rows(rows) - error_rate_rows(rows) ** 2 / 2


def auroc_f_rows(rows: Rows) -> FloatArray:
    """(B,) AUROC of mistake detection under each set of weights."""
    cover, wrong, cover_before, wrong_before = _steps(rows)
    e = error_rate_rows(rows)
    right = (cover - wrong) - (cover_before - wrong_before)
    still_wrong = e[:, None] - (wrong + wrong_before) / 2
    return ratio((right * still_wrong).sum(axis=1), e * (1 - e))


def auprc_f_rows(rows: Rows) -> FloatArray:
    """(B,) average precision of mistake detection under each set of weights."""
    _, wrong, cover_before, wrong_before = _steps(rows)
    e = error_rate_rows(rows)
    flagged = 1.0 - cover_before
    caught = e[:, None] - wrong_before
    step = wrong - wrong_before
    area = np.where(step > 0, step * ratio(caught, flagged), 0.0).sum(axis=1)
    return ratio(_undefined_if_empty(area, rows), e)


def coverage_at_risk_rows(rows: Rows, risk: float) -> FloatArray:
    """(B,) largest coverage with selective risk <= ``risk`` under each set of weights."""
    accepted, errors = rows.trust
    # One part in 10^9 keeps 1 error of 100 inside a risk of 1 %.
    safe = (errors <= risk * (1 + 1e-9) * accepted) & (accepted > 0)
    best = np.where(safe, accepted, 0).max(axis=1, initial=0)
    return ratio(best, rows.total)


def risk_at_coverage_rows(rows: Rows, coverage: float) -> FloatArray:
    """(B,) selective risk at the first point with coverage >= ``coverage`` under each set of weights."""
    accepted, errors = rows.trust
    if not accepted.shape[1]:
        return np.full(len(accepted), np.nan)
    first = np.argmax(accepted >= coverage * (1 - 1e-9) * rows.total[:, None], axis=1)[:, None]
    return ratio(np.take_along_axis(errors, first, axis=1)[:, 0], np.take_along_axis(accepted, first, axis=1)[:, 0])


def aurc(correct: Any, confidence: Any) -> float:
    """Area under the risk-coverage curve (Geifman et al. 2019, arXiv 1805.08206); 0 is best, NaN for no images."""
    return float(aurc_rows(_row(correct, confidence))[0])


def e_aurc(correct: Any, confidence: Any) -> float:
    """AURC minus ``e + (1 - e) ln(1 - e)``, its limit for a perfect ranking at error rate e.

    The limit is that of many images; a perfect ranking of n images deviates from 0 by about 1/n.
    """
    return float(e_aurc_rows(_row(correct, confidence))[0])


def augrc(correct: Any, confidence: Any) -> float:
    """Area under the generalised risk-coverage curve (Traub et al. 2024, arXiv 2407.01032), in [0, 1/2].

    The mean risk of an undetected mistake; equals ``(1 - AUROC_f) a (1 - a) + (1 - a)^2 / 2`` at accuracy a.
    """
    return float(augrc_rows(_row(correct, confidence))[0])


def e_augrc(correct: Any, confidence: Any) -> float:
    """AUGRC minus e^2 / 2, its value for a perfect ranking at error rate e."""
    return float(e_augrc_rows(_row(correct, confidence))[0])


def auroc_f(correct: Any, confidence: Any) -> float:
    """Chance that a right decision is more confident than a wrong one; NaN where all or none are right."""
    return float(auroc_f_rows(_row(correct, confidence))[0])


def auprc_f(correct: Any, confidence: Any) -> float:
    """Average precision of finding mistakes by low confidence; NaN without mistakes, 1 with nothing else."""
    return float(auprc_f_rows(_row(correct, confidence))[0])


def coverage_at_risk(correct: Any, confidence: Any, risk: float) -> float:
    """Largest share of images that can be accepted with selective risk <= ``risk``; 0 where none can.

    Optimistic where the threshold is chosen on the images it is reported on: for a promise use a certified policy.
    """
    return float(coverage_at_risk_rows(_row(correct, confidence), risk)[0])


def risk_at_coverage(correct: Any, confidence: Any, coverage: float) -> float:
    """Selective risk at the smallest reachable coverage >= ``coverage``; NaN for no images."""
    return float(risk_at_coverage_rows(_row(correct, confidence), coverage)[0])
