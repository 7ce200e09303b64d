"""Is one model better than another on the same images? Paired resampling and the classical paired tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workzone.metrics.bootstrap import Interval
from workzone.metrics.registry import Metric, resolve, value_rows
from workzone.metrics.resampling import (
    SAME,
    Method,
    Plan,
    acceleration,
    check_settings,
    interval_ends,
    run_chunks,
)
from workzone.metrics.sample import FloatArray, IntArray, Rows, Sample, as_labels, as_scores, ratio, weighted_sums

Share = tuple[Any, Any]
_NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure of two models on the same images.

    Attributes:
        a: the first model, with its own interval from the same resamples.
        b: the second model.
        difference: b - a with its paired interval.
        p: two-sided bootstrap p-value of no difference, never below 2 / (resamples + 1); NaN where undefined.
    """

    a: Interval
    b: Interval
    difference: Interval
    p: float

    @property
    def told(self) -> bool:
        """Whether the interval leaves out 0 and the p-value agrees."""
        apart = self.difference.low > 0 or self.difference.high < 0
        return bool(apart and self.p <= 1 - self.difference.level)


def paired_bootstrap(
    metrics: Sequence[str] | Mapping[str, Metric],
    y: Any,
    p_a: Any,
    p_b: Any,
    decided_a: Any = None,
    decided_b: Any = None,
    *,
    shares: Mapping[str, tuple[Share, Share]] | None = None,
    groups: Any = None,
    strata: Any = None,
    stratified: bool = False,
    n_resamples: int = 2000,
    method: Method = "percentile",
    level: float = 0.95,
    prevalence: float | None = None,
    seed: int = 42,
    workers: int | None = None,
) -> dict[str, Difference]:
    """Each metric of two models, and the difference under resamples that both share.

    One set of image weights serves both models and all metrics, so identical models differ by exactly 0 in every
    resample. The p-value is ``2 min(P(d* <= 0), P(d* >= 0))`` with one added to each count and to their total (Davison
    & Hinkley 1997, 4.2); it is the twin of the percentile interval. BCa (Efron 1987) corrects the interval of the
    difference only. Results do not depend on ``workers``.

    Args:
        metrics: names in ``METRICS``, or metrics by name.
        y: (N,) labels.
        p_a: (N,) probability of roadwork, first model.
        p_b: (N,) second model.
        decided_a: (N,) decided labels; ``p_a >= 0.5`` where left out.
        decided_b: (N,) likewise.
        shares: further figures by name, each as (events, trials) of both models, (N,) numbers; their ratio of sums is
            compared, such as wrong answers among given answers. Not moved by ``prevalence``.
        groups: (N,) drive or place; whole groups are drawn.
        strata: (N,) strata whose sizes are kept.
        stratified: keep the number of images of each label (with groups: of groups with and without roadwork).
        n_resamples: B.
        method: percentile or bca.
        level: nominal coverage.
        prevalence: share of roadwork to re-weight to.
        seed: of the draws.
        workers: threads; by the amount of work where left out.

    Raises:
        ValueError: an empty sample, unequal lengths, an unknown metric or method.
    """
    check_settings(method, level, n_resamples)
    pair = _Pair(resolve(metrics), dict(shares or {}), y, (p_a, p_b), (decided_a, decided_b), prevalence)
    plan = Plan(pair.samples[0], groups, strata, stratified=stratified)
    point = pair.values(np.ones((1, pair.n), dtype=np.int64))
    drawn = _collect(pair, plan, n_resamples, lambda rng, first, last: plan.draw(rng, last - first), seed, workers)
    left_out: dict[str, FloatArray] = {}
    stratum: IntArray = np.zeros(0, dtype=np.int64)
    if method == "bca":
        block_of_unit, stratum = plan.blocks(seed)
        left_out = _collect(
            pair,
            plan,
            len(stratum),
            lambda _, first, last: plan.leave_out(block_of_unit, first, last),
            seed,
            workers,
        )
    shown = pair.samples[0].prevalence if prevalence is None else prevalence
    found: dict[str, Difference] = {}
    for name in pair.names:
        values = drawn[name][:, ~np.isnan(drawn[name]).any(axis=0)]
        gaps = values[1] - values[0]
        lost = n_resamples - len(gaps)
        a, b = point[name][:, 0].tolist()
        ends = [interval_ends(v, x, level, None) for v, x in ((values[0], a), (values[1], b))]
        bend = acceleration(left_out[name][1] - left_out[name][0], stratum) if method == "bca" else None
        ends.append(interval_ends(gaps, b - a, level, bend))
        methods = ("percentile", "percentile", method)
        of = [
            Interval(v, *e, level, how, pair.n, shown, lost)
            for v, e, how in zip((a, b, b - a), ends, methods, strict=True)
        ]
        found[name] = Difference(of[0], of[1], of[2], bootstrap_p(gaps) if np.isfinite(b - a) else _NAN)
    return found


