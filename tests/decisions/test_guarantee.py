"""Over many calibration draws the certified rate is exceeded in at most delta of them, and broken rules are caught.

Positives score N(MU, 1) in log-odds, so the true false-negative rate of any threshold is known exactly.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import ndtr

from workzone.calibration import create as create_calibrator
from workzone.data.roles import CalibData
from workzone.decisions import create, fit_policy
from workzone.decisions.policies.exits import unit_scores
from workzone.decisions.policies.threshold import ThresholdPolicy
from workzone.decisions.risk import GRID, certify_threshold
from workzone.predictions import logit, sigmoid

pytestmark = pytest.mark.stat

ALPHA, DELTA, MU, DRAWS = 0.02, 0.05, 2.0, 2500
Rule = Callable[[np.ndarray], float | None]


def true_fnr(threshold: float | None) -> float:
    """FNR of "no_roadwork where p < threshold" for positives N(MU, 1)."""
    return 0.0 if threshold is None else float(ndtr(logit(np.array(threshold)) - MU))


def limit(draws: int) -> float:
    return DELTA + 3 * float(np.sqrt(DELTA * (1 - DELTA) / draws))


def violations(rule: Rule, *, n: int, draws: int = DRAWS, seed: int = 0) -> float:
    rng = np.random.default_rng(seed)
    p = sigmoid(rng.normal(MU, 1.0, (draws, n)))
    return float(np.mean([true_fnr(rule(row)) > ALPHA for row in p]))


def certified(p: np.ndarray) -> float | None:
    return certify_threshold(p, GRID, ALPHA, DELTA).threshold


def plug_in(p: np.ndarray) -> float | None:
    """Broken: the empirical rate itself is held to the target."""
    return float(GRID[np.searchsorted(np.searchsorted(np.sort(p), GRID), ALPHA * len(p), side="right") - 1])


def in_expectation(p: np.ndarray) -> float | None:
    """Broken for this promise: conformal risk control holds the mean over draws, not each draw."""
    passed = np.searchsorted(np.searchsorted(np.sort(p), GRID), ALPHA * (len(p) + 1) - 1, side="right")
    return float(GRID[passed - 1]) if passed else None


@pytest.mark.parametrize("n", [100, 149, 250, 400, 1000])
def test_the_promise_holds(n: int) -> None:
    assert violations(certified, n=n) <= limit(DRAWS)


def test_the_promise_is_not_kept_by_timidity() -> None:
    # With 400 positives 3 misses are allowed, and P(at most 3 of 400 at 2 %) = 4.2 %.
    assert violations(certified, n=400) == pytest.approx(0.042, abs=3 * np.sqrt(0.042 * 0.958 / DRAWS))


@pytest.mark.parametrize("broken", [plug_in, in_expectation])
def test_broken_rules_are_caught(broken: Rule) -> None:
    assert violations(broken, n=400) > limit(DRAWS) + 0.1


def test_the_upper_threshold_mirrors_the_lower_one() -> None:
    rng = np.random.default_rng(1)
    exceeded = 0
    for u in rng.normal(-MU, 1.0, (DRAWS, 300)):
        t = certify_threshold(sigmoid(u), GRID, ALPHA, DELTA, side="above").threshold
        exceeded += t is not None and float(ndtr(-MU - logit(np.array(t)))) > ALPHA
    assert 0.005 < exceeded / DRAWS <= limit(DRAWS)


@pytest.mark.parametrize(("unit", "holds"), [("image", False), ("group", True)])
def test_repeated_frames_break_the_promise_on_images_and_not_the_one_on_groups(unit: str, holds: bool) -> None:
    draws, frames = 1000, 4
    groups = np.repeat([f"g{i}" for i in range(200)], frames)
    ones = np.ones(len(groups), dtype=int)
    template = CalibData.from_arrays(ones, np.zeros(len(groups)), groups=groups)

    def rule(p: np.ndarray) -> float | None:
        scores = unit_scores(template, np.repeat(p, frames), label=1, unit=unit)  # type: ignore[arg-type]
        return certified(scores)

    assert (violations(rule, n=200, draws=draws) <= limit(draws)) is holds


def halves(rng: np.random.Generator, n: int) -> tuple[CalibData, CalibData]:
    y = (rng.random(n) < 0.5).astype(int)
    data = CalibData.from_arrays(y, np.where(y == 1, MU, -MU) + rng.normal(size=n))
    return data.take(np.arange(n) < n // 2), data.take(np.arange(n) >= n // 2)


@pytest.mark.parametrize("calibrator", ["platt", "isotonic"])
def test_end_to_end_with_the_calibrator_fitted_on_the_other_half(calibrator: str) -> None:
    draws, rng, exceeded, decided = 350, np.random.default_rng(5), 0, 0
    at = np.linspace(-8, 8, 16001)
    for _ in range(draws):
        first, second = halves(rng, 1000)
        fitted = create_calibrator(calibrator).fit(first)
        policy = fit_policy(create("threshold", target_fpr=0.3), fitted, second, calibration=first)
        assert isinstance(policy, ThresholdPolicy)
        if policy.guarantees[0].status != "certified":
            continue
        # The map is monotone, so what is answered no_roadwork lies below one cut in log-odds.
        assert policy.low is not None
        cut = at[int(np.searchsorted(fitted(at), policy.low.threshold))]
        exceeded += float(ndtr(cut - 0.001 - MU)) > ALPHA
        decided += 1
    assert decided > 0.9 * draws
    assert exceeded / draws <= limit(draws)
