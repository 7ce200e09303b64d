"""One battery for every calibrator over K classes."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import pytest

from workzone.calibration import (
    MULTICLASS,
    ClassScores,
    MulticlassCalibrator,
    create,
    create_multiclass,
    multiclass_from_dict,
)
from workzone.calibration.dirichlet import DirichletScaling
from workzone.calibration.ets import EnsembleTemperature
from workzone.calibration.softmax import log_softmax, softmax
from workzone.data.roles import CalibData
from workzone.errors import BundleError, ConfigError, DataError, LeakageError
from workzone.files import canonical_json

ALL = pytest.mark.parametrize("name", list(MULTICLASS))
W = np.array([0.4, 0.7, 0.5, 1.1])
B = np.array([0.5, -0.3, 0.0, -0.2])


def centred(z: np.ndarray) -> np.ndarray:
    return z - z.mean(axis=1, keepdims=True)


MATRIX = np.array([[0.8, 0.1, 0.0, 0.2], [0.0, 0.6, 0.3, 0.0], [0.1, 0.0, 1.1, 0.1], [0.0, 0.2, 0.0, 0.7]])
TRUTHS: dict[str, Any] = {
    "classwise_temperature": lambda z: softmax(centred(z) * W),
    "vector": lambda z: softmax(centred(z) * W + B),
    "dirichlet": lambda z: softmax(log_softmax(z) @ MATRIX.T + B),
    "ets": lambda z: 0.6 * softmax(z / 2) + 0.1 * softmax(z) + 0.3 / z.shape[1],
}


def draw(name: str, n: int, seed: int = 0) -> ClassScores:
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, (n, 4))
    cumulative = TRUTHS[name](z).cumsum(axis=1)
    return ClassScores.from_arrays((rng.random((n, 1)) > cumulative).sum(axis=1).clip(max=3), z)


def fitted(name: str, n: int = 400) -> MulticlassCalibrator:
    return create_multiclass(name).fit(draw(name, n))


def test_every_member_has_a_truth() -> None:
    assert set(TRUTHS) == set(MULTICLASS)


@ALL
def test_recovers_the_map_that_made_the_labels(name: str) -> None:
    penalty = {"dirichlet": DirichletScaling((1e-5, 1e-5))}
    calibrator = penalty.get(name, create_multiclass(name)).fit(draw(name, 20_000))
    z = np.random.default_rng(1).normal(0, 2, (500, 4))
    assert np.abs(calibrator(z) - TRUTHS[name](z)).max() < 0.05
    assert np.abs(calibrator(z) - TRUTHS[name](z)).mean() < 0.008
    stored = calibrator.parameters()
    if name in ("classwise_temperature", "vector"):
        np.testing.assert_allclose(stored["weights"], W, atol=0.05)


@ALL
def test_rows_sum_to_one_and_a_shift_of_logits_changes_nothing(name: str) -> None:
    calibrator = fitted(name)
    z = np.random.default_rng(2).normal(0, 3, (50, 4))
    p = calibrator(z)
    np.testing.assert_allclose(p.sum(axis=1), 1.0, atol=1e-12)
    assert ((p >= 0) & (p <= 1)).all()
    np.testing.assert_allclose(calibrator(z + 7.0), p, atol=1e-10)


@ALL
def test_renaming_the_classes_renames_the_probabilities(name: str) -> None:
    data = draw(name, 300)
    order = np.array([2, 0, 3, 1])
    renamed = ClassScores.from_arrays(np.argsort(order)[data.labels], data.log_probabilities[:, order])
    z = data.log_probabilities[:40]
    # Inner folds deal ties by class, so the penalty is held fixed here.
    make = {"dirichlet": lambda: DirichletScaling((1e-2, 1e-2))}.get(name, lambda: create_multiclass(name))
    np.testing.assert_allclose(make().fit(renamed)(z[:, order]), make().fit(data)(z)[:, order], atol=1e-6)


@ALL
def test_json_round_trip_is_bit_exact(name: str) -> None:
    calibrator = fitted(name)
    text = canonical_json(calibrator.to_dict())
    again = multiclass_from_dict(json.loads(text))
    assert canonical_json(again.to_dict()) == text
    z = np.random.default_rng(3).normal(0, 5, (200, 4))
    assert np.array_equal(again(z), calibrator(z))


@ALL
def test_infinities_nan_and_no_images(name: str) -> None:
    calibrator = fitted(name)
    z = np.array([[0.0, -np.inf, -np.inf, -np.inf], [np.nan, 0.0, 0.0, 0.0], [-1e300, 0.0, 1.0, 2.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p = calibrator(z)
    assert np.isnan(p[1]).all()
    assert np.isfinite(p[[0, 2]]).all()
    assert calibrator(np.zeros((0, 4))).shape == (0, 4)
    with pytest.raises(ValueError, match="shape"):
        calibrator(np.zeros((3, 5)))


@ALL
@pytest.mark.parametrize("case", ["one each", "constant", "separated", "duplicates", "huge"])
def test_degenerate_scores_give_finite_maps(name: str, case: str) -> None:
    y = np.arange(4) if case == "one each" else np.arange(40) % 4
    rng = np.random.default_rng(0)
    z = rng.normal(size=(len(y), 4))
    z = {
        "constant": np.zeros_like(z),
        "separated": 9.0 * np.eye(4)[y],
        "duplicates": np.round(z),
        "huge": z * 1e300,
    }.get(case, z)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p = create_multiclass(name).fit(ClassScores.from_arrays(y, z))(rng.normal(0, 9, (100, 4)))
    assert np.isfinite(p).all()
    np.testing.assert_allclose(p.sum(axis=1), 1.0, atol=1e-9)


def test_scores_that_cannot_be_used_are_refused() -> None:
    for labels, scores, message in (
        ([0, 1], np.zeros((2, 3)), "class 2 has none"),
        ([0, 1, 3], np.zeros((3, 3)), "lie in 0 to 2"),
        ([0, 1], np.zeros(2), "shape"),
        ([0, 1], np.array([[0.0, np.nan], [0.0, 0.0]]), "finite"),
        ([], np.zeros((0, 2)), "class 0 has none"),
    ):
        with pytest.raises(DataError, match=message):
            ClassScores.from_arrays(labels, scores)
    with pytest.raises(LeakageError, match="ClassScores"):
        create_multiclass("vector").fit(CalibData.from_arrays([0, 1], [0.0, 1.0]))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="vector"):
        create_multiclass("platt")
    with pytest.raises(BundleError, match="unknown"):
        multiclass_from_dict({"method": "platt", "parameters": {}})


def test_for_two_classes_classwise_temperature_is_temperature_and_vector_is_a_sigmoid() -> None:
    rng = np.random.default_rng(4)
    u = rng.normal(0, 3, 500)
    data = CalibData.from_arrays((rng.random(500) < 1 / (1 + np.exp(0.8 - 0.4 * u))).astype(int), u)
    at = np.linspace(-8, 8, 50)
    np.testing.assert_allclose(
        create("classwise_temperature").fit(data)(at), create("temperature").fit(data)(at), atol=1e-6
    )
    logit = np.diff(np.log(create("vector").fit(data)(at) / (1 - create("vector").fit(data)(at))))
    np.testing.assert_allclose(logit, logit[0], atol=1e-9)


def test_dirichlet_may_reverse_a_ranking_and_beta_may_not() -> None:
    rng = np.random.default_rng(5)
    u = rng.normal(0, 2, 500)
    data = CalibData.from_arrays((rng.random(500) < 1 / (1 + np.exp(u))).astype(int), u)
    low, high = create("dirichlet").fit(data)(np.array([-3.0, 3.0]))
    assert low > high + 0.3
    assert np.ptp(create("beta").fit(data)(np.array([-3.0, 3.0]))) < 1e-6


def test_odir_pulls_to_a_diagonal_without_bias() -> None:
    data = draw("dirichlet", 500)
    loose, tight = (DirichletScaling((p, p)).fit(data) for p in (1e-5, 1e4))
    assert np.abs(loose.biases).max() > 0.1
    assert np.abs(tight.biases).max() < 1e-2
    assert np.abs(tight.weights - np.diag(np.diagonal(tight.weights))).max() < 1e-2


def test_ets_keeps_the_first_class_first() -> None:
    calibrator = EnsembleTemperature("brier").fit(draw("ets", 400))
    z = np.random.default_rng(6).normal(0, 3, (300, 4))
    assert (calibrator(z).argmax(axis=1) == z.argmax(axis=1)).all()
