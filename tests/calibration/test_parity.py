"""Agreement with scikit-learn and betacal."""

from __future__ import annotations

import numpy as np
import pytest

from workzone.calibration import create
from workzone.calibration.isotonic import pool_adjacent_violators
from workzone.data.roles import CalibData
from workzone.predictions import sigmoid

pytestmark = pytest.mark.parity


@pytest.fixture(params=[0, 1, 2])
def data(request: pytest.FixtureRequest) -> CalibData:
    rng = np.random.default_rng(request.param)
    u = np.round(rng.normal(0.3, 2.5, 900), 1)
    truth = sigmoid(-1.2 * np.logaddexp(0, -u) + 0.5 * np.logaddexp(0, u) - 0.4)
    return CalibData.from_arrays((rng.random(900) < truth).astype(int), u)


def test_isotonic_blocks(data: CalibData) -> None:
    from sklearn.isotonic import IsotonicRegression

    x, inverse = np.unique(data.scores, return_inverse=True)
    w = np.bincount(inverse).astype(float)
    means, starts = pool_adjacent_violators(np.bincount(inverse, weights=data.labels) / w, w)
    ours = np.repeat(means, np.diff([*starts, len(x)]))
    theirs = IsotonicRegression().fit(data.scores, data.labels).predict(x)
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_isotonic_centred_map_matches_at_the_block_centres(data: CalibData) -> None:
    calibrator = create("isotonic").fit(data)
    knots = calibrator.parameters()
    n = len(data)
    # The mean of the map at the knots, weighted by block, is the base rate, as for the step function.
    np.testing.assert_allclose(calibrator(np.array(knots["scores"])), knots["probabilities"])
    assert min(knots["probabilities"]) >= 1 / (n + 2)


def test_platt(data: CalibData) -> None:
    from sklearn.calibration import _SigmoidCalibration

    ours = create("platt").fit(data).parameters()
    theirs = _SigmoidCalibration().fit(data.scores, data.labels)
    assert ours["slope"] == pytest.approx(-theirs.a_, abs=1e-4)
    assert ours["intercept"] == pytest.approx(-theirs.b_, abs=1e-4)


def test_temperature(data: CalibData) -> None:
    from sklearn.calibration import _TemperatureScaling

    ours = create("temperature").fit(data)
    theirs = _TemperatureScaling().fit(data.scores, data.labels)
    at = np.linspace(-6, 6, 50)
    np.testing.assert_allclose(ours(at), theirs.predict(at)[:, 1], atol=1e-4)


def test_beta(data: CalibData) -> None:
    from betacal import BetaCalibration

    ours = create("beta").fit(data)
    theirs = BetaCalibration("abm").fit(sigmoid(data.scores), data.labels)
    at = np.linspace(-6, 6, 50)
    np.testing.assert_allclose(ours(at), theirs.predict(sigmoid(at)), atol=1e-3)
