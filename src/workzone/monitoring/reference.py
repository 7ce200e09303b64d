"""The frozen reference: predictions of one bundle on images that stand for what was promised."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from workzone.errors import CheckFailedError, DataError, unreadable
from workzone.files import atomic_path, read_json, sha256_file, write_json
from workzone.monitoring.table import CODES, Log, TableLog, to_log

FEWEST = 100
SCHEMA = "workzone-reference-1"
_NAMES = {code: name for name, code in CODES.items()}


@dataclass(frozen=True, slots=True)
class Reference:
    """A frozen reference and what is known about it."""

    log: Log
    sha256: str
    bundle_sha256: str
    created: str


def record_path(table: Path) -> Path:
    """The record beside a reference table."""
    return table.with_name(f"{table.name}.json")


def freeze(log: Log, bundle_sha256: str, out: Path, *, now: datetime | None = None) -> dict[str, Any]:
    """Write ``log`` as a reference table, and its hash and bundle into a record beside it, which is returned.

    Raises:
        DataError: fewer than 100 predictions, or ``out`` is no Parquet file.
    """
    import polars as pl

    if out.suffix != ".parquet":
        raise DataError("a reference is a Parquet file", where=str(out), fix="name it reference.parquet")
    if len(log) < FEWEST:
        raise DataError(
            f"{len(log)} predictions are too few for a reference",
            where=str(out),
            fix=f"give at least {FEWEST}, better those of all certification images",
        )
    data: dict[str, Any] = {
        "id": log.ids.tolist(),
        "probability": log.probability,
        "decision": [_NAMES[int(c)] for c in log.codes],
    }
    data |= {f"uncertainty_{name}": values for name, values in log.measures.items()}
    if log.embeddings is not None:
        data["embedding"] = log.embeddings.astype(np.float32).tolist()
    with atomic_path(out) as partial:
        pl.DataFrame(data).write_parquet(partial)
    record = {
        "schema": SCHEMA,
        "sha256": sha256_file(out),
        "bundle_sha256": bundle_sha256,
        "n": len(log),
        "signals": ["probability", "decision", *log.measures, *(["embedding"] if log.embeddings is not None else [])],
        "created": (now or datetime.now(UTC)).isoformat(timespec="seconds"),
    }
    write_json(record_path(out), record)
    return record


def load_reference(table: Path, bundle_sha256: str) -> Reference:
    """Read a reference and compare its hash and its bundle with its record.

    Raises:
        DataError: the table or its record cannot be read.
        CheckFailedError: changed since it was frozen, or frozen for another bundle.
    """
    path = record_path(table)
    fix = "make it with: workzone monitor freeze BUNDLE PREDICTIONS --out reference.parquet"
    if not table.is_file():
        raise DataError("there is no reference here", where=str(table), fix=fix)
    try:
        record = read_json(path)
    except (OSError, ValueError) as error:
        raise unreadable(DataError, "the record of the reference", path, error, fix=fix) from error
    try:
        found, owner, created = str(record["sha256"]), str(record["bundle_sha256"]), str(record["created"])
    except (KeyError, TypeError) as error:
        what = "the record of the reference lacks sha256, bundle_sha256 or created"
        raise DataError(what, where=str(path), fix=fix) from error
    if sha256_file(table) != found:
        raise CheckFailedError("the reference was changed after it was frozen", where=str(table), fix=fix)
    if owner != bundle_sha256:
        raise CheckFailedError("the reference belongs to another bundle", where=str(table), fix=fix)
    return Reference(to_log(TableLog(table).columns(), str(table)), found, owner, created)
