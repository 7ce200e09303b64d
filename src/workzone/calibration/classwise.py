"""One temperature per class, and vector scaling (Guo, Pleiss, Sun, Weinberger 2017, arXiv 1706.04599)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from workzone.calibration.base import COEFFICIENT_LIMIT
from workzone.calibration.logistic import RIDGE
from workzone.calibration.multiclass import BinaryView, MulticlassCalibrator, read_array, read_classes
from workzone.calibration.softmax import fit_softmax, softmax
from workzone.errors import BundleError
from workzone.predictions import FloatArray, IntArray, StrArray


class ClasswiseTemperature(MulticlassCalibrator):
    """``softmax(w * z)`` with one inverse temperature ``w_k >= 0`` per class, fitted by NLL.

    z are log-probabilities minus their mean over the classes, so that it makes no difference whether logits or
    log-probabilities come in. For two classes z is (-u/2, u/2) and only the sum of the two weights counts: the map is a
    rescale of the log-odds, the same as one temperature, and gains nothing on it.
    """

    name: ClassVar[str] = "classwise_temperature"
    with_bias: ClassVar[bool] = False

    def __init__(self, weights: FloatArray | None = None, biases: FloatArray | None = None) -> None:
        self.weights = np.ones(0) if weights is None else weights
        self.biases = np.zeros(len(self.weights)) if biases is None else biases
        self.n_classes = len(self.weights)

    def _fit(self, log_p: FloatArray, labels: IntArray, groups: StrArray) -> None:
        k = self.n_classes
        features = np.column_stack([_centred(log_p), np.ones(len(labels))])
        slopes = np.eye(k, k + 1, dtype=bool)
        free = slopes.copy()
        free[:, -1] = self.with_bias
        origin = np.eye(k, k + 1)
        fitted = fit_softmax(
            features, labels, origin, free=free, precision=np.full(origin.shape, RIDGE), nonnegative=slopes
        )
        self.weights, self.biases = np.diagonal(fitted).copy(), fitted[:, -1].copy()

    def _map(self, log_p: FloatArray) -> FloatArray:
        return softmax(_centred(log_p) * self.weights + self.biases)

    def parameters(self) -> dict[str, Any]:
        """Number of classes, inverse temperatures and biases."""
        return {"classes": self.n_classes, "weights": self.weights.tolist(), "biases": self.biases.tolist()}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Rebuild; raises BundleError on a missing number, a negative weight, or a bias where there is none."""
        k = read_classes(parameters)
        weights = read_array(parameters, "weights", (k,), limit=COEFFICIENT_LIMIT)
        biases = read_array(parameters, "biases", (k,), limit=COEFFICIENT_LIMIT)
        if (weights < 0).any():
            raise BundleError("a stored inverse temperature is negative")
        if not cls.with_bias and biases.any():
            raise BundleError(f"{cls.name} has no biases, and some are stored")
        return cls(weights, biases)


class VectorScaling(ClasswiseTemperature):
    """``softmax(w * z + b)``: one inverse temperature and one bias per class; for two classes ``sigmoid(a u + b)``."""

    name: ClassVar[str] = "vector"
    with_bias: ClassVar[bool] = True


class ClasswiseTemperatureCalibrator(BinaryView):
    """Class-wise temperature of two classes: temperature scaling by another name, kept for comparison."""

    name: ClassVar[str] = "classwise_temperature"
    n_parameters: ClassVar[int] = 2
    """Two weights of which only the sum counts; stated as two so that plain temperature is the simpler."""
    kind: ClassVar[type[MulticlassCalibrator]] = ClasswiseTemperature


class VectorCalibrator(BinaryView):
    """Vector scaling of two classes: Platt's sigmoid on log-odds, without its smoothed targets."""

    name: ClassVar[str] = "vector"
    n_parameters: ClassVar[int] = 4
    """Two weights and two biases of which two numbers count; stated as four so that Platt is the simpler."""
    kind: ClassVar[type[MulticlassCalibrator]] = VectorScaling


def _centred(log_p: FloatArray) -> FloatArray:
    return np.asarray(log_p - log_p.mean(axis=1, keepdims=True), dtype=np.float64)
