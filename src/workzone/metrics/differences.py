"""Differences between parts of one sample, with groups drawn across the parts, and Holm's correction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workzone.metrics.resampling import Plan, chunks
from workzone.metrics.sample import FloatArray, Sample, ratio


@dataclass(frozen=True, slots=True)
class Rates:
    """Shares of C kinds of events and what their uncertainty is made of.

    Attributes:
        events: (C,) events.
        trials: (C,) images they are counted among.
        units: (C,) groups among those images; the images themselves where nothing is grouped.
        value: (C,) shares, NaN without trials.
        drawn: (B, C) shares over resamples of groups, NaN where a resample holds no trial.
    """

    events: FloatArray
    trials: FloatArray
    units: FloatArray
    value: FloatArray
    drawn: FloatArray

    def spread(self, weights: FloatArray) -> float:
        """Standard error of ``sum(weights * value)``.

        The larger of the bootstrap's and that of independent shares with one event and one other added (Agresti & Caffo
        2000): no resample holds an event that was not seen, so the bootstrap alone would call 0 of 5 certain.
        """
        used = np.flatnonzero(weights)
        drawn = self.drawn[:, used] @ weights[used]
        drawn = drawn[~np.isnan(drawn)]
        seen = float(drawn.var(ddof=1)) if len(drawn) > 1 else 0.0
        extreme = (self.events[used] == 0) | (self.events[used] == self.trials[used])
        # Where every image agrees, only groups count as independent evidence.
        size = np.where(extreme, self.units[used], self.trials[used])
        share = (np.where(extreme, self.value[used] * size, self.events[used]) + 1) / (size + 2)
        floor = float((weights[used] ** 2 * share * (1 - share) / (size + 2)).sum())
        return float(np.sqrt(max(seen, floor)))

    def freedom(self, weights: FloatArray) -> float:
        """Degrees of freedom: units of the smallest share used, minus 1."""
        return max(1.0, float(self.units[np.flatnonzero(weights)].min()) - 1)

    def interval(self, weights: FloatArray, tail: float) -> tuple[float, float, float]:
        """Value and ends of ``sum(weights * value)``, leaving ``tail`` on each side (Student's t)."""
        from scipy.special import stdtrit

        used = np.flatnonzero(weights)
        value = float(self.value[used] @ weights[used])
        half = float(stdtrit(self.freedom(weights), 1 - tail)) * self.spread(weights)
        return value, value - half, value + half

    def p_value(self, weights: FloatArray) -> float:
        """Two-sided p of ``sum(weights * value) = 0``."""
        from scipy.special import stdtr

        used = np.flatnonzero(weights)
        spread = self.spread(weights)
        t = abs(float(self.value[used] @ weights[used])) / spread
        return float(2 * stdtr(self.freedom(weights), -t))


def rates(
    events: NDArray[Any], among: NDArray[Any], *, groups: Any = None, n_resamples: int = 1000, seed: int = 42
) -> Rates:
    """Shares of ``events`` (N, C) among ``among`` (N, C), resampled together so that a group in two parts moves both.

    Args:
        events: (N, C) bool; counted only where ``among`` is True.
        among: (N, C) bool.
        groups: (N,) drive or place; whole groups are drawn.
        n_resamples: B.
        seed: of the draws.

    Raises:
        ValueError: unequal shapes or no images.
    """
    hit, trial = np.asarray(events, dtype=bool), np.asarray(among, dtype=bool)
    if hit.shape != trial.shape or hit.ndim != 2 or not len(hit):
        raise ValueError(f"events and among must have one shape (N, C) with N > 0, not {hit.shape} and {trial.shape}")
    n, c = hit.shape
    sample = Sample(np.zeros(n, dtype=np.int64), np.zeros(n))
    plan = Plan(sample, groups)
    columns = np.concatenate([hit & trial, trial], axis=1)[sample.order].astype(np.float64)
    table = np.zeros((plan.n_units, 2 * c))
    np.add.at(table, plan.unit_of_column, columns)
    rng = np.random.default_rng([seed, 7])
    drawn = np.empty((n_resamples, c))
    for first, last in chunks(n_resamples, plan.n_units):
        sums = plan.draw(rng, last - first).astype(np.float64) @ table
        drawn[first:last] = ratio(sums[:, :c], sums[:, c:])
    counts = table.sum(axis=0)
    units = (table[:, c:] > 0).sum(axis=0).astype(np.float64)
    return Rates(counts[:c], counts[c:], units, ratio(counts[:c], counts[c:]), drawn)


def holm(p_values: Any) -> FloatArray:
    """(M,) p-values adjusted so that the chance of any false rejection stays below the level (Holm 1979).

    Raises:
        ValueError: a value outside [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p-values must be a list of numbers in [0, 1]")
    order = np.argsort(p, kind="stable")
    steps = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    out = np.empty(len(p))
    out[order] = steps
    return out
