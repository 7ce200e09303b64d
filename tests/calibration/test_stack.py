from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy import optimize

from workzone.calibration import create, from_dict
from workzone.calibration.simplex import weights_by_brier, weights_by_nll
from workzone.calibration.stack import StackingCalibrator
from workzone.calibration.trade_off import trade_off
from workzone.data.roles import CalibData, TrainData
from workzone.errors import DataError, LeakageError
from workzone.files import canonical_json
from workzone.predictions import sigmoid


def sample(n: int, truth: Any, seed: int = 0) -> CalibData:
    rng = np.random.default_rng(seed)
    u = rng.normal(0, 3, n)
    return CalibData.from_arrays((rng.random(n) < truth(u)).astype(int), u)


def nll(p: np.ndarray, y: np.ndarray) -> float:
    q = np.clip(p, 1e-12, 1 - 1e-12)
    return float(-np.mean(np.log(np.where(y == 1, q, 1 - q))))


@pytest.mark.parametrize("m", [1, 2, 3, 4])
@pytest.mark.parametrize("loss", ["nll", "brier"])
def test_weights_match_a_general_optimiser(m: int, loss: str) -> None:
    rng = np.random.default_rng(m)
    p = rng.beta(2, 2, (300, m))
    y = (rng.random(300) < p[:, 0]).astype(float)
    likelihood = np.where(y[:, None] == 1, p, 1 - p)

    def value(w: np.ndarray) -> float:
        return float(np.mean((p @ w - y) ** 2) if loss == "brier" else -np.mean(np.log(likelihood @ w)))

    ours = weights_by_brier(p, y) if loss == "brier" else weights_by_nll(likelihood)
    bounds = optimize.Bounds(1e-12, 1)
    whole = {"type": "eq", "fun": lambda w: w.sum() - 1}
    options = {"ftol": 1e-14, "maxiter": 1000}
    theirs = optimize.minimize(
        value, np.full(m, 1 / m), bounds=bounds, constraints=whole, method="SLSQP", options=options
    )
    assert ours.min() >= 0
    assert ours.sum() == pytest.approx(1)
    np.testing.assert_allclose(ours, theirs.x, atol=1e-4)
    assert value(ours) <= value(theirs.x) + 1e-9


@pytest.mark.parametrize("weigh", [weights_by_nll, lambda p: weights_by_brier(p, np.ones(len(p)))])
def test_weights_of_members_that_agree_or_dominate(weigh: Any) -> None:
    column = np.random.default_rng(0).uniform(0.2, 0.8, 50)
    np.testing.assert_allclose(weigh(np.column_stack([column, column])), [0.5, 0.5], atol=1e-3)
    np.testing.assert_allclose(weigh(np.column_stack([column, column + 0.1])), [0.0, 1.0], atol=1e-6)


def test_does_not_lose_to_temperature() -> None:
    worse = []
    for seed in range(12):
        train, test = sample(716, lambda u: sigmoid(u / 2), seed), sample(10_000, lambda u: sigmoid(u / 2), seed + 100)
        stack, alone = create("stack").fit(train), create("temperature").fit(train)
        worse.append(nll(stack(test.scores), test.labels) - nll(alone(test.scores), test.labels))
    assert np.mean(worse) < 0.001
    assert np.median(worse) <= 1e-12


def test_takes_the_mixture_where_it_is_clearly_better() -> None:
    # Labels with noise: the sigmoid is too flat in the middle, and a share of the raw scores makes up for it.
    def truth(u: np.ndarray) -> np.ndarray:
        return 0.12 + 0.6 * sigmoid(u)

    train, test = sample(30_000, truth), sample(50_000, truth, seed=1)
    fitted = StackingCalibrator(["none", "platt"]).fit(train)
    losses = [m.loss for m in fitted.members]
    assert fitted.mixture_loss is not None
    assert all(loss is not None and fitted.mixture_loss < loss for loss in losses)
    assert all(0.05 < m.weight < 0.95 for m in fitted.members)
    alone = [nll(m.calibrator(test.scores), test.labels) for m in fitted.members]
    assert nll(fitted(test.scores), test.labels) < min(alone)


