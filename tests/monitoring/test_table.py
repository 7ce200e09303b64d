from __future__ import annotations

import json
import sqlite3
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from monitored import make_rows

from workzone.errors import CheckFailedError, DataError
from workzone.monitoring.reference import freeze, load_reference, record_path
from workzone.monitoring.reviewed import join
from workzone.monitoring.sqlite import SqliteLog, open_log
from workzone.monitoring.table import Log, TableLog, to_log

COLUMNS: dict[str, list[Any]] = {
    "path": ["b", "a", "bad"],
    "time": ["2026-05-02T01:00:00+02:00", "2026-05-01T10:00:00", None],
    "probability": [0.9, 0.1, None],
    "decision": ["roadwork", "abstain", None],
    "uncertainty": ['{"view_spread": 0.5}', {"view_spread": None}, None],
}


def log_of(n: int = 120) -> Log:
    rows = make_rows(np.random.default_rng(0), 0, n)
    return to_log({k: [r[k] for r in rows] for k in rows[0]}, "rows")


def test_rows_come_in_order_of_time_in_utc() -> None:
    log = to_log(COLUMNS, "here")
    assert log.ids.tolist() == ["a", "b"]
    assert [str(d) for d in log.days] == ["2026-05-01", "2026-05-01"]
    assert log.codes.tolist() == [-1, 1]
    assert log.skipped == {"unreadable": 1}
    np.testing.assert_array_equal(log.measures["view_spread"], [np.nan, 0.5])


def test_one_day_for_a_table_without_times() -> None:
    log = to_log({k: v for k, v in COLUMNS.items() if k != "time"}, "here", day=date(2026, 3, 4))
    assert {str(d) for d in log.days} == {"2026-03-04"}


@pytest.mark.parametrize(
    "change",
    [{"decision": ["maybe", "abstain", None]}, {"probability": [1.2, 0.1, None]}, {"probability": ["x", 0.1, None]},
     {"time": ["yesterday", None, None]}, {"uncertainty": ["[1]", None, None]}, {"probability": [0.5]},
     {"embedding": [[1.0], [1.0, 2.0], None]}, {"embedding": [[1.0], [float("nan")], None]}],
)  # fmt: skip
def test_malformed_columns_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        to_log({**COLUMNS, **change}, "here")


@pytest.mark.parametrize("name", ["probability", "decision", "path"])
def test_missing_columns_are_named(name: str) -> None:
    with pytest.raises(DataError, match=name):
        to_log({k: v for k, v in COLUMNS.items() if k != name}, "here")


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl", ".db"])
def test_every_kind_of_log_gives_the_same(tmp_path: Path, suffix: str) -> None:
    rows = make_rows(np.random.default_rng(1), 0, 20)
    path = tmp_path / f"log{suffix}"
    embedding = np.random.default_rng(2).normal(size=(20, 3)).astype(np.float32)
    flat = {k: [r[k] for r in rows] for k in ("id", "time", "probability", "decision")}
    spread = [r["uncertainty"]["view_spread"] for r in rows]
    if suffix == ".jsonl":
        interval = json.dumps({"kind": "interval"})
        lines = [json.dumps({**r, "embedding": e.tolist()}) for r, e in zip(rows, embedding, strict=True)]
        path.write_text("\n".join([*lines, interval]))
    elif suffix == ".db":
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE predictions (id, time, probability, decision, uncertainty, embedding)")
            for r, e in zip(rows, embedding, strict=True):
                seconds = datetime.fromisoformat(r["time"]).timestamp()
                cells = (r["id"], seconds, r["probability"], r["decision"], json.dumps(r["uncertainty"]), e.tobytes())
                db.execute("INSERT INTO predictions VALUES (?, ?, ?, ?, ?, ?)", cells)
    else:
        parts = {f"embedding_{d}": embedding[:, d] for d in range(3)}
        frame = pl.DataFrame({**flat, "uncertainty_view_spread": spread, **parts})
        frame.write_csv(path) if suffix == ".csv" else frame.write_parquet(path)
    log = to_log(open_log(path).columns(), str(path))
    wanted = to_log({**flat, "uncertainty_view_spread": spread, "embedding": embedding.tolist()}, "wanted")
    assert log.ids.tolist() == wanted.ids.tolist()
    np.testing.assert_array_equal(log.time, wanted.time)
    np.testing.assert_allclose(log.probability, wanted.probability)
    np.testing.assert_allclose(log.measures["view_spread"], wanted.measures["view_spread"])
    np.testing.assert_allclose(log.embeddings, wanted.embeddings, rtol=1e-6)


def test_what_predict_writes_can_be_read(tmp_path: Path) -> None:
    from workzone.cli.results import write

    rows = [
        {"path": "a.jpg", "decision": "roadwork", "probability": 0.9, "log_odds": 2.0, "prediction_set": ["roadwork"],
         "reason": "", "uncertainty": {"entropy": 0.3}, "error": None},
        {"path": "b.jpg", "decision": None, "error": "truncated"},
    ]  # fmt: skip
    for form in ("csv", "parquet", "jsonl"):
        path = tmp_path / f"p.{form}"
        write(iter(rows), form, path)
        log = to_log(TableLog(path).columns(), form, day=date(2026, 1, 1))
        assert log.ids.tolist() == ["a.jpg"]
        assert log.skipped == {"unreadable": 1}


