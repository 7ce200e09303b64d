from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from workzone.calibration import CALIBRATORS, create
from workzone.calibration.folds import group_folds
from workzone.calibration.select import select
from workzone.data.roles import CalibData, TrainData
from workzone.errors import ConfigError, DataError, LeakageError
from workzone.predictions import sigmoid

SMOOTH = ("none", "temperature", "platt", "beta", "isotonic")


def sample(n: int, *, slope: float, shift: float, seed: int, per_group: int = 1) -> CalibData:
    rng = np.random.default_rng(seed)
    u = rng.normal(0, 3, n)
    y = (rng.random(n) < sigmoid(slope * u + shift)).astype(int)
    return CalibData.from_arrays(y, u, groups=[f"g{i // per_group}" for i in range(n)])


def test_folds_keep_groups_whole_and_classes_even() -> None:
    data = sample(600, slope=1.0, shift=-1.0, seed=0, per_group=7)
    fold_of = group_folds(data.labels, data.groups, 5, np.random.default_rng(0))
    for group in np.unique(data.groups):
        assert len(np.unique(fold_of[data.groups == group])) == 1
    sizes = np.bincount(fold_of)
    rates = np.bincount(fold_of, weights=data.labels) / sizes
    assert sizes.min() > 90
    assert rates.max() - rates.min() < 0.08


def test_folds_spread_a_rare_class() -> None:
    labels = np.zeros(100, dtype=np.int64)
    labels[:10] = 1
    fold_of = group_folds(labels, np.arange(100).astype(str), 5, np.random.default_rng(3))
    assert np.bincount(fold_of, weights=labels).tolist() == [2.0] * 5


@pytest.mark.parametrize(
    ("slope", "shift", "expected"), [(1.0, 0.0, "none"), (0.4, 0.0, "temperature"), (0.5, -1.5, "platt")]
)
def test_the_simplest_sufficient_calibrator_is_chosen(slope: float, shift: float, expected: str) -> None:
    wins = sum(
        select(sample(716, slope=slope, shift=shift, seed=s), SMOOTH, seed=s).best.name == expected for s in range(10)
    )
    assert wins >= 7


def test_the_best_is_fitted_on_all_images_and_the_choice_is_repeatable() -> None:
    data = sample(400, slope=0.5, shift=-1.0, seed=1, per_group=2)
    first, second = (select(data, ["temperature", "platt"], seed=5) for _ in range(2))
    assert first.table == second.table
    assert first.best.to_dict() == create(first.best.name).fit(data).to_dict()


def test_rows_report_every_candidate_in_order() -> None:
    data = sample(300, slope=0.6, shift=0.0, seed=2)
    hours = {"hour_band": np.repeat(["day", "night"], 150), "source": np.full(300, "a")}
    result = select(replace(data, columns=hours), list(CALIBRATORS), folds=3, repeats=1, seed=0)
    assert [row.name for row in result.table] == list(CALIBRATORS)
    for row in result.table:
        assert row.cv_nll is not None
        assert row.se is not None
        assert 0 < row.se < row.cv_nll
        assert row.brier is not None
        assert 0 < row.brier < 0.25
        assert row.ece is not None
        json.dumps(row.to_dict(), allow_nan=False)
    assert sum("chosen:" in row.reason for row in result.table) == 1


def test_a_calibrator_by_slice_needs_its_column() -> None:
    rows = select(sample(300, slope=0.6, shift=0.0, seed=2), ["temperature", "per_slice"], seed=0).table
    assert [row.eligible for row in rows] == [True, False]
    assert "hour_band" in rows[1].reason


def test_isotonic_needs_a_thousand_images_unless_it_is_alone() -> None:
    small = sample(300, slope=1.0, shift=0.0, seed=3)
    row = select(small, ["isotonic", "none"], seed=0).table[0]
    assert not row.eligible
    assert "1000" in row.reason
    assert row.cv_nll is not None
    assert select(small, ["isotonic"], seed=0).best.name == "isotonic"
    assert select(sample(1000, slope=1.0, shift=0.0, seed=3), ["isotonic", "none"], seed=0).table[0].eligible


def separated(n_positive: int, *, groups: int) -> CalibData:
    """Scores that happen to be separated, as few scores of a good detector often are."""
    y = np.repeat([1, 0], [n_positive, 4 * n_positive])
    u = np.where(y == 1, 1.0, -1.0) + np.random.default_rng(0).uniform(-0.9, 0.9, len(y))
    return CalibData.from_arrays(y, u, groups=[f"g{label}{i % groups}" for i, label in enumerate(y)])


def test_a_chance_separation_of_few_scores_is_not_taken_for_certainty() -> None:
    few = select(separated(15, groups=15), ["temperature", "platt", "beta"], seed=0)
    assert few.best.name == "platt"
    assert 0.5 < float(few.best(np.array([1.0]))[0]) < 0.99
    assert [row.eligible for row in few.table] == [False, True, False]
    assert "30 groups" in few.table[0].reason
    assert few.table[0].cv_nll is not None
    # As many images in few groups are no more evidence; in many groups they are.
    assert select(separated(60, groups=15), ["temperature", "platt"], seed=0).best.name == "platt"
    assert select(separated(60, groups=60), ["temperature", "platt"], seed=0).table[0].eligible
    alone = select(separated(15, groups=15), ["temperature"], seed=0)
    assert alone.best.name == "temperature"
    assert alone.table[0].cv_nll is not None


def test_standard_error_counts_groups_not_images() -> None:
    data = sample(200, slope=1.0, shift=0.0, seed=4)
    four = np.repeat(np.arange(200), 4)
    copies = CalibData.from_arrays(data.labels[four], data.scores[four], groups=four.astype(str))
    alone = select(data, ["none"], seed=0).table[0]
    repeated = select(copies, ["none"], seed=0).table[0]
    assert repeated.se == pytest.approx(alone.se, rel=1e-9)


def test_without_comparison_the_simplest_is_taken_and_says_why() -> None:
    data = CalibData.from_arrays([1, 0, 0, 0, 0, 0], np.arange(6.0))
    chosen = select(data, ["beta", "temperature"], folds=3, seed=0)
    assert (chosen.best.name, chosen.folds) == ("temperature", 0)
    reasons = {row.name: row.reason for row in chosen.table}
    assert "chosen without comparison" in reasons["temperature"]
    assert "needs both classes" in reasons["beta"]
    # Platt's targets hold the fit back, so it is the one to take with so few images.
    assert select(data, ["platt", "temperature"], folds=3, seed=0).best.name == "platt"
    one_group = CalibData.from_arrays([0, 1], [0.0, 1.0], groups=["a", "a"])
    assert "two groups" in select(one_group, ["none"], seed=0).table[0].reason


def test_one_class_cannot_be_calibrated() -> None:
    with pytest.raises(DataError, match="needs both classes"):
        select(CalibData.from_arrays([0, 0, 0], [0.0, 1.0, 2.0]), ["temperature"], folds=2, seed=0)


def test_fewer_groups_than_folds() -> None:
    data = sample(90, slope=1.0, shift=0.0, seed=6, per_group=30)
    assert select(data, ["temperature"], seed=0).folds == 3


def test_wrong_roles_and_names() -> None:
    with pytest.raises(LeakageError):
        select(TrainData.from_arrays([0, 1], [0.0, 1.0]), ["none"], seed=0)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        select(sample(50, slope=1, shift=0, seed=0), ["nothing"], seed=0)
