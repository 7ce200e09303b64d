"""Intervals of metrics by resampling, all resamples at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from workzone.metrics.classification import Confusion, at_prevalence
from workzone.metrics.proportions import clopper_pearson
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
from workzone.metrics.sample import FloatArray, Rows, Sample, weighted_sums

_CELLS = ("tp", "fp", "fn", "tn")


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its confidence interval; prints as ``0.873 [0.861, 0.885]``, and takes a format such as ``.1%``.

    Attributes:
        value: on the sample itself.
        low: lower end.
        high: upper end.
        level: nominal coverage.
        method: percentile, bca, clopper-pearson, "clopper-pearson over groups" or "clopper-pearson box".
        n: images.
        prevalence: share of roadwork the value refers to.
        undefined: resamples in which the metric was NaN; they are left out of the interval.
    """

    value: float
    low: float
    high: float
    level: float
    method: str
    n: int
    prevalence: float
    undefined: int = 0

    def __format__(self, spec: str) -> str:
        value, low, high = (format(v, spec or ".3f") for v in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"

    def __str__(self) -> str:
        return format(self, "")


def bootstrap(
    metrics: Sequence[str] | Mapping[str, Metric],
    y: Any,
    p: Any,
    decided: Any = None,
    *,
    groups: Any = None,
    strata: Any = None,
    stratified: bool = False,
    n_resamples: int = 1000,
    method: Method = "percentile",
    level: float = 0.95,
    prevalence: float | None = None,
    exact_proportions: bool = True,
    seed: int = 42,
    workers: int | None = None,
) -> dict[str, Interval]:
    """Value and interval of each metric.

    Resampling never yields an error that was not seen, so a proportion with 0 errors would get [0, 0]. Therefore:

    * plain proportions (accuracy, precision, recall, fnr, fpr, specificity) of ungrouped images get the
      Clopper-Pearson interval, unless ``exact_proportions`` is False;
    * with groups they are resampled, except where 0 or all are errors: then Clopper-Pearson over the number of groups;
    * other metrics of counts whose resamples are all equal get the range over the Clopper-Pearson intervals of recall
      and specificity, each at ``1 - (1 - level) / 2``.

    An AUROC of 1 has no such remedy: its interval is [1, 1]. ECE is biased upward by resampling: use ``ece_verdict``.
    BCa (Efron 1987) leaves out one unit at a time up to 2,000 units and about 400 random blocks beyond; give it 2,000
    resamples. Results do not depend on ``workers``.

    Args:
        metrics: names in ``METRICS``, or metrics by name.
        y: (N,) labels.
        p: (N,) probability of roadwork.
        decided: (N,) decided labels; ``p >= 0.5`` where left out.
        groups: (N,) drive or place; whole groups are drawn, since images of one group are alike.
        strata: (N,) strata whose sizes are kept.
        stratified: keep the number of images of each label (with groups: of groups with and without roadwork).
        n_resamples: B.
        method: percentile or bca.
        level: nominal coverage.
        prevalence: share of roadwork to re-weight to, such as 0.5.
        exact_proportions: see above.
        seed: of the draws.
        workers: threads; by the amount of work where left out.

    Raises:
        ValueError: an empty sample, unequal lengths, an unknown metric or method.
    """
    check_settings(method, level, n_resamples)
    chosen = resolve(metrics)
    sample = Sample(y, p, decided)
    if not sample.n:
        raise ValueError("a bootstrap needs at least one image")
    plan = Plan(sample, groups, strata, stratified=stratified)
    point = Rows(sample, np.ones((1, sample.n), dtype=np.int64))
    shown = sample.prevalence if prevalence is None else prevalence

    found: dict[str, Interval] = {}
    for name, metric in chosen.items():
        exact = _exact(metric, plan, level, prevalence) if exact_proportions else None
        if exact is not None:
            value = float(value_rows(metric, point, prevalence)[0])
            found[name] = Interval(value, exact[0], exact[1], level, exact[2], sample.n, shown)
    rest = {name: metric for name, metric in chosen.items() if name not in found}
    drawn = _replicates(rest, sample, plan, n_resamples, prevalence, seed, workers)
    left_out = _jackknife(rest, sample, plan, prevalence, seed, workers) if method == "bca" and rest else {}
    for name, metric in rest.items():
        value = float(value_rows(metric, point, prevalence)[0])
        values = drawn[name][~np.isnan(drawn[name])]
        ends: tuple[float, float] | None = None
        how: str = method
        if exact_proportions and metric.from_counts is not None and len(values) and np.ptp(values) < SAME:
            ends, how = _box(metric.from_counts, plan, level, shown), "clopper-pearson box"
        if ends is None:
            how = method
            ends = interval_ends(values, value, level, left_out[name] if method == "bca" else None)
        found[name] = Interval(value, *ends, level, how, sample.n, shown, n_resamples - len(values))
    return {name: found[name] for name in chosen}


def replicates(
    metrics: Sequence[str] | Mapping[str, Metric],
    y: Any,
    p: Any,
    decided: Any = None,
    *,
    groups: Any = None,
    strata: Any = None,
    stratified: bool = False,
    n_resamples: int = 1000,
    prevalence: float | None = None,
    seed: int = 42,
    workers: int | None = None,
) -> dict[str, FloatArray]:
    """Values (B,) of each metric over the resamples of ``bootstrap``; NaN where a resample leaves it undefined.

    Metrics of counts are drawn from their table and the others from image weights, so replicates of two metrics are
    not paired.

    Raises:
        ValueError: as ``bootstrap``.
    """
    sample = Sample(y, p, decided)
    if not sample.n:
        raise ValueError("a bootstrap needs at least one image")
    plan = Plan(sample, groups, strata, stratified=stratified)
    return _replicates(resolve(metrics), sample, plan, n_resamples, prevalence, seed, workers)


def _from_cells(metric: Metric, cells: FloatArray, prevalence: float | None) -> FloatArray:
    if metric.from_counts is None:
        raise ValueError(f"{metric.name} is not a metric of counts")
    table = Confusion.from_cells(cells)
    return metric.from_counts(table if prevalence is None else at_prevalence(table, prevalence))


def _replicates(
    metrics: Mapping[str, Metric],
    sample: Sample,
    plan: Plan,
    b: int,
    prevalence: float | None,
    seed: int,
    workers: int | None,
) -> dict[str, FloatArray]:
    counts = {name: metric for name, metric in metrics.items() if metric.from_counts is not None}
    scored = {name: metric for name, metric in metrics.items() if name not in counts}
    out = {name: np.empty(b) for name in metrics}
    if counts and not plan.grouped:
        cells = plan.draw_cells(np.random.default_rng([seed, 1]), b)
        for name, metric in counts.items():
            out[name][:] = _from_cells(metric, cells, prevalence)
        counts = {}
    if not counts and not scored:
        return out
    width = sample.n if scored else plan.n_units

    def work(rng: np.random.Generator, first: int, last: int) -> None:
        units = plan.draw(rng, last - first)
        _fill(out, counts, scored, sample, plan, units, slice(first, last), prevalence)

    run_chunks(work, b, width, seed=seed, workers=workers)
    return out


def _fill(
    out: dict[str, FloatArray],
    counts: Mapping[str, Metric],
    scored: Mapping[str, Metric],
    sample: Sample,
    plan: Plan,
    units: Any,
    where: slice,
    prevalence: float | None,
) -> None:
    if counts:
        cells = weighted_sums(units.astype(np.float64), np.ascontiguousarray(plan.unit_cells.T))
        for name, metric in counts.items():
            out[name][where] = _from_cells(metric, cells, prevalence)
    if scored:
        rows = Rows(sample, plan.to_images(units))
        for name, metric in scored.items():
            out[name][where] = value_rows(metric, rows, prevalence)


def _jackknife(
    metrics: Mapping[str, Metric], sample: Sample, plan: Plan, prevalence: float | None, seed: int, workers: int | None
) -> dict[str, float]:
    """Acceleration of each metric."""
    counts = {name: metric for name, metric in metrics.items() if metric.from_counts is not None}
    scored = {name: metric for name, metric in metrics.items() if name not in counts}
    found: dict[str, float] = {}
    if counts and not plan.grouped:
        # Images of one cell and stratum leave the same table behind: at most four values per stratum.
        kinds, times = np.unique(4 * plan.stratum + plan.unit_cells.argmax(axis=1), return_counts=True)
        tables = plan.unit_cells.sum(axis=0) - np.eye(4)[kinds % 4]
        for name, metric in counts.items():
            found[name] = acceleration(_from_cells(metric, tables, prevalence), kinds // 4, times.astype(np.float64))
        counts = {}
    if not counts and not scored:
        return found
    block_of_unit, stratum = plan.blocks(seed)
    out = {name: np.empty(len(stratum)) for name in (*counts, *scored)}
    width = sample.n if scored else plan.n_units

    def work(_: np.random.Generator, first: int, last: int) -> None:
        units = plan.leave_out(block_of_unit, first, last)
        _fill(out, counts, scored, sample, plan, units, slice(first, last), prevalence)

    run_chunks(work, len(stratum), width, seed=seed, workers=workers)
    return found | {name: acceleration(values, stratum) for name, values in out.items()}


def _exact(metric: Metric, plan: Plan, level: float, prevalence: float | None) -> tuple[float, float, str] | None:
    """Clopper-Pearson interval where ``metric`` is a plain proportion that should not be resampled."""
    if metric.proportion is None:
        return None
    events, trials = ([_CELLS.index(c) for c in part.split()] for part in metric.proportion)
    of_one_class = set(trials) in ({0, 2}, {1, 3})
    if prevalence is not None and not of_one_class:
        return None
    k, n = plan.unit_cells[:, events].sum(), plan.unit_cells[:, trials].sum()
    if n == 0:
        return None
    how = "clopper-pearson"
    if plan.grouped:
        if 0 < k < n:
            return None
        n_groups = float((plan.unit_cells[:, trials].sum(axis=1) > 0).sum())
        k, n, how = (n_groups if k == n else 0.0), n_groups, "clopper-pearson over groups"
    low, high = clopper_pearson(k, n, level)
    return float(low), float(high), how


def _box(
    function: Callable[[Confusion], FloatArray], plan: Plan, level: float, pi: float
) -> tuple[float, float] | None:
    """Range of a metric of counts over the joint Clopper-Pearson region of hit and false alarm rate."""
    each = 1 - (1 - level) / 2
    sides = []
    for hit, miss in ((0, 2), (1, 3)):
        size = plan.unit_cells[:, hit] + plan.unit_cells[:, miss]
        k, n = plan.unit_cells[:, hit].sum(), size.sum()
        if n == 0:
            return None
        units = float((size > 0).sum())
        sides.append(clopper_pearson(units * k / n, units, each))
    values = [
        float(function(Confusion(tp=pi * h, fp=(1 - pi) * f, fn=pi * (1 - h), tn=(1 - pi) * (1 - f))))
        for h, f in product(*sides)
    ]
    if np.isnan(values).any():
        return None
    return min(values), max(values)
