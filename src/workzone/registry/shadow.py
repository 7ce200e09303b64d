"""Shadow: two bundles decided on the same images, nobody knows the labels, and the question is where they differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workzone.errors import DataError
from workzone.monitoring.sqlite import open_log
from workzone.monitoring.table import CODES, Columns, Log, to_log
from workzone.predictions import StrArray

LEVEL = 0.95
_NAMES = {code: name for name, code in CODES.items()}
_MISSING = "(unknown)"
_BANDS = np.array([0.1, 0.3, 0.5, 0.7, 0.9])


@dataclass(frozen=True, slots=True)
class Rate:
    """A share with its exact interval (Clopper & Pearson 1934)."""

    events: int
    n: int
    value: float
    low: float
    high: float
    level: float

    @classmethod
    def of(cls, events: int, n: int, level: float = LEVEL) -> Rate:
        """The share of ``events`` among ``n`` independent images."""
        from workzone.metrics import clopper_pearson

        low, high = clopper_pearson(events, n, level)
        return cls(events, n, events / n if n else float("nan"), float(low), float(high), level)

    def text(self) -> str:
        """For people."""
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}] ({self.events} of {self.n})"


@dataclass(frozen=True, slots=True)
class Slice:
    """Disagreement in one slice; the level is corrected for the number of slices (Bonferroni)."""

    column: str
    value: str
    rate: Rate


@dataclass(frozen=True, slots=True)
class Disagreement:
    """What a shadow run found.

    Attributes:
        n: images that both answered.
        only_a: images of the first table alone.
        only_b: images of the second alone.
        decisions: how often the decisions differ, abstaining included.
        opposite: how often one said roadwork and the other no_roadwork.
        table: images by decision of both, ``"roadwork / abstain"`` being first and second.
        mean_difference: mean of second minus first probability.
        mean_absolute: mean size of it.
        largest: images whose decisions differ, those with the largest difference of probability first.
        slices: disagreement by slice, highest first.
        repeated: rows left out because an image was there before.
    """

    n: int
    only_a: int
    only_b: int
    decisions: Rate
    opposite: Rate
    table: dict[str, int]
    mean_difference: float
    mean_absolute: float
    largest: tuple[dict[str, Any], ...]
    slices: tuple[Slice, ...]
    repeated: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return asdict(self)

    def stop(self, limit: float) -> bool:
        """Whether decisions differ for certain more often than ``limit``: the lower end of the interval lies above."""
        return self.decisions.low > limit


def read(path: Path, role: str = "") -> tuple[Columns, Log]:
    """A table or log of predictions, raw and checked; of a log of the server those of one role. Raises DataError."""
    columns = open_log(path, role).columns()
    return columns, to_log(columns, str(path))


def compare(
    a: Path,
    b: Path,
    by: Sequence[str] = (),
    *,
    most: int = 20,
    least: int = 10,
    roles: tuple[str, str] = ("", ""),
) -> Disagreement:
    """Join two tables of predictions by image and compare decisions and probabilities.

    Args:
        a: predictions of the bundle that serves.
        b: predictions of the one in its shadow.
        by: columns of the first table to slice by, beside its decisions and probabilities.
        most: examples to name.
        least: images a slice must have.
        roles: of the two in a log of the server; both may be in one log.

    Raises:
        DataError: a table cannot be read, they share no image, or a column is missing.
    """
    columns, log_a = read(a, roles[0])
    _, log_b = read(b, roles[1])
    first_a, first_b = _first(log_a), _first(log_b)
    shared = [name for name in first_a if name in first_b]
    if not shared:
        raise DataError("the two tables share no image", where=f"{a}, {b}", fix="let both decide on the same images")
    rows_a = log_a.take(np.array([first_a[name] for name in shared]))
    rows_b = log_b.take(np.array([first_b[name] for name in shared]))
    differ = rows_a.codes != rows_b.codes
    gap = rows_b.probability - rows_a.probability
    n = len(shared)
    groups = [("decision", np.array([_NAMES[int(c)] for c in rows_a.codes])), ("probability", _band(rows_a))]
    groups += [(name, _column(columns, name, shared, str(a))) for name in by]
    worst = np.flatnonzero(differ)
    worst = worst[np.argsort(-np.abs(gap[worst]), kind="stable")][:most]
    return Disagreement(
        n=n,
        only_a=len(first_a) - n,
        only_b=len(first_b) - n,
        decisions=Rate.of(int(differ.sum()), n),
        opposite=Rate.of(_opposite(rows_a, rows_b), n),
        table=_table(rows_a, rows_b),
        mean_difference=float(gap.mean()),
        mean_absolute=float(np.abs(gap).mean()),
        largest=tuple(
            {
                "id": shared[i],
                "a": _NAMES[int(rows_a.codes[i])],
                "b": _NAMES[int(rows_b.codes[i])],
                "probability_a": float(rows_a.probability[i]),
                "probability_b": float(rows_b.probability[i]),
            }
            for i in worst.tolist()
        ),
        slices=_slices(groups, differ, least),
        repeated=len(log_a) - len(first_a) + len(log_b) - len(first_b),
    )


def _first(log: Log) -> dict[str, int]:
    place: dict[str, int] = {}
    for at, name in enumerate(log.ids.tolist()):
        place.setdefault(name, at)
    return place


def _opposite(a: Log, b: Log) -> int:
    return int(((a.codes >= 0) & (b.codes >= 0) & (a.codes != b.codes)).sum())


def _table(a: Log, b: Log) -> dict[str, int]:
    pairs = ((x, y) for x in CODES for y in CODES)
    return {f"{x} / {y}": int(((a.codes == CODES[x]) & (b.codes == CODES[y])).sum()) for x, y in pairs}


def _band(log: Log) -> StrArray:
    edges = [0.0, *_BANDS.tolist(), 1.0]
    names = np.array([f"{low:g} to {high:g}" for low, high in pairwise(edges)])
    return np.asarray(names[np.searchsorted(_BANDS, log.probability, side="right")], dtype=np.str_)


def _column(columns: Columns, name: str, ids: Sequence[str], where: str) -> StrArray:
    """Values of a column by image: of the table itself, ``column_NAME``, or the JSON ``columns`` of a server's log."""
    names = columns["id"] if "id" in columns else columns["path"]
    if name in columns or f"column_{name}" in columns:
        values = list(columns[name] if name in columns else columns[f"column_{name}"])
    elif "columns" in columns:
        try:
            values = [json.loads(cell).get(name) if cell else None for cell in columns["columns"]]
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(f"column 'columns' holds what is no mapping: {error}", where=where) from error
        if all(v is None for v in values):
            raise DataError(f"no row has a column {name!r}", where=where)
    else:
        raise DataError(f"the table lacks the column {name!r}", where=where, fix="leave it out of --by")
    found: dict[str, str] = {}
    for key, value in zip(names, values, strict=True):
        found.setdefault(str(key), _MISSING if value is None or value == "" else str(value))
    return np.array([found[i] for i in ids], dtype=np.str_)


def _slices(groups: Sequence[tuple[str, NDArray[Any]]], differ: NDArray[np.bool_], least: int) -> tuple[Slice, ...]:
    parts = []
    for column, values in groups:
        for value in np.unique(values).tolist():
            mask = values == value
            if mask.sum() >= least:
                parts.append((column, value, int(differ[mask].sum()), int(mask.sum())))
    level = 1 - (1 - LEVEL) / max(len(parts), 1)
    made = [Slice(column, value, Rate.of(k, n, level)) for column, value, k, n in parts]
    return tuple(sorted(made, key=lambda s: (-s.rate.low, -s.rate.value, s.column, s.value)))
