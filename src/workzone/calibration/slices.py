"""One offset per slice, shrunk towards the global map: hierarchical logistic regression with a Gaussian prior."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from workzone.calibration.base import COEFFICIENT_LIMIT, Calibrator, bounded, read_float
from workzone.calibration.folds import fixed_folds, mean_and_se
from workzone.calibration.logistic import RIDGE, fit_logistic
from workzone.calibration.platt import smoothed_targets
from workzone.data.hours import HOUR_BAND, UNKNOWN, hour_bands
from workzone.data.roles import CalibData
from workzone.errors import BundleError, DataError
from workzone.predictions import FloatArray, StrArray, sigmoid, value_name

MIN_IMAGES = 100
"""Images below which a slice keeps the global map; even at this size only a shift is fitted, and shrunk."""
PRIOR_SDS = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Candidates for the standard deviation of the offsets between slices, in log-odds; 0 is the global map alone."""
_MAX_SLICES = 10_000
_MISSING = ""
_WHOLE = re.compile(r"-?\d+\.0")


@dataclass(frozen=True, slots=True)
class _Map:
    """``slope * u + intercept`` for all, ``slice_slope * u + intercept + offset`` for slices that have an offset.

    Older calibrators name the slices of a column of numbers 7.0; their names stay, since certificates hash them.
    """

    slope: float = 1.0
    intercept: float = 0.0
    slice_slope: float = 1.0
    offsets: Mapping[str, float] = field(default_factory=dict)

    def logits(self, log_odds: FloatArray, names: StrArray | None) -> FloatArray:
        u = bounded(log_odds)
        everywhere = self.slope * u + self.intercept
        if names is None:
            return everywhere
        if names.shape != u.shape:
            raise ValueError(f"expected {len(u)} slices, got {len(names)}")
        found = [self.offsets.get(name, self.offsets.get(f"{name}.0", np.nan)) for name in names.tolist()]
        offset = np.array(found, dtype=np.float64)
        return np.where(np.isnan(offset), everywhere, self.slice_slope * u + self.intercept + offset)


