"""One scored sample, sorted once, and many sets of image weights over it.

A resample is a vector of image weights, so a metric computed under weights serves the point value (weights 1), the
bootstrap (multinomial counts), the jackknife (one unit at 0) and a stated prevalence (one factor per class) alike.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def as_labels(y: Any, name: str) -> IntArray:
    """``y`` as an (N,) int64 array of 0 and 1.

    Raises:
        ValueError: not one-dimensional, or a value other than 0 and 1.
    """
    array = np.asarray(y)
    if array.ndim != 1:
        raise ValueError(f"{name} must have shape (N,), not {array.shape}")
    if not np.isin(array, (0, 1)).all():
        raise ValueError(f"{name} must hold only 0 and 1")
    return array.astype(np.int64)


def as_scores(p: Any, n: int, *, name: str = "p", probability: bool = True) -> FloatArray:
    """``p`` as an (N,) float array, in [0, 1] where ``probability``.

    Raises:
        ValueError: wrong length, not finite, or outside [0, 1].
    """
    array = np.asarray(p, dtype=np.float64)
    if array.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), not {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite")
    if probability and n and (array.min() < 0 or array.max() > 1):
        raise ValueError(f"{name} must lie in [0, 1]")
    return array


class Sample:
    """Labels, scores and decisions of N images, in the order the metrics want.

    Columns of every weight matrix follow ``order``: the negatives by rising score, then the positives by rising score.

    Args:
        y: (N,) labels, 0 or 1.
        p: (N,) probability of roadwork.
        decided: (N,) decided labels; ``p >= 0.5`` where left out.
        confidence: (N,) confidence in the decided label; NaN is read as least confident. ``max(p, 1 - p)`` where
            left out.
    """

    def __init__(self, y: Any, p: Any, decided: Any = None, confidence: Any = None) -> None:
        y = as_labels(y, "y")
        p = as_scores(p, len(y))
        self.order: IntArray = np.lexsort((p, y))
        self.n = len(y)
        self.n_pos = int(y.sum())
        self.n_neg = self.n - self.n_pos
        self.y, self.p = y[self.order], p[self.order]
        yhat = (p >= 0.5).astype(np.int64) if decided is None else as_labels(decided, "decided")
        if len(yhat) != self.n:
            raise ValueError(f"decided must have shape ({self.n},), not {yhat.shape}")
        self.decided = yhat[self.order]
        trust = np.maximum(p, 1.0 - p) if confidence is None else np.array(confidence, dtype=np.float64)
        if trust.shape != (self.n,):
            raise ValueError(f"confidence must have shape ({self.n},), not {trust.shape}")
        self.confidence: FloatArray = np.where(np.isnan(trust), -np.inf, trust)[self.order]

    @property
    def prevalence(self) -> float:
        """Share of positives; NaN for an empty sample."""
        return self.n_pos / self.n if self.n else float("nan")

    @cached_property
    def cell(self) -> IntArray:
        """(N,) cell of the confusion table: 0 tp, 1 fp, 2 fn, 3 tn."""
        return np.asarray(np.where(self.decided == 1, 1 - self.y, 3 - self.y), dtype=np.int64)

    @cached_property
    def cell_indicators(self) -> FloatArray:
        """(4, N) one-hot ``cell``."""
        return np.asarray(self.cell == np.arange(4)[:, None], dtype=np.float64)

    @cached_property
    def error(self) -> IntArray:
        """(N,) 1 where the decided label is wrong."""
        return np.asarray(self.decided != self.y, dtype=np.int64)

    @cached_property
    def below(self) -> IntArray:
        """(P,) number of negative images that score lower than each positive."""
        return np.asarray(np.searchsorted(self.p[: self.n_neg], self.p[self.n_neg :], side="left"))

    @cached_property
    def not_above(self) -> IntArray:
        """(P,) number of negative images that score no higher than each positive."""
        return np.asarray(np.searchsorted(self.p[: self.n_neg], self.p[self.n_neg :], side="right"))

    @cached_property
    def tied_across(self) -> bool:
        """Whether a positive and a negative share a score."""
        return bool((self.below != self.not_above).any())

    @cached_property
    def tie_start(self) -> IntArray | None:
        """(P,) first positive with the same score, or None where all positive scores differ."""
        pos = self.p[self.n_neg :]
        start = np.searchsorted(pos, pos, side="left")
        return None if (start == np.arange(len(pos))).all() else start

    @cached_property
    def trust_order(self) -> IntArray:
        """(N,) columns by falling confidence."""
        return np.argsort(-self.confidence, kind="stable")

    @cached_property
    def trust_ends(self) -> IntArray:
        """(T,) last place in ``trust_order`` of each group of equal confidence."""
        c = self.confidence[self.trust_order]
        return np.flatnonzero(np.r_[c[1:] != c[:-1], np.ones(min(1, self.n), dtype=bool)])


class Rows:
    """B sets of weights over a sample, with the sums that several metrics share.

    Args:
        sample: N images.
        weights: (B, N) weights >= 0, columns in ``sample.order``, int64 (resampling counts) or float64. Integers
            are faster: their running sums have no rounding to wait for.
    """

    def __init__(self, sample: Sample, weights: NDArray[Any]) -> None:
        if weights.ndim != 2 or weights.shape[1] != sample.n:
            raise ValueError(f"weights must have shape (B, {sample.n}), not {weights.shape}")
        self.sample = sample
        self.weights = weights

    @property
    def negatives(self) -> NDArray[Any]:
        """(B, N-) weights of the negatives, by rising score."""
        return self.weights[:, : self.sample.n_neg]

    @property
    def positives(self) -> NDArray[Any]:
        """(B, P) weights of the positives, by rising score."""
        return self.weights[:, self.sample.n_neg :]

    @cached_property
    def floats(self) -> FloatArray:
        """(B, N) weights as floats."""
        return np.asarray(self.weights, dtype=np.float64)

    @cached_property
    def total(self) -> FloatArray:
        """(B,) sum of weights."""
        return np.asarray(self.weights.sum(axis=1), dtype=np.float64)

    @cached_property
    def total_pos(self) -> FloatArray:
        """(B,) sum of the positives' weights."""
        return np.asarray(self.positives.sum(axis=1), dtype=np.float64)

    @cached_property
    def total_neg(self) -> FloatArray:
        """(B,) sum of the negatives' weights."""
        return np.asarray(self.negatives.sum(axis=1), dtype=np.float64)

    @cached_property
    def cells(self) -> FloatArray:
        """(B, 4) weighted confusion tables: tp, fp, fn, tn."""
        return weighted_sums(self.floats, self.sample.cell_indicators)

    @cached_property
    def negatives_cum(self) -> NDArray[Any]:
        """(B, N- + 1) running sum of the negatives' weights, from 0."""
        return running_sum(self.negatives)

    @cached_property
    def weight_below(self) -> NDArray[Any]:
        """(B, P) weight of the negatives that score lower than each positive."""
        return np.take(self.negatives_cum, self.sample.below, axis=1)

    @cached_property
    def trust(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """(B, T) running weight and running weight of errors at each distinct confidence, most confident first."""
        s = self.sample
        w = np.take(self.weights, s.trust_order, axis=1)
        accepted = np.cumsum(w, axis=1)
        errors = np.cumsum(w * s.error[s.trust_order], axis=1)
        if len(s.trust_ends) != s.n:
            accepted, errors = accepted[:, s.trust_ends], errors[:, s.trust_ends]
        return accepted, errors

    def mean(self, values: FloatArray) -> FloatArray:
        """(B,) weighted mean of ``values`` (N,); NaN where no weight is left."""
        return ratio(self.sum(values), self.total)

    def sum(self, values: FloatArray) -> FloatArray:
        """(B,) weighted sum of ``values`` (N,)."""
        return weighted_sums(self.floats, values[None])[:, 0]

    def bin_sums(self, values: FloatArray | None, bins: IntArray, n_bins: int) -> FloatArray:
        """(B, n_bins) weighted sums of ``values`` (1 where None) by bin.

        ``bins`` (N,) need not be sorted; few changes of bin along the columns make it fast.
        """
        out = np.zeros((len(self.weights), n_bins))
        if self.sample.n == 0:
            return out
        starts = np.flatnonzero(np.r_[True, bins[1:] != bins[:-1]])
        sums = np.add.reduceat(self.weights if values is None else self.floats * values, starts, axis=1)
        # A bin occurs in several runs, at least one among the negatives and one among the positives.
        by_bin = np.argsort(bins[starts], kind="stable")
        found, first = np.unique(bins[starts][by_bin], return_index=True)
        out[:, found] = np.add.reduceat(sums[:, by_bin], first, axis=1)
        return out


def running_sum(weights: NDArray[Any]) -> NDArray[Any]:
    """(B, M + 1) running sum of ``weights`` (B, M) along the columns, starting with 0."""
    out = np.zeros((weights.shape[0], weights.shape[1] + 1), dtype=weights.dtype)
    np.cumsum(weights, axis=1, out=out[:, 1:])
    return out


def weighted_sums(weights: FloatArray, values: FloatArray) -> FloatArray:
    """(B, K) sums of ``values`` (K, N) under ``weights`` (B, N).

    Not a matrix product: BLAS starts threads of its own for these narrow shapes, which fight with the resampling
    threads and cost several times the work.
    """
    return np.stack([np.einsum("bi,i->b", weights, row) for row in values], axis=1)


def ratio(numerator: Any, denominator: Any) -> FloatArray:
    """``numerator / denominator``, NaN where the denominator is 0; a numpy float for scalars."""
    top, bottom = np.broadcast_arrays(np.asarray(numerator, dtype=np.float64), np.asarray(denominator, np.float64))
    out = np.full(top.shape, np.nan)
    np.divide(top, bottom, out=out, where=bottom != 0)
    scalar_or_array: FloatArray = out[()]
    return scalar_or_array


def one_row(y: Any, p: Any, decided: Any = None, *, confidence: Any = None, weights: Any = None) -> Rows:
    """Weights (N,) (1 where left out) over one sample, as a single row.

    Raises:
        ValueError: weights of another length, negative or not finite.
    """
    sample = Sample(y, p, decided, confidence)
    if weights is None:
        return Rows(sample, np.ones((1, sample.n), dtype=np.int64))
    w = as_scores(weights, sample.n, name="weights", probability=False)
    if (w < 0).any():
        raise ValueError("weights must not be negative")
    return Rows(sample, w[sample.order][None])
