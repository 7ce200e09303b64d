"""Every metric by name, with what it needs and how to read it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from workzone.metrics import calibration, classification, selective
from workzone.metrics.classification import Confusion, at_prevalence
from workzone.metrics.sample import FloatArray, Rows, Sample

INF = float("inf")


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of merit.

    Attributes:
        name: key in ``METRICS``.
        kind: counts, ranking, probability, calibration or selective.
        range: smallest and largest possible value.
        higher_is_better: None where neither direction is better.
        description: one line, with the case in which the value is NaN.
        needs: ``p``, ``decided`` or both.
        rows: value under each set of weights (B,).
        from_counts: the same from confusion tables, for kind counts only.
        proportion: cells (tp, fp, fn, tn) that count as events and as trials, where the metric is a plain proportion.
    """

    name: str
    kind: str
    range: tuple[float, float]
    higher_is_better: bool | None
    description: str
    needs: tuple[str, ...]
    rows: Callable[[Rows], FloatArray]
    from_counts: Callable[[Confusion], FloatArray] | None = None
    proportion: tuple[str, str] | None = None


def _counts(
    name: str,
    function: Callable[[Confusion], FloatArray],
    better: bool,
    text: str,
    *,
    low: float = 0.0,
    proportion: tuple[str, str] | None = None,
) -> Metric:
    def rows(r: Rows) -> FloatArray:
        return function(Confusion.from_cells(r.cells))

    return Metric(name, "counts", (low, 1.0), better, text, ("decided",), rows, function, proportion)


_C, _K, _S = classification, calibration, selective
_BOTH = ("p", "decided")
_P = ("p",)

_ALL = [
    _counts("accuracy", _C.accuracy, True, "share of right decisions", proportion=("tp tn", "tp fp fn tn")),
    _counts("precision", _C.precision, True, "share of decided roadwork that is; NaN if none is decided",
            proportion=("tp", "tp fp")),
    _counts("recall", _C.recall, True, "share of roadwork found; NaN without roadwork", proportion=("tp", "tp fn")),
    _counts("f1", _C.f1, True, "harmonic mean of precision and recall; NaN without roadwork in truth and decisions"),
    _counts("f0.5", _C.f05, True, "F-measure that favours precision; NaN as for f1"),
    _counts("mcc", _C.mcc, True, "Matthews correlation; 0 if a margin is empty", low=-1.0),
    _counts("fnr", _C.fnr, False, "share of roadwork missed; NaN without roadwork", proportion=("fn", "tp fn")),
    _counts("fpr", _C.fpr, False, "share of false alarms; NaN without images free of roadwork",
            proportion=("fp", "fp tn")),
    _counts("specificity", _C.specificity, True, "share of images free of roadwork decided so; NaN without them",
            proportion=("tn", "fp tn")),
    _counts("balanced_accuracy", _C.balanced_accuracy, True, "mean of recall and specificity; NaN with one class"),
    Metric("auroc", "ranking", (0, 1), True, "area under the ROC curve; NaN with one class", _P, _C.auroc_rows),
    Metric("average_precision", "ranking", (0, 1), True, "area under precision-recall; NaN without roadwork", _P,
           _C.average_precision_rows),
    Metric("brier", "probability", (0, 1), False, "mean squared error of the probability", _P, _K.brier_rows),
    Metric("brier_skill", "probability", (-INF, 1), True, "Brier score against the base rate; NaN with one class", _P,
           _K.brier_skill_rows),
    Metric("nll", "probability", (0, INF), False, "negative log-likelihood, nats, clipped at 1e-12", _P, _K.nll_rows),
    Metric("ece", "calibration", (0, 1), False, "expected calibration error, 15 equal-width bins; biased upward", _P,
           _K.ece_rows),
    Metric("ece_equal_mass", "calibration", (0, 1), False, "expected calibration error, 15 equal-mass bins", _P,
           partial(_K.ece_rows, equal_mass=True)),
    Metric("ece_classwise", "calibration", (0, 1), False, "mean ECE of both classes (SCE)", _P, _K.ece_classwise_rows),
    Metric("ece_debiased", "calibration", (-1, 1), False, "signed root of the debiased squared error", _P,
           _K.ece_debiased_rows),
    Metric("smooth_ece", "calibration", (0, 1), False, "kernel-smoothed calibration error", _P, _K.smooth_ece_rows),
    Metric("mce", "calibration", (0, 1), False, "largest gap of a bin with 20 images; NaN without such a bin", _P,
           _K.mce_rows),
    Metric("spiegelhalter_z", "calibration", (-INF, INF), None,
           "test of calibration, N(0, 1) if calibrated; NaN if every p is 0, 1/2 or 1", _P, _K.spiegelhalter_z_rows),
    Metric("aurc", "selective", (0, 1), False, "area under the risk-coverage curve", _BOTH, _S.aurc_rows),
    Metric("e_aurc", "selective", (-1, 1), False, "AURC above a perfect ranking's", _BOTH, _S.e_aurc_rows),
    Metric("augrc", "selective", (0, 0.5), False, "mean risk of an undetected mistake", _BOTH, _S.augrc_rows),
    Metric("e_augrc", "selective", (0, 0.5), False, "AUGRC above a perfect ranking's", _BOTH, _S.e_augrc_rows),
    Metric("auroc_f", "selective", (0, 1), True, "AUROC of detecting mistakes; NaN if all or none are right", _BOTH,
           _S.auroc_f_rows),
    Metric("auprc_f", "selective", (0, 1), True, "AUPRC of detecting mistakes; NaN without mistakes", _BOTH,
           _S.auprc_f_rows),
    *(Metric(f"coverage_at_risk_{100 * r:g}pct", "selective", (0, 1), True, f"coverage with {100 * r:g} % risk or less",
             _BOTH, partial(_S.coverage_at_risk_rows, risk=r)) for r in _S.RISKS),
    *(Metric(f"risk_at_coverage_{100 * c:g}pct", "selective", (0, 1), False, f"risk with {100 * c:g} % accepted", _BOTH,
             partial(_S.risk_at_coverage_rows, coverage=c)) for c in _S.COVERAGES),
]  # fmt: skip

METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _ALL}


def resolve(metrics: Iterable[str] | Mapping[str, Metric] | None) -> dict[str, Metric]:
    """Metrics by name; all where None.

    Raises:
        ValueError: an unknown name.
    """
    if metrics is None:
        return dict(METRICS)
    if isinstance(metrics, Mapping):
        return dict(metrics)
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    for name in names:
        if name not in METRICS:
            near = difflib.get_close_matches(name, METRICS, n=1)
            raise ValueError(f"unknown metric {name!r}" + (f", did you mean {near[0]!r}?" if near else ""))
    return {name: METRICS[name] for name in names}


def weights_at_prevalence(rows: Rows, pi: float) -> Rows:
    """``rows`` with the classes re-weighted to a share ``pi`` of roadwork; NaN weights where a class is absent."""
    if not 0 < pi < 1:
        raise ValueError("prevalence must lie strictly between 0 and 1")
    share = rows.total_pos / np.where(rows.total > 0, rows.total, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        both = np.where((share > 0) & (share < 1), 1.0, np.nan)
        factors = np.stack([both * (1 - pi) / (1 - share), both * pi / share], axis=1)
    return Rows(rows.sample, rows.weights * factors[:, rows.sample.y])


def value_rows(metric: Metric, rows: Rows, prevalence: float | None = None) -> FloatArray:
    """(B,) values of ``metric`` under the weights of ``rows``, at a stated prevalence where one is given.

    At a stated prevalence rows that lack a class are NaN.
    """
    if prevalence is None:
        return metric.rows(rows)
    if metric.from_counts is not None:
        return metric.from_counts(at_prevalence(Confusion.from_cells(rows.cells), prevalence))
    moved = weights_at_prevalence(rows, prevalence)
    known = ~np.isnan(moved.total)
    out = np.full(len(known), np.nan)
    if known.any():
        out[known] = metric.rows(Rows(moved.sample, moved.weights[known]))
    return out


def evaluate(
    y: Any,
    p: Any,
    decided: Any = None,
    names: Iterable[str] | None = None,
    *,
    prevalence: float | None = None,
    weights: Any = None,
) -> dict[str, float]:
    """Metrics of N images by name; all of ``METRICS`` where ``names`` is left out.

    Args:
        y: (N,) labels, 0 or 1.
        p: (N,) probability of roadwork.
        decided: (N,) decided labels; ``p >= 0.5`` where left out.
        names: keys of ``METRICS``.
        prevalence: share of roadwork to re-weight the classes to, such as 0.5; the natural one where left out. The
            probabilities stay as they are, so calibration is judged as if they had been made for that prevalence.
        weights: (N,) image weights; see ``evaluate_rows`` for many sets of them.

    Raises:
        ValueError: unequal lengths, values out of range, an unknown name.
    """
    image_weights = np.ones(np.size(y), dtype=np.int64) if weights is None else np.asarray(weights)
    found = evaluate_rows(y, p, image_weights[None], decided, names, prevalence=prevalence)
    return {name: float(value[0]) for name, value in found.items()}


def evaluate_rows(
    y: Any,
    p: Any,
    weights: Any,
    decided: Any = None,
    names: Iterable[str] | None = None,
    *,
    prevalence: float | None = None,
) -> dict[str, FloatArray]:
    """Metrics (B,) under B sets of image weights (B, N), in the order of ``y``: paired resampling of two models.

    Raises:
        ValueError: unequal lengths, values out of range, an unknown name.
    """
    sample = Sample(y, p, decided)
    w = np.asarray(weights)
    if w.ndim != 2 or w.shape[1] != sample.n:
        raise ValueError(f"weights must have shape (B, {sample.n}), not {w.shape}")
    if w.size and (not np.isfinite(w).all() or w.min() < 0):
        raise ValueError("weights must be finite and not negative")
    rows = Rows(sample, np.take(w, sample.order, axis=1))
    return {name: value_rows(metric, rows, prevalence) for name, metric in resolve(names).items()}
