"""The log of predictions: SQLite while it is fresh, Parquet once it is old; one schema, read here and nowhere else.

The log holds no pixels and no file names. ``read_log`` gives arrays, for monitoring; the oldest rows move to
``NAME.archive/*.parquet`` beside the database when it grows or ages past its limits.
"""

from __future__ import annotations

import json
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workzone.decisions import Decision
from workzone.errors import DataError, needs_extra
from workzone.predictions import Predictions

SCHEMA_VERSION = 3
_TYPES = {"float": "REAL NOT NULL", "int": "INTEGER NOT NULL", "str": "TEXT NOT NULL", "bytes | None": "BLOB"}
ANSWERING = ("champion", "challenger", "pinned")
"""Roles of bundles whose decisions somebody got; ``pinned`` are requests that named their bundle."""
_BACKLOG = 10_000
_WRITE_AT_ONCE = 500
_ROTATE_SECONDS = 60.0
_SHARE_KEPT = 0.5


@dataclass(frozen=True, slots=True)
class Row:
    """One answered image.

    Attributes:
        time: seconds since 1970, UTC.
        request_id: of the request; ``position`` is the place of the image in it.
        bundle_sha256: of the bundle that answered.
        certificate: state of its certificate at that moment: certified, not_certified or void.
        log_odds: before calibration.
        probability: calibrated.
        decision: roadwork, no_roadwork or abstain.
        reason: of the policy.
        uncertainty: JSON object of the measures.
        views: number of views that were looked at.
        columns: JSON object of the metadata columns that came with the request.
        embedding: mean embedding of the views as little-endian float16, or None.
        role: of the bundle: champion, challenger, pinned (the client named it), or shadow (nobody got this decision).
        sequence: what the client says belongs together, such as a drive; empty where it says nothing.
        picture_sha256: of the bytes of the picture, so that a label can be told from that of another picture.
        stage: of a cascade, where the image stopped, from 1; 0 without a cascade.
        cost: share of the full cost of a cascade; 1 without one.
    """

    time: float
    request_id: str
    position: int
    bundle_sha256: str
    certificate: str
    log_odds: float
    probability: float
    decision: str
    reason: str
    uncertainty: str
    views: int
    columns: str
    embedding: bytes | None
    role: str = "champion"
    sequence: str = ""
    picture_sha256: str = ""
    stage: int = 0
    cost: float = 1.0

    @classmethod
    def of(
        cls,
        decision: Decision,
        embedding: NDArray[np.float32] | None,
        request_id: str,
        position: int,
        bundle_sha256: str,
        certificate: str,
        columns: Mapping[str, str],
        *,
        role: str = "champion",
        sequence: str = "",
        picture_sha256: str = "",
    ) -> Row:
        """Row of an answer that was given just now."""
        return cls(
            time=time.time(),
            request_id=request_id,
            position=position,
            bundle_sha256=bundle_sha256,
            certificate=certificate,
            log_odds=decision.log_odds,
            probability=decision.probability,
            decision=decision.label,
            reason=decision.reason,
            uncertainty=json.dumps(dict(decision.uncertainty), sort_keys=True),
            views=len(decision.views),
            columns=json.dumps(dict(columns), sort_keys=True),
            embedding=None if embedding is None else embedding.astype("<f2").tobytes(),
            role=role,
            sequence=sequence,
            picture_sha256=picture_sha256,
            stage=decision.stage or 0,
            cost=1.0 if decision.cost is None else decision.cost,
        )


COLUMNS = tuple(f.name for f in fields(Row))
_LATER: Mapping[str, str | int | float] = {
    "role": "champion", "sequence": "", "picture_sha256": "",  # version 2
    "stage": 0, "cost": 1.0,  # version 3
}  # fmt: skip
"""Columns that a log of an earlier version lacks, and what its rows mean there."""
_PLAIN = ("time", "probability", "decision", "certificate", "bundle_sha256", "reason", "views")
_LIST = ", ".join(COLUMNS)
_CREATE = ", ".join(f"{f.name} {_TYPES[str(f.type)]}" for f in fields(Row))
_INSERT = f"INSERT INTO predictions ({_LIST}) VALUES ({', '.join('?' * len(COLUMNS))})"


