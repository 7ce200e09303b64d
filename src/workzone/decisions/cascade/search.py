"""The path of operating points of a cascade, from all views for every image to one view for every image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from workzone.calibration import Calibrator
from workzone.data.roles import CalibData
from workzone.decisions.cascade.chain import Model
from workzone.decisions.cascade.plan import Band, Plan, Point
from workzone.decisions.certificate import Unit
from workzone.decisions.policies.base import best_threshold
from workzone.decisions.policies.exits import unit_scores
from workzone.decisions.risk import GRID, allowed_errors
from workzone.predictions import FloatArray, IntArray

POINTS = 12
_PRICES: FloatArray = np.geomspace(1e-3, 1e3, 241)
"""Divergence that a look at all views must save to be worth its price, over the mean divergence of the first look."""
_ROUNDS = 5
_EPS = 1e-6


def fit_plan(
    order: Sequence[int],
    stages: Sequence[int],
    calibrators: Sequence[Calibrator],
    probability: FloatArray,
    *,
    start: Callable[[FloatArray], float],
    points: int = POINTS,
    models: Sequence[Model] = (),
    mean: bool = False,
    focus: int = 0,
) -> Plan:
    """The path of points that stay nearest to the full model for what they cost.

    The loss of stopping an image at a stage is the Kullback-Leibler divergence of the full model's answer from that
    stage's, so that the probabilities, and with them the ranking, stay where they were; labels are not read. At a price
    for each further view, a stage should pass on the band of probabilities in which going on saves more divergence than
    it costs: the interval with the largest sum of gains over the images that reach the stage, which is found exactly
    (Bentley 1984, the maximum subarray), stage by stage until nothing changes. The price rises along the path, and each
    band is searched inside the one before it, so the points are nested and their cost falls.

    Args:
        order: see ``Plan``.
        stages: see ``Plan``.
        calibrators: see ``Plan``.
        probability: (N, S) calibrated probabilities of N images after each stage.
        start: the threshold at which a point is to be tested, from the probabilities (N,) that its images stop with;
            see ``starting_threshold``.
        points: most points of the path.
        models: see ``Plan``.
        mean: see ``Plan``.
        focus: see ``Plan``.

    Raises:
        ValueError: shapes that do not fit, no images, or an impossible order.
    """
    p = np.asarray(probability, dtype=np.float64)
    count = len(stages)
    if p.ndim != 2 or p.shape[1] != count or not len(p):
        raise ValueError(f"probability must have shape (N, {count}) with N at least 1, got {p.shape}")
    full = Point((Band(),) * (count - 1), 1.0, start(p[:, -1]))
    plan = Plan(tuple(order), tuple(stages), tuple(calibrators), (full,), tuple(models), mean, focus)
    if count == 1 or points < 2:
        return plan
    cost, loss = plan.shares, divergence(p)
    path = [full]
    for price in (_PRICES * loss[:, 0].mean()).tolist():
        bands = _bands(p, loss + price * cost, path[-1].bands)
        spent = float(plan.stage_costs(bands)[_stop(p, bands)].mean())
        if spent < 1.0 or bands == full.bands:  # several models may cost more than the last one alone
            path.append(Point(bands, min(spent, 1.0)))
    closed = Band(0.5, 0.5)
    path.append(Point((closed,) * (count - 1), float(cost[0])))
    rows = np.arange(len(p))
    kept = _spread(path, points)
    return plan.with_points([replace(point, start=start(p[rows, _stop(p, point.bands)])) for point in kept])


def starting_threshold(data: CalibData, probability: FloatArray, alpha: float, delta: float, unit: Unit) -> float:
    """Threshold below which one operating point may answer no_roadwork and should still pass its test.

    The largest value of the grid with at most half as many misses on ``data`` as as many other images may show and
    still certify ``alpha``; at most the MCC-optimal threshold.

    Args:
        data: the part of ``val_calib`` that is not used for the certificate.
        probability: (N,) calibrated probabilities at the stages where the point stops.
        alpha: promised limit of the false-negative rate.
        delta: probability that the promise fails.
        unit: what is counted as one miss.
    """
    scores = np.sort(unit_scores(data, probability, label=1, unit=unit))
    spare = max(allowed_errors(len(scores), alpha, delta), 0) // 2
    passed = int(np.searchsorted(np.searchsorted(scores, GRID, side="left"), spare, side="right"))
    return min(float(GRID[max(passed - 1, 0)]), best_threshold(data, probability))


def divergence(probability: FloatArray) -> FloatArray:
    """Kullback-Leibler divergence (N, S) in nats of the last column of (N, S) probabilities from each column."""
    p = np.clip(probability, _EPS, 1.0 - _EPS)
    full = p[:, -1:]
    values = full * np.log(full / p) + (1.0 - full) * np.log((1.0 - full) / (1.0 - p))
    return np.asarray(np.maximum(values, 0.0), dtype=np.float64)


def _stop(p: FloatArray, bands: Sequence[Band]) -> IntArray:
    """Index (N,) of the stage where each image stops."""
    stop = np.full(len(p), len(bands), dtype=np.int64)
    for stage in range(len(bands) - 1, -1, -1):
        stop[bands[stage].stops(p[:, stage])] = stage
    return stop


def _bands(p: FloatArray, paid: FloatArray, outer: tuple[Band, ...]) -> tuple[Band, ...]:
    """Bands inside ``outer`` with the smallest sum of ``paid`` (N, S), the loss and price of stopping at each stage."""
    bands = list(outer)
    rows = np.arange(len(p))
    cells = _cells(p)
    for _ in range(_ROUNDS):
        before = list(bands)
        for stage in range(len(bands) - 1, -1, -1):
            reached = _stop(p, bands[:stage]) == stage
            if reached.any():
                onward = stage + 1 + _stop(p[:, stage + 1 :], bands[stage + 1 :])
                gain = paid[:, stage] - paid[rows, onward]
                bands[stage] = _best(cells[reached, stage], gain[reached], outer[stage])
        if bands == before:
            break
    return tuple(bands)


def _cells(p: FloatArray) -> FloatArray:
    """(N, S) probabilities, each replaced by the median of its cell, so that no band is drawn around one image.

    A cell holds neighbours by rank; there are ``2 sqrt(N)`` of them, with ``sqrt(N) / 2`` images each.
    """
    count = int(np.clip(2.0 * np.sqrt(len(p)), 1, len(p)))
    out = np.empty_like(p)
    for column, values in enumerate(p.T):
        for rows in np.array_split(np.argsort(values, kind="stable"), count):
            out[rows, column] = np.median(values[rows])
    return out


def _best(q: FloatArray, gain: FloatArray, outer: Band) -> Band:
    """Band inside ``outer`` with the largest sum of ``gain`` (N,) over images with probabilities ``q`` (N,)."""
    values, inverse = np.unique(q, return_inverse=True)
    sums = np.bincount(inverse, weights=gain, minlength=len(values))
    open_ = np.flatnonzero(~outer.stops(values))
    if not len(open_):
        return outer
    inner = sums[open_]
    total = np.r_[0.0, np.cumsum(inner)]
    lowest = np.minimum.accumulate(total[:-1])
    end = int(np.argmax(total[1:] - lowest))
    if total[end + 1] - lowest[end] <= 0.0:
        middle = _middle(outer)
        return Band(middle, middle)
    start = int(np.flatnonzero(total[: end + 1] == lowest[end])[-1])
    low, high = open_[start], open_[end]
    # Between two images the limit lies halfway; beyond the last one there is no reason to draw it closer.
    return Band(
        outer.low if start == 0 else float((values[low - 1] + values[low]) / 2),
        outer.high if end == len(inner) - 1 else float((values[high] + values[high + 1]) / 2),
    )


def _middle(band: Band) -> float:
    return ((0.0 if band.low is None else band.low) + (1.0 if band.high is None else band.high)) / 2


def _spread(path: Sequence[Point], points: int) -> list[Point]:
    """About ``points`` points of the path, the first and the last among them, evenly spaced by cost."""
    kept: list[Point] = []
    costs: NDArray[np.float64] = np.array([point.cost for point in path])
    for aim in np.linspace(costs[0], costs[-1], points).tolist():
        point = path[int(np.argmax(costs <= aim + 1e-12))]
        if not kept or point.cost < kept[-1].cost:
            kept.append(point)
    return kept
