"""The order of finer tiles that each image has for itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from workzone.calibration import create
from workzone.config.views import ViewSpec
from workzone.decisions.cascade import Band, Plan, Point, focus_order
from workzone.decisions.cascade.focus import overlaps
from workzone.errors import BundleError
from workzone.pipeline.cascade import auto_stages, first_grid
from workzone.vision import boxes

SPEC = ViewSpec(rows=2, cols=2, pyramid=((4, 4),), overlap=0.0)
BOXES = boxes(SPEC, 640, 360)
NONE = create("none")
FIRST, REST = np.arange(5), np.arange(5, 21)


def plan(**more: object) -> Plan:
    return Plan(tuple(range(21)), (3, 5, 8, 21), (NONE,) * 3, (Point((Band(),) * 3, 1.0),), **more)  # type: ignore[arg-type]


def test_shared_areas() -> None:
    found = overlaps(BOXES[[5, 20, 0]], BOXES[[1, 4, 0]])
    np.testing.assert_allclose(found, [[1 / 16, 0, 1 / 16], [0, 1 / 16, 1 / 16], [1 / 4, 1 / 4, 1]], atol=1e-6)


@pytest.mark.parametrize("corner", range(4))
def test_the_tiles_under_the_most_suspicious_view_come_first(corner: int) -> None:
    said = np.full((1, 5), -3.0)
    said[0, 1 + corner] = 1.0
    order = focus_order(BOXES, FIRST, said, REST)[0]
    assert sorted(order) == REST.tolist()
    row, col = divmod(corner, 2)
    under = {5 + 4 * r + c for r in (2 * row, 2 * row + 1) for c in (2 * col, 2 * col + 1)}
    assert set(order[:4].tolist()) == under
    assert order[:4].tolist() == sorted(under), "equal ones by number"


def test_the_whole_picture_says_nothing_of_places() -> None:
    said = np.zeros((2, 5))
    said[1, 0] = 9.0
    np.testing.assert_array_equal(*focus_order(BOXES, FIRST, said, REST))


def test_every_image_has_its_own_order_whatever_is_beside_it() -> None:
    said = np.random.default_rng(0).normal(size=(7, 5))
    every = focus_order(BOXES, FIRST, said, REST)
    assert len({tuple(row) for row in every.tolist()}) > 1
    for row, alone in zip(every, said, strict=True):
        np.testing.assert_array_equal(focus_order(BOXES, FIRST, alone[None], REST)[0], row)


def test_views_over_which_nothing_was_looked_at_come_last() -> None:
    order = focus_order(BOXES, np.array([0, 1]), np.array([[0.0, -50.0]]), np.arange(2, 21))[0]
    assert set(order[:4].tolist()) == {5, 6, 9, 10}


def test_a_plan_with_a_focus_is_stored_and_read() -> None:
    made = plan(focus=5)
    assert Plan.from_dict(made.to_dict()).to_dict() == made.to_dict()
    assert "focus" not in plan().to_dict(), "plans without one are stored as before there was one"
    for wrong in (4, 21, -5):
        with pytest.raises(ValueError, match="order of its own"):
            replace(made, focus=wrong)
    for wrong in (0, 4, True, "5", None):
        with pytest.raises(BundleError):
            Plan.from_dict(made.to_dict() | {"focus": wrong})


def test_stages_by_themselves_with_a_focus() -> None:
    assert auto_stages(35, 10) == (10, 12, 35)
    assert auto_stages(21, 5) == (5, 6, 21)
    assert auto_stages(14, 5) == (2, 5, 6, 14)
    assert first_grid(SPEC) == 5
    assert first_grid(ViewSpec(pyramid=((5, 5),), scales=(1.0, 1.5))) == 11
    assert first_grid(ViewSpec()) == 0
    assert first_grid(ViewSpec(pyramid=((5, 5),), flip=True)) == 0
