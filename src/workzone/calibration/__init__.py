"""Calibrators: from the log-odds of an engine to probabilities that can be taken at their word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workzone.calibration.base import Calibrator
from workzone.calibration.beta import BetaCalibrator
from workzone.calibration.classwise import (
    ClasswiseTemperature,
    ClasswiseTemperatureCalibrator,
    VectorCalibrator,
    VectorScaling,
)
from workzone.calibration.dirichlet import DirichletCalibrator, DirichletScaling
from workzone.calibration.ets import EnsembleTemperature, EnsembleTemperatureCalibrator
from workzone.calibration.histogram import HistogramCalibrator
from workzone.calibration.identity import IdentityCalibrator
from workzone.calibration.isotonic import IsotonicCalibrator
from workzone.calibration.multiclass import ClassScores, MulticlassCalibrator
from workzone.calibration.platt import PlattCalibrator
from workzone.calibration.slices import PerDatasetCalibrator, PerSliceCalibrator
from workzone.calibration.spline import SplineCalibrator
from workzone.calibration.stack import StackingCalibrator
from workzone.calibration.temperature import TemperatureCalibrator
from workzone.errors import BundleError, ConfigError

CALIBRATORS: Mapping[str, type[Calibrator]] = {
    cls.name: cls
    for cls in (
        IdentityCalibrator,
        TemperatureCalibrator,
        PlattCalibrator,
        BetaCalibrator,
        IsotonicCalibrator,
        ClasswiseTemperatureCalibrator,
        VectorCalibrator,
        DirichletCalibrator,
        EnsembleTemperatureCalibrator,
        SplineCalibrator,
        HistogramCalibrator,
        StackingCalibrator,
        PerSliceCalibrator,
        PerDatasetCalibrator,
    )
}
MULTICLASS: Mapping[str, type[MulticlassCalibrator]] = {
    cls.name: cls for cls in (ClasswiseTemperature, VectorScaling, DirichletScaling, EnsembleTemperature)
}

__all__ = [
    "CALIBRATORS",
    "MULTICLASS",
    "Calibrator",
    "ClassScores",
    "MulticlassCalibrator",
    "create",
    "create_multiclass",
    "from_dict",
    "multiclass_from_dict",
]


def create(name: str) -> Calibrator:
    """Return a new, unfitted calibrator of log-odds.

    Raises:
        ConfigError: no calibrator has this name.
    """
    if name not in CALIBRATORS:
        raise ConfigError(f"there is no calibrator {name!r}", fix=f"use one of {', '.join(CALIBRATORS)}")
    return CALIBRATORS[name]()


def create_multiclass(name: str) -> MulticlassCalibrator:
    """Return a new, unfitted calibrator of log-probabilities over K classes.

    Raises:
        ConfigError: no such calibrator has this name.
    """
    if name not in MULTICLASS:
        raise ConfigError(f"there is no calibrator over classes {name!r}", fix=f"use one of {', '.join(MULTICLASS)}")
    return MULTICLASS[name]()


def from_dict(stored: Mapping[str, Any]) -> Calibrator:
    """Rebuild what ``Calibrator.to_dict`` wrote.

    Raises:
        BundleError: unknown method, or missing or impossible numbers.
    """
    method, parameters = _parts(stored, CALIBRATORS)
    return CALIBRATORS[method].from_parameters(parameters)


def multiclass_from_dict(stored: Mapping[str, Any]) -> MulticlassCalibrator:
    """Rebuild what ``MulticlassCalibrator.to_dict`` wrote.

    Raises:
        BundleError: unknown method, or missing or impossible numbers.
    """
    method, parameters = _parts(stored, MULTICLASS)
    return MULTICLASS[method].from_parameters(parameters)


def _parts(stored: Mapping[str, Any], known: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    method, parameters = stored.get("method"), stored.get("parameters")
    if not isinstance(method, str) or method not in known:
        raise BundleError(f"unknown calibration method {method!r}", fix=f"known methods are {', '.join(known)}")
    if set(stored) != {"method", "parameters"} or not isinstance(parameters, Mapping):
        raise BundleError("a stored calibrator must hold exactly 'method' and 'parameters'")
    return method, parameters
