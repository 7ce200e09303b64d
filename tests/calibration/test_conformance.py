"""One battery for every calibrator of the registry; a new member joins by adding a row to ``ROWS``."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from workzone.calibration import CALIBRATORS, Calibrator, create, from_dict
from workzone.calibration.isotonic import IsotonicCalibrator, pool_adjacent_violators
from workzone.data.roles import CalibData, SelectData, TestData, TrainData
from workzone.errors import BundleError, ConfigError, DataError, LeakageError
from workzone.files import canonical_json
from workzone.predictions import Predictions, sigmoid

N = 60_000
"""Images of the recovery test; fewer for members with an inner cross-validation."""


def softplus(t: np.ndarray) -> np.ndarray:
    return np.logaddexp(0.0, t)


@dataclass(frozen=True)
class Row:
    """``truth``: the map that makes the labels; ``tolerance``: largest error of the fit against it at ``n`` images.

    ``symmetric``: swapping the labels mirrors the map; ``monotone``: the map never falls, whatever the data.
    """

    truth: Callable[[np.ndarray], np.ndarray]
    parameters: dict[str, Any]
    tolerance: float
    symmetric: bool = True
    monotone: bool = True
    n: int = N


def halved(u: np.ndarray) -> np.ndarray:
    return sigmoid(u / 2.5)


def shifted(u: np.ndarray) -> np.ndarray:
    return sigmoid(0.6 * u - 0.8)


def bent(u: np.ndarray) -> np.ndarray:
    return sigmoid(-1.4 * softplus(-u) + 0.5 * softplus(u) + 0.3)


def noisy(u: np.ndarray) -> np.ndarray:
    """A fifth of the labels at random, the rest too confident by a factor of two: the three parts of ETS."""
    return 0.6 * sigmoid(u / 2) + 0.2 * sigmoid(u) + 0.1


ROWS = {
    "none": Row(sigmoid, {}, 1e-12),
    "temperature": Row(halved, {"temperature": 2.5}, 0.01),
    "platt": Row(shifted, {"slope": 0.6, "intercept": -0.8}, 0.015),
    "beta": Row(bent, {"a": 1.4, "b": 0.5, "c": 0.3}, 0.02),
    "isotonic": Row(lambda u: np.clip(0.5 + u / 12, 0.02, 0.98), {}, 0.05),
    "classwise_temperature": Row(halved, {"weights": [0.4, 0.4], "biases": [0.0, 0.0]}, 0.01),
    "vector": Row(shifted, {"weights": [0.6, 0.6], "biases": [0.4, -0.4]}, 0.015),
    "dirichlet": Row(bent, {}, 0.04, monotone=False, n=4_000),
    "ets": Row(noisy, {}, 0.015),
    "spline": Row(lambda u: sigmoid(0.8 * u - 0.3), {}, 0.03),
    "histogram": Row(lambda u: np.where(u < 0, 0.2, 0.7), {}, 0.02, monotone=False),
    "stack": Row(bent, {}, 0.03, n=10_000),
    "per_slice": Row(shifted, {"slope": 0.6, "intercept": -0.8}, 0.03, n=10_000),
    "per_dataset": Row(shifted, {"slope": 0.6, "intercept": -0.8}, 0.03, n=10_000),
}
ALL = pytest.mark.parametrize("name", list(CALIBRATORS))
MONOTONE = pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.monotone])
EXTREME = np.array([-np.inf, -1e300, -1e4, -745.0, -40.0, -1.0, 0.0, 1.0, 40.0, 745.0, 1e4, 1e300, np.inf])


def draw(truth: Callable[[np.ndarray], np.ndarray], n: int, seed: int = 0) -> CalibData:
    rng = np.random.default_rng(seed)
    u = rng.normal(0.0, 3.0, n)
    return with_slices(CalibData.from_arrays((rng.random(n) < truth(u)).astype(int), u))


def with_slices(data: CalibData) -> CalibData:
    """Columns for the members that need one; the battery calls every member without slices."""
    half = np.arange(len(data)) % 2
    return replace(data, columns={"hour_band": np.array(["day", "night"])[half], "source": np.array(["a", "b"])[half]})


def fitted(name: str, labels: Any, scores: Any) -> Calibrator:
    return create(name).fit(with_slices(CalibData.from_arrays(labels, scores)))


def test_every_member_has_a_row() -> None:
    assert set(ROWS) == set(CALIBRATORS)


@ALL
def test_recovers_the_map_that_made_the_labels(name: str) -> None:
    row = ROWS[name]
    calibrator = create(name).fit(draw(row.truth, row.n))
    at = np.linspace(-5, 5, 202)
    assert np.abs(calibrator(at) - row.truth(at)).max() < row.tolerance
    stored = calibrator.parameters()
    for key, value in row.parameters.items():
        assert stored[key] == pytest.approx(value, abs=0.06)


@MONOTONE
def test_monotone(name: str) -> None:
    calibrator = create(name).fit(draw(ROWS[name].truth, 800))
    p = calibrator(np.linspace(-60, 60, 5001))
    assert (np.diff(p) >= 0).all()
    assert ((p >= 0) & (p <= 1)).all()


@MONOTONE
def test_a_detector_that_ranks_backwards_is_never_reversed(name: str) -> None:
    data = draw(lambda u: sigmoid(-u), 500)
    p = create(name).fit(data)(np.linspace(-20, 20, 401))
    assert (np.diff(p) >= 0).all()


@ALL
def test_swapping_the_labels_mirrors_the_map(name: str) -> None:
    data = draw(ROWS[name].truth, 700)
    mirrored = with_slices(CalibData.from_arrays(1 - data.labels, -data.scores))
    at = np.linspace(-8, 8, 101)
    assert ROWS[name].symmetric
    np.testing.assert_allclose(create(name).fit(data)(at), 1 - create(name).fit(mirrored)(-at), atol=1e-6)


@ALL
def test_probabilities_are_probabilities(name: str) -> None:
    p = create(name).fit(draw(ROWS[name].truth, 300))(np.r_[EXTREME, np.random.default_rng(0).normal(0, 9, 3000)])
    assert ((p >= 0) & (p <= 1)).all()


@ALL
def test_order_of_images_does_not_matter(name: str) -> None:
    data = draw(ROWS[name].truth, 400)
    order = np.random.default_rng(1).permutation(len(data))
    at = np.linspace(-8, 8, 101)
    np.testing.assert_allclose(create(name).fit(data)(at), create(name).fit(data.take(order))(at), atol=1e-9)


@ALL
def test_json_round_trip_is_bit_exact(name: str) -> None:
    calibrator = create(name).fit(draw(ROWS[name].truth, 333))
    text = canonical_json(calibrator.to_dict())
    again = from_dict(json.loads(text))
    assert canonical_json(again.to_dict()) == text
    at = np.r_[EXTREME, np.random.default_rng(2).normal(0, 5, 1000)]
    assert np.array_equal(calibrator(at), again(at))


@ALL
@pytest.mark.parametrize("n", [2, 3, 50])
@pytest.mark.parametrize("case", ["ordinary", "constant", "separated", "duplicates", "huge", "tiny"])
def test_degenerate_scores_give_finite_monotone_maps(name: str, n: int, case: str) -> None:
    labels = np.arange(n) % 2
    rng = np.random.default_rng(n)
    scores = {
        "ordinary": rng.normal(size=n),
        "constant": np.full(n, 1.5),
        "separated": (2.0 * labels - 1) * (1 + np.arange(n)),
        "duplicates": np.round(rng.normal(size=n)),
        "huge": rng.normal(size=n) * 1e300,
        "tiny": rng.normal(size=n) * 1e-300,
    }[case]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calibrator = fitted(name, labels, scores)
        p = calibrator(EXTREME)
    assert np.isfinite(p).all()
    assert ((p >= 0) & (p <= 1)).all()
    if ROWS[name].monotone:
        assert (np.diff(p) >= 0).all()
    json.loads(canonical_json(calibrator.to_dict()))


@ALL
def test_infinite_scores_map_to_the_ends_and_nan_stays_nan(name: str) -> None:
    calibrator = create(name).fit(draw(ROWS[name].truth, 500))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        low, high, unknown = calibrator(np.array([-np.inf, np.inf, np.nan]))
        assert calibrator(np.array([])).shape == (0,)
    inside = calibrator(np.array([-5.0, 5.0]))
    assert low <= inside[0] < inside[1] <= high
    assert np.isnan(unknown)


@pytest.mark.parametrize(
    "name", ["platt", "isotonic", "beta", "vector", "dirichlet", "spline", "histogram", "stack", "per_slice"]
)
def test_constant_scores_give_the_base_rate(name: str) -> None:
    p = fitted(name, [1] * 30 + [0] * 70, np.full(100, 2.0))(np.array([2.0]))[0]
    assert p == pytest.approx(0.3, abs=0.005)


@ALL
@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_refused(name: str, label: int) -> None:
    with pytest.raises(DataError, match="both classes"):
        fitted(name, [label] * 10, np.arange(10.0))


@ALL
def test_no_images_no_scores_and_scores_that_are_not_numbers_are_refused(name: str) -> None:
    with pytest.raises(DataError):
        fitted(name, [], [])
    with pytest.raises(DataError, match="not a finite number"):
        fitted(name, [0, 1], [0.0, np.nan])
    unscored = CalibData(np.array(["a", "b"]), np.array([0, 1]), np.array(["a", "b"]))
    with pytest.raises(DataError, match="no scores"):
        create(name).fit(unscored)


WRONG: dict[str, Any] = {
    "train": TrainData.from_arrays([0, 1], [0.0, 1.0]),
    "select": SelectData.from_arrays([0, 1], [0.0, 1.0]),
    "test": TestData.from_arrays([0, 1], [0.0, 1.0]),
    "predictions": Predictions(np.array(["a", "b"]), np.array([0.0, 1.0]), np.array([0, 1])),
    "array": np.array([0.0, 1.0]),
    "none": None,
}


@ALL
@pytest.mark.parametrize("wrong", list(WRONG))
def test_only_calibration_data_are_taken(name: str, wrong: str) -> None:
    with pytest.raises(LeakageError, match=name):
        create(name).fit(WRONG[wrong])


LINE = {"slope": 1.0, "intercept": 0.0, "slice_slope": 1.0}
IMPOSSIBLE: list[tuple[str, dict[str, Any]]] = [
    ("temperature", {}),
    ("temperature", {"temperature": 0.0}),
    ("temperature", {"temperature": True}),
    ("temperature", {"temperature": 10**400}),
    ("platt", {"slope": -0.1, "intercept": 0.0}),
    ("platt", {"slope": 1.0, "intercept": "0"}),
    ("beta", {"a": 1.0, "b": -1e-9, "c": 0.0}),
    ("beta", {"a": 1e300, "b": 1.0, "c": 0.0}),
    ("isotonic", {"scores": [], "probabilities": []}),
    ("isotonic", {"scores": [0.0, 1.0], "probabilities": [0.5]}),
    ("isotonic", {"scores": [1.0, 0.0], "probabilities": [0.2, 0.5]}),
    ("isotonic", {"scores": [0.0, 1.0], "probabilities": [0.5, 0.2]}),
    ("isotonic", {"scores": [0.0, 1.0], "probabilities": [0.5, 1.2]}),
    ("isotonic", {"scores": [0.0, None], "probabilities": [0.5, 0.6]}),
    ("isotonic", {"scores": "01", "probabilities": [0.5, 0.6]}),
    ("spline", {"scores": [0.0, 1.0], "probabilities": [0.5, 0.2]}),
    ("classwise_temperature", {"classes": 2, "weights": [1.0, -1.0], "biases": [0.0, 0.0]}),
    ("classwise_temperature", {"classes": 2, "weights": [1.0, 1.0], "biases": [0.0, 0.5]}),
    ("vector", {"classes": 3, "weights": [1.0, 1.0, 1.0], "biases": [0.0, 0.0, 0.0]}),
    ("vector", {"classes": 2, "weights": [1.0], "biases": [0.0, 0.0]}),
    ("vector", {"classes": True, "weights": [1.0, 1.0], "biases": [0.0, 0.0]}),
    ("dirichlet", {"classes": 2, "weights": [1.0, 0.0], "biases": [0.0, 0.0], "lambda": 0.0, "mu": 0.0}),
    ("dirichlet", {"classes": 2, "weights": [[1.0, 0.0], [0.0, "1"]], "biases": [0.0, 0.0], "lambda": 0.0, "mu": 0.0}),
    ("dirichlet", {"classes": 2, "weights": [[1.0, 0.0], [0.0, 1.0]], "biases": [0.0, 0.0], "lambda": -1.0, "mu": 0.0}),
    ("ets", {"classes": 2, "temperature": 0.0, "weights": [1.0, 0.0, 0.0]}),
    ("ets", {"classes": 2, "temperature": 1.0, "weights": [0.5, 0.0, 0.0]}),
    ("ets", {"classes": 2, "temperature": 1.0, "weights": [1.0, 0.5, -0.5]}),
    ("histogram", {"edges": [], "probabilities": []}),
    ("histogram", {"edges": [1.0, 0.0], "probabilities": [0.1, 0.2, 0.3]}),
    ("histogram", {"edges": [0.0], "probabilities": [0.1, 1.2]}),
    ("histogram", {"edges": [0.0, 1.0], "probabilities": [0.1, 0.2]}),
    ("stack", {"loss": "nll", "members": [], "mixture_loss": None}),
    ("stack", {"loss": "ece", "members": [{"method": "none", "parameters": {}, "weight": 1.0}]}),
    ("stack", {"loss": "nll", "members": [{"method": "none", "parameters": {}, "weight": 0.9}]}),
    ("stack", {"loss": "nll", "members": [{"method": "stack", "parameters": {}, "weight": 1.0}]}),
    ("per_slice", {**LINE, "prior_sd": 0.0, "offsets": {}, "images": {}}),
    (
        "per_slice",
        {"column": "c", **LINE, "prior_sd": 0.0, "offsets": {"a": None}, "images": {}},
    ),
    ("per_slice", {"column": "c", **LINE, "prior_sd": 0.0, "offsets": {}, "images": {"a": -1}}),
    ("per_slice", {"column": "c", **LINE, "prior_sd": 0.0, "offsets": [], "images": {}}),
]


@pytest.mark.parametrize(("name", "parameters"), IMPOSSIBLE)
def test_impossible_stored_numbers_are_refused(name: str, parameters: dict[str, Any]) -> None:
    with pytest.raises(BundleError):
        from_dict({"method": name, "parameters": parameters})


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(BundleError, match="temperature, platt"):
        from_dict({"method": "nothing", "parameters": {}})
    with pytest.raises(BundleError, match="exactly"):
        from_dict({"method": "none", "parameters": {}, "code": "x"})
    with pytest.raises(ConfigError, match="temperature, platt"):
        create("nothing")


def test_isotonic_keeps_the_ranking_between_block_centres() -> None:
    data = draw(lambda u: sigmoid(u), 2000)
    calibrator = create("isotonic").fit(data)
    assert isinstance(calibrator, IsotonicCalibrator)
    inside = np.linspace(calibrator.scores[0], calibrator.scores[-1], 500)
    assert (np.diff(calibrator(inside)) > 0).all()
    end = 1 / 2002
    assert calibrator.probabilities.min() >= end
    assert calibrator.probabilities.max() <= 1 - end


def test_histogram_by_hand() -> None:
    # 40 images, ten bins of four; no bin is sure of itself.
    labels = np.repeat([0, 0, 0, 0, 0, 1, 1, 1, 1, 1], 4)
    labels[0] = 1
    calibrator = fitted("histogram", labels, np.arange(40.0))
    stored = calibrator.parameters()
    np.testing.assert_allclose(stored["edges"], np.arange(3.5, 39, 4))
    np.testing.assert_allclose(stored["probabilities"], [1 / 4] + [1 / 6] * 4 + [5 / 6] * 5)
    assert calibrator(np.array([-9.0, 3.4, 3.6, 99.0])).tolist() == [1 / 4, 1 / 4, 1 / 6, 1 - 1 / 6]


def test_pooling_by_hand() -> None:
    means, starts = pool_adjacent_violators(np.array([1.0, 0.0, 2.0, 1.0, 3.0]), np.array([1.0, 3.0, 1.0, 1.0, 1.0]))
    np.testing.assert_allclose(means, [0.25, 1.5, 3.0])
    assert starts == [0, 2, 4]


def test_platt_uses_smoothed_targets() -> None:
    # One score per class: the two fitted probabilities are free, so they must equal Platt's targets.
    p = fitted("platt", [0] * 8 + [1] * 3, [-1.0] * 8 + [1.0] * 3)(np.array([-1.0, 1.0]))
    np.testing.assert_allclose(p, [1 / 10, 4 / 5], atol=1e-6)


def test_temperature_is_the_minimum_of_the_likelihood() -> None:
    data = draw(lambda u: sigmoid(u / 2), 300)
    best = create("temperature").fit(data).parameters()["temperature"]

    def nll(t: float) -> float:
        z = data.scores / t
        return float(np.mean(np.logaddexp(0, z) - data.labels * z))

    assert nll(best) <= min(nll(best * (1 + h)) for h in (-1e-3, 1e-3))
