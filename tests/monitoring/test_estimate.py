from __future__ import annotations

import numpy as np
import pytest

from workzone.monitoring.estimate import contradiction, estimate, expected_rates


def window(seed: int, n: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-rng.normal(-0.5, 2.0, n)))
    return p, np.where(p > 0.7, 1, np.where(p < 0.2, 0, -1)), (rng.random(n) < p).astype(np.int64)


@pytest.mark.stat
def test_intervals_hold_the_true_rates_where_calibration_holds() -> None:
    held = {"accuracy": 0, "false_negative_rate": 0}
    for seed in range(60):
        p, codes, y = window(seed)
        found = estimate(p, codes, seed=1000 + seed).rates
        told = codes >= 0
        true = {"accuracy": (codes == y)[told].mean(), "false_negative_rate": (codes[y == 1] == 0).mean()}
        for name in held:
            held[name] += found[name].low <= true[name] <= found[name].high
    assert min(held.values()) >= 52


@pytest.mark.stat
def test_intervals_fail_where_it_does_not() -> None:
    missed = 0
    for seed in range(20):
        p, codes, _ = window(seed)
        y = np.random.default_rng(seed).random(len(p)) < np.clip(p + 0.2, 0, 1)
        rate = estimate(p, codes, seed=seed).rates["false_negative_rate"]
        missed += not rate.low <= (codes[y] == 0).mean() <= rate.high
    assert missed > 14


def test_expected_rates_of_known_labels_are_the_counted_rates() -> None:
    y = np.array([[1.0, 1.0, 1.0, 0.0, 0.0]])
    found = {k: float(v[0]) for k, v in expected_rates(y, np.array([1, 0, -1, 0, 1])).items()}
    assert found == pytest.approx(
        {"accuracy": 0.5, "false_negative_rate": 1 / 3, "false_positive_rate": 0.5, "selective_error": 0.5,
         "prevalence": 0.6, "abstention": 0.2}
    )  # fmt: skip


def test_nothing_answered_has_no_accuracy() -> None:
    made = estimate(np.full(50, 0.5), np.full(50, -1))
    assert np.isnan(made.rates["accuracy"].value)
    assert made.rates["abstention"].value == 1
    assert estimate(np.array([]), np.array([], dtype=np.int64)).valid is False


def test_reasons_make_it_invalid() -> None:
    p, codes, _ = window(0)
    assert estimate(p, codes).valid
    made = estimate(p, codes, ["drift of probability"])
    assert not made.valid
    assert made.reasons == ("drift of probability",)


@pytest.mark.stat
def test_contradiction_has_its_size_and_its_power() -> None:
    fair, wrong = 0, 0
    for seed in range(200):
        p, _, y = window(seed, 150)
        fair += contradiction(y, p) <= 0.05
        wrong += contradiction(y, np.clip(p * 0.6, 0.01, 0.99)) <= 0.05
    assert fair <= 20
    assert wrong >= 190


def test_contradiction_needs_thirty_labels() -> None:
    p, _, y = window(0, 29)
    assert np.isnan(contradiction(y, p))
    assert contradiction(np.zeros(40, dtype=np.int64), np.ones(40)) == 0.0
    assert contradiction(np.ones(40, dtype=np.int64), np.ones(40)) == 1.0
