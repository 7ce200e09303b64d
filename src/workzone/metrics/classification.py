"""How often the decided labels are right, and how well the scores rank.

Undefined ratios (0 / 0) are NaN; MCC is 0 where a margin of the table is empty, as in scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from workzone.metrics.sample import FloatArray, Rows, as_labels, as_scores, one_row, ratio


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts of one table, or arrays of counts (B,) of many; class 1 = roadwork is positive.

    Counts may be fractions: weighted images, or a table moved to another prevalence.
    """

    tp: Any
    fp: Any
    fn: Any
    tn: Any

    @classmethod
    def from_cells(cls, cells: Any) -> Confusion:
        """Tables of ``cells`` (..., 4) in the order tp, fp, fn, tn."""
        c = np.asarray(cells, dtype=np.float64)
        return cls(c[..., 0], c[..., 1], c[..., 2], c[..., 3])


def confusion(y: Any, yhat: Any) -> Confusion:
    """Table of labels ``y`` (N,) against decided labels ``yhat`` (N,).

    Raises:
        ValueError: lengths differ, or a label other than 0 and 1.
    """
    a, b = as_labels(y, "y"), as_labels(yhat, "yhat")
    if len(a) != len(b):
        raise ValueError(f"y has {len(a)} labels, yhat {len(b)}")
    fn, tp, tn, fp = (int(v) for v in np.bincount(np.where(a == 1, b, 2 + b), minlength=4))
    return Confusion(tp=tp, fp=fp, fn=fn, tn=tn)


def at_prevalence(c: Confusion, pi: float) -> Confusion:
    """The table that the same hit and false alarm rates give where a share ``pi`` of images is roadwork.

    The number of images is kept. NaN where a class is empty, since its rates are unknown.

    Raises:
        ValueError: ``pi`` outside (0, 1).
    """
    if not 0 < pi < 1:
        raise ValueError("pi must lie strictly between 0 and 1")
    n = np.asarray(c.tp, dtype=np.float64) + c.fp + c.fn + c.tn
    hit, alarm = recall(c), fpr(c)
    return Confusion(tp=n * pi * hit, fp=n * (1 - pi) * alarm, fn=n * pi * (1 - hit), tn=n * (1 - pi) * (1 - alarm))


def accuracy(c: Confusion) -> FloatArray:
    """Share of right decisions."""
    right = np.add(c.tp, c.tn)
    return ratio(right, right + c.fp + c.fn)


def precision(c: Confusion) -> FloatArray:
    """Share of decided roadwork that is roadwork."""
    return ratio(c.tp, np.add(c.tp, c.fp))


def recall(c: Confusion) -> FloatArray:
    """Share of roadwork that is found (hit rate, sensitivity)."""
    return ratio(c.tp, np.add(c.tp, c.fn))


def specificity(c: Confusion) -> FloatArray:
    """Share of images without roadwork that are decided so."""
    return ratio(c.tn, np.add(c.tn, c.fp))


def fnr(c: Confusion) -> FloatArray:
    """Share of roadwork that is missed."""
    return ratio(c.fn, np.add(c.tp, c.fn))


def fpr(c: Confusion) -> FloatArray:
    """Share of images without roadwork that raise a false alarm."""
    return ratio(c.fp, np.add(c.tn, c.fp))


def balanced_accuracy(c: Confusion) -> FloatArray:
    """Mean of recall and specificity."""
    return (recall(c) + specificity(c)) / 2


def f_beta(c: Confusion, beta: float) -> FloatArray:
    """Weighted harmonic mean of precision and recall; ``beta`` < 1 favours precision."""
    hits = (1 + beta**2) * np.asarray(c.tp, dtype=np.float64)
    return ratio(hits, hits + beta**2 * np.asarray(c.fn) + c.fp)


def f1(c: Confusion) -> FloatArray:
    """Harmonic mean of precision and recall."""
    return f_beta(c, 1.0)


def f05(c: Confusion) -> FloatArray:
    """F-measure in which precision counts twice as much as recall."""
    return f_beta(c, 0.5)


def mcc(c: Confusion) -> FloatArray:
    """Matthews correlation of labels and decisions, in [-1, 1]; 0 where a margin is empty (Matthews 1975)."""
    tp, fp, fn, tn = (np.asarray(v, dtype=np.float64) for v in (c.tp, c.fp, c.fn, c.tn))
    # Two roots, not one: the product of four margins of 10^5 images loses digits.
    scale = np.sqrt((tp + fp) * (tn + fn)) * np.sqrt((tp + fn) * (tn + fp))
    value = ratio(tp * tn - fp * fn, scale)
    bounded: FloatArray = np.clip(np.where(scale == 0, 0.0, value), -1.0, 1.0)[()]
    return bounded