@pytest.mark.parametrize("kind", ["text", "seconds"])
def test_a_database_is_asked_for_recent_rows_only(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "log.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE predictions (id, time, bundle_sha256)")
        for day in (1, 2, 3):
            time = datetime(2026, 5, day, 12, tzinfo=UTC)
            stored = time.isoformat() if kind == "text" else time.timestamp()
            db.execute("INSERT INTO predictions VALUES (?, ?, ?)", (str(day), stored, "x"))
    found = SqliteLog(path).columns(datetime(2026, 5, 2, tzinfo=UTC))
    assert list(found["id"]) == ["2", "3"]


def test_the_log_of_the_server_is_read(tmp_path: Path) -> None:
    path, vector = tmp_path / "log.db", np.array([0.5, -2.0, 1.25])
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE predictions (id INTEGER PRIMARY KEY, time, request_id, position, bundle_sha256, "
                   "probability, decision, uncertainty, embedding)")  # fmt: skip
        for position, blob in enumerate((vector.astype("<f2").tobytes(), None)):
            cells = (1e9 + position, "req", position, "x", 0.5, "abstain", "{}", blob)
            db.execute("INSERT INTO predictions VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)", cells)
    log = to_log(SqliteLog(path).columns(), "log", bundle_sha256="x")
    assert log.ids.tolist() == ["req/0", "req/1"]
    np.testing.assert_array_equal(log.embeddings, [vector, [np.nan] * 3])


def test_a_database_without_the_table_and_a_missing_file_say_so(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "log.db").close()
    with pytest.raises(DataError, match="no table"):
        SqliteLog(tmp_path / "log.db").columns()
    with pytest.raises(DataError, match="no log"):
        open_log(tmp_path / "none.csv")
    (tmp_path / "text.db").write_text("no database at all, but long enough to be read as one" * 30)
    with pytest.raises(DataError, match="cannot be read"):
        SqliteLog(tmp_path / "text.db").columns()


def test_predictions_of_other_bundles_are_left_out() -> None:
    columns = {**COLUMNS, "bundle_sha256": ["x", "y", "x"]}
    log = to_log(columns, "here", bundle_sha256="x")
    assert log.ids.tolist() == ["b"]
    assert log.skipped == {"unreadable": 1, "of another bundle": 1}


def test_reference_round_trip_and_its_hash(tmp_path: Path) -> None:
    out, log = tmp_path / "reference.parquet", log_of()
    record = freeze(log, "b" * 64, out)
    found = load_reference(out, "b" * 64)
    np.testing.assert_array_equal(found.log.probability, log.probability)
    np.testing.assert_array_equal(found.log.measures["view_spread"], log.measures["view_spread"])
    assert found.sha256 == record["sha256"]
    with pytest.raises(CheckFailedError, match="another bundle"):
        load_reference(out, "c" * 64)
    pl.read_parquet(out).with_columns(pl.lit(0.5).alias("probability")).write_parquet(out)
    with pytest.raises(CheckFailedError, match="changed"):
        load_reference(out, "b" * 64)


def test_a_reference_needs_images_a_suffix_and_its_record(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too few"):
        freeze(log_of(20), "b" * 64, tmp_path / "r.parquet")
    with pytest.raises(DataError, match="Parquet"):
        freeze(log_of(), "b" * 64, tmp_path / "r.csv")
    freeze(log_of(), "b" * 64, tmp_path / "r.parquet")
    record_path(tmp_path / "r.parquet").unlink()
    with pytest.raises(DataError, match="record"):
        load_reference(tmp_path / "r.parquet", "b" * 64)


def test_labels_are_joined_in_the_order_of_the_review() -> None:
    log = to_log(COLUMNS, "here")
    r = join({"path": ["b", "zz", "a"], "label": ["roadwork", 1, "0"], "weight": [0.5, 1, 1]}, log, "labels")
    assert r.ids.tolist() == ["b", "a"]
    assert r.labels.tolist() == [1, 0]
    assert r.weights.tolist() == [0.5, 1.0]
    assert r.unknown == 1


@pytest.mark.parametrize(
    ("columns", "where"),
    [({"label": [1]}, "Where: labels.csv"), ({"id": ["a", "b"], "label": [1, "maybe"]}, "Where: labels.csv, row 2 (b)"),
     ({"id": ["a", "b", "a"], "label": [1, 0, 0]}, "Where: labels.csv, rows 1 and 3"),
     ({"id": ["a"], "label": [1], "weight": [2.0]}, "Where: labels.csv, row 1 (a)"),
     ({"id": ["b", "a"], "label": [None, 1], "weight": [1, "x"]}, "Where: labels.csv, row 2 (a)")],
)  # fmt: skip
def test_malformed_labels_are_refused_by_file_and_row(columns: dict[str, Any], where: str) -> None:
    with pytest.raises(DataError) as refused:
        join(columns, to_log(COLUMNS, "here"), "labels.csv")
    assert where in str(refused.value)
