from __future__ import annotations

import json
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from workzone.calibration import CALIBRATORS, create, from_dict
from workzone.calibration.select import select
from workzone.calibration.slices import PerDatasetCalibrator, PerSliceCalibrator
from workzone.config.run import CalibratorName
from workzone.data.roles import CalibData, TestData
from workzone.errors import DataError
from workzone.files import canonical_json
from workzone.predictions import sigmoid


def sample(n: int, shifts: dict[str, float], shares: list[float], seed: int = 0) -> CalibData:
    rng = np.random.default_rng(seed)
    u = rng.normal(0, 3, n)
    hour = rng.choice(list(shifts), n, p=shares)
    t = 0.5 * u - 0.4 + np.array([shifts[h] for h in hour.tolist()])
    data = CalibData.from_arrays((rng.random(n) < sigmoid(t)).astype(int), u)
    return replace(data, columns={"hour_band": hour.astype(object)})


def nll(p: np.ndarray, y: np.ndarray) -> float:
    return float(-np.mean(np.log(np.where(y == 1, p, 1 - p))))


def test_recovers_the_offsets() -> None:
    data = sample(8000, {"day": 0.0, "dusk": 0.6, "night": -0.9}, [0.5, 0.25, 0.25])
    fitted = PerSliceCalibrator().fit(data)
    o = fitted.offsets
    assert fitted.prior_sd > 0
    assert fitted.map.slice_slope == pytest.approx(0.5, abs=0.03)
    assert o["dusk"] - o["day"] == pytest.approx(0.6, abs=0.15)
    assert o["night"] - o["day"] == pytest.approx(-0.9, abs=0.15)


def test_the_narrower_the_prior_the_nearer_the_global_map(monkeypatch: pytest.MonkeyPatch) -> None:
    data = sample(400, {"day": 0.5, "night": -0.5}, [0.5, 0.5], seed=1)
    spread = []
    for sd in (0.0, 0.01, 0.1, 0.4, 1.6, 100.0):
        monkeypatch.setattr("workzone.calibration.slices.PRIOR_SDS", (sd,))
        fitted = PerSliceCalibrator().fit(data)
        spread.append(fitted.offsets.get("day", 0.0) - fitted.offsets.get("night", 0.0))
    assert spread[0] == 0.0
    assert (np.diff(spread) > 0).all()
    assert spread[1] < 0.02
    # With hardly a prior left, each offset is where the slice's mean probability is its mean target.
    night = data.columns["hour_band"] == "night"
    smooth = (data.n_positive + 1) / (data.n_positive + 2), 1 / (len(data) - data.n_positive + 2)
    assert fitted.apply(data)[night].mean() == pytest.approx(np.where(data.labels[night], *smooth).mean(), abs=1e-4)


def test_better_where_slices_differ_and_no_worse_where_they_do_not() -> None:
    gain, loss = [], []
    for seed in range(5):
        for shift, gathered in ((0.8, gain), (0.0, loss)):
            shifts, shares = {"day": shift, "night": -shift}, [0.6, 0.4]
            train, test = (sample(n, shifts, shares, seed=seed + k) for n, k in ((716, 0), (20_000, 100)))
            sliced, plain = create("per_slice").fit(train), create("platt").fit(train)
            gathered.append(nll(plain.apply(test), test.labels) - nll(sliced.apply(test), test.labels))
    assert np.mean(gain) > 0.03
    assert min(gain) > 0
    assert np.mean(loss) > -0.001


def test_small_unknown_and_missing_slices_get_the_global_map() -> None:
    data = sample(1000, {"day": 0.7, "night": -0.7, "dawn": 2.0}, [0.5, 0.45, 0.05])
    fitted = PerSliceCalibrator().fit(data)
    assert set(fitted.offsets) == {"day", "night"}
    assert fitted.images["dawn"] < 100
    u = np.full(5, 0.3)
    assert np.array_equal(fitted(u), create("platt").fit(data)(u))
    p = fitted(u, ["dawn", "never seen", None, float("nan"), ""])
    assert np.array_equal(p, fitted(u))
    assert fitted(u[:1], ["day"])[0] > fitted(u[:1])[0] > fitted(u[:1], ["night"])[0]


