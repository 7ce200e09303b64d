from __future__ import annotations

import numpy as np
import pytest

from workzone.metrics.differences import holm, rates
from workzone.metrics.fairness import (
    demographic_parity_difference,
    equal_opportunity_difference,
    equalised_odds_difference,
    fairness_gaps,
)


def _answers(rng: np.random.Generator, y: np.ndarray, fnr: np.ndarray, fpr: float = 0.1) -> np.ndarray:
    u = rng.random(len(y))
    return np.where(y == 1, u >= fnr, u < fpr).astype(int)


def test_gaps_are_differences_of_counted_rates() -> None:
    y = np.array([1] * 10 + [0] * 10 + [1] * 10 + [0] * 10)
    where = np.array(["day"] * 20 + ["night"] * 20)
    decided = np.array([1] * 9 + [0] + [0] * 8 + [1] * 2 + [1] * 6 + [0] * 4 + [0] * 10)
    found = fairness_gaps(y, decided, where)
    assert found["demographic_parity"].value == pytest.approx(11 / 20 - 6 / 20)
    assert found["equal_opportunity"].value == pytest.approx(0.4 - 0.1)
    odds = found["equalised_odds"]
    assert (odds.value, odds.rate, odds.worse, odds.better) == (pytest.approx(0.3), "fnr", "night", "day")
    assert odds.compared == 2
    assert {(r.value, r.rate): (r.events, r.n) for r in odds.rates} == {
        ("day", "fnr"): (1, 10), ("night", "fnr"): (4, 10), ("day", "fpr"): (2, 10), ("night", "fpr"): (0, 10),
    }  # fmt: skip


def test_a_large_gap_exceeds_a_small_one_is_within_and_few_images_cannot_tell() -> None:
    rng = np.random.default_rng(0)
    y, where = np.ones(8000, dtype=int), np.repeat(["day", "night"], 4000)
    same = equal_opportunity_difference(y, _answers(rng, y, np.full(8000, 0.1)), where)
    assert same.verdict == "within"
    apart = equal_opportunity_difference(y, _answers(rng, y, np.where(where == "day", 0.1, 0.3)), where)
    assert apart.verdict == "exceeds"
    assert 0.05 < apart.low < apart.value < apart.high < 0.25
    few = np.r_[0:60, 4000:4060]
    answers = np.ones(120, dtype=int)
    answers[60:66] = 0
    small = equal_opportunity_difference(y[few], answers, where[few])
    assert small.value == pytest.approx(0.1)
    assert small.verdict == "cannot be told"


def test_no_error_at_all_is_not_certainty() -> None:
    y, where = np.ones(24, dtype=int), np.repeat(["day", "night"], 12)
    found = equal_opportunity_difference(y, y, where)
    assert found.value == 0
    assert found.high > 0.1
    assert found.verdict == "cannot be told"


def test_groups_widen_and_values_without_images_of_a_class_are_left_out() -> None:
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(40), 25)
    where = np.where(group < 20, "day", "night")
    missed = (rng.random(40) < 0.4)[group]
    y = np.ones(1000, dtype=int)
    alone = equal_opportunity_difference(y, (~missed).astype(int), where)
    grouped = equal_opportunity_difference(y, (~missed).astype(int), where, groups=group)
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)
    odds = equalised_odds_difference(y, y, where)
    assert odds.verdict == "not defined"
    assert np.isnan(odds.value)
    mixed = np.where(np.arange(1000) % 3 == 0, "dusk", where)
    y2 = np.where(mixed == "dusk", 0, rng.integers(0, 2, 1000))
    assert equal_opportunity_difference(y2, y2, mixed).left_out == ("dusk",)


def test_demographic_parity_follows_the_base_rate_where_equal_opportunity_does_not() -> None:
    rng = np.random.default_rng(2)
    where = np.repeat(["day", "night"], 3000)
    y = (rng.random(6000) < np.where(where == "day", 0.5, 0.1)).astype(int)
    answers = _answers(rng, y, np.full(6000, 0.05), 0.05)
    assert demographic_parity_difference(y, answers, where).verdict == "exceeds"
    assert equal_opportunity_difference(y, answers, where).verdict != "exceeds"


@pytest.mark.parametrize("values", [["a"], ["a", "b", "c"]])
def test_wrong_input_is_refused(values: list[str]) -> None:
    with pytest.raises(ValueError, match="same length"):
        fairness_gaps([0, 1], [0, 1], values)
    with pytest.raises(ValueError, match="unknown measure"):
        fairness_gaps([0, 1], [0, 1], ["a", "b"], measures=("parity",))


def test_holm_by_hand_and_monotone() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]).shape == (0,)
    with pytest.raises(ValueError, match="p-values"):
        holm([1.2])


def test_rates_draw_a_group_that_lies_in_two_parts_together() -> None:
    rng = np.random.default_rng(3)
    group = np.repeat(np.arange(50), 20)
    bad = (rng.random(50) < 0.5)[group]
    part = (np.arange(1000) % 2 == 0)[:, None] == np.array([True, False])
    found = rates(np.stack([bad, bad], axis=1), part, groups=group, n_resamples=300)
    assert np.corrcoef(found.drawn.T)[0, 1] > 0.99


@pytest.mark.stat
def test_equal_rates_rarely_exceed_while_the_point_estimate_often_does() -> None:
    rng = np.random.default_rng(4)
    y, where = np.ones(360, dtype=int), np.repeat(["day", "night"], [300, 60])
    alarms = points = uncovered = 0
    for seed in range(300):
        found = equal_opportunity_difference(y, _answers(rng, y, np.full(360, 0.15)), where, n_resamples=100, seed=seed)
        alarms += found.verdict == "exceeds"
        points += found.value > found.threshold
        uncovered += found.low > 0
    assert alarms <= 6
    assert uncovered <= 25
    assert points >= 75
