"""The images to score, one name after another: a folder, a table or a list, however long."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from workzone.errors import DataError, needs_extra, unreadable
from workzone.files import IMAGE_SUFFIXES

LISTS = frozenset({"", ".txt", ".lst", ".list"})
PATH_COLUMNS = ("path", "file", "image", "filename", "file_name", "filepath")
_ROWS = 100_000


def list_images(word: str) -> Iterator[bytes]:
    """Names of the images of ``word``, in one order whoever asks, without holding them all.

    Args:
        word: a folder (all images below it, sorted), a CSV or Parquet file with a column of paths (absolute, or
            relative to the file), a text file with one path a line (relative to the working folder), or ``-`` for such
            lines on standard input.

    Yields:
        Names as the file system holds them.

    Raises:
        DataError: nothing of this kind, or a row without a path.
        MissingExtraError: a Parquet file without polars.
    """
    any_of = False
    for name in _names(word):
        any_of = True
        yield name
    if not any_of:
        where = "standard input" if word == "-" else word
        raise DataError("no images were given", where=where, fix="give a folder, a table or a list that names images")


def _names(word: str) -> Iterator[bytes]:
    path = Path(word)
    if word == "-":
        yield from _lines(sys.stdin.buffer, "standard input")
    elif path.is_dir():
        yield from _below(os.fsencode(path))
    elif path.suffix.lower() == ".csv":
        yield from _placed(path, _csv(path))
    elif path.suffix.lower() == ".parquet":
        yield from _placed(path, _parquet(path))
    elif path.is_file() and path.suffix.lower() in LISTS:
        with path.open("rb") as stream:
            yield from _lines(stream, word)
    else:
        what = "there is no such file or folder" if not path.exists() else "this is no folder, table or list of images"
        raise DataError(what, where=word, fix="give a folder, a .csv, a .parquet, a .txt with one path a line, or -")


def _below(folder: bytes) -> Iterator[bytes]:
    """Depth first, sorted by name: the order of sorted paths, with one folder at a time in memory."""
    with os.scandir(folder) as found:
        entries = sorted((e.name, e.is_dir(follow_symlinks=False)) for e in found if not e.name.startswith(b"."))
    for name, is_folder in entries:
        path = os.path.join(folder, name)  # noqa: PTH118 names are bytes
        if is_folder:
            yield from _below(path)
        elif os.path.splitext(name)[1].lower().decode("latin-1") in IMAGE_SUFFIXES:  # noqa: PTH122
            yield path


def _lines(stream: IO[bytes], where: str) -> Iterator[bytes]:
    for number, line in enumerate(stream, 1):
        if b"\0" in line:
            fix = "give a text file with one path a line"
            raise DataError("the name of an image holds a zero byte", where=f"{where}, line {number}", fix=fix)
        if name := line.rstrip(b"\r\n"):
            yield name


def _placed(table: Path, names: Iterator[str | None]) -> Iterator[bytes]:
    folder = table.parent
    for row, name in enumerate(names, 1):
        if not name:
            raise DataError("a row names no image", where=f"{table}, row {row}", fix="give every row a path")
        yield os.fsencode(folder / name)


def _csv(table: Path) -> Iterator[str | None]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.reader(stream)
            at = _column(next(rows, []), table)
            for row in rows:
                if row:
                    yield row[at] if at < len(row) else None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise unreadable(DataError, "the table", table, error) from error


def _parquet(table: Path) -> Iterator[str | None]:
    with needs_extra("polars", "eval", feature="reading Parquet"):
        import polars as pl
    try:
        columns = list(pl.read_parquet_schema(table))
        name = columns[_column(columns, table)]
        start = 0
        while True:
            part = pl.scan_parquet(table).select(pl.col(name).cast(pl.String)).slice(start, _ROWS).collect()
            yield from part[name].to_list()
            start += part.height
            if part.height < _ROWS:
                return
    except (OSError, pl.exceptions.PolarsError) as error:
        raise unreadable(DataError, "the table", table, error) from error


def _column(columns: Sequence[str], table: Path) -> int:
    plain = [c.strip().lower() for c in columns]
    for name in PATH_COLUMNS:
        if name in plain:
            return plain.index(name)
    found = ", ".join(" ".join(c.split())[:40] for c in columns[:8]) or "none"
    raise DataError(
        f"no column of the table names the image file; its columns are {found}",
        where=str(table),
        fix=f"name it one of {', '.join(PATH_COLUMNS)}",
    )
