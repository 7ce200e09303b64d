"""Agreement with stored numbers of other implementations; ``reference/make.py`` makes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workzone.calibration import ClassScores, create, create_multiclass
from workzone.calibration.dirichlet import DirichletScaling
from workzone.calibration.ets import EnsembleTemperature
from workzone.calibration.spline import KNOTS, natural_spline
from workzone.data.roles import CalibData

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    return dict(json.loads((Path(__file__).parent / "reference" / "reference.json").read_text()))


def binary(stored: dict[str, Any], name: str) -> tuple[np.ndarray, np.ndarray]:
    data = stored["binary"]
    calibrator = create(name).fit(CalibData.from_arrays(data["labels"], data["log_odds"]))
    return calibrator(np.array(data["at"])), np.array(stored["reference"][name])


def classes(stored: dict[str, Any]) -> tuple[ClassScores, np.ndarray]:
    data = stored["classes"]
    return ClassScores.from_arrays(data["labels"], data["logits"]), np.array(data["at"])


def test_histogram_of_probmetrics(stored: dict[str, Any]) -> None:
    ours, theirs = binary(stored, "histogram")
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_spline_of_probmetrics(stored: dict[str, Any]) -> None:
    # The same spline; their grid has n points instead of n + 1, and they take its slope at the image.
    ours, theirs = binary(stored, "spline")
    np.testing.assert_allclose(ours, theirs, atol=0.008)
    assert np.abs(ours - theirs).mean() < 0.002


def test_ensemble_temperature_of_probmetrics_by_nll(stored: dict[str, Any]) -> None:
    data, at = classes(stored)
    ours, theirs = EnsembleTemperature("nll").fit(data), stored["reference"]["ets ce"]
    assert ours.temperature == pytest.approx(theirs["temperature"], rel=1e-5)
    np.testing.assert_allclose(ours.weights, theirs["weights"], atol=1e-5)
    np.testing.assert_allclose(ours(at), theirs["probabilities"], atol=1e-6)


def test_ensemble_temperature_of_probmetrics_by_squared_error(stored: dict[str, Any]) -> None:
    # They fit the temperature by squared error too, ours comes from the NLL.
    data, at = classes(stored)
    theirs = stored["reference"]["ets mse"]["probabilities"]
    np.testing.assert_allclose(EnsembleTemperature("brier").fit(data)(at), theirs, atol=0.005)


def test_vector_scaling_of_probmetrics(stored: dict[str, Any]) -> None:
    data, at = classes(stored)
    ours = create_multiclass("vector").fit(data)
    np.testing.assert_allclose(ours(at), stored["reference"]["vector"], atol=5e-4)


@pytest.mark.parametrize("penalty", [(1e-4, 1e-4), (1e-2, 1.0)])
def test_dirichlet_at_the_minimum_of_the_published_loss(stored: dict[str, Any], penalty: tuple[float, float]) -> None:
    ours = DirichletScaling(penalty).fit(classes(stored)[0])
    theirs = stored["reference"][f"dirichlet {penalty[0]:g} {penalty[1]:g}"]
    np.testing.assert_allclose(np.column_stack([ours.weights, ours.biases]), theirs, atol=1e-4)


def test_natural_spline_of_scipy() -> None:
    from scipy.interpolate import CubicSpline

    knots, at = np.linspace(0, 1, KNOTS), np.linspace(0, 1, 101)
    theirs = CubicSpline(knots, np.eye(KNOTS), bc_type="natural")(at)
    np.testing.assert_allclose(natural_spline(knots, at), theirs, atol=1e-12)
