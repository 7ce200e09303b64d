"""Figures of out-of-fold scores, and of differences between variants, under resamples of whole groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workzone.errors import ConfigError
from workzone.metrics.registry import METRICS, value_rows
from workzone.metrics.resampling import group_weights
from workzone.metrics.sample import Rows, Sample
from workzone.predictions import FloatArray, IntArray, StrArray, sigmoid

MACRO = "macro_"
LEVEL = 0.95
_BLOCK = 2_000_000


@dataclass(frozen=True, slots=True)
class Figure:
    """A value with the ends of its percentile interval."""

    value: float
    low: float
    high: float

    @property
    def told(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Images:
    """What the scores of every variant are about: labels (N,), groups (N,) and sources (N,)."""

    labels: IntArray
    groups: StrArray
    sources: StrArray

    def macro_sources(self, fewest: int) -> list[str]:
        """Sources with at least ``fewest`` images of each class."""
        return [
            str(s)
            for s in np.unique(self.sources)
            if np.bincount(self.labels[self.sources == s], minlength=2).min() >= fewest
        ]


def check_metric(name: str) -> None:
    """Raise ConfigError unless ``name`` is a metric, or ``macro_`` and one."""
    if name.removeprefix(MACRO) not in METRICS:
        raise ConfigError(f"there is no metric {name!r}", fix=f"take one of {', '.join(METRICS)}, or macro_ and one")


def replicates(
    images: Images,
    scores: Sequence[FloatArray],
    metrics: Sequence[str],
    weights: NDArray[np.int64],
    macro: Sequence[str],
) -> dict[str, FloatArray]:
    """Values (1 + B,) of each metric, averaged over repeats, the first on the images as they are.

    Args:
        images: N images.
        scores: log-odds (N,) of each repeat; not calibrated, so NLL, Brier and counts are those of the raw scores.
        metrics: names; ``macro_x`` is the mean of x over the sources ``macro``.
        weights: (1 + B, N) image weights, the first row of ones.
        macro: sources of the mean.
    """
    parts: dict[str, list[NDArray[np.bool_]]] = {
        name: [images.sources == s for s in macro] if name.startswith(MACRO) else [np.ones(len(images.labels), bool)]
        for name in metrics
    }
    out: dict[str, FloatArray] = {}
    for name, masks in parts.items():
        per_repeat = [
            np.mean([_values(name.removeprefix(MACRO), images.labels[m], z[m], weights[:, m]) for m in masks], axis=0)
            for z in scores
        ]
        out[name] = np.mean(per_repeat, axis=0)
    return out


def figure(values: FloatArray, level: float = LEVEL) -> Figure:
    """First value, and the percentile interval of the others that are defined."""
    drawn = values[1:][np.isfinite(values[1:])]
    if not len(drawn):
        return Figure(float(values[0]), float("nan"), float("nan"))
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Figure(float(values[0]), float(low), float(high))


def better_is_higher(metric: str) -> bool:
    """Whether a larger value is better."""
    return bool(METRICS[metric.removeprefix(MACRO)].higher_is_better)


def judge(
    images: Images,
    variants: Mapping[str, Sequence[FloatArray]],
    metrics: Sequence[str],
    *,
    baseline: str,
    resamples: int,
    seed: int,
    fewest: int,
) -> list[dict[str, Any]]:
    """One row per variant: its figures, and their differences to ``baseline`` under the same resamples."""
    macro = images.macro_sources(fewest)
    strata = images.sources if _nested(images.groups, images.sources) else None
    weights = group_weights(images.groups, resamples, seed, strata=strata)
    values = {name: replicates(images, scores, metrics, weights, macro) for name, scores in variants.items()}
    return [
        {
            "variant": name,
            "figures": {m: figure(found[m]) for m in metrics},
            "differences": {m: figure(found[m] - values[baseline][m]) for m in metrics},
            "sources": {s: figure(_mean_auroc(images, variants[name], s, weights)) for s in macro},
        }
        for name, found in values.items()
    ]


def _mean_auroc(images: Images, scores: Sequence[FloatArray], source: str, weights: NDArray[np.int64]) -> FloatArray:
    mask = images.sources == source
    drawn = [_values("auroc", images.labels[mask], z[mask], weights[:, mask]) for z in scores]
    return np.asarray(np.mean(drawn, axis=0))


def _nested(groups: StrArray, sources: StrArray) -> bool:
    pairs = np.unique(np.char.add(np.char.add(groups, "\0"), sources))
    return len(pairs) == len(np.unique(groups))


def _values(metric: str, labels: IntArray, log_odds: FloatArray, weights: NDArray[np.int64]) -> FloatArray:
    sample = Sample(labels, sigmoid(log_odds), None)
    step = max(1, _BLOCK // max(len(labels), 1))
    blocks = [
        value_rows(METRICS[metric], Rows(sample, weights[i : i + step][:, sample.order]), None)
        for i in range(0, len(weights), step)
    ]
    return np.concatenate(blocks)