def test_below_a_hundred_images_everywhere_it_is_platt() -> None:
    data = sample(150, {"day": 0.5, "night": -0.5}, [0.5, 0.5])
    at = np.linspace(-5, 5, 20)
    assert np.array_equal(PerSliceCalibrator().fit(data)(at), create("platt").fit(data)(at))


def test_a_slice_of_one_class_stays_finite() -> None:
    data = sample(600, {"day": 0.0, "night": 0.0}, [0.5, 0.5])
    labels = np.where(data.columns["hour_band"] == "night", 0, data.labels)
    fitted = PerSliceCalibrator().fit(replace(data, labels=labels))
    assert -10 < fitted.offsets["night"] < fitted.offsets["day"] < 10


def test_swapping_the_labels_mirrors_every_slice() -> None:
    data = sample(700, {"day": 0.6, "night": -0.6}, [0.5, 0.5])
    mirrored = replace(data, labels=1 - data.labels, log_odds=-data.scores)
    at, night = np.linspace(-5, 5, 20), ["night"] * 20
    one, other = PerSliceCalibrator().fit(data), PerSliceCalibrator().fit(mirrored)
    np.testing.assert_allclose(one(at, night), 1 - other(-at, night), atol=1e-6)


def test_stored_slices_survive_bit_for_bit() -> None:
    data = sample(900, {"day": 0.6, "nuit étoilée": -0.6}, [0.5, 0.5])
    fitted = PerSliceCalibrator().fit(data)
    again = from_dict(json.loads(canonical_json(fitted.to_dict())))
    assert isinstance(again, PerSliceCalibrator)
    assert fitted.offsets
    assert np.array_equal(again.apply(data), fitted.apply(data))


def test_a_slice_of_a_number_is_one_however_it_is_written() -> None:
    data = sample(900, {"2": 0.6, "3": -0.6}, [0.5, 0.5])
    data = replace(data, columns={"lanes": data.columns["hour_band"].astype(float)})
    fitted = PerSliceCalibrator("lanes").fit(data)
    assert set(fitted.offsets) == {"2", "3"}
    stored = fitted.to_dict()
    old = json.loads(canonical_json(stored))
    old["parameters"]["offsets"] = {f"{name}.0": value for name, value in fitted.offsets.items()}
    everywhere = fitted(np.zeros(1))
    for calibrator in (fitted, from_dict(old)):
        assert isinstance(calibrator, PerSliceCalibrator)
        answers = [calibrator(np.zeros(1), np.array([v], dtype=object))[0] for v in (2, 2.0, "2", "2.0")]
        assert answers == [answers[0]] * 4
        assert answers[0] != everywhere[0]


def test_any_column_and_any_role_of_data_at_call_time() -> None:
    data = sample(900, {"a": 0.6, "b": -0.6}, [0.5, 0.5])
    data = replace(data, columns={"camera": data.columns["hour_band"], "source": data.columns["hour_band"]})
    fitted = PerSliceCalibrator("camera").fit(data)
    assert fitted.offsets == PerDatasetCalibrator().fit(data).offsets
    test = replace(TestData.from_arrays(data.labels, data.scores), columns=data.columns)
    assert np.array_equal(fitted.apply(test), fitted.apply(data))
    with pytest.raises(DataError, match=r"'hour_band'.*camera, source"):
        create("per_slice").fit(data)
    with pytest.raises(ValueError, match="slices"):
        fitted(np.zeros(3), ["a"])


def test_the_configuration_offers_every_member() -> None:
    assert set(get_args(CalibratorName)) == set(CALIBRATORS)


def test_selection_compares_it_slice_by_slice() -> None:
    data = sample(900, {"day": 1.0, "night": -1.0}, [0.5, 0.5], seed=3)
    assert select(data, ["temperature", "platt", "per_slice"], repeats=1, seed=0).best.name == "per_slice"
    flat = sample(900, {"day": 0.0, "night": 0.0}, [0.5, 0.5], seed=3)
    assert select(flat, ["temperature", "platt", "per_slice"], repeats=1, seed=0).best.name == "platt"
