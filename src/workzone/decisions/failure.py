"""A model of mistakes on uncertainty measures, and its comparison with the plain probability."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from workzone.calibration.base import COEFFICIENT_LIMIT, as_number
from workzone.calibration.folds import group_folds
from workzone.calibration.logistic import RIDGE, fit_logistic
from workzone.decisions.uncertainty.names import MEASURES
from workzone.errors import BundleError
from workzone.predictions import FloatArray, StrArray, sigmoid

PENALTY = 1.0
"""L2 penalty on standardised weights in units of summed NLL: a prior of standard deviation 1 on each."""
FEWEST = 10
"""Mistakes (and right answers) below which a comparison says nothing."""
_FOLDS, _RESAMPLES, _SEED = 5, 1000, 0


@dataclass(frozen=True, slots=True)
class FailureModel:
    """Probability of a mistake: logistic regression with L2 penalty on standardised measures.

    Some thirty mistakes, which is what a calibration split holds, support a handful of weights and no network.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float

    @classmethod
    def fit(cls, names: tuple[str, ...], measures: FloatArray, wrong: NDArray[np.bool_]) -> Self:
        """Fit to measures (N, D) and whether the answer was wrong (N,)."""
        mean, scale = measures.mean(axis=0), measures.std(axis=0)
        # A measure that never varies would be divided by rounding noise.
        scale = np.where(scale > 1e-12 * np.maximum(1.0, np.abs(mean)), scale, np.inf)
        # The solver has a ridge of its own on every coefficient: shrinking a feature makes it PENALTY on its weight.
        shrink = np.sqrt(RIDGE / PENALTY)
        x = np.column_stack([(measures - mean) / scale * shrink, np.ones(len(measures))])
        w = fit_logistic(x, wrong.astype(np.float64), np.zeros(x.shape[1]).tolist())
        scale = np.where(np.isfinite(scale), scale, 1.0)
        return cls(names, tuple(mean.tolist()), tuple(scale.tolist()), tuple((w[:-1] * shrink).tolist()), float(w[-1]))

    def __call__(self, measures: FloatArray) -> FloatArray:
        """Probability of a mistake (N,), below 1."""
        z = (measures - np.array(self.mean)) / np.array(self.scale) @ np.array(self.weights) + self.intercept
        return np.minimum(sigmoid(z), np.nextafter(1.0, 0.0))

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "names": list(self.names),
            "mean": list(self.mean),
            "scale": list(self.scale),
            "weights": list(self.weights),
            "intercept": self.intercept,
        }

    @classmethod
    def from_dict(cls, stored: object) -> Self:
        """Read what ``to_dict`` wrote; raises BundleError on missing or impossible values."""
        if not isinstance(stored, Mapping) or set(stored) != {"names", "mean", "scale", "weights", "intercept"}:
            raise BundleError("the stored failure model lacks values or holds unknown ones")
        names = stored["names"]
        if not isinstance(names, list) or not names or any(names.count(n) > 1 or n not in MEASURES for n in names):
            raise BundleError(f"the stored failure model names unknown measures: {names!r}")
        rows = {}
        for key in ("mean", "scale", "weights"):
            values = stored[key]
            if not isinstance(values, list) or len(values) != len(names):
                raise BundleError(f"the stored failure model has not one {key!r} per measure")
            rows[key] = tuple(as_number(v) for v in values)
            if not all(abs(v) <= COEFFICIENT_LIMIT for v in rows[key]):
                raise BundleError(f"the stored failure model has an impossible {key!r}")
        if min(rows["scale"]) <= 0.0:
            raise BundleError("the stored failure model has a scale that is not positive")
        intercept = as_number(stored["intercept"])
        if not abs(intercept) <= COEFFICIENT_LIMIT:
            raise BundleError("the stored failure model has an impossible intercept")
        return cls(tuple(names), rows["mean"], rows["scale"], rows["weights"], intercept)


@dataclass(frozen=True, slots=True)
class Comparison:
    """AUROC of finding mistakes, by a model out of fold and by the plain probability, on the same images.

    Attributes:
        n: images.
        mistakes: wrong answers among them.
        model: AUROC of the model, None where too few mistakes or right answers make it meaningless.
        plain: AUROC of max-probability.
        low: lower end of the 95 % interval of ``model - plain``, paired bootstrap over groups.
        high: upper end.
    """

    n: int
    mistakes: int
    model: float | None = None
    plain: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def better(self) -> bool:
        """Whether the model beats the plain probability beyond the interval of their difference."""
        return self.low is not None and self.low > 0.0

    def sentence(self) -> str:
        """The verdict in words."""
        if self.model is None or self.plain is None:
            return (
                f"{self.mistakes} mistakes in {self.n} images are too few to compare the failure gate with "
                f"max-probability (at least {FEWEST}); max-probability is used."
            )
        figures = (
            f"finds mistakes with AUROC {self.model:.3f}, max-probability with {self.plain:.3f} (difference "
            f"{self.model - self.plain:+.3f}, 95 % interval {self.low:+.3f} to {self.high:+.3f}; "
            f"{self.mistakes} mistakes)"
        )
        if self.better:
            return f"The failure gate {figures} and is used."
        return f"The failure gate {figures}; it is not better beyond the interval, so max-probability is used."


def compare(
    names: tuple[str, ...],
    measures: FloatArray,
    wrong: NDArray[np.bool_],
    plain: FloatArray,
    groups: StrArray,
) -> Comparison:
    """Fit out of fold (whole groups) on measures (N, D) and compare with the doubt ``plain`` (N,)."""
    n, mistakes = len(wrong), int(wrong.sum())
    if min(mistakes, n - mistakes) < FEWEST:
        return Comparison(n, mistakes)
    fold = group_folds(wrong.astype(np.int64), groups, _FOLDS, np.random.default_rng(_SEED))
    rank = np.empty(n)
    for k in range(_FOLDS):
        held = fold == k
        if held.any() and not held.all():
            rank[held] = FailureModel.fit(names, measures[~held], wrong[~held])(measures[held])
        elif held.any():
            return Comparison(n, mistakes)
    _, place = np.unique(groups, return_inverse=True)
    n_groups = int(place.max()) + 1
    draws = np.random.default_rng(_SEED).multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=_RESAMPLES)
    weights = np.vstack([np.ones(n), draws[:, place]]).astype(np.float64)
    a, b = weighted_auroc(wrong, rank, weights), weighted_auroc(wrong, plain, weights)
    difference = (a - b)[1:]
    low, high = np.quantile(difference[np.isfinite(difference)], [0.025, 0.975])
    return Comparison(n, mistakes, float(a[0]), float(b[0]), float(low), float(high))


def weighted_auroc(wrong: NDArray[np.bool_], score: FloatArray, weights: FloatArray) -> FloatArray:
    """AUROC (B,) of ``score`` (N,) for ``wrong`` (N,) under image weights (B, N); NaN where a class has no weight."""
    order = np.argsort(score, kind="stable")
    start = np.flatnonzero(np.r_[True, np.diff(score[order]) > 0])
    bad = np.add.reduceat(weights[:, order] * wrong[order], start, axis=1)
    good = np.add.reduceat(weights[:, order] * ~wrong[order], start, axis=1)
    below = np.cumsum(good, axis=1) - good / 2
    total = bad.sum(axis=1) * good.sum(axis=1)
    share = np.divide((bad * below).sum(axis=1), total, out=np.full(len(weights), np.nan), where=total > 0)
    return np.asarray(share, dtype=np.float64)
