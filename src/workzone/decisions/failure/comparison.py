"""One model of mistakes against the plain probability."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workzone.calibration.folds import group_folds
from workzone.decisions.failure.logistic import FailureModel
from workzone.decisions.failure.model import FitMistakes
from workzone.predictions import FloatArray, StrArray

FEWEST = 10
"""Mistakes (and right answers) below which a comparison says nothing."""
FOLDS, RESAMPLES, SEED = 5, 1000, 0


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
    *,
    fit: FitMistakes = FailureModel.fit,
) -> Comparison:
    """Fit out of fold (whole groups) on measures (N, D) and compare with the doubt ``plain`` (N,), in [0, 1]."""
    from workzone.metrics.registry import evaluate_rows  # the predict path imports this module
    from workzone.metrics.resampling import group_weights

    n, mistakes = len(wrong), int(wrong.sum())
    rank = out_of_fold(names, measures, wrong, groups, fit)
    if rank is None:
        return Comparison(n, mistakes)
    weights = group_weights(groups, RESAMPLES, SEED)
    a, b = (evaluate_rows(wrong, doubt, weights, names=["auroc"])["auroc"] for doubt in (rank, plain))
    difference = (a - b)[1:]
    low, high = np.quantile(difference[np.isfinite(difference)], [0.025, 0.975])
    return Comparison(n, mistakes, float(a[0]), float(b[0]), float(low), float(high))


def out_of_fold(
    names: tuple[str, ...], measures: FloatArray, wrong: NDArray[np.bool_], groups: StrArray, fit: FitMistakes
) -> FloatArray | None:
    """Score (N,) of each image by a model fitted on other groups; None where mistakes or groups are too few."""
    if min(int(wrong.sum()), int((~wrong).sum())) < FEWEST:
        return None
    fold = group_folds(wrong.astype(np.int64), groups, FOLDS, np.random.default_rng(SEED))
    rank = np.empty(len(wrong))
    for k in range(FOLDS):
        held = fold == k
        if held.any() and not held.all():
            rank[held] = fit(names, measures[~held], wrong[~held])(measures[held])
        elif held.any():
            return None
    return rank
