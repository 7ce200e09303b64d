"""The log of predictions as arrays, whatever it is stored in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from workzone.errors import DataError, needs_extra, unreadable
from workzone.predictions import FloatArray, StrArray

CODES = {"abstain": -1, "no_roadwork": 0, "roadwork": 1}
MOST_ROWS = 5_000_000
_NAMES = ("id", "path", "request_id", "sha256", "bundle_sha256", "picture_sha256", "sequence", "role")
_EMBEDDING, _MEASURE = "embedding_", "uncertainty_"
Columns = Mapping[str, Sequence[Any]]
Times = NDArray[np.datetime64]


class PredictionLog(Protocol):
    """Where predictions are stored: a table, a database, a server's log."""

    def columns(self, since: datetime | None = None) -> Columns:
        """Columns of equal length, by name, of all predictions made at ``since`` or later.

        ``id`` (or ``path``), ``time`` (RFC 3339 text, ``datetime``, or seconds since 1970), ``probability`` and
        ``decision`` are needed; ``bundle_sha256``, ``uncertainty`` (a mapping, or its JSON), columns
        ``uncertainty_<name>``, and ``embedding`` (numbers, or the bytes of float32) or ``embedding_<d>`` are used where
        they are there.
        """
        ...


@dataclass(frozen=True, slots=True)
class Log:
    """N predictions in order of time.

    Attributes:
        ids: (N,) ids or paths of images.
        time: (N,) UTC, to the second; NaT where the table has no times.
        probability: (N,) calibrated probability of roadwork.
        codes: (N,) 1 roadwork, 0 no_roadwork, -1 abstain.
        measures: (N,) each, uncertainty measures by name; NaN where a row lacks one.
        embeddings: (N, D), rows of NaN where a prediction has none, or None.
        skipped: rows that were left out, by reason.
        sha256: (N,) hashes of the pictures, empty where unknown, or None.
    """

    ids: StrArray
    time: Times
    probability: FloatArray
    codes: NDArray[np.int64]
    measures: Mapping[str, FloatArray] = field(default_factory=dict)
    embeddings: FloatArray | None = None
    skipped: Mapping[str, int] = field(default_factory=dict)
    sha256: StrArray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, mask: NDArray[Any]) -> Log:
        """Rows of ``mask`` (booleans or integers), in order."""
        return replace(
            self,
            ids=self.ids[mask],
            time=self.time[mask],
            probability=self.probability[mask],
            codes=self.codes[mask],
            measures={k: v[mask] for k, v in self.measures.items()},
            embeddings=None if self.embeddings is None else self.embeddings[mask],
            sha256=None if self.sha256 is None else self.sha256[mask],
        )

    @property
    def days(self) -> NDArray[np.datetime64]:
        """(N,) day of each prediction, UTC."""
        return self.time.astype("datetime64[D]")


def to_log(columns: Columns, where: str, *, bundle_sha256: str = "", day: date | None = None) -> Log:
    """Check ``columns`` and make them a ``Log``.

    Args:
        columns: as ``PredictionLog.columns`` gives them.
        where: named in errors.
        bundle_sha256: keep predictions of this bundle alone, where the log tells bundles apart.
        day: the day of all rows, for a table without times.

    Raises:
        DataError: a column is missing or malformed.
    """
    lengths = {len(v) for v in columns.values()}
    if len(lengths) > 1:
        raise DataError("the columns of the log differ in length", where=where)
    n = lengths.pop() if lengths else 0
    if n > MOST_ROWS:
        raise DataError(f"the log holds {n:,} rows, more than {MOST_ROWS:,}", where=where, fix="give fewer days")
    for name in ("probability", "decision"):
        if name not in columns:
            raise DataError(f"the log lacks the column {name!r}", where=where, fix=_FIX)
    ids = columns.get("id", columns.get("path"))
    if ids is None:
        raise DataError("the log lacks the column 'id' or 'path'", where=where, fix=_FIX)
    decisions = list(columns["decision"])
    keep = np.array([d is not None and d != "" for d in decisions], dtype=np.bool_)
    skipped = {"unreadable": int(n - keep.sum())}
    if bundle_sha256 and "bundle_sha256" in columns:
        ours = np.array([b == bundle_sha256 for b in columns["bundle_sha256"]], dtype=np.bool_)
        skipped["of another bundle"] = int((keep & ~ours).sum())
        keep &= ours
    rows: list[int] = np.flatnonzero(keep).tolist()

    def kept(name: str) -> list[Any]:
        values = columns[name]
        return [values[i] for i in rows]

    unknown = sorted({str(d) for d in kept("decision")} - set(CODES))
    if unknown:
        raise DataError(f"unknown decision {unknown[0]!r}", where=where, fix=f"decisions are {', '.join(CODES)}")
    try:
        probability = np.array(kept("probability"), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"column 'probability' holds what is no number: {error}", where=where) from error
    if not ((probability >= 0) & (probability <= 1)).all():
        raise DataError("column 'probability' holds values outside [0, 1]", where=where)
    made = Log(
        ids=np.array([str(ids[i]) for i in rows], dtype=np.str_),
        time=_times(kept("time") if "time" in columns else [None] * len(rows), day, where),
        probability=probability,
        codes=np.array([CODES[str(d)] for d in kept("decision")], dtype=np.int64),
        measures=_measures(columns, rows, where),
        embeddings=_embeddings(columns, rows, where),
        skipped={k: v for k, v in skipped.items() if v},
        sha256=np.array([v or "" for v in kept("sha256")], dtype=np.str_) if "sha256" in columns else None,
    )
    return made.take(np.argsort(made.time, kind="stable"))


