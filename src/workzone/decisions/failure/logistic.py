"""Mistakes by logistic regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from workzone.calibration.logistic import RIDGE, fit_logistic
from workzone.decisions.failure.model import read_keys, read_names, read_row, read_scale, standardisation
from workzone.predictions import FloatArray, sigmoid

PENALTY = 1.0
"""L2 penalty on standardised weights in units of summed NLL: a prior of standard deviation 1 on each."""


@dataclass(frozen=True, slots=True)
class FailureModel:
    """Probability of a mistake: logistic regression with L2 penalty on standardised measures.

    Some thirty mistakes, which is what a calibration split holds, support a handful of weights.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float

    @classmethod
    def fit(cls, names: tuple[str, ...], measures: FloatArray, wrong: NDArray[np.bool_], /) -> Self:
        """Fit to measures (N, D) and whether the answer was wrong (N,)."""
        mean, scale = standardisation(measures)
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
        values = read_keys(stored, {"names", "mean", "scale", "weights", "intercept"})
        names = read_names(values["names"])
        mean, weights = (read_row(values[key], len(names), key) for key in ("mean", "weights"))
        (intercept,) = read_row([values["intercept"]], 1, "intercept")
        return cls(names, mean, read_scale(values["scale"], len(names)), weights, intercept)