def bootstrap_p(differences: Any) -> float:
    """Two-sided p-value of no difference from its replicates (B,), with +1 smoothing; NaN without replicates."""
    d = np.asarray(differences, dtype=np.float64)
    if not len(d):
        return _NAN
    # Equal values computed in another order differ by rounding, which must not count as a side.
    least = min(int((d <= SAME).sum()), int((d >= -SAME).sum()))
    return min(1.0, 2.0 * (least + 1) / (len(d) + 1))


class _Pair:
    """Two samples over the same images, and every figure of both under common weights."""

    def __init__(
        self,
        metrics: Mapping[str, Metric],
        shares: Mapping[str, tuple[Share, Share]],
        y: Any,
        p: tuple[Any, Any],
        decided: tuple[Any, Any],
        prevalence: float | None,
    ) -> None:
        self.samples = [Sample(y, score, given) for score, given in zip(p, decided, strict=True)]
        self.n = self.samples[0].n
        if not self.n:
            raise ValueError("a comparison needs at least one image")
        if set(metrics) & set(shares):
            raise ValueError("a share has the name of a metric")
        self.metrics, self.prevalence = metrics, prevalence
        self.shares: dict[str, list[FloatArray]] = {
            name: [
                np.stack([as_scores(v, self.n, name=name, probability=False) for v in one])[:, self.samples[0].order]
                for one in both
            ]
            for name, both in shares.items()
        }
        self.names = (*metrics, *shares)
        # Weights come in the order of the first sample.
        place = np.argsort(self.samples[0].order)
        self.to_second: IntArray = place[self.samples[1].order]

    def values(self, weights: NDArray[Any]) -> dict[str, FloatArray]:
        """(2, B) by name, under weights (B, N) in the order of the first sample."""
        out: dict[str, FloatArray] = {}
        both = (weights, np.take(weights, self.to_second, axis=1))
        rows = [Rows(sample, w) for sample, w in zip(self.samples, both, strict=True)]
        for name, metric in self.metrics.items():
            out[name] = np.stack([value_rows(metric, r, self.prevalence) for r in rows])
        for name, share in self.shares.items():
            sums = [weighted_sums(rows[0].floats, one) for one in share]
            out[name] = np.stack([ratio(s[:, 0], s[:, 1]) for s in sums])
        return out


def _collect(
    pair: _Pair,
    plan: Plan,
    total: int,
    draw: Callable[[np.random.Generator, int, int], IntArray],
    seed: int,
    workers: int | None,
) -> dict[str, FloatArray]:
    out = {name: np.empty((2, total)) for name in pair.names}

    def work(rng: np.random.Generator, first: int, last: int) -> None:
        for name, values in pair.values(plan.to_images(draw(rng, first, last))).items():
            out[name][:, first:last] = values

    run_chunks(work, total, pair.n, seed=seed, workers=workers, samples=2)
    return out


@dataclass(frozen=True, slots=True)
class McNemar:
    """Images that only one of two models has right, and the exact p-value of no difference in accuracy."""

    only_a: int
    only_b: int
    p: float


