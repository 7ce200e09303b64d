"""Ensemble temperature scaling (Zhang, Kailkhura, Han 2020, arXiv 2003.07329)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import numpy as np

from workzone.calibration.base import read_float
from workzone.calibration.logistic import RIDGE
from workzone.calibration.multiclass import BinaryView, MulticlassCalibrator, read_array, read_classes
from workzone.calibration.newton import minimise
from workzone.calibration.simplex import weights_by_brier, weights_by_nll
from workzone.calibration.softmax import log_softmax, softmax
from workzone.calibration.temperature import HIGHEST, LOWEST
from workzone.errors import BundleError
from workzone.predictions import FloatArray, IntArray, StrArray


class EnsembleTemperature(MulticlassCalibrator):
    """``w1 softmax(z / T) + w2 softmax(z) + w3 / K`` with w on the simplex: a tempered, a raw and a uniform forecast.

    T is fitted first by NLL, then w with T held, by ``loss``. Keeps the order of the classes of every image. It is no
    ensemble of models: to calibrate those, average them first and fit one temperature to the average.

    Args:
        loss: 'nll', or 'brier' as in the code of the authors.
    """

    name: ClassVar[str] = "ets"

    def __init__(self, loss: Literal["nll", "brier"] = "nll") -> None:
        self.loss = loss
        self.temperature = 1.0
        self.weights = np.array([1.0, 0.0, 0.0])

    def _fit(self, log_p: FloatArray, labels: IntArray, groups: StrArray) -> None:
        self.temperature = fit_temperature(log_p, labels)
        members = self._members(log_p)
        rows = np.arange(len(labels))
        if self.loss == "nll":
            self.weights = weights_by_nll(np.maximum(members[rows, labels], np.finfo(np.float64).tiny))
        else:
            outcomes = np.zeros(log_p.shape)
            outcomes[rows, labels] = 1.0
            self.weights = weights_by_brier(members.reshape(-1, 3), outcomes.ravel())

    def _members(self, log_p: FloatArray) -> FloatArray:
        """(N, K, 3) probabilities of the three forecasts."""
        uniform = np.full(log_p.shape, 1.0 / self.n_classes)
        return np.stack([softmax(log_p / self.temperature), softmax(log_p), uniform], axis=-1)

    def _map(self, log_p: FloatArray) -> FloatArray:
        tempered, raw, uniform = np.moveaxis(self._members(log_p), -1, 0)
        return np.asarray(
            np.minimum(self.weights[0] * tempered + self.weights[1] * raw + self.weights[2] * uniform, 1.0),
            dtype=np.float64,
        )

    def parameters(self) -> dict[str, Any]:
        """Number of classes, temperature and the weights of the tempered, raw and uniform forecast."""
        return {"classes": self.n_classes, "temperature": self.temperature, "weights": self.weights.tolist()}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Rebuild; raises BundleError on a temperature outside [0.01, 100] or weights that are not a distribution."""
        made = cls()
        made.n_classes = read_classes(parameters)
        made.temperature = read_float(parameters, "temperature", low=LOWEST, high=HIGHEST)
        made.weights = read_array(parameters, "weights", (3,), limit=1.0)
        if (made.weights < 0).any() or abs(made.weights.sum() - 1.0) > 1e-9:
            raise BundleError("the stored weights of ensemble temperature scaling are not a distribution")
        return made


class EnsembleTemperatureCalibrator(BinaryView):
    """Ensemble temperature scaling of two classes; keeps 0.5 where it was."""

    name: ClassVar[str] = "ets"
    n_parameters: ClassVar[int] = 3
    kind: ClassVar[type[MulticlassCalibrator]] = EnsembleTemperature


def fit_temperature(log_p: FloatArray, labels: IntArray) -> float:
    """Temperature in [0.01, 100] that minimises the NLL of ``softmax(log_p / T)``, log_p (N, K)."""
    rows = np.arange(len(labels))

    def value(w: FloatArray) -> float:
        return float(-log_softmax(w[0] * log_p)[rows, labels].sum() + 0.5 * RIDGE * (w[0] - 1.0) ** 2)

    def derivatives(w: FloatArray) -> tuple[FloatArray, FloatArray]:
        q = np.exp(log_softmax(w[0] * log_p))
        mean = np.sum(q * log_p, axis=1, keepdims=True)
        gradient = float((mean[:, 0] - log_p[rows, labels]).sum()) + RIDGE * (w[0] - 1.0)
        curvature = float(np.sum(q * (log_p - mean) ** 2)) + RIDGE
        return np.array([gradient]), np.array([[curvature]])

    slope = float(minimise(value, derivatives, np.ones(1), np.ones(1, dtype=bool))[0])
    return float(np.clip(1.0 / max(slope, 1.0 / HIGHEST), LOWEST, HIGHEST))