def test_every_member_is_reported_and_stored() -> None:
    fitted = StackingCalibrator(["temperature", "platt", "beta"], "brier").fit(sample(500, lambda u: sigmoid(u / 3)))
    stored = json.loads(canonical_json(fitted.to_dict()))
    assert [m["method"] for m in stored["parameters"]["members"]] == ["temperature", "platt", "beta"]
    assert sum(m["weight"] for m in stored["parameters"]["members"]) == pytest.approx(1)
    assert [m["weight"] for m in stored["parameters"]["members"]] == [1.0, 0.0, 0.0]
    assert all(0 < m["loss"] < 0.25 for m in stored["parameters"]["members"])
    assert from_dict(stored).to_dict() == fitted.to_dict()


def test_without_folds_the_simplest_member_is_used() -> None:
    fitted = create("stack").fit(CalibData.from_arrays([0, 1], [-1.0, 2.0]))
    assert isinstance(fitted, StackingCalibrator)
    assert [(m.calibrator.name, m.weight, m.loss) for m in fitted.members] == [
        ("temperature", 1.0, None),
        ("beta", 0.0, None),
    ]


def test_members_that_cannot_be_stacked() -> None:
    for names in ([], ["stack"], [f"m{i}" for i in range(9)]):
        with pytest.raises(ValueError, match="one to 8"):
            StackingCalibrator(names)
    with pytest.raises(ValueError, match="ece"):
        StackingCalibrator(loss="ece")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="needs slices"):
        StackingCalibrator(["per_slice"]).fit(sample(300, sigmoid))


def test_the_threshold_is_what_moves_mcc() -> None:
    data = sample(2000, lambda u: sigmoid(0.6 * u - 1.5))
    result = trade_off(data, ["temperature", "beta"])
    rows = {row.name: row for row in result.rows}
    assert set(rows) == {"temperature", "beta", "calibration only", "trade-off"}
    # Two monotone maps of one score reach the same decisions, up to folds that differ a little.
    assert rows["temperature"].mcc == pytest.approx(rows["beta"].mcc, abs=0.02)
    assert rows["temperature"].mcc - rows["temperature"].mcc_at_half > 0.02
    assert abs(result.from_weights) < 0.02
    assert rows["trade-off"].objective >= max(rows[n].objective for n in ("temperature", "beta")) - 1e-12
    assert rows["calibration only"].skill >= rows["trade-off"].skill - 1e-6
    assert result.threshold == rows["trade-off"].threshold
    assert sum(m.weight for m in result.calibrator.members) == pytest.approx(1)  # type: ignore[attr-defined]
    json.loads(canonical_json(result.to_dict()))


def test_trade_off_by_hand() -> None:
    # Ranked p: 1 1 0 1 0 0; best MCC at two or at four said: sqrt(1/2), and the gap after four is the wider one.
    u = np.array([5.0, 4.0, 3.0, 2.0, 1.0, 0.0] * 10)
    data = CalibData.from_arrays([1, 1, 0, 1, 0, 0] * 10, u)
    row = trade_off(data, ["none"], mcc_weight=1.0).rows[0]
    assert row.mcc == pytest.approx(np.sqrt(0.5))
    assert row.objective == row.mcc
    assert row.threshold == pytest.approx((sigmoid(np.array(2.0)) + sigmoid(np.array(1.0))) / 2)
    assert row.mcc_at_half == 0.0


def test_trade_off_refuses_what_it_cannot_measure() -> None:
    with pytest.raises(LeakageError):
        trade_off(TrainData.from_arrays([0, 1], [0.0, 1.0]))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="folds"):
        trade_off(CalibData.from_arrays([0, 1], [0.0, 1.0]))
    with pytest.raises(ValueError, match="weight of MCC"):
        trade_off(sample(100, sigmoid), mcc_weight=1.5)
