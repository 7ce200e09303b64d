from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest

from workzone.monitoring.daily import DriftSettings, benjamini_hochberg, judge, signals, standing
from workzone.monitoring.table import Log

FIRST = date(2026, 5, 1)


def log_of(shifts: list[float | None], n: int = 150, seed: int = 0, embedding: float | None = None) -> Log:
    """One day each; None is a day with ten images."""
    rng = np.random.default_rng(seed)
    p, stamps = [], []
    for k, shift in enumerate(shifts):
        size = 10 if shift is None else n
        p.append(1 / (1 + np.exp(-rng.normal(shift or 0.0, 1.5, size))))
        stamps += [np.datetime64(FIRST + timedelta(days=k), "s")] * size
    flat = np.concatenate(p)
    e = None if embedding is None else rng.normal(size=(len(flat), 4)) + embedding
    codes = np.where(flat > 0.8, 1, np.where(flat < 0.1, 0, -1))
    return Log(np.arange(len(flat)).astype(str), np.array(stamps), flat, codes, {}, e)


def judged(shifts: list[float | None], **changes: Any) -> list[Any]:
    reference = log_of([0.0], n=700, seed=99)
    today = FIRST + timedelta(days=len(shifts))
    return judge(log_of(shifts), reference, DriftSettings(**changes), today=today, days=len(shifts) + 1)[:-1]


@pytest.mark.parity
def test_benjamini_hochberg_is_scipys() -> None:
    from scipy.stats import false_discovery_control

    p = np.random.default_rng(0).random(30) ** 3
    np.testing.assert_allclose(benjamini_hochberg(p.tolist()), false_discovery_control(p))
    assert benjamini_hochberg([]).shape == (0,)


def test_one_day_off_is_no_alarm_and_two_are() -> None:
    days = judged([0.0] * 7 + [1.5, 0.0, 1.5, 1.5])
    assert "probability" in days[7].off
    assert [("probability" in d.alarms) for d in days] == [False] * 10 + [True]


def test_one_odd_day_is_no_sliding_reference() -> None:
    days = judged([2.0, 0.0, 0.0, 0.0])
    assert [any(t.reference == "sliding" for t in d.tests) for d in days] == [False, False, False, True]
    assert any("sliding reference" in note for note in days[2].notes)


def test_a_rule_of_three_days_waits_for_the_third() -> None:
    days = judged([0.0, 2.0, 2.0, 2.0], in_a_row=3)
    assert ["probability" in d.alarms for d in days] == [False, False, False, True]


def test_a_day_with_few_images_neither_counts_nor_ends_a_row() -> None:
    days = judged([0.0, 2.0, None, 2.0])
    assert days[2].verdict == "not enough images"
    assert not days[2].tests
    assert "probability" in days[3].alarms


def test_slow_drift_is_hidden_from_the_sliding_reference_and_seen_by_the_frozen_one() -> None:
    days = judged([0.06 * k for k in range(16)])
    last = {r for t in days[-1].tests if t.off for r in [t.reference]}
    assert "frozen" in last
    frozen = min(t.p for t in days[-1].tests if t.reference == "frozen")
    assert frozen < min(t.p for t in days[-1].tests if t.reference == "sliding")


def test_the_day_that_is_not_finished_raises_no_alarm() -> None:
    log = log_of([0.0, 2.0, 2.0])
    days = judge(log, log_of([0.0], n=700, seed=9), DriftSettings(), today=FIRST + timedelta(days=2), days=3)
    assert days[-1].verdict == "not finished"
    assert days[-1].off
    assert not days[-1].alarms
    assert standing(days)[0] == days[-2]


def test_all_tests_of_a_day_are_corrected_together() -> None:
    day = judged([0.0] * 4)[-1]
    np.testing.assert_allclose([t.adjusted for t in day.tests], benjamini_hochberg([t.p for t in day.tests]))
    assert {t.reference for t in day.tests} == {"frozen", "sliding"}


def test_trifles_can_be_left_out() -> None:
    assert "probability" in judged([0.0, 1.5])[1].off
    assert not judged([0.0, 1.5], least=dict.fromkeys(("psi", "ks", "chi_square"), 9.0))[1].off


def test_what_only_one_side_holds_is_said() -> None:
    log = log_of([0.0] * 4, embedding=0.0)
    days = judge(log, log_of([0.0], n=700), DriftSettings(), today=FIRST + timedelta(days=4), days=5)
    assert any("embeddings: not tested" in note for note in days[0].notes)
    assert "embeddings" not in {t.signal for t in days[0].tests if t.reference == "frozen"}
    assert "embeddings" in {t.signal for t in days[3].tests if t.reference == "sliding"}


def test_a_camera_that_changes_is_seen_in_the_embeddings_alone() -> None:
    reference, log = log_of([0.0], n=400, seed=5, embedding=0.0), log_of([0.0, 0.0], embedding=0.5)
    days = judge(log, reference, DriftSettings(), today=FIRST + timedelta(days=2), days=3)
    assert standing(days)[1] == ("embeddings",)


def test_entropy_is_not_tested_twice() -> None:
    log = log_of([0.0])
    measures = {"entropy": log.probability, "view_spread": log.probability}
    with_measures = Log(log.ids, log.time, log.probability, log.codes, measures)
    assert set(signals(with_measures)) == {"probability", "confidence", "decision", "uncertainty view_spread"}
