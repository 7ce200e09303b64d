"""How far the probabilities are from frequencies, all for class 1 = roadwork.

An ECE near 0 says nothing of ranking (the base rate for every image has ECE 0): read it next to Brier, NLL and AUROC.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from workzone.metrics.proportions import clopper_pearson, wilson
from workzone.metrics.sample import FloatArray, IntArray, Rows, as_labels, as_scores, one_row, ratio

N_BINS = 15
MIN_PER_BIN = 20
NLL_EPS = 1e-12
_GRID = 1024


def bin_equal_width(p: FloatArray, n_bins: int = N_BINS) -> IntArray:
    """Bin of each ``p``: [0, 1/n), ..., [1 - 1/n, 1]."""
    edges = np.linspace(0.0, 1.0, n_bins + 1)[1:-1]
    return np.searchsorted(edges, p, side="right")


def bin_equal_mass(p: FloatArray, n_bins: int = N_BINS) -> IntArray:
    """Bin of each ``p`` between quantiles of ``p`` itself; ties stay together, so bins can differ in size."""
    if not len(p):
        return np.zeros(0, dtype=np.int64)
    edges = np.quantile(p, np.linspace(0.0, 1.0, n_bins + 1)[1:-1])
    return np.searchsorted(edges, p, side="right")


def _bins(p: FloatArray, n_bins: int, equal_mass: bool) -> IntArray:
    if n_bins < 1:
        raise ValueError("n_bins must be at least 1")
    return bin_equal_mass(p, n_bins) if equal_mass else bin_equal_width(p, n_bins)


def ece_rows(rows: Rows, n_bins: int = N_BINS, *, equal_mass: bool = False) -> FloatArray:
    """(B,) ECE under each set of weights; equal-mass bins are those of the unweighted sample."""
    s = rows.sample
    gap = rows.bin_sums(s.p - s.y, _bins(s.p, n_bins, equal_mass), n_bins)
    return ratio(np.abs(gap).sum(axis=1), rows.total)


def ece_classwise_rows(rows: Rows, n_bins: int = N_BINS) -> FloatArray:
    """(B,) mean of the ECE of both classes under each set of weights."""
    s = rows.sample
    other = rows.bin_sums(s.y - s.p, bin_equal_width(1.0 - s.p, n_bins), n_bins)
    return (ece_rows(rows, n_bins) + ratio(np.abs(other).sum(axis=1), rows.total)) / 2


def ece_debiased_rows(rows: Rows, n_bins: int = N_BINS) -> FloatArray:
    """(B,) debiased calibration error under each set of weights, which must be counts."""
    s = rows.sample
    bins = bin_equal_mass(s.p, n_bins)
    count = rows.bin_sums(None, bins, n_bins)
    rate = ratio(rows.bin_sums(s.y.astype(np.float64), bins, n_bins), count)
    gap = ratio(rows.bin_sums(s.p - s.y, bins, n_bins), count)
    # A bin of one image has no variance estimate and is left out, as in the reference code of the estimator.
    term = np.where(count > 1, count * (gap**2 - ratio(rate * (1 - rate), count - 1)), 0.0)
    square = ratio(term.sum(axis=1), rows.total)
    return np.asarray(np.sign(square) * np.sqrt(np.abs(square)))


def mce_rows(rows: Rows, n_bins: int = N_BINS, min_per_bin: float = MIN_PER_BIN) -> FloatArray:
    """(B,) largest gap among bins with weight >= ``min_per_bin`` under each set of weights."""
    s = rows.sample
    bins = bin_equal_width(s.p, n_bins)
    count = rows.bin_sums(None, bins, n_bins)
    gap = np.abs(ratio(rows.bin_sums(s.p - s.y, bins, n_bins), count))
    largest = np.where(count >= min_per_bin, gap, -1.0).max(axis=1)
    return np.where(largest < 0, np.nan, largest)


def smooth_ece_rows(rows: Rows) -> FloatArray:
    """(B,) smooth ECE under each set of weights."""
    s = rows.sample
    cell = np.minimum((s.p * _GRID).astype(np.int64), _GRID - 1)
    residual = ratio(rows.bin_sums(s.y - s.p, cell, _GRID), rows.total[:, None])
    # A Gaussian reflected at 0 and 1 is a plain one on the residual and its mirror image: a product in Fourier space.
    spectrum = np.fft.rfft(np.concatenate([residual, residual[:, ::-1]], axis=1), axis=1)
    frequency = np.pi * np.arange(_GRID + 1)

    def error(width: FloatArray) -> FloatArray:
        kernel = np.exp(-0.5 * (width[:, None] * frequency) ** 2)
        smooth = np.fft.irfft(spectrum * kernel, n=2 * _GRID, axis=1)[:, :_GRID]
        return np.asarray(np.abs(smooth).sum(axis=1))

    low, high = np.full(len(residual), 1.0 / _GRID), np.ones(len(residual))
    for _ in range(14):
        width = (low + high) / 2
        wide = error(width) < width
        low, high = np.where(wide, low, width), np.where(wide, width, high)
    return error(high)


def brier_rows(rows: Rows) -> FloatArray:
    """(B,) Brier score under each set of weights."""
    return rows.mean((rows.sample.p - rows.sample.y) ** 2)


def brier_skill_rows(rows: Rows) -> FloatArray:
    """(B,) Brier skill under each set of weights."""
    rate = ratio(rows.total_pos, rows.total)
    return 1.0 - ratio(brier_rows(rows), rate * (1 - rate))


def nll_rows(rows: Rows) -> FloatArray:
    """(B,) negative log-likelihood under each set of weights."""
    s = rows.sample
    return rows.mean(-np.log(np.clip(np.where(s.y == 1, s.p, 1.0 - s.p), NLL_EPS, 1.0)))


def spiegelhalter_z_rows(rows: Rows) -> FloatArray:
    """(B,) Spiegelhalter's z under each set of weights."""
    p, y = rows.sample.p, rows.sample.y
    top = rows.sum((y - p) * (1 - 2 * p))
    return ratio(top, np.sqrt(rows.sum((1 - 2 * p) ** 2 * p * (1 - p))))


