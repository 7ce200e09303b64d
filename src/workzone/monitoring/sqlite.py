"""A log of predictions in an SQLite database."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from workzone.errors import DataError
from workzone.monitoring.table import Columns, PredictionLog, TableLog

SUFFIXES = frozenset({".db", ".sqlite", ".sqlite3"})


@dataclass(frozen=True, slots=True)
class SqliteLog:
    """Table ``predictions`` of a database with the columns that ``PredictionLog`` names; opened for reading only.

    The log of ``workzone serve`` is read as well: its ids are ``REQUEST_ID/POSITION`` and its embeddings float16. Rows
    that the server has moved to its archive are not read.
    """

    path: Path
    table: str = "predictions"

    def columns(self, since: datetime | None = None) -> Columns:
        """Columns of the rows at ``since`` or later; times must be stored as seconds or as RFC 3339 text in UTC.

        Raises:
            DataError: no such file or table, or it cannot be read.
        """
        if not self.path.is_file():
            raise DataError("there is no log here", where=str(self.path))
        name = '"' + self.table.replace('"', '""') + '"'
        try:
            with closing(sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True, timeout=10)) as db:
                names = [row[1] for row in db.execute(f"PRAGMA table_info({name})")]
                if not names:
                    raise DataError(f"the database has no table {self.table!r}", where=str(self.path))
                query = f"SELECT * FROM {name}"
                bound: tuple[float | str, ...] = ()
                if since is not None and "time" in names:
                    # Numbers sort before text, so each row is compared in its own kind.
                    query += " WHERE CASE WHEN typeof(time) = 'text' THEN time >= ? ELSE time >= ? END"
                    bound = (since.strftime("%Y-%m-%d"), since.timestamp())
                rows = db.execute(query, bound).fetchall()
        except sqlite3.Error as error:
            raise DataError(f"the log cannot be read: {error}", where=str(self.path)) from error
        found = {name: [row[k] for row in rows] for k, name in enumerate(names)}
        if {"request_id", "position"} <= set(names):
            found["id"] = [f"{r}/{p}" for r, p in zip(found["request_id"], found["position"], strict=True)]
            blobs = found.get("embedding", [None] * len(rows))
            found["embedding"] = [None if b is None else np.frombuffer(b, "<f2") for b in blobs]
        return found


def open_log(path: Path) -> PredictionLog:
    """The log in a file, by its suffix: a database, or a table."""
    if not path.is_file():
        raise DataError("there is no log here", where=str(path), fix="give a CSV, Parquet, JSON lines or SQLite file")
    return SqliteLog(path) if path.suffix in SUFFIXES else TableLog(path)