_FIX = "give a log with the columns id (or path), time, probability and decision, as 'workzone predict' writes them"


def _times(values: Sequence[Any], day: date | None, where: str) -> Times:
    if day is not None:
        return np.full(len(values), np.datetime64(day, "s"))
    found = []
    for value in values:
        try:
            found.append(_utc(value))
        except (TypeError, ValueError, OverflowError, OSError) as error:
            raise DataError(f"column 'time' holds {str(value)[:40]!r}, which is no time", where=where) from error
    return np.array(found, dtype="datetime64[s]")


def _utc(value: Any) -> np.datetime64:
    if value is None or value == "":
        return np.datetime64("NaT", "s")
    if isinstance(value, (int, float)):
        value = datetime.fromtimestamp(value, UTC)
    elif not isinstance(value, datetime):
        value = datetime.fromisoformat(str(value))
    if value.tzinfo is not None:
        value = value.astimezone(UTC).replace(tzinfo=None)
    return np.datetime64(value, "s")


def _measures(columns: Columns, rows: Sequence[int], where: str) -> dict[str, FloatArray]:
    found: dict[str, list[Any]] = {}
    for name, values in columns.items():
        if name.startswith(_MEASURE):
            found[name[len(_MEASURE) :]] = [values[i] for i in rows]
    if "uncertainty" in columns:
        for at, i in enumerate(rows):
            cell = columns["uncertainty"][i]
            try:
                cell = json.loads(cell) if isinstance(cell, str) else cell
                items = dict(cell or {}).items()
            except (TypeError, ValueError) as error:
                raise DataError(f"column 'uncertainty' holds what is no mapping: {error}", where=where) from error
            for name, value in items:
                found.setdefault(str(name), [None] * len(rows))[at] = value
    try:
        arrays = {k: np.array([np.nan if x is None else x for x in v], dtype=np.float64) for k, v in found.items()}
    except (TypeError, ValueError) as error:
        raise DataError(f"an uncertainty measure is no number: {error}", where=where) from error
    return {k: v for k, v in arrays.items() if np.isfinite(v).any()}


def _embeddings(columns: Columns, rows: Sequence[int], where: str) -> FloatArray | None:
    names = [c for c in columns if c.startswith(_EMBEDDING) and c[len(_EMBEDDING) :].isdigit()]
    try:
        if names:
            names.sort(key=lambda c: int(c[len(_EMBEDDING) :]))
            block = np.array([[columns[c][i] for i in rows] for c in names], dtype=np.float64).T
            given = np.ones(len(rows), dtype=np.bool_)
        else:
            cells = [columns["embedding"][i] for i in rows] if "embedding" in columns else []
            given = np.array([c is not None for c in cells], dtype=np.bool_)
            if not given.any():
                return None
            held = [np.frombuffer(c, "<f4") if isinstance(c, bytes) else c for c in cells if c is not None]
            values = np.array(held, dtype=np.float64)
            block = np.full((len(rows), *values.shape[1:]), np.nan)
            block[given] = values
    except (TypeError, ValueError) as error:
        raise DataError(f"the embeddings are not all lists of as many numbers: {error}", where=where) from error
    if block.ndim != 2 or not np.isfinite(block[given]).all():
        raise DataError("the embeddings hold values that are not finite", where=where)
    return np.asarray(block, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class TableLog:
    """A table of predictions: CSV, Parquet or JSON lines."""

    path: Path

    def columns(self, since: datetime | None = None) -> Columns:
        """Columns of the whole file; ``since`` is left to the caller, since a file is read whole anyway.

        Raises:
            DataError: the file cannot be read.
        """
        if self.path.suffix in (".jsonl", ".ndjson"):
            return self._lines()
        with needs_extra("polars", "eval", feature="reading tables"):
            import polars as pl
        try:
            if self.path.suffix == ".csv":
                # A name that looks like a number, such as 007, must stay what it is.
                held = pl.read_csv(self.path, n_rows=0).columns
                names = {name: pl.String() for name in held if name in _NAMES}
                frame = pl.read_csv(self.path, infer_schema_length=None, schema_overrides=names)
            else:
                frame = pl.read_parquet(self.path)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise unreadable(DataError, "the table", self.path, error) from error
        return {name: frame[name].to_list() for name in frame.columns}

    def _lines(self) -> Columns:
        rows = []
        try:
            with self.path.open(encoding="utf-8") as stream:
                for number, line in enumerate(stream, 1):
                    row = self._row(line, number) if line.strip() else None
                    if row is not None and not isinstance(row, dict):
                        raise DataError("a line is no JSON object", where=f"{self.path}, line {number}", fix=_FIX)
                    # Intervals of videos are no pictures.
                    if row is not None and row.get("kind") != "interval":
                        rows.append(row)
                    if number > MOST_ROWS:
                        raise DataError(f"the log holds more than {MOST_ROWS:,} rows", where=str(self.path))
        except (OSError, UnicodeDecodeError) as error:
            raise unreadable(DataError, "the table", self.path, error) from error
        names = dict.fromkeys(name for row in rows for name in row)
        return {name: [row.get(name) for row in rows] for name in names}

    def _row(self, line: str, number: int) -> Any:
        try:
            return json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError("a line is no JSON", where=f"{self.path}, line {number}", fix=_FIX) from error