def ece(y: Any, p: Any, n_bins: int = N_BINS, *, equal_mass: bool = False) -> float:
    """Expected calibration error: mean over images of the gap between rate and mean probability of their bin.

    Biased upward: a calibrated model does not show 0 (see ``ece_verdict``).

    Args:
        y: (N,) labels.
        p: (N,) probability of roadwork.
        n_bins: number of bins.
        equal_mass: bins between quantiles of ``p`` instead of equal width (Nixon et al. 2019, arXiv 1904.01685).
    """
    return float(ece_rows(one_row(y, p), n_bins, equal_mass=equal_mass)[0])


def ece_classwise(y: Any, p: Any, n_bins: int = N_BINS) -> float:
    """Mean of the ECE of both classes, also called SCE; equals ``ece`` for two classes up to values on a bin edge."""
    return float(ece_classwise_rows(one_row(y, p), n_bins)[0])


def ece_debiased(y: Any, p: Any, n_bins: int = N_BINS) -> float:
    """Signed root of the squared calibration error minus its sampling variance (Kumar et al. 2019, arXiv 1909.10155).

    Equal-mass bins; about 0, and often negative, for a calibrated model.
    """
    return float(ece_debiased_rows(one_row(y, p), n_bins)[0])


def smooth_ece(y: Any, p: Any) -> float:
    """Smooth calibration error (Błasiok & Nakkiran 2023, arXiv 2309.12236): no bins to choose.

    The residuals y - p are smoothed by a Gaussian reflected at 0 and 1; its width is the one that equals the resulting
    error. Computed on a grid of 1024 cells, so widths below 1/1024 are not resolved.
    """
    return float(smooth_ece_rows(one_row(y, p))[0])


def mce(y: Any, p: Any, n_bins: int = N_BINS, min_per_bin: int = MIN_PER_BIN) -> float:
    """Largest gap of a bin with at least ``min_per_bin`` images; NaN where no bin has so many."""
    return float(mce_rows(one_row(y, p), n_bins, min_per_bin)[0])


def brier(y: Any, p: Any) -> float:
    """Mean squared distance of probability and label."""
    return float(brier_rows(one_row(y, p))[0])


def brier_skill(y: Any, p: Any) -> float:
    """Share of the base rate's Brier score that is removed; 0 for the base rate itself, NaN with one class."""
    return float(brier_skill_rows(one_row(y, p))[0])


def nll(y: Any, p: Any) -> float:
    """Mean negative log-likelihood in nats, probabilities of the true class clipped at 1e-12."""
    return float(nll_rows(one_row(y, p))[0])


def spiegelhalter_z(y: Any, p: Any) -> float:
    """Standard normal under calibration (Spiegelhalter 1986); NaN where every probability is 0, 1/2 or 1."""
    return float(spiegelhalter_z_rows(one_row(y, p))[0])


@dataclass(frozen=True, slots=True)
class BrierParts:
    """brier = reliability - resolution + uncertainty + within_bin (Murphy 1973; Stephenson et al. 2008).

    ``within_bin`` is what bins of unequal probabilities leave over; it vanishes where each bin holds one value.
    """

    brier: float
    reliability: float
    resolution: float
    uncertainty: float
    within_bin: float


def brier_decomposition(y: Any, p: Any, n_bins: int = N_BINS) -> BrierParts:
    """Murphy's parts of the Brier score over equal-width bins; NaN for an empty sample."""
    rows = one_row(y, p)
    s = rows.sample
    bins = bin_equal_width(s.p, n_bins)
    count = np.bincount(bins, minlength=n_bins)
    used = count > 0
    share = count[used] / max(s.n, 1)
    rate = np.bincount(bins, s.y, n_bins)[used] / count[used]
    mean = np.bincount(bins, s.p, n_bins)[used] / count[used]
    score, base = float(brier_rows(rows)[0]), s.prevalence
    reliability, resolution = float(share @ (mean - rate) ** 2), float(share @ (rate - base) ** 2)
    uncertainty = base * (1 - base)
    return BrierParts(score, reliability, resolution, uncertainty, score - reliability + resolution - uncertainty)


