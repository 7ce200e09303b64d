"""Calibrators over K classes: maps of log-probabilities (N, K), each also a calibrator of binary log-odds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from workzone.calibration.base import MAX_LOG_ODDS, Calibrator, as_number, log_probabilities
from workzone.calibration.softmax import log_softmax
from workzone.data.roles import CalibData
from workzone.errors import BundleError, DataError, LeakageError
from workzone.predictions import FloatArray, IntArray, StrArray

MAX_CLASSES = 1000


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Calibration images of K classes; the K-class counterpart of ``CalibData``.

    Attributes:
        log_probabilities: (N, K); logits will do, they are normalised.
        labels: (N,) classes 0 to K - 1.
        groups: (N,) images of one group are not independent.
    """

    log_probabilities: FloatArray
    labels: IntArray
    groups: StrArray

    @classmethod
    def from_arrays(cls, labels: Any, log_probabilities: Any, *, groups: Any = None) -> Self:
        """Wrap arrays; the caller vouches that the images had role val_calib.

        Raises:
            DataError: shapes that do not fit, a score that is not finite, or a class without images.
        """
        z = np.asarray(log_probabilities, dtype=np.float64)
        y = np.asarray(labels, dtype=np.int64)
        if z.ndim != 2 or y.shape != z.shape[:1] or not 2 <= z.shape[1] <= MAX_CLASSES:
            raise DataError(f"scores of shape {z.shape} do not fit labels of shape {y.shape}, expected (N, K) and (N,)")
        if not np.isfinite(z).all():
            raise DataError("a calibration score is not a finite number")
        if len(y) and not 0 <= int(y.min()) <= int(y.max()) < z.shape[1]:
            raise DataError(f"labels must lie in 0 to {z.shape[1] - 1}, the classes that are scored")
        absent = np.flatnonzero(np.bincount(y, minlength=z.shape[1]) == 0)
        if len(absent):
            raise DataError(f"calibration needs images of every class, and class {absent[0]} has none")
        names = np.arange(len(y)).astype(np.str_) if groups is None else np.asarray(groups, dtype=np.str_)
        if names.shape != y.shape:
            raise DataError(f"{len(names)} groups do not fit {len(y)} labels")
        return cls(z, y, names)

    @classmethod
    def from_binary(cls, data: CalibData) -> Self:
        """The two-class view of ``data``: log-probabilities of no_roadwork and roadwork."""
        return cls(log_probabilities(data.scores), data.labels, data.groups)


class MulticlassCalibrator(ABC):
    """Maps log-probabilities (N, K) to calibrated probabilities (N, K).

    A member sets ``name``, implements ``_fit``, ``_map``, ``parameters`` and ``from_parameters``, and registers itself
    in ``workzone.calibration.MULTICLASS``.
    """

    name: ClassVar[str]
    n_classes: int = 0
    """Classes it was fitted on; 0 before."""

    def fit(self, data: ClassScores) -> Self:
        """Fit to scores and labels.

        Raises:
            LeakageError: ``data`` is anything but ``ClassScores``.
        """
        if not isinstance(data, ClassScores):
            raise LeakageError(
                f"calibrator {self.name!r} was given {type(data).__name__}, but may be fitted on ClassScores only",
                fix="wrap scores of role val_calib with ClassScores.from_arrays",
            )
        self.n_classes = data.log_probabilities.shape[1]
        self._fit(_normalised(data.log_probabilities), data.labels, data.groups)
        return self

    def __call__(self, log_probabilities: FloatArray) -> FloatArray:
        """Probabilities (N, K), rows summing to one; infinities are mapped to the ends, a NaN makes its row NaN."""
        z = np.asarray(log_probabilities, dtype=np.float64)
        if z.ndim != 2 or z.shape[1] != self.n_classes:
            raise ValueError(f"expected log-probabilities of shape (N, {self.n_classes}), got {z.shape}")
        return self._map(_normalised(z))

    @abstractmethod
    def _fit(self, log_p: FloatArray, labels: IntArray, groups: StrArray) -> None:
        """Fit in place to normalised, finite log-probabilities (N, K); every class is present."""

    @abstractmethod
    def _map(self, log_p: FloatArray) -> FloatArray:
        """Probabilities (N, K) of normalised log-probabilities (N, K)."""

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """The fitted numbers, fit for JSON; floats survive the round trip bit for bit."""

    @classmethod
    @abstractmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Rebuild from ``parameters()``; raises BundleError on missing or impossible values."""

    def to_dict(self) -> dict[str, Any]:
        """Name and numbers; ``workzone.calibration.multiclass_from_dict`` reads it back."""
        return {"method": self.name, "parameters": self.parameters()}


class BinaryView(Calibrator):
    """A calibrator over classes at K = 2, as a map of log-odds; a member names its ``kind``."""

    kind: ClassVar[type[MulticlassCalibrator]]

    def __init__(self, inner: MulticlassCalibrator | None = None) -> None:
        self.inner = self.kind() if inner is None else inner

    def _fit(self, data: CalibData) -> None:
        self.inner.fit(ClassScores.from_binary(data))

    def __call__(self, log_odds: FloatArray) -> FloatArray:
        """Probabilities (N,) of ``log_odds`` (N,)."""
        return np.asarray(self.inner(log_probabilities(log_odds))[:, 1], dtype=np.float64)

    def parameters(self) -> dict[str, Any]:
        """The numbers of the calibrator over two classes."""
        return self.inner.parameters()

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Rebuild; raises BundleError on missing or impossible values, or other than two classes."""
        inner = cls.kind.from_parameters(parameters)
        if inner.n_classes != 2:
            raise BundleError(f"a binary {cls.name} calibrator stores {inner.n_classes} classes")
        return cls(inner)


def read_array(parameters: Mapping[str, Any], key: str, shape: tuple[int, ...], *, limit: float) -> FloatArray:
    """Read a stored vector or matrix of ``shape``.

    Raises:
        BundleError: the key is missing, of another shape, or holds anything but numbers of magnitude up to ``limit``.
    """
    value = parameters.get(key)
    rows = value if len(shape) == 2 else [value]
    width = shape[-1]
    if (
        not isinstance(rows, list)
        or (len(shape) == 2 and len(rows) != shape[0])
        or any(not isinstance(row, list) or len(row) != width for row in rows)
    ):
        raise BundleError(f"stored parameter {key!r} must be numbers of shape {shape}")
    array = np.array([[as_number(v) for v in row] for row in rows], dtype=np.float64)
    if not (np.abs(array) <= limit).all():
        raise BundleError(f"stored parameter {key!r} holds a value that is not a number up to {limit:g}")
    return array.reshape(shape)


def read_classes(parameters: Mapping[str, Any]) -> int:
    """Read the stored number of classes; raises BundleError unless it lies in 2 to ``MAX_CLASSES``."""
    value = parameters.get("classes")
    if isinstance(value, bool) or not isinstance(value, int) or not 2 <= value <= MAX_CLASSES:
        raise BundleError(f"stored parameter 'classes' is {value!r}, expected 2 to {MAX_CLASSES}")
    return value


def _normalised(z: FloatArray) -> FloatArray:
    return log_softmax(np.clip(z, -MAX_LOG_ODDS, MAX_LOG_ODDS))