def mcnemar(right_a: Any, right_b: Any) -> McNemar:
    """Exact test of equal accuracy on the same independent images (McNemar 1947): binomial on the discordant ones.

    Args:
        right_a: (N,) whether the first model is right.
        right_b: (N,) whether the second is.

    Raises:
        ValueError: unequal lengths.
    """
    from scipy.special import bdtr

    a, b = np.asarray(right_a, dtype=bool), np.asarray(right_b, dtype=bool)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"both must have shape (N,), not {a.shape} and {b.shape}")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    n = only_a + only_b
    return McNemar(only_a, only_b, min(1.0, 2.0 * float(bdtr(min(only_a, only_b), n, 0.5))) if n else 1.0)


@dataclass(frozen=True, slots=True)
class DeLong:
    """AUROC of two models on the same images; ``difference`` is b - a. NaN where it cannot be estimated."""

    a: float
    b: float
    difference: float
    standard_error: float
    z: float
    p: float


def midranks(values: Any) -> FloatArray:
    """(K, N) ranks from 1 along the last axis of (K, N); ties share the mean of their ranks."""
    v = np.atleast_2d(np.asarray(values, dtype=np.float64))
    k, n = v.shape
    order = np.argsort(v, axis=1, kind="stable")
    ordered = np.take_along_axis(v, order, axis=1)
    new = np.ones((k, n + 1), dtype=bool)
    new[:, 1:-1] = ordered[:, 1:] != ordered[:, :-1]
    at = np.arange(n)
    first = np.maximum.accumulate(np.where(new[:, :-1], at, 0), axis=1)
    last = np.minimum.accumulate(np.where(new[:, 1:], at, n - 1)[:, ::-1], axis=1)[:, ::-1]
    out = np.empty((k, n))
    np.put_along_axis(out, order, (first + last) / 2.0 + 1.0, axis=1)
    return out


def delong_covariance(y: Any, scores: Any) -> tuple[FloatArray, FloatArray]:
    """AUROC (K,) of K models and their covariance (K, K), in O(N log N) (DeLong 1988; Sun & Xu 2014).

    NaN AUROC with one class; NaN covariance with fewer than two images of a class.

    Args:
        y: (N,) labels.
        scores: (K, N) scores, higher for roadwork.

    Raises:
        ValueError: wrong shapes or values.
    """
    labels = as_labels(y, "y")
    s = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    if s.ndim != 2 or s.shape[1] != len(labels) or not np.isfinite(s).all():
        raise ValueError(f"scores must be finite, of shape (K, {len(labels)}), not {s.shape}")
    positive, negative = s[:, labels == 1], s[:, labels == 0]
    m, n, k = positive.shape[1], negative.shape[1], len(s)
    if not m or not n:
        return np.full(k, _NAN), np.full((k, k), _NAN)
    ranks = midranks(np.concatenate([positive, negative], axis=1))
    v10 = (ranks[:, :m] - midranks(positive)) / n
    v01 = 1.0 - (ranks[:, m:] - midranks(negative)) / m
    auc = v10.mean(axis=1)
    if m < 2 or n < 2:
        return auc, np.full((k, k), _NAN)
    return auc, np.atleast_2d(np.cov(v10)) / m + np.atleast_2d(np.cov(v01)) / n


def delong(y: Any, score_a: Any, score_b: Any) -> DeLong:
    """Test of equal AUROC on the same independent images (DeLong 1988; Sun & Xu 2014).

    A normal approximation: poor for AUROC near 1 with few images of a class, and not meant for grouped images.

    Args:
        y: (N,) labels.
        score_a: (N,) scores of the first model.
        score_b: (N,) of the second.

    Raises:
        ValueError: wrong shapes or values.
    """
    from scipy.special import ndtr

    auc, cov = delong_covariance(y, np.stack([np.asarray(score_a), np.asarray(score_b)]))
    a, b = auc.tolist()
    gap, variance = b - a, float(cov[0, 0] + cov[1, 1] - 2 * cov[0, 1])
    if np.isnan(variance):
        return DeLong(a, b, gap, _NAN, _NAN, _NAN)
    # Below this the variance is rounding of components that are all alike.
    if variance < SAME**2:
        same = abs(gap) < SAME
        return DeLong(a, b, gap, 0.0, 0.0 if same else _NAN, 1.0 if same else _NAN)
    error = float(np.sqrt(variance))
    z = gap / error
    return DeLong(a, b, gap, error, z, float(2 * ndtr(-abs(z))))
