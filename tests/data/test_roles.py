from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workzone.data.roles import (
    ROLE_TYPES,
    CalibData,
    Role,
    RoleData,
    SelectData,
    TestData,
    TrainData,
    require_calib,
)
from workzone.errors import DataError, LeakageError
from workzone.predictions import Predictions


def calib(n: int, *, per_group: int, prevalence: float, seed: int) -> CalibData:
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < prevalence).astype(int)
    return CalibData.from_arrays(labels, rng.normal(size=n), groups=[f"g{i // per_group}" for i in range(n)])


def test_every_role_has_its_own_type() -> None:
    assert set(ROLE_TYPES) == set(Role)
    assert len(set(ROLE_TYPES.values())) == 4
    assert all(cls.role is role for role, cls in ROLE_TYPES.items())


@pytest.mark.parametrize("other", [TrainData, SelectData, TestData])
def test_only_calibration_data_pass_for_calibration_data(other: type[RoleData]) -> None:
    data = other.from_arrays([0, 1], [0.0, 1.0])
    with pytest.raises(LeakageError, match=f"role {other.role}"):
        require_calib(data, user="the test")
    with pytest.raises(LeakageError, match="ndarray"):
        require_calib(np.zeros(3), user="the test")


@settings(max_examples=30, deadline=None)
@given(st.integers(8, 200), st.integers(1, 7), st.floats(0.2, 0.8), st.integers(0, 99))
def test_parts_are_disjoint_by_group_and_complete(n: int, per_group: int, prevalence: float, seed: int) -> None:
    data = calib(n, per_group=per_group, prevalence=prevalence, seed=seed)
    first, second = data.disjoint_parts(0.5, seed=seed)
    assert not set(first.groups) & set(second.groups)
    assert sorted([*first.ids, *second.ids]) == sorted(data.ids)


def test_parts_share_images_and_groups_of_both_classes() -> None:
    data = calib(400, per_group=1, prevalence=0.25, seed=0)
    first, _second = data.disjoint_parts(0.3, seed=0)
    assert len(first) == pytest.approx(120, abs=2)
    assert first.n_positive == pytest.approx(0.3 * data.n_positive, abs=2)
    again, _ = data.disjoint_parts(0.3, seed=0)
    assert again.fingerprint == first.fingerprint
    other, _ = data.disjoint_parts(0.3, seed=1)
    assert other.fingerprint != first.fingerprint


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=12), st.floats(0.05, 0.95))
def test_both_parts_have_each_class_that_two_groups_have(groups: list[tuple[int, int]], fraction: float) -> None:
    sizes = [(p, n) for p, n in groups if p + n]
    labels = np.concatenate([np.repeat([1, 0], pair) for pair in sizes] or [np.zeros(0)]).astype(int)
    names = np.repeat([f"g{i}" for i in range(len(sizes))], [p + n for p, n in sizes])
    data = CalibData.from_arrays(labels, np.zeros(len(labels)), groups=names)
    first, second = data.disjoint_parts(fraction, seed=0)
    for label in (0, 1):
        holders = len(np.unique(names[labels == label]))
        assert not holders or (first.labels == label).any()
        if holders > 1 and not any(p and n for p, n in sizes):
            assert (second.labels == label).any()


def test_parts_of_long_and_short_sequences_are_alike() -> None:
    """Counts of a real collection: half of the roadwork images come from four sequences."""
    positives, negatives = [13, 10, 10, 9, *[1] * 21], [75, 13, 7, 2, *[1] * 150]
    labels = np.r_[np.ones(sum(positives)), np.zeros(sum(negatives))].astype(int)
    sizes = [*positives, *negatives]
    names = np.repeat([f"g{i}" for i in range(len(sizes))], sizes)
    parts = CalibData.from_arrays(labels, np.zeros(len(labels)), groups=names).disjoint_parts(0.5, seed=0)
    assert sorted(part.n_positive for part in parts) == [31, 32]
    assert sorted(len(np.unique(part.groups[part.labels == 1])) for part in parts) == [12, 13]


def test_a_part_is_not_made_of_one_long_sequence() -> None:
    """One sequence with half of the roadwork must not be the whole of a part."""
    labels = np.r_[np.ones(20), np.zeros(40), np.tile([1, 0], 20)].astype(int)
    groups = np.r_[np.repeat("long", 60), [f"single{i}" for i in range(40)]]
    data = CalibData.from_arrays(labels, np.zeros(100), groups=groups)
    for part in data.disjoint_parts(0.5, seed=0):
        assert len(np.unique(part.groups)) >= 8
        assert 0 < part.n_positive < len(part)


def test_scores_are_attached_by_id() -> None:
    data = CalibData.from_arrays([0, 1, 1], [0.0, 0.0, 0.0], ids=["a", "b", "c"])
    scores = Predictions(ids=np.array(["c", "x", "a", "b"]), log_odds=np.array([3.0, 9.0, 1.0, 2.0]))
    assert data.with_scores(scores).scores.tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(DataError, match="1 images of role val_calib were not scored"):
        data.with_scores(scores.take([0, 1, 2]))


def test_fingerprint_ignores_order_but_not_labels() -> None:
    data = CalibData.from_arrays([0, 1, 1], [0.0, 1.0, 2.0])
    assert data.take(np.array([2, 0, 1])).fingerprint == data.fingerprint
    assert CalibData.from_arrays([1, 1, 1], [0.0, 1.0, 2.0]).fingerprint != data.fingerprint


def test_labels_outside_the_contract_are_refused() -> None:
    with pytest.raises(DataError, match="labels must be 0"):
        CalibData.from_arrays([0, 2], [0.0, 1.0])