def connect(path: Path) -> sqlite3.Connection:
    """Open or create the database; several processes may write to it.

    Raises:
        DataError: it is no log, or one of another version.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA auto_vacuum=INCREMENTAL")  # heeded by a new database only, and before anything is written
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        if version == 0 and not db.execute("SELECT 1 FROM sqlite_master").fetchone():
            db.execute(f"CREATE TABLE IF NOT EXISTS predictions (id INTEGER PRIMARY KEY AUTOINCREMENT, {_CREATE})")
            db.execute("CREATE INDEX IF NOT EXISTS by_time ON predictions (time)")
            db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            version = SCHEMA_VERSION
        if 0 < version < SCHEMA_VERSION:
            version = _upgrade(db)
    except (OSError, sqlite3.Error) as error:
        raise DataError(f"the log cannot be opened: {error}", where=str(path), fix="give another path") from error
    if version != SCHEMA_VERSION:
        db.close()
        raise DataError(f"this is no log of version {SCHEMA_VERSION}", where=str(path), fix="give another path")
    return db


def _upgrade(db: sqlite3.Connection) -> int:
    db.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have done it while this one waited.
        there = {row[1] for row in db.execute("PRAGMA table_info(predictions)")}
        kinds = {f.name: _TYPES[str(f.type)] for f in fields(Row)}
        for name, value in _LATER.items():
            if name not in there:
                db.execute(f"ALTER TABLE predictions ADD COLUMN {name} {kinds[name]} DEFAULT {value!r}")
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
    return SCHEMA_VERSION


class PredictionLog:
    """Writes rows in a thread of its own, so that no answer waits for the disk.

    Args:
        path: the database.
        max_bytes: size above which the older half moves to Parquet.
        max_days: age of rows that move to Parquet.
        dropped: called with the number of rows that could not be written.
    """

    def __init__(
        self, path: Path, *, max_bytes: int, max_days: float, dropped: Callable[[float], None] | None = None
    ) -> None:
        require_parquet()
        self.path, self._max_bytes, self._max_days = path, max_bytes, max_days
        self._dropped = dropped or (lambda count: None)
        self._rows: queue.Queue[Row | None] = queue.Queue(_BACKLOG)
        self._db = connect(path)
        self._thread = threading.Thread(target=self._write_forever, name="workzone-log", daemon=True)
        self._thread.start()

    def add(self, row: Row) -> None:
        """Hand over one row; when the disk is too slow, the row is counted as dropped."""
        try:
            self._rows.put_nowait(row)
        except queue.Full:
            self._dropped(1)

    def close(self) -> None:
        """Write what was handed over and close the database."""
        self._rows.put(None)
        self._thread.join(30.0)
        self._db.close()

    def _write_forever(self) -> None:
        rotated, open_ = time.monotonic(), True
        while open_:
            batch: list[Row] = []
            row = self._rows.get()
            while row is not None:
                batch.append(row)
                if len(batch) >= _WRITE_AT_ONCE or self._rows.empty():
                    break
                row = self._rows.get()
            open_ = row is not None
            try:
                write_rows(self._db, batch)
                if time.monotonic() - rotated > _ROTATE_SECONDS:
                    rotated = time.monotonic()
                    rotate(self._db, self.path, max_bytes=self._max_bytes, max_days=self._max_days)
            except (sqlite3.Error, OSError) as error:
                from workzone.serving.metrics import log_line

                self._dropped(len(batch))
                log_line("log", error=str(error), dropped=len(batch))


def write_rows(db: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Append ``rows`` in one transaction."""
    if not rows:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        db.executemany(_INSERT, [tuple(getattr(row, c) for c in COLUMNS) for row in rows])
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def archive_folder(path: Path) -> Path:
    """Where the old rows of the log at ``path`` go."""
    return path.with_name(f"{path.stem}.archive")


def rotate(db: sqlite3.Connection, path: Path, *, max_bytes: int, max_days: float) -> Path | None:
    """Move rows that are too old, and the older half of a log that is too large, to a Parquet file; its path if any."""
    from workzone.files import atomic_path

    db.execute("BEGIN IMMEDIATE")  # of several processes, one moves the rows
    try:
        pages, free, size = (
            db.execute(f"PRAGMA {p}").fetchone()[0] for p in ("page_count", "freelist_count", "page_size")
        )
        (last,) = db.execute(
            "SELECT max(id) FROM predictions WHERE time < ?", (time.time() - max_days * 86400,)
        ).fetchone()
        if (pages - free) * size > max_bytes:
            count = db.execute("SELECT count(*) FROM predictions").fetchone()[0]
            keep = int(count * _SHARE_KEPT)
            older = db.execute("SELECT id FROM predictions ORDER BY id DESC LIMIT 1 OFFSET ?", (keep,)).fetchone()
            last = max(last or 0, older[0] if older else 0)
        if not last:
            db.execute("ROLLBACK")
            return None
        rows = db.execute(f"SELECT {_LIST} FROM predictions WHERE id <= ? ORDER BY id", (last,)).fetchall()
        target = archive_folder(path) / f"predictions-{int(rows[0][0])}-{last:012d}.parquet"
        with atomic_path(target) as partial:
            _frame(rows).write_parquet(partial)
        db.execute("DELETE FROM predictions WHERE id <= ?", (last,))
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
    db.executescript("PRAGMA incremental_vacuum")  # through execute() it would free a single page
    return target