@dataclass(frozen=True, slots=True)
class Threshold:
    """Decide roadwork where ``p >= value``; every threshold in (low, high] gives the same MCC on the sample."""

    value: float
    mcc: float
    low: float
    high: float


def best_mcc_threshold(y: Any, p: Any) -> Threshold:
    """Threshold on scores ``p`` (N,) with the highest MCC against ``y`` (N,): the middle of the widest plateau.

    A plateau joins neighbouring gaps between distinct scores whose MCC is equal. Tied scores move together. Where
    nothing beats MCC 0 (one class, or constant scores) the middle of the score range is returned with MCC 0. Choose
    the threshold on other images than the ones it is reported on.

    Raises:
        ValueError: an empty sample, unequal lengths, or scores that are not finite.
    """
    labels = as_labels(y, "y")
    if not len(labels):
        raise ValueError("a threshold needs at least one image")
    scores = as_scores(p, len(labels), probability=False)
    distinct, place = np.unique(scores, return_inverse=True)
    pos = np.bincount(place, weights=labels, minlength=len(distinct))
    neg = np.bincount(place, minlength=len(distinct)) - pos
    # Gap k lies between distinct[k - 1] and distinct[k]; the k lowest distinct scores are decided no_roadwork.
    fn, tn = np.r_[0.0, np.cumsum(pos)], np.r_[0.0, np.cumsum(neg)]
    value = mcc(Confusion(tp=fn[-1] - fn, fp=tn[-1] - tn, fn=fn, tn=tn))
    edges = np.r_[distinct[0], distinct, np.nextafter(distinct[-1], np.inf)]
    best = np.isclose(value, value.max(), rtol=1e-12, atol=1e-15)
    first = np.flatnonzero(best & ~np.r_[False, best[:-1]])
    last = np.flatnonzero(best & ~np.r_[best[1:], False])
    widest = int(np.argmax(edges[last + 1] - edges[first]))
    low, high = float(edges[first[widest]]), float(edges[last[widest] + 1])
    middle = low + (high - low) / 2
    # Between two neighbouring floats the middle rounds down onto the excluded end.
    return Threshold(middle if middle > low else high, float(value.max()), low, high)


def auroc(y: Any, p: Any, weights: Any = None) -> float:
    """Chance that a positive scores above a negative, ties counting half; NaN where a class is empty.

    Args:
        y: (N,) labels.
        p: (N,) probabilities.
        weights: (N,) image weights, 1 where left out.
    """
    return float(auroc_rows(one_row(y, p, weights=weights))[0])


def average_precision(y: Any, p: Any, weights: Any = None) -> float:
    """Area under the precision-recall curve as a step function, equal scores entering together; NaN without positives.

    Args:
        y: (N,) labels.
        p: (N,) probabilities.
        weights: (N,) image weights, 1 where left out.
    """
    return float(average_precision_rows(one_row(y, p, weights=weights))[0])


def auroc_rows(rows: Rows) -> FloatArray:
    """(B,) AUROC under each set of weights."""
    wins = np.einsum("bi,bi->b", rows.positives, rows.weight_below).astype(np.float64)
    if rows.sample.tied_across:
        not_above = np.take(rows.negatives_cum, rows.sample.not_above, axis=1)
        wins = (wins + np.einsum("bi,bi->b", rows.positives, not_above)) / 2
    return ratio(wins, rows.total_pos * rows.total_neg)


def average_precision_rows(rows: Rows) -> FloatArray:
    """(B,) average precision under each set of weights."""
    w = rows.positives
    if not w.shape[1]:
        return np.full(len(w), np.nan)
    start = rows.sample.tie_start
    # Hits at the threshold of a positive: all positives from the first of its ties upwards.
    before = np.cumsum(w, axis=1)
    total = before[:, -1:].copy()
    before -= w
    hits = total - (before if start is None else np.take(before, start, axis=1))
    decided = hits + (rows.negatives_cum[:, -1:] - rows.weight_below)
    gain = w * hits
    area = np.zeros(gain.shape)
    np.divide(gain, decided, out=area, where=decided > 0)
    return ratio(area.sum(axis=1), total[:, 0])
