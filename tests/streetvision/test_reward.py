from __future__ import annotations

import time

import numpy as np
import pytest

from workzone.streetvision.reward import NO_ANSWER, ema, rewards


def literal(answers: list[float], labels: list[int]) -> list[float]:
    """The reward as a miner's history would give it, one step after the other."""
    earned = []
    for step in range(len(answers)):

        def figures(window: int, step: int = step) -> tuple[float, float]:
            first = max(0, step + 1 - window)
            kept = [(a, y) for a, y in zip(answers[first : step + 1], labels[first : step + 1], strict=True) if a != -1]
            if not kept:
                return 0.0, 0.0
            said = [round(a) for a, _ in kept]
            truth = [y for _, y in kept]
            accuracy = sum(s == y for s, y in zip(said, truth, strict=True)) / len(kept)
            tp = sum(s == 1 and y == 1 for s, y in zip(said, truth, strict=True))
            tn = sum(s == 0 and y == 0 for s, y in zip(said, truth, strict=True))
            fp = sum(s == 1 and y == 0 for s, y in zip(said, truth, strict=True))
            fn = sum(s == 0 and y == 1 for s, y in zip(said, truth, strict=True))
            below = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
            mcc = 0.0 if below == 0 else (tp * tn - fp * fn) / below**0.5
            return max(0.0, mcc), accuracy

        m, a = figures(100)[0], figures(10)[1]
        valid = answers[step] != -1 and 0 <= answers[step] <= 1
        earned.append((0.5 * m + 0.5 * a) ** 3 if valid else 0.0)
    return earned


@pytest.mark.parametrize("seed", range(6))
def test_equals_a_literal_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = [1, 7, 10, 100, 101, 350][seed]
    labels = rng.integers(0, 2, n)
    answers = np.clip(labels * 0.4 + 0.3 + rng.normal(0, 0.3, n), 0, 1)
    answers[rng.random(n) < 0.1] = NO_ANSWER
    answers[rng.random(n) < 0.1] = 0.5
    answers[rng.random(n) < 0.05] = 1.2  # rounds to 1, and earns nothing
    np.testing.assert_allclose(rewards(answers, labels), literal(answers.tolist(), labels.tolist()), atol=1e-12)


def test_one_half_means_no_roadwork() -> None:
    assert rewards(np.array([0.9, 0.5]), np.array([1, 0]))[1] == 1.0
    assert rewards(np.array([0.1, 0.5]), np.array([0, 1]))[1] == pytest.approx(0.25**3)


def test_one_class_only_has_no_mcc() -> None:
    # Accuracy 1 and MCC 0.
    assert rewards(np.array([1.0, 1.0, 1.0]), np.array([1, 1, 1])).tolist() == [0.125, 0.125, 0.125]


def test_worse_than_chance_is_floored() -> None:
    labels = np.arange(40) % 2
    assert rewards(1.0 - labels, labels).tolist() == [0.0] * 40


def test_silence_costs_its_step_and_leaves_the_windows_alone() -> None:
    labels = np.arange(30) % 2
    answers = labels.astype(float)
    answers[20] = NO_ANSWER
    earned = rewards(answers, labels)
    assert earned[20] == 0.0
    assert (np.delete(earned, [0, 20]) == 1.0).all()


def test_an_answer_that_is_neither_class_is_wrong_in_the_window() -> None:
    labels = np.arange(30) % 2
    answers = labels.astype(float)
    answers[20] = 7.0
    earned = rewards(answers, labels)
    assert earned[20] == 0.0
    assert 0 < earned[21] < 1.0
    sklearn = pytest.importorskip("sklearn.metrics")
    mcc = sklearn.matthews_corrcoef(labels[:22], answers[:22].astype(int))
    assert earned[21] == pytest.approx((0.5 * mcc + 0.5 * 0.9) ** 3)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="numbers"):
        rewards(np.array([np.nan]), np.array([1]))
    with pytest.raises(ValueError, match="labels"):
        rewards(np.array([0.5]), np.array([2]))


def test_moving_average() -> None:
    assert ema(np.array([[1.0, 1.0, 0.0]])).tolist() == [[0.05, pytest.approx(0.0975), pytest.approx(0.092625)]]


@pytest.mark.stat
@pytest.mark.parametrize(
    ("rate", "silent", "mean", "within"),
    # 0.84 and 0.63 were stated to about two digits.
    [(0.98, 0.0, 0.916, 0.005), (0.96, 0.0, 0.84, 0.01), (0.90, 0.0, 0.63, 0.01), (0.98, 0.05, 0.873, 0.005)],
)
def test_published_means(rate: float, silent: float, mean: float, within: float) -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, (20, 5000))
    answers = np.where(rng.random(labels.shape) < rate, labels, 1 - labels).astype(float)
    answers[rng.random(labels.shape) < silent] = NO_ANSWER
    earned = rewards(answers, labels)[:, 100:]
    assert earned.mean() == pytest.approx(mean, abs=within)
    if rate == 0.98 and not silent:
        assert earned.std() == pytest.approx(0.078, abs=0.01)


@pytest.mark.stat
def test_always_roadwork_earns_almost_nothing() -> None:
    labels = np.random.default_rng(3).integers(0, 2, (20, 5000))
    assert rewards(np.ones(labels.shape), labels)[:, 100:].mean() == pytest.approx(0.02, abs=0.002)


def test_a_hundred_thousand_challenges_take_seconds() -> None:
    labels = np.random.default_rng(0).integers(0, 2, (1, 100_000))
    p = np.clip(labels * 0.5 + np.random.default_rng(1).random(labels.shape) * 0.6, 0, 1)
    start = time.perf_counter()
    for threshold in (0.3, 0.4, 0.5, 0.6):
        rewards(p > threshold, labels)
    assert time.perf_counter() - start < 10