def _frame(rows: Sequence[Sequence[Any]]) -> Any:
    import polars as pl

    kinds: dict[str, Any] = {"float": pl.Float64, "int": pl.Int64, "str": pl.String, "bytes | None": pl.Binary}
    return pl.DataFrame(rows, schema={f.name: kinds[str(f.type)] for f in fields(Row)}, orient="row")


def read_log(
    path: Path,
    *,
    since: float = 0.0,
    until: float = float("inf"),
    archived: bool = True,
    roles: Sequence[str] = ANSWERING,
) -> Predictions:
    """Predictions that were logged between two times, in order of time.

    Ids are ``REQUEST_ID/POSITION``, made unique by a count where a client used an id twice. Columns: time, probability,
    decision, certificate, bundle_sha256, reason, views, role, sequence, picture_sha256, stage, cost, each uncertainty
    measure as ``uncertainty_NAME`` (NaN where a
    row lacks it), and each metadata column as ``column_NAME`` (empty where unknown). Embeddings are there when every
    row has one of the same width.

    Args:
        path: the database.
        since: seconds since 1970, included.
        until: the same, excluded.
        archived: include the Parquet files beside it.
        roles: of the bundles; those whose decisions somebody got where left out.

    Raises:
        DataError: there is no log, or nothing in it between the two times.
    """
    if not path.is_file():
        raise DataError("there is no log of predictions", where=str(path), fix="start the server with --log-db")
    # Fresh rows first: what moves to the archive in between is then read twice, not missed.
    with closing(connect(path)) as db:
        rows = db.execute(f"SELECT {_LIST} FROM predictions WHERE time >= ? AND time < ?", (since, until)).fetchall()
    for file in sorted(archive_folder(path).glob("predictions-*.parquet")) if archived else []:
        import polars as pl

        old = pl.read_parquet(file)
        lacking = [pl.lit(v).alias(k) for k, v in _LATER.items() if k not in old.columns]
        old = old.with_columns(*lacking).select(COLUMNS)
        rows += old.filter((pl.col("time") >= since) & (pl.col("time") < until)).rows()
    at = COLUMNS.index("role")
    rows = [row for row in rows if row[at] in roles]
    if not rows:
        raise DataError("the log holds no prediction of this time", where=str(path))
    return _predictions(sorted(set(rows), key=lambda r: (r[0], r[1], r[2])))


def _predictions(rows: Sequence[Sequence[Any]]) -> Predictions:
    by = {name: [row[i] for row in rows] for i, name in enumerate(COLUMNS)}
    seen: dict[str, int] = {}
    ids = []
    for request_id, position in zip(by["request_id"], by["position"], strict=True):
        name = f"{request_id}/{position}"
        seen[name] = seen.get(name, 0) + 1
        ids.append(name if seen[name] == 1 else f"{name}/{seen[name]}")
    columns: dict[str, NDArray[Any]] = {name: np.array(by[name]) for name in (*_PLAIN, *_LATER)}
    measures, given = [json.loads(t) for t in by["uncertainty"]], [json.loads(t) for t in by["columns"]]
    for name in sorted({n for m in measures for n in m}):
        columns[f"uncertainty_{name}"] = np.array([m.get(name, np.nan) for m in measures], dtype=np.float64)
    for name in sorted({n for g in given for n in g}):
        columns[f"column_{name}"] = np.array([g.get(name, "") for g in given])
    blobs = by["embedding"]
    same = all(b is not None for b in blobs) and len({len(b) for b in blobs}) == 1
    embeddings = np.stack([np.frombuffer(b, dtype="<f2") for b in blobs]).astype(np.float32) if same else None
    return Predictions(
        ids=np.array(ids), log_odds=np.array(by["log_odds"], dtype=np.float64), embeddings=embeddings, columns=columns
    )


def require_parquet() -> None:
    """Raise MissingExtraError where the log could not be rotated."""
    with needs_extra("polars", "eval", feature="the log of predictions"):
        import polars  # noqa: F401
