"""Columns of a manifest: their types, and the checks that name the offending rows."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from workzone.errors import ManifestError
from workzone.predictions import typed_text

COLUMNS: dict[str, pl.DataType] = {
    "id": pl.String(),
    "path": pl.String(),
    "label": pl.Int8(),
    "source": pl.String(),
    "group": pl.String(),
    "captured_at": pl.String(),
    "hour": pl.Int8(),
    "weather": pl.String(),
    "camera_id": pl.String(),
    "latitude": pl.Float64(),
    "longitude": pl.Float64(),
    "width": pl.Int32(),
    "height": pl.Int32(),
    "sha256": pl.String(),
    "phash": pl.String(),
}
"""Known columns in their order; ``captured_at`` is ISO 8601 text, so that its time zone survives."""

REQUIRED = ("id", "path")
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class RowNames:
    """How rows of a table are named in messages: by line of a CSV file, by row otherwise (the first row is 1)."""

    file: Path | None = None

    def name(self, rows: list[int]) -> list[str]:
        """Names of zero-based ``rows``."""
        if self.file is None or self.file.suffix.lower() != ".csv":
            return [f"row {i + 1}" for i in rows]
        # A quoted value may span lines, so only a reader that counts lines knows where a row ends.
        wanted, lines, row = set(rows), {}, -2  # -1 is the header
        with self.file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            begin = 1
            for record in reader:
                if any(record):  # blank lines are no rows
                    row += 1
                    if row in wanted:
                        lines[row] = begin
                begin = reader.line_num + 1
        return [f"line {lines[i]}" if i in lines else f"row {i + 1}" for i in rows]


@dataclass(slots=True)
class Problem:
    """One kind of fault in one column."""

    column: str
    rule: str
    rows: list[int]
    values: list[object]

    def text(self, names: RowNames) -> str:
        """One line with the first few offending rows."""
        shown = names.name(self.rows[:_SHOWN])
        pairs = ", ".join(f"{name} ({value!r})" for name, value in zip(shown, self.values, strict=False))
        rest = len(self.rows) - len(shown)
        return f"column '{self.column}' {self.rule}: {pairs}" + (f" and {rest} more" if rest > 0 else "")


def raise_problems(problems: list[Problem], names: RowNames, *, where: str) -> None:
    """Raise ManifestError listing ``problems``, if there are any."""
    if problems:
        raise ManifestError(
            "the table breaks the manifest contract: " + "; ".join(p.text(names) for p in problems),
            where=where,
            fix="correct these rows; an empty value means unknown",
        )


def _blank_to_null(frame: pl.DataFrame) -> pl.DataFrame:
    texts = [c for c, t in frame.schema.items() if t == pl.String and c in COLUMNS]
    stripped = (pl.col(c).str.strip_chars() for c in texts)
    return frame.with_columns(pl.when(s.str.len_chars() > 0).then(s).name.keep() for s in stripped)


def _flag(frame: pl.DataFrame, column: str, rule: str, bad: pl.Series) -> list[Problem]:
    rows = bad.fill_null(False).arg_true().to_list()
    return [Problem(column, rule, rows, frame[column].gather(rows[:_SHOWN]).to_list())] if rows else []


def _cast(frame: pl.DataFrame, column: str, dtype: pl.DataType) -> tuple[pl.Series, list[Problem]]:
    """Cast one known column; values that cannot be read become problems, never nulls."""
    old = frame[column]
    if old.dtype == pl.Null:
        return old.cast(dtype), []
    if dtype == pl.String:
        if column == "captured_at" and isinstance(old.dtype, pl.Datetime):
            return pl.Series(column, [None if v is None else v.isoformat() for v in old.to_list()], dtype), []
        return old.cast(pl.String), []
    numbers = old.cast(pl.Float64, strict=False)
    problems = _flag(frame, column, "is not a number", numbers.is_null() & old.is_not_null())
    problems += _flag(frame, column, "is not finite", numbers.is_not_null() & ~numbers.is_finite())
    if dtype.is_integer():
        problems += _flag(frame, column, "is not a whole number", numbers.is_finite() & (numbers != numbers.round()))
        problems += _flag(frame, column, "is out of range", numbers.is_finite() & (numbers.abs() > 2e9))
    if problems:
        return old, problems
    # Out-of-range values must survive until the range check can name them, so the narrow type comes last.
    return (numbers.cast(pl.Int64) if dtype.is_integer() else numbers), []


def _iso(value: str) -> bool:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _range(low: float, high: float) -> Callable[[pl.Series], pl.Series]:
    return lambda s: (s < low) | (s > high)


def _text(good: Callable[[str], bool]) -> Callable[[pl.Series], pl.Series]:
    return lambda s: pl.Series([v is not None and not good(v) for v in s.to_list()], dtype=pl.Boolean)


_HEX64, _HEX16 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{16}")
_CHECKS: dict[str, tuple[str, Callable[[pl.Series], pl.Series]]] = {
    "label": ("must be 0, 1 or empty", lambda s: (s != 0) & (s != 1)),
    "hour": ("must be 0 to 23", _range(0, 23)),
    "latitude": ("must be -90 to 90", _range(-90, 90)),
    "longitude": ("must be -180 to 180", _range(-180, 180)),
    "width": ("must be 1 or more", _range(1, 2**31 - 1)),
    "height": ("must be 1 or more", _range(1, 2**31 - 1)),
    "sha256": ("must be 64 lower-case hex digits", _text(lambda v: _HEX64.fullmatch(v) is not None)),
    "phash": ("must be 16 lower-case hex digits", _text(lambda v: _HEX16.fullmatch(v) is not None)),
    "captured_at": ("must be an ISO 8601 time", _text(_iso)),
}


def typed_csv(frame: pl.DataFrame) -> pl.DataFrame:
    """A CSV file that was read as text: blank is unknown, and columns outside the contract get the types they show."""
    # Blank has to go before the types are found out.
    frame = frame.with_columns(pl.all().replace("", None))
    return frame.with_columns(typed_text(frame[c]) for c in frame.columns if c not in COLUMNS)


def conform(frame: pl.DataFrame, *, names: RowNames | None = None, where: str = "manifest table") -> pl.DataFrame:
    """Return ``frame`` with all known columns, typed and in order, followed by its other columns unchanged.

    Raises:
        ManifestError: a required column is missing or values break the contract; rows, columns and values are named.
    """
    names = names or RowNames()
    missing = [c for c in REQUIRED if c not in frame.columns]
    if missing:
        raise ManifestError(
            f"the table has no column {' and '.join(repr(c) for c in missing)}",
            where=where,
            fix=f"its columns are {', '.join(frame.columns)}; rename one, or read the file as a 'table' source",
        )
    frame = _blank_to_null(frame)
    problems: list[Problem] = []
    typed: dict[str, pl.Series] = {}
    for column, dtype in COLUMNS.items():
        if column not in frame.columns:
            typed[column] = pl.Series(column, [None] * frame.height, dtype=dtype)
            continue
        series, found = _cast(frame, column, dtype)
        if not found and column in _CHECKS:
            rule, bad = _CHECKS[column]
            found = _flag(frame, column, rule, bad(series))
        problems += found
        typed[column] = series if found else series.cast(dtype)
    for column in REQUIRED:
        problems += _flag(frame, column, "is empty", frame[column].is_null())
    ids = typed["id"].rename("id")
    problems += _flag(frame, "id", "is not unique", ids.is_duplicated() & ids.is_not_null())
    if not problems:
        half = typed["latitude"].is_null() != typed["longitude"].is_null()
        rows = half.arg_true().to_list()
        if rows:
            pairs = zip(typed["latitude"].gather(rows[:_SHOWN]), typed["longitude"].gather(rows[:_SHOWN]), strict=True)
            problems.append(Problem("latitude", "and 'longitude' must both be known or both empty", rows, list(pairs)))
    raise_problems(problems, names, where=where)
    extra = [frame[c] for c in frame.columns if c not in COLUMNS]
    return pl.DataFrame([*(s.alias(c) for c, s in typed.items()), *extra])
