"""The same figures on parts of the images: by metadata column or pair of columns, by band of the day, by confidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workzone.errors import ConfigError
from workzone.evaluation.bands import UNKNOWN, confidence_bands, hour_bands
from workzone.evaluation.figures import Draws, Part, label_figures, policy_figures, share
from workzone.evaluation.inputs import Evaluated
from workzone.evaluation.worst import worst_slice
from workzone.metrics import METRICS, Interval, Metric, replicates
from workzone.metrics.fairness import Gap, fairness_gaps
from workzone.predictions import StrArray

MAX_VALUES = 24
PAIR = "*"
FEW = 10
"""Fewer images of a class than this make a slice's rate of that class a rough guess."""

_LABEL_NAMES = ("fnr", "fpr", "balanced_accuracy", "mcc", "auroc")
_GAP = Metric(
    "calibration_gap",
    "calibration",
    (-1, 1),
    None,
    "mean probability minus share of roadwork",
    ("p",),
    lambda rows: rows.mean(rows.sample.p - rows.sample.y),
)
_LABEL_METRICS = {**{name: METRICS[name] for name in _LABEL_NAMES}, "calibration_gap": _GAP}


@dataclass(frozen=True, slots=True)
class Slice:
    """One value of one column.

    Attributes:
        column: metadata column.
        value: its value.
        n: images.
        n_positive: images with roadwork.
        n_groups: groups among them.
        argmax: figures of the labels decided at 0.5.
        policy: coverage, risk, fnr and fpr of the policy.
        note: what limits these figures, or nothing.
    """

    column: str
    value: str
    n: int
    n_positive: int
    n_groups: int
    argmax: dict[str, Interval]
    policy: dict[str, Interval]
    note: str


@dataclass(frozen=True, slots=True)
class Slices:
    """All slices, and what they show together.

    Attributes:
        rows: slices with at least the fewest images, column by column, largest first.
        left_out: column, value and images of those with fewer, or beyond the most values shown.
        not_recorded: columns without any value.
        worst: the slice with the lowest balanced accuracy, or None where no slice can be judged.
        day_night: the gap of missed roadwork between day and night, or why there is none.
        grid: hour band by weather: images and mistakes at 0.5.
        fairness: column and gap of its error rates at 0.5, for each single column with two values or more.
    """

    rows: tuple[Slice, ...]
    left_out: tuple[tuple[str, str, int], ...]
    not_recorded: tuple[str, ...]
    worst: dict[str, Any] | None
    day_night: dict[str, Any]
    grid: dict[str, Any]
    fairness: tuple[tuple[str, Gap], ...] = ()


def column_values(e: Evaluated, column: str) -> StrArray:
    """(N,) values of a metadata or derived column, 'unknown' where not recorded.

    ``a*b`` gives the pairs of two columns, such as 'harbour, night'; unknown where either is.

    Raises:
        ConfigError: a pair without two column names.
    """
    if PAIR in column:
        names = [name.strip() for name in column.split(PAIR)]
        if len(names) != 2 or not all(names):
            raise ConfigError(f"{column!r} is not a pair of columns", where="evaluate.slices", fix="write a*b")
        first, second = (column_values(e, name) for name in names)
        both = np.char.add(np.char.add(first, ", "), second)
        return np.asarray(np.where((first == UNKNOWN) | (second == UNKNOWN), UNKNOWN, both), dtype=np.str_)
    if column == "hour_band":
        return hour_bands(e.predictions)
    if column == "confidence":
        return confidence_bands(e.probability)
    return e.predictions.column(column)


def compute_slices(
    e: Evaluated, columns: Sequence[str], *, draws: Draws, fewest: int, progress: Callable[[str], None]
) -> Slices:
    """Figures of every value of ``columns`` with at least ``fewest`` images."""
    everything = Part(e.labels, e.probability, e.decisions.codes, e.groups)
    rows: list[Slice] = []
    left_out: list[tuple[str, str, int]] = []
    not_recorded: list[str] = []
    masks: dict[tuple[str, str], NDArray[np.bool_]] = {}
    for column in dict.fromkeys(columns):
        values = column_values(e, column)
        names, counts = np.unique(values, return_counts=True)
        if names.tolist() == [UNKNOWN]:
            not_recorded.append(column)
            continue
        progress(f"slices by {column}")
        ordered = sorted(
            zip(names.tolist(), counts.tolist(), strict=True), key=lambda v: (v[0] == UNKNOWN, -v[1], v[0])
        )
        if column == "confidence":
            ordered.sort()
        taken = 0
        for name, count in ordered:
            if count < fewest or taken >= MAX_VALUES:
                left_out.append((column, name, count))
                continue
            taken += 1
            masks[column, name] = values == name
            rows.append(_slice(column, name, everything.take(values == name), draws))
    return Slices(
        tuple(rows),
        tuple(left_out),
        tuple(not_recorded),
        worst_slice(rows, masks, everything, draws),
        day_night_gap(everything, hour_bands(e.predictions), draws),
        _grid(e),
        _fairness(e, masks, everything, draws),
    )


