from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from workzone.errors import ArtifactError
from workzone.metrics.proportions import clopper_pearson
from workzone.monitoring.sequential import EProcess, e_values, reserve

ALPHA, DELTA, STREAMS, STEPS = 0.02, 0.05, 400, 10_000


def exceeds(false: int, n: int) -> bool:
    """Whether so many false alarms are more than DELTA beyond doubt."""
    return bool(clopper_pearson(false, n, 0.998)[0] > DELTA)


@pytest.fixture(scope="module")
def at_the_limit() -> np.ndarray:
    return (np.random.default_rng(0).random((STREAMS, STEPS)) < ALPHA).astype(np.float64)


@pytest.mark.stat
def test_false_alarms_over_ten_thousand_labels(at_the_limit: np.ndarray) -> None:
    false = int((e_values(at_the_limit, ALPHA).max(axis=1) >= 1 / DELTA).sum())
    assert not exceeds(false, STREAMS)


@pytest.mark.stat
def test_a_fixed_test_repeated_at_each_label_is_caught(at_the_limit: np.ndarray) -> None:
    from scipy.stats import binom

    p = binom.sf(np.cumsum(at_the_limit, axis=1) - 1, np.arange(1, STEPS + 1), ALPHA)
    assert exceeds(int((p <= DELTA).any(axis=1).sum()), STREAMS)


@pytest.mark.stat
def test_false_alarms_with_weights_and_a_rate_that_moves_below_the_limit() -> None:
    rng = np.random.default_rng(1)
    false, false_without = 0, 0
    for _ in range(60):
        process, blind = EProcess(0.1, DELTA), EProcess(0.1, DELTA)
        for t in range(300):
            # Half of the images are hard, wrong more often and reviewed four times as often; weights undo that.
            hard = rng.random() < 0.8
            error = float(rng.random() < (0.16 if hard else 0.04) * (1.0 if t % 2 else 0.95))
            process.update(error, 0.25 if hard else 1.0)
            blind.update(error)
        false += process.fired is not None
        false_without += blind.fired is not None
    assert not exceeds(false, 60)
    assert exceeds(false_without, 60)


@pytest.mark.stat
@pytest.mark.parametrize(("before", "most"), [(0, 110), (500, 250), (5000, 330)])
def test_delay_under_a_rate_of_ten_percent(before: int, most: int) -> None:
    rng = np.random.default_rng(2)
    rate = np.where(np.arange(before + 2000) < before, ALPHA / 2, 0.1)
    hit = e_values((rng.random((100, before + 2000)) < rate).astype(np.float64), ALPHA) >= 1 / DELTA
    late = hit[:, before:]
    assert late.any(axis=1).mean() > 0.98
    assert np.median(np.where(late.any(axis=1), late.argmax(axis=1) + 1, 2000)) < most


def test_one_by_one_is_the_same_as_all_at_once() -> None:
    x = (np.random.default_rng(3).random(300) < 0.05).astype(np.float64)
    process = EProcess(ALPHA, DELTA)
    one = [process.update(float(v)) for v in x]
    np.testing.assert_allclose(one, e_values(x[None], ALPHA)[0], rtol=1e-12)


def test_the_wealth_is_a_fair_game() -> None:
    """At the limit the expected wealth after any step is the wealth before it."""
    process = EProcess(0.1, DELTA)
    for error in (0.0, 1.0, 0.0):
        process.update(error)
    for weight in (1.0, 0.3):
        after = []
        for error in (0.0, 1.0):
            copy = EProcess.from_dict(process.to_dict())
            after.append(copy.update(error, weight))
        assert 0.9 * after[0] + 0.1 * after[1] == pytest.approx(process.e_value, rel=1e-12)


def test_the_reserve_falls_from_one_towards_nothing() -> None:
    values = [reserve(t) for t in range(2000)]
    assert values[0] == 1
    assert all(a > b > 0 for a, b in pairwise(values))


def test_state_survives_a_round_trip() -> None:
    a = EProcess(ALPHA, DELTA)
    for error in (0, 1, 1, 0, 1, 1, 1):
        a.update(error)
    b = EProcess.from_dict(a.to_dict())
    assert b.to_dict() == a.to_dict()
    assert a.fired is not None
    assert a.update(0) == b.update(0)


@pytest.mark.parametrize("change", [{"wealth": [1.0]}, {"alpha": 2}, {"extra": 1}, {"wealth": [-1.0] * 16}])
def test_a_damaged_state_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        EProcess.from_dict({**EProcess(ALPHA, DELTA).to_dict(), **change})


@pytest.mark.parametrize(("error", "weight"), [(2.0, 1.0), (-0.1, 1.0), (0.0, 0.0), (0.0, 1.5)])
def test_observations_out_of_range_are_refused(error: float, weight: float) -> None:
    with pytest.raises(ValueError, match="must lie"):
        EProcess(ALPHA, DELTA).update(error, weight)


def test_wealth_stays_finite() -> None:
    process = EProcess(ALPHA, DELTA)
    for _ in range(2000):
        process.update(1.0)
    assert np.isfinite(process.e_value)
    assert process.fired is not None
