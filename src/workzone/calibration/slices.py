"""One offset per slice, shrunk towards the global map: hierarchical logistic regression with a Gaussian prior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from workzone.calibration.base import COEFFICIENT_LIMIT, Calibrator, as_number, bounded, read_float
from workzone.calibration.folds import group_folds
from workzone.calibration.logistic import RIDGE, fit_logistic
from workzone.calibration.platt import smoothed_targets
from workzone.data.roles import CalibData, RoleData
from workzone.errors import BundleError, DataError
from workzone.predictions import FloatArray, StrArray, sigmoid

MIN_IMAGES = 100
"""Images below which a slice keeps the global map; even at this size only a shift is fitted, and shrunk."""
PRIOR_SDS = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Candidates for the standard deviation of the offsets between slices, in log-odds; 0 is the global map alone."""
_FOLDS, _SEED = 5, 0
_MAX_SLICES = 10_000
_MISSING = ""


class SliceCalibrator(Calibrator):
    """``p = sigmoid(a u + b + o_s)`` with offsets ``o_s ~ N(0, sd^2)`` and a >= 0, fitted by penalised NLL.

    Slices with fewer than 100 calibration images, and slices that were never seen, have no offset: they get the global
    map, as do all images when the call is given no slices. The standard deviation is the one of the lowest NLL over
    five folds of whole groups, the smallest of equals; where no fold can be fitted it is 0. With no slice of 100 images
    the map is Platt's. The slice of an image must be known when it is decided, so a column that is only filled in later
    (the evidence of an annotator) must not be used.

    Args:
        column: metadata column that names the slice.
    """

    n_parameters: ClassVar[int] = 8
    """Slope, intercept, and offsets that are shrunk to a few effective ones."""
    default_column: ClassVar[str]

    def __init__(self, column: str | None = None) -> None:
        self.column = self.default_column if column is None else column
        self.slope = 1.0
        self.intercept = 0.0
        self.prior_sd = 0.0
        self.offsets: dict[str, float] = {}
        self.images: dict[str, int] = {}
        """Calibration images per slice, those that fell back to the global map included."""

    def _fit(self, data: CalibData) -> None:
        slices = slice_names(self._slices(data))
        names, counts = np.unique(slices, return_counts=True)
        self.images = {str(s): int(n) for s, n in zip(names, counts, strict=True) if s != _MISSING}
        large = [s for s, n in self.images.items() if n >= MIN_IMAGES]
        self.prior_sd = _choose(data, slices, large) if large else 0.0
        self.slope, self.intercept, self.offsets = _hierarchical(data, slices, large, self.prior_sd)

    def _slices(self, data: RoleData) -> NDArray[Any]:
        if self.column not in data.columns:
            raise DataError(
                f"the images have no column {self.column!r} to tell slices by",
                where=f"calibrator {self.name!r}",
                fix=f"name one of the columns {', '.join(sorted(data.columns)) or '(there are none)'}",
            )
        return data.columns[self.column]

    def __call__(self, log_odds: FloatArray, slices: Sequence[Any] | NDArray[Any] | None = None) -> FloatArray:
        """Probabilities (N,) of ``log_odds`` (N,) in ``slices`` (N,); the global map without slices.

        Raises:
            ValueError: another number of slices than of log-odds.
        """
        t = self.slope * bounded(log_odds) + self.intercept
        return sigmoid(t if slices is None else t + _offset_of(slice_names(slices), self.offsets, len(t)))

    def apply(self, data: RoleData) -> FloatArray:
        """Probabilities (N,) of the scores of ``data``, each in its own slice."""
        return self(data.scores, self._slices(data))

    def parameters(self) -> dict[str, Any]:
        """Column, global map, standard deviation of the prior, offsets and images per slice."""
        return {
            "column": self.column,
            "slope": self.slope,
            "intercept": self.intercept,
            "prior_sd": self.prior_sd,
            "offsets": dict(self.offsets),
            "images": dict(self.images),
        }

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Rebuild; raises BundleError on missing or impossible numbers."""
        column, offsets, images = (parameters.get(key) for key in ("column", "offsets", "images"))
        if not isinstance(column, str) or not column:
            raise BundleError("a calibrator by slice must name its column")
        made = cls(column)
        made.slope = read_float(parameters, "slope", low=0.0, high=COEFFICIENT_LIMIT)
        made.intercept = read_float(parameters, "intercept")
        made.prior_sd = read_float(parameters, "prior_sd", low=0.0)
        for key, table in (("offsets", offsets), ("images", images)):
            if not isinstance(table, Mapping) or len(table) > _MAX_SLICES or not all(isinstance(k, str) for k in table):
                raise BundleError(f"stored parameter {key!r} must map up to {_MAX_SLICES} slices to numbers")
        made.offsets = {name: as_number(value) for name, value in (offsets or {}).items()}
        if not all(np.isfinite(value) for value in made.offsets.values()):
            raise BundleError("the stored offset of a slice is not a number")
        for name, value in (images or {}).items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise BundleError(f"slice {name!r} stores {value!r} images")
            made.images[name] = value
        return made


class PerSliceCalibrator(SliceCalibrator):
    """Offsets by hour band, or by any column that is known when an image is decided."""

    name: ClassVar[str] = "per_slice"
    default_column: ClassVar[str] = "hour_band"


class PerDatasetCalibrator(SliceCalibrator):
    """Offsets by the data set an image comes from."""

    name: ClassVar[str] = "per_dataset"
    default_column: ClassVar[str] = "source"


def slice_names(values: Sequence[Any] | NDArray[Any]) -> StrArray:
    """Names (N,) of slices; empty where a value is missing (None, NaN or empty)."""
    return np.array([_MISSING if v is None or v != v else str(v) for v in np.asarray(values).tolist()], dtype=np.str_)


def _offset_of(names: StrArray, offsets: Mapping[str, float], n: int) -> FloatArray:
    if names.shape != (n,):
        raise ValueError(f"expected {n} slices, got {len(names)}")
    return np.array([offsets.get(name, 0.0) for name in names.tolist()], dtype=np.float64)


def _hierarchical(
    data: CalibData, slices: StrArray, large: Sequence[str], prior_sd: float
) -> tuple[float, float, dict[str, float]]:
    """Slope, intercept and the offsets of the slices ``large`` under a prior of standard deviation ``prior_sd``."""
    offset_names = list(large) if prior_sd > 0.0 else []
    members = [(slices == name).astype(np.float64) for name in offset_names]
    features = np.column_stack([bounded(data.scores), np.ones(len(data)), *members])
    fitted = fit_logistic(
        features,
        smoothed_targets(data.labels),
        [1.0, 0.0, *(0.0 for _ in offset_names)],
        nonnegative=(0,),
        precision=[RIDGE, RIDGE, *(1.0 / prior_sd**2 for _ in offset_names)],
    )
    slope, intercept, *offsets = fitted.tolist()
    return slope, intercept, dict(zip(offset_names, offsets, strict=True))


def _choose(data: CalibData, slices: StrArray, large: Sequence[str]) -> float:
    """Standard deviation of the lowest out-of-fold NLL."""
    fold_of = group_folds(
        data.labels, data.groups, min(_FOLDS, len(np.unique(data.groups))), np.random.default_rng(_SEED)
    )
    losses = np.zeros(len(PRIOR_SDS))
    for fold in np.unique(fold_of).tolist():
        held_out = fold_of == fold
        train, test = data.take(~held_out), data.take(held_out)
        if train.n_positive in (0, len(train)):
            continue
        for i, sd in enumerate(PRIOR_SDS):
            slope, intercept, offsets = _hierarchical(train, slices[~held_out], large, sd)
            t = slope * bounded(test.scores) + intercept + _offset_of(slices[held_out], offsets, len(test))
            losses[i] += float(np.sum(np.logaddexp(0.0, t) - test.labels * t))
    return PRIOR_SDS[int(np.argmin(losses))]