class SliceCalibrator(Calibrator):
    """``p = sigmoid(a u + b + o_s)`` with offsets ``o_s ~ N(0, sd^2)`` and a >= 0, fitted by penalised NLL.

    b is the intercept of the global map, which is Platt's sigmoid on all images, and a the slope within slices. Slices
    with fewer than 100 calibration images, and slices that were never seen, have no offset: they get the global map, as
    do all images when the call is given no slices. The standard deviation is the smallest whose NLL over five folds of
    whole groups is within one standard error of the lowest; where a fold cannot be fitted it is 0. With no slice of 100
    images the map is Platt's. The slice of an image must be known when it is decided, so a column that is only filled
    in later (the evidence of an annotator) must not be used.

    Args:
        column: metadata column that names the slice.
    """

    n_parameters: ClassVar[int] = 8
    """Slope, intercept, and offsets that are shrunk to a few effective ones."""
    default_column: ClassVar[str]

    def __init__(self, column: str | None = None) -> None:
        self.column = self.default_column if column is None else column
        self.prior_sd = 0.0
        self.map = _Map()
        self.images: dict[str, int] = {}
        """Calibration images per slice, those that fell back to the global map included."""

    def _fit(self, data: CalibData) -> None:
        slices = slice_names(self._slices(data.columns, len(data)))
        names, counts = np.unique(slices, return_counts=True)
        self.images = {str(s): int(n) for s, n in zip(names, counts, strict=True) if s != _MISSING}
        large = [s for s, n in self.images.items() if n >= MIN_IMAGES]
        self.prior_sd = _choose(data, slices, large) if large else 0.0
        self.map = _hierarchical(data, slices, large, self.prior_sd)

    @property
    def offsets(self) -> Mapping[str, float]:
        """Offset in log-odds of every slice that has one."""
        return self.map.offsets

    @property
    def needs(self) -> tuple[str, ...]:
        """The column that names the slice."""
        return (self.column,)

    def _slices(self, columns: Mapping[str, NDArray[Any]], n: int) -> NDArray[Any]:
        if self.column in columns:
            return columns[self.column]
        if self.column == HOUR_BAND and ("hour" in columns or "time_of_day" in columns):
            return hour_bands(columns, n)
        raise DataError(
            f"the images have no column {self.column!r} to tell slices by",
            where=f"calibrator {self.name!r}",
            fix=f"name one of the columns {', '.join(sorted(columns)) or '(there are none)'}",
        )

    def __call__(self, log_odds: FloatArray, slices: Sequence[Any] | NDArray[Any] | None = None) -> FloatArray:
        """Probabilities (N,) of ``log_odds`` (N,) in ``slices`` (N,); the global map without slices.

        Raises:
            ValueError: another number of slices than of log-odds.
        """
        return sigmoid(self.map.logits(log_odds, None if slices is None else slice_names(slices)))

    def on(self, log_odds: FloatArray, columns: Mapping[str, NDArray[Any]]) -> FloatArray:
        """See ``Calibrator.on``; each image in its own slice."""
        return self(log_odds, self._slices(columns, len(log_odds)))

    def parameters(self) -> dict[str, Any]:
        """Column, global map, standard deviation of the prior, offsets and images per slice."""
        return {
            "column": self.column,
            "slope": self.map.slope,
            "intercept": self.map.intercept,
            "slice_slope": self.map.slice_slope,
            "prior_sd": self.prior_sd,
            "offsets": dict(self.map.offsets),
            "images": dict(self.images),
        }

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Rebuild; raises BundleError on missing or impossible numbers."""
        column, offsets, images = (parameters.get(key) for key in ("column", "offsets", "images"))
        if not isinstance(column, str) or not column:
            raise BundleError("a calibrator by slice must name its column")
        made = cls(column)
        made.prior_sd = read_float(parameters, "prior_sd", low=0.0)
        for key, table in (("offsets", offsets), ("images", images)):
            if not isinstance(table, Mapping) or len(table) > _MAX_SLICES or not all(isinstance(k, str) for k in table):
                raise BundleError(f"stored parameter {key!r} must map up to {_MAX_SLICES} slices to numbers")
        made.map = _Map(
            read_float(parameters, "slope", low=0.0, high=COEFFICIENT_LIMIT),
            read_float(parameters, "intercept"),
            read_float(parameters, "slice_slope", low=0.0, high=COEFFICIENT_LIMIT),
            {name: read_float(offsets or {}, name) for name in offsets or {}},
        )
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
    """Names (N,) of slices, '7' for 7.0; empty where a value is missing (None, NaN, empty or 'unknown')."""
    names = [_MISSING if v is None or v != v or v == UNKNOWN else _name(v) for v in np.asarray(values).tolist()]
    return np.array(names, dtype=np.str_)


def _name(value: object) -> str:
    """A number has one name, whether it comes as 7, as 7.0 or as the text of either."""
    text = value_name(value)
    return text[:-2] if _WHOLE.fullmatch(text) else text


def _hierarchical(data: CalibData, slices: StrArray, large: Sequence[str], prior_sd: float) -> _Map:
    """The global map, and around its intercept one for each of ``large`` and one for the rest together."""
    u, targets = bounded(data.scores), smoothed_targets(data.labels)
    slope, intercept = fit_logistic(
        np.column_stack([u, np.ones(len(u))]), targets, [1.0, 0.0], nonnegative=(0,)
    ).tolist()
    if prior_sd == 0.0:
        return _Map(slope, intercept, slope, {})
    inside = [slices == name for name in large]
    # Without one of their own, the images of small slices would move what all slices are shrunk to.
    columns = [u, *inside, ~np.isin(slices, large)]
    fitted = fit_logistic(
        np.column_stack(columns).astype(np.float64),
        targets,
        [slope] + [intercept] * (len(columns) - 1),
        nonnegative=(0,),
        precision=[RIDGE] + [1.0 / prior_sd**2] * (len(columns) - 1),
    ).tolist()
    offsets = {name: c - intercept for name, c in zip(large, fitted[1:-1], strict=True)}
    return _Map(slope, intercept, fitted[0], offsets)


def _choose(data: CalibData, slices: StrArray, large: Sequence[str]) -> float:
    """Smallest standard deviation whose out-of-fold NLL is within one standard error of the lowest."""
    fold_of = fixed_folds(data.labels, data.groups)
    if len(np.unique(fold_of)) < 2:
        return 0.0
    losses = np.zeros((len(PRIOR_SDS), len(data)))
    for fold in np.unique(fold_of).tolist():
        held_out = fold_of == fold
        train, test = data.take(~held_out), data.take(held_out)
        if train.n_positive in (0, len(train)):
            return 0.0
        for i, sd in enumerate(PRIOR_SDS):
            t = _hierarchical(train, slices[~held_out], large, sd).logits(test.scores, slices[held_out])
            losses[i, held_out] = np.logaddexp(0.0, t) - test.labels * t
    groups = np.unique(data.groups, return_inverse=True)[1]
    lowest = losses[int(np.argmin(losses.mean(axis=1)))]
    excess = [mean_and_se(row - lowest, groups) for row in losses]
    return next(sd for sd, (mean, se) in zip(PRIOR_SDS, excess, strict=True) if mean <= se)
