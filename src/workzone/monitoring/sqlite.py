"""A log of predictions in an SQLite database, with the archive that the server moves old rows to."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from workzone.errors import DataError, needs_extra, unreadable
from workzone.monitoring.table import Columns, PredictionLog, TableLog

SUFFIXES = frozenset({".db", ".sqlite", ".sqlite3"})
SHADOW = "shadow"
_SERVER = {"request_id", "position"}
_LATER: Mapping[str, str] = {"role": "champion", "sequence": "", "picture_sha256": ""}
"""Columns that older logs of the server lack, and what their rows mean there."""
_Found = dict[str, list[Any]]


@dataclass(frozen=True, slots=True)
class SqliteLog:
    """Table ``predictions`` of a database with the columns that ``PredictionLog`` names; opened for reading only.

    The log of ``workzone serve`` is read as well, with the rows that the server has moved to the Parquet files of
    ``NAME.archive``: ids are ``REQUEST_ID/POSITION``, embeddings float16, and what a shadow decided is left out.

    Attributes:
        path: of the database.
        role: of the bundle in a log of the server; empty for all whose decisions somebody got.
        table: name of the table.
    """

    path: Path
    role: str = ""
    table: str = "predictions"

    def columns(self, since: datetime | None = None) -> Columns:
        """Columns of the rows at ``since`` or later; times must be stored as seconds or as RFC 3339 text in UTC.

        Raises:
            DataError: no such file or table, or it cannot be read.
        """
        if not self.path.is_file():
            raise DataError("there is no log here", where=str(self.path), fix="check the path")
        name = '"' + self.table.replace('"', '""') + '"'
        try:
            with closing(sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True, timeout=10)) as db:
                names = [row[1] for row in db.execute(f"PRAGMA table_info({name})")]
                if not names:
                    what = f"the database has no table {self.table!r}"
                    raise DataError(what, where=str(self.path), fix="give the file of 'workzone serve --log-db'")
                query = f"SELECT * FROM {name}"
                bound: tuple[float | str, ...] = ()
                if since is not None and "time" in names:
                    # Numbers sort before text, so each row is compared in its own kind.
                    query += " WHERE CASE WHEN typeof(time) = 'text' THEN time >= ? ELSE time >= ? END"
                    bound = (since.strftime("%Y-%m-%d"), since.timestamp())
                rows = db.execute(query, bound).fetchall()
        except sqlite3.Error as error:
            raise unreadable(DataError, "the log", self.path, error) from error
        found = {name: [row[k] for row in rows] for k, name in enumerate(names)}
        if not set(names) >= _SERVER:
            return _of_role(found, self.role, str(self.path))
        # Read after the database: what moves in between is then found twice, not missed.
        old = _archived(self.path.with_name(f"{self.path.stem}.archive"), since)
        return server_columns(_joined([old, found]), self.role, str(self.path))


@dataclass(frozen=True, slots=True)
class ArchiveLog:
    """The Parquet files of a server's archive, without its database."""

    folder: Path
    role: str = ""

    def columns(self, since: datetime | None = None) -> Columns:
        """Columns of the rows at ``since`` or later; raises DataError where there are no files of an archive."""
        found = _archived(self.folder, since)
        if not found:
            fix = "give the database of --log-db, or the folder NAME.archive beside it"
            raise DataError("there is no log here", where=str(self.folder), fix=fix)
        return server_columns(found, self.role, str(self.folder))


@dataclass(frozen=True, slots=True)
class RoleLog:
    """A table with the decisions of several roles, of which one is read."""

    table: TableLog
    role: str

    def columns(self, since: datetime | None = None) -> Columns:
        """Columns of the rows of the role."""
        found = {name: list(values) for name, values in self.table.columns(since).items()}
        if set(found) >= _SERVER and "id" not in found:
            return server_columns(found, self.role, str(self.table.path))
        return _of_role(found, self.role, str(self.table.path))


def server_columns(found: _Found, role: str, where: str) -> Columns:
    """Columns of a server's log as a monitor reads them: each row once, in order of time, ids as the review queue's."""
    n = len(found["request_id"])
    for name, value in _LATER.items():
        found.setdefault(name, [value] * n)
    keys = list(zip(*(found[k] for k in ("time", "request_id", "position", "role")), strict=True))
    rows = sorted(range(n), key=keys.__getitem__)
    rows = [i for at, i in enumerate(rows) if at == 0 or keys[i] != keys[rows[at - 1]]]
    rows = [i for i in rows if (found["role"][i] == role if role else found["role"][i] != SHADOW)]
    made: _Found = {name: [values[i] for i in rows] for name, values in found.items() if name != "id"}
    made["id"] = [f"{r}/{p}" for r, p in zip(made["request_id"], made["position"], strict=True)]
    made["sha256"] = made["picture_sha256"]
    blobs = made.get("embedding", [None] * len(rows))
    made["embedding"] = [None if b is None else np.frombuffer(b, "<f2") for b in blobs]
    _require(made["id"], role, where)
    return made


def _of_role(found: _Found, role: str, where: str) -> Columns:
    if not role:
        return found
    if "role" not in found:
        raise DataError("the log does not say which bundle has which role", where=where, fix="give two logs")
    rows = [i for i, given in enumerate(found["role"]) if given == role]
    _require(rows, role, where)
    return {name: [values[i] for i in rows] for name, values in found.items()}


def _require(rows: Sequence[Any], role: str, where: str) -> None:
    if role and not rows:
        raise DataError(f"the log holds no decision of the {role}", where=where, fix="wait for some, or give two logs")


def _archived(folder: Path, since: datetime | None) -> _Found:
    files = sorted(folder.glob("predictions-*.parquet"))
    if not files:
        return {}
    with needs_extra("polars", "eval", feature="reading the archive of a server"):
        import polars as pl
    parts: list[_Found] = []
    for file in files:
        try:
            frame = pl.read_parquet(file)
            if since is not None:
                frame = frame.filter(pl.col("time") >= since.timestamp())
        except (OSError, pl.exceptions.PolarsError) as error:
            raise unreadable(DataError, "the archive", file, error) from error
        if missing := sorted(({"time"} | _SERVER) - set(frame.columns)):
            raise DataError(f"this is no archive of a server: it lacks {missing[0]!r}", where=str(file))
        parts.append({name: frame[name].to_list() for name in frame.columns})
    return _joined(parts)


def _joined(parts: Sequence[_Found]) -> _Found:
    """One table of several; what a part lacks is None, or what older rows mean."""
    made: _Found = {name: [] for part in parts for name in part}
    for part in parts:
        n = len(part["request_id"]) if part else 0
        for name, values in made.items():
            values += part.get(name, [_LATER.get(name)] * n)
    return made


def open_log(path: Path, role: str = "") -> PredictionLog:
    """The log in a file, by its suffix: a database, or a table; or in a folder, the archive of a server.

    Args:
        path: see above.
        role: of the bundle, where a log of the server holds several; empty for all whose decisions somebody got.

    Raises:
        DataError: there is no log.
    """
    if path.is_dir():
        return ArchiveLog(path, role)
    if not path.is_file():
        raise DataError("there is no log here", where=str(path), fix="give a CSV, Parquet, JSON lines or SQLite file")
    return SqliteLog(path, role) if path.suffix in SUFFIXES else RoleLog(TableLog(path), role)