@dataclass(frozen=True, slots=True)
class NullBand:
    """ECE that a perfectly calibrated model with the same probabilities shows.

    Attributes:
        mean: mean over resamples.
        upper: quantile ``level`` over resamples.
        level: 0.95 for the one-sided 95 % line.
        n: images.
    """

    mean: float
    upper: float
    level: float
    n: int


def ece_null_band(
    p: Any,
    n_bins: int = N_BINS,
    *,
    equal_mass: bool = False,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 42,
) -> NullBand:
    """Band of the ECE under calibration, by drawing labels y ~ Bernoulli(p) (Bröcker & Smith 2007).

    Args:
        p: (N,) probabilities.
        n_bins: as for ``ece``.
        equal_mass: as for ``ece``.
        n_resamples: draws of N labels.
        level: quantile of the upper line.
        seed: of the draws.

    Raises:
        ValueError: an empty sample.
    """
    scores = np.sort(as_scores(p, np.size(p)))
    if not len(scores):
        raise ValueError("a null band needs at least one image")
    bins = _bins(scores, n_bins, equal_mass)
    starts = np.flatnonzero(np.r_[True, bins[1:] != bins[:-1]])
    ends = np.r_[starts[1:], len(scores)]
    expected = np.add.reduceat(scores, starts)
    rng = np.random.default_rng(seed)
    chance = scores.astype(np.float32)
    values = np.empty(n_resamples)
    chunk = max(1, 1_000_000 // len(scores))
    for first in range(0, n_resamples, chunk):
        rows = min(chunk, n_resamples - first)
        drawn = rng.random((rows, len(scores)), dtype=np.float32) < chance
        runs = zip(starts.tolist(), ends.tolist(), strict=True)
        hits = np.stack([np.count_nonzero(drawn[:, a:b], axis=1) for a, b in runs], axis=1)
        values[first : first + rows] = np.abs(hits - expected).sum(axis=1) / len(scores)
    return NullBand(float(values.mean()), float(np.quantile(values, level)), level, len(scores))


UNDECIDED, MISCALIBRATED = "cannot be told from 0", "miscalibrated"


@dataclass(frozen=True, slots=True)
class EceVerdict:
    """An ECE next to what calibration alone would show on as many images."""

    ece: float
    null_mean: float
    null_95: float
    verdict: str
    n: int

    def __str__(self) -> str:
        null = f"a calibrated model shows {self.null_mean:.3f}, 95 % line {self.null_95:.3f}"
        return f"ECE {self.ece:.3f}, {self.verdict} ({null})"


def ece_verdict(
    y: Any, p: Any, n_bins: int = N_BINS, *, equal_mass: bool = False, n_resamples: int = 1000, seed: int = 42
) -> EceVerdict:
    """Whether the ECE of ``p`` (N,) against ``y`` (N,) exceeds the 95 % line of a calibrated model.

    Raises:
        ValueError: an empty sample, or unequal lengths.
    """
    value = ece(y, p, n_bins, equal_mass=equal_mass)
    band = ece_null_band(p, n_bins, equal_mass=equal_mass, n_resamples=n_resamples, seed=seed)
    return EceVerdict(value, band.mean, band.upper, MISCALIBRATED if value > band.upper else UNDECIDED, band.n)


@dataclass(frozen=True, slots=True)
class ReliabilityCurve:
    """Non-empty bins of a reliability diagram: arrays (K,) and the edges (n_bins + 1,)."""

    edges: FloatArray
    probability: FloatArray
    rate: FloatArray
    low: FloatArray
    high: FloatArray
    count: IntArray


def reliability_curve(
    y: Any,
    p: Any,
    n_bins: int = N_BINS,
    *,
    equal_mass: bool = False,
    interval: str = "clopper-pearson",
    level: float = 0.95,
) -> ReliabilityCurve:
    """Mean probability, observed rate with its interval, and count, bin by bin.

    Args:
        y: (N,) labels.
        p: (N,) probabilities.
        n_bins: number of bins before empty ones are dropped.
        equal_mass: bins between quantiles of ``p``.
        interval: "clopper-pearson" (exact) or "wilson" (narrower).
        level: of the intervals.

    Raises:
        ValueError: unequal lengths or an unknown interval.
    """
    if interval not in ("clopper-pearson", "wilson"):
        raise ValueError(f"unknown interval {interval!r}: clopper-pearson or wilson")
    labels = as_labels(y, "y")
    scores = as_scores(p, len(labels))
    inner = np.linspace(0.0, 1.0, n_bins + 1)
    if equal_mass and len(scores):
        inner[1:-1] = np.quantile(scores, inner[1:-1])
    bins = _bins(scores, n_bins, equal_mass)
    count = np.bincount(bins, minlength=n_bins)
    used = count > 0
    hits, size = np.bincount(bins, labels, n_bins)[used], count[used]
    low, high = (clopper_pearson if interval == "clopper-pearson" else wilson)(hits, size, level)
    mean = np.bincount(bins, scores, n_bins)[used] / size
    return ReliabilityCurve(inner, mean, hits / size, np.atleast_1d(low), np.atleast_1d(high), size)
