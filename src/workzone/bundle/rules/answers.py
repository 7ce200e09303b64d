"""Where a fitted calibrator and policy change their answer, in calibrated probability and in log-odds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workzone.calibration import Calibrator
from workzone.decisions import Policy
from workzone.decisions.types import NAMES
from workzone.predictions import FloatArray

Span = tuple[float | None, float | None]
"""From where to where; None stands for no limit."""
_P_GRID = np.linspace(0.0, 1.0, 4097)
_U_GRID = np.concatenate([[-1e4], np.linspace(-40.0, 40.0, 16001), [1e4]])


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of a policy.

    Attributes:
        name: roadwork, no_roadwork or abstain.
        probability: calibrated probabilities that get it.
        log_odds: log-odds that get it, before calibration; None where no score does, or where they depend on more.
    """

    name: str
    probability: Span
    log_odds: Span | None


def answers(calibrator: Calibrator, policy: Policy) -> list[Answer] | None:
    """The answers of ``policy`` by rising probability; None where they depend on more than the score.

    Where the calibrator reads metadata, or the answers by log-odds come in another order than those by probability,
    ``log_odds`` is None throughout.
    """
    if policy.needs:
        return None
    by_p = _spans(lambda p: policy.decide(p).codes, _P_GRID)
    by_u: list[tuple[int, Span]] = []
    if not calibrator.needs:
        by_u = _spans(lambda u: policy.decide(calibrator(u)).codes, _U_GRID)
    rank = {code: i for i, (code, _) in enumerate(by_p)}
    order = [rank.get(code, -1) for code, _ in by_u]
    plain = len(rank) == len(by_p) and all(a < b for a, b in pairwise(order))
    found = dict(by_u) if plain else {}
    return [Answer(NAMES[code], span, found.get(code)) for code, span in by_p]


def _spans(codes_of: Callable[[FloatArray], NDArray[np.int8]], grid: FloatArray) -> list[tuple[int, Span]]:
    """Codes by rising argument, each with where it begins and ends; the limits are exact to the last digit."""
    codes = codes_of(grid).tolist()
    found: list[tuple[int, float | None]] = [(codes[0], None)]
    for i in range(len(grid) - 1):
        low, high = float(grid[i]), float(grid[i + 1])
        while found[-1][0] != codes[i + 1]:
            low, code = _change(codes_of, found[-1][0], low, high)
            found.append((code, low))
    ends: list[Any] = [start for _, start in found[1:]] + [None]
    return [(code, (start, end)) for (code, start), end in zip(found, ends, strict=True)]


def _change(
    codes_of: Callable[[FloatArray], NDArray[np.int8]], code: int, low: float, high: float
) -> tuple[float, int]:
    """The first argument after ``low`` that does not get ``code``, and what it gets; ``high`` does not get it."""
    while low < (middle := 0.5 * (low + high)) < high:
        low, high = (middle, high) if int(codes_of(np.array([middle]))[0]) == code else (low, middle)
    return high, int(codes_of(np.array([high]))[0])
