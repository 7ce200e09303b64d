"""Calibrators: from the log-odds of an engine to probabilities that can be taken at their word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workzone.calibration.base import Calibrator
from workzone.calibration.beta import BetaCalibrator
from workzone.calibration.identity import IdentityCalibrator
from workzone.calibration.isotonic import IsotonicCalibrator
from workzone.calibration.platt import PlattCalibrator
from workzone.calibration.temperature import TemperatureCalibrator
from workzone.errors import BundleError, ConfigError

CALIBRATORS: Mapping[str, type[Calibrator]] = {
    cls.name: cls
    for cls in (IdentityCalibrator, TemperatureCalibrator, PlattCalibrator, BetaCalibrator, IsotonicCalibrator)
}

__all__ = ["CALIBRATORS", "Calibrator", "create", "from_dict"]


def create(name: str) -> Calibrator:
    """Return a new, unfitted calibrator.

    Raises:
        ConfigError: no calibrator has this name.
    """
    if name not in CALIBRATORS:
        raise ConfigError(f"there is no calibrator {name!r}", fix=f"use one of {', '.join(CALIBRATORS)}")
    return CALIBRATORS[name]()


def from_dict(stored: Mapping[str, Any]) -> Calibrator:
    """Rebuild what ``Calibrator.to_dict`` wrote.

    Raises:
        BundleError: unknown method, or missing or impossible numbers.
    """
    method, parameters = stored.get("method"), stored.get("parameters")
    if not isinstance(method, str) or method not in CALIBRATORS:
        raise BundleError(f"unknown calibration method {method!r}", fix=f"known methods are {', '.join(CALIBRATORS)}")
    if set(stored) != {"method", "parameters"} or not isinstance(parameters, Mapping):
        raise BundleError("a stored calibrator must hold exactly 'method' and 'parameters'")
    return CALIBRATORS[method].from_parameters(parameters)
