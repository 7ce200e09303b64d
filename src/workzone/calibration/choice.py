"""The calibrator that section ``calibrate`` of a configuration asks for, and the table of those it was tried with."""

from __future__ import annotations

from typing import Any

from workzone.calibration import Calibrator, create
from workzone.calibration.select import Selection, select
from workzone.calibration.slices import PerSliceCalibrator
from workzone.config.deciding import CalibrateConfig
from workzone.data.roles import CalibData


def choose(part: CalibData, settings: CalibrateConfig, *, seed: int) -> Selection:
    """``select`` among the candidates of ``settings``, or the one method it names; raises as ``select`` does."""
    names = settings.candidates if settings.method == "auto" else (settings.method,)
    return select(part, names, folds=settings.folds, seed=seed, make=lambda name: unfitted(name, settings))


def unfitted(name: str, settings: CalibrateConfig) -> Calibrator:
    """A calibrator; ``per_slice`` with the column of ``settings``."""
    return PerSliceCalibrator(settings.slice_column) if name == PerSliceCalibrator.name else create(name)


def table(chosen: Selection, part: CalibData, settings: CalibrateConfig) -> dict[str, Any]:
    """Every row of the choice, with each calibrator fitted on ``part``, fit for JSON."""
    # All are kept so that the report can show every method on the test images, not only the chosen one.
    rows = chosen.rows(chosen.fitted(part, lambda name: unfitted(name, settings)))
    about = {"n": len(part), "n_positive": part.n_positive, "images_sha256": part.fingerprint}
    return {**about, "folds": chosen.folds, "repeats": chosen.repeats, "methods": rows}