def _slice(column: str, value: str, part: Part, draws: Draws) -> Slice:
    n, n_positive = len(part), part.n_positive
    if n_positive == 0:
        note = "no roadwork images: nothing can be said about missed roadwork"
    elif n_positive == n:
        note = "only roadwork images: nothing can be said about false alarms"
    elif min(n_positive, n - n_positive) < FEW:
        rare = f"{n_positive} with roadwork" if n_positive <= n - n_positive else f"{n - n_positive} without"
        note = f"only {rare}: read the interval, not the value"
    else:
        note = ""
    return Slice(
        column,
        value,
        n,
        n_positive,
        part.n_groups,
        label_figures(part, draws, _LABEL_METRICS),
        policy_figures(part, draws, ("coverage", "risk", "fnr", "fpr")),
        note,
    )


def _fairness(
    e: Evaluated, masks: dict[tuple[str, str], NDArray[np.bool_]], everything: Part, draws: Draws
) -> tuple[tuple[str, Gap], ...]:
    """Gaps over each single column with two values or more; images of unknown value are left out."""
    found: list[tuple[str, Gap]] = []
    for column in dict.fromkeys(c for c, _ in masks):
        names = [v for c, v in masks if c == column and v != UNKNOWN]
        if column == "confidence" or PAIR in column or len(names) < 2:
            continue
        values = column_values(e, column)
        known = np.isin(values, names)
        part = everything.take(known)
        gaps = fairness_gaps(
            part.y,
            (part.p >= 0.5).astype(np.int64),
            values[known],
            groups=draws.units(part.groups),
            level=draws.level,
            n_resamples=draws.resamples,
            seed=draws.seed,
        )
        found += [(column, gap) for gap in gaps.values()]
    return tuple(found)


def day_night_gap(everything: Part, bands: StrArray, draws: Draws) -> dict[str, Any]:
    """Missed roadwork at night minus by day, at 0.5, with the interval of the difference."""
    parts = {name: everything.take((bands == name) & (everything.y == 1)) for name in ("day", "night")}
    counts = {name: len(part) for name, part in parts.items()}
    known = int((bands != UNKNOWN).sum())
    base: dict[str, Any] = {"roadwork_by_day": counts["day"], "roadwork_at_night": counts["night"], "known_hour": known}
    if min(counts.values()) == 0:
        return base | {"verdict": f"not defined: {counts['day']} roadwork images by day, {counts['night']} at night"}
    drawn, rates = {}, {}
    for k, (name, part) in enumerate(parts.items()):
        missed = part.p < 0.5
        rates[name] = share(missed, part, draws, prevalence=1.0)
        drawn[name] = replicates(
            ["accuracy"],
            missed.astype(np.int64),
            np.ones(len(part)),
            np.ones(len(part), dtype=np.int64),
            groups=draws.units(part.groups),
            n_resamples=draws.resamples,
            seed=draws.seed + 101 * k,
        )["accuracy"]
    difference = drawn["night"] - drawn["day"]
    low, high = np.quantile(difference, [(1 - draws.level) / 2, (1 + draws.level) / 2]).tolist()
    if any(rate.value in (0.0, 1.0) for rate in rates.values()):
        # A rate of 0 or 1 does not vary over resamples, so the difference is bounded by the intervals of the two rates.
        low, high = rates["night"].low - rates["day"].high, rates["night"].high - rates["day"].low
    value = rates["night"].value - rates["day"].value
    gap = replace(rates["night"], value=value, low=low, high=high, method="difference", n=sum(counts.values()))
    verdict = "differs" if low > 0 or high < 0 else "cannot be told from chance"
    return base | {"day": rates["day"], "night": rates["night"], "gap": gap, "verdict": verdict}


def _grid(e: Evaluated) -> dict[str, Any]:
    bands, weather = hour_bands(e.predictions), e.predictions.column("weather")
    wrong = e.argmax != e.labels
    rows = [name for name in ("dawn", "day", "dusk", "night") if (bands == name).any()]
    rows += sorted(set(bands.tolist()) - {*rows, UNKNOWN}) + ([UNKNOWN] if (bands == UNKNOWN).any() else [])
    names, counts = np.unique(weather, return_counts=True)
    cols = [
        name
        for name, _ in sorted(zip(names.tolist(), counts.tolist(), strict=True), key=lambda v: (v[0] == UNKNOWN, -v[1]))
    ]
    cells = [[(bands == r) & (weather == c) for c in cols[:MAX_VALUES]] for r in rows]
    return {
        "rows": rows,
        "columns": cols[:MAX_VALUES],
        "n": [[int(cell.sum()) for cell in row] for row in cells],
        "wrong": [[int((cell & wrong).sum()) for cell in row] for row in cells],
    }
