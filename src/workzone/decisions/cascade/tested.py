"""What became of the operating points of a cascade: tested one by one, raised together, and stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from workzone.calibration.base import read_float
from workzone.decisions.risk import GRID
from workzone.errors import BundleError
from workzone.predictions import FloatArray

PointStatus = Literal["certified", "uncertified", "withheld"]
_ROW = ("status", "t_low", "errors", "bound", "needed")


@dataclass(frozen=True, slots=True)
class Tested:
    """Result of one operating point.

    Attributes:
        status: certified, uncertified (decides and says so), or withheld (never answers no_roadwork).
        threshold: an image is answered no_roadwork below it; None where withheld.
        errors: misses among the certification units, at ``threshold`` where certified, else at the one that was tested.
        bound: Clopper-Pearson upper bound of the rate for these errors.
        needed: units with which as many errors would certify.
    """

    status: PointStatus
    threshold: float | None
    errors: int
    bound: float
    needed: int

    def to_dict(self) -> dict[str, Any]:
        """The row of a stored policy."""
        values = (self.status, self.threshold, self.errors, self.bound, self.needed)
        return dict(zip(_ROW, values, strict=True))


def climbed(answers: Sequence[FloatArray], starts: Sequence[float], allowed: int) -> list[float]:
    """Highest threshold of each point that is certified when all have passed their starts and rise together.

    ``answers`` are the scores (N,) of the certification units by point. The sequence goes up the grid, and at each of
    its values from the dearest point to the cheapest; it ends with the first test that fails.
    """
    higher = GRID[min(starts) < GRID]
    below = np.stack([np.searchsorted(np.sort(scores), higher, side="left") for scores in answers], axis=1)
    # What lies under its start has passed already, and fewer misses cannot fail.
    failed = (below > allowed) & (higher[:, None] > np.asarray(starts))
    steps = failed.ravel()
    passed = int(np.argmax(steps)) if steps.any() else len(steps)
    row, column = divmod(passed, len(answers))
    tops = []
    for point, start in enumerate(starts):
        last = row - (point >= column)
        tops.append(max(start, float(higher[last])) if last >= 0 else start)
    return tops


def read_tested(
    stored: object, *, points: int, n: int, most_t_low: float, target_fnr: float
) -> tuple[Tested, ...]:
    """Rows of a stored policy.

    Args:
        stored: what ``Tested.to_dict`` gave for each point.
        points: operating points of the plan.
        n: certification units.
        most_t_low: no threshold is above it.
        target_fnr: no certified bound is above it.

    Raises:
        BundleError: a row is missing, unknown, or contradicts another.
    """
    if not isinstance(stored, list) or len(stored) != points:
        raise BundleError("the stored policy lacks the result of an operating point")
    results = []
    for row in stored:
        if not isinstance(row, Mapping) or set(row) != set(_ROW):
            raise BundleError(f"the result of an operating point must hold exactly {', '.join(_ROW)}")
        status: PointStatus | None = next((s for s in get_args(PointStatus) if s == row["status"]), None)
        if status is None or (row["t_low"] is None) != (status == "withheld"):
            raise BundleError(f"an operating point has the impossible status {row['status']!r}")
        low = None if row["t_low"] is None else read_float(row, "t_low", low=0.0, high=most_t_low)
        bound, needed = read_float(row, "bound", low=0.0, high=1.0), read_count(row["needed"], "needed", 10**12)
        if (status == "certified") and bound > target_fnr:
            raise BundleError("a stored operating point is certified above its target")
        results.append(Tested(status, low, read_count(row["errors"], "errors", n), bound, needed))
    statuses = [r.status == "certified" for r in results]
    if statuses != sorted(statuses, reverse=True):
        raise BundleError("a stored operating point is certified behind one that is not")
    return tuple(results)


def read_count(value: object, key: str, most: int) -> int:
    """``value`` as a whole number in [0, most]; raises BundleError naming ``key``."""
    if type(value) is not int or not 0 <= value <= most:
        raise BundleError(f"stored parameter {key!r} is {value!r}, expected a whole number in [0, {most}]")
    return value
