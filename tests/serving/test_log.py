from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from workzone.bundle.parallel import embed_views
from workzone.errors import DataError
from workzone.serving.log import PredictionLog, Row, archive_folder, connect, read_log, rotate, write_rows
from workzone.serving.model import Model
from workzone.vision import open_views

Start = Callable[..., TestClient]
RAW = {"Content-Type": "application/octet-stream"}


def row(i: int, **values: object) -> Row:
    made = Row(
        time=1000.0 + i,
        request_id=f"r{i}",
        position=0,
        bundle_sha256="b" * 64,
        certificate="certified",
        log_odds=float(i),
        probability=0.5,
        decision="abstain",
        reason="between",
        uncertainty=json.dumps({"entropy": 0.1 * i}),
        views=10,
        columns="{}",
        embedding=np.full(4, i, dtype="<f2").tobytes(),
    )
    return replace(made, **values)  # type: ignore[arg-type]


def test_an_answer_is_logged_as_it_was_given(start: Start, model: Model, picture: bytes, tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    client = start(log_db=path, log_embeddings=True)
    before = time.time()
    answer = client.post("/v1/predict", content=picture, headers={**RAW, "X-Request-ID": "one"}).json()
    client.post("/v1/predict", content=b"no picture", headers=RAW)
    client.post(
        "/v1/predict", files=[("file", ("a", b"no")), ("file", ("b", picture))], headers={"X-Request-ID": "two"}
    )
    client.app.state.service.log.close()
    read = read_log(path)
    assert read.ids.tolist() == ["one/0", "two/1"]
    assert read.log_odds.tolist() == [answer["log_odds"]] * 2
    assert read.columns["probability"][0] == answer["probability"]
    assert read.columns["decision"][0] == answer["decision"]
    assert read.columns["certificate"][0] == answer["certificate"]["status"]
    assert read.columns["bundle_sha256"][0] == model.sha256
    assert read.columns["uncertainty_entropy"][0] == answer["uncertainty"]["entropy"]
    assert before <= read.columns["time"][0] <= time.time()
    pixels, _ = open_views(picture, model.detector.preprocessing)
    embedded = embed_views(model.detector.engine, pixels)
    assert read.embeddings is not None
    np.testing.assert_allclose(read.embeddings[0], embedded.mean(axis=0), rtol=2e-3, atol=2e-3)
    assert picture[:64] not in path.read_bytes()


def test_without_the_option_no_embedding_is_kept(start: Start, picture: bytes, tmp_path: Path) -> None:
    client = start(log_db=tmp_path / "log.db")
    client.post("/v1/predict", content=picture, headers=RAW)
    client.app.state.service.log.close()
    assert read_log(tmp_path / "log.db").embeddings is None


def test_old_rows_move_to_parquet_and_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with closing(connect(path)) as db:
        write_rows(db, [row(i) for i in range(10)])
        write_rows(db, [row(i, time=time.time(), embedding=None) for i in range(10, 13)])
        before = read_log(path)
        assert before.embeddings is None
        target = rotate(db, path, max_bytes=1 << 40, max_days=1.0)
        assert target is not None
        assert target.parent == archive_folder(path)
        assert db.execute("SELECT count(*) FROM predictions").fetchone() == (3,)
        assert rotate(db, path, max_bytes=1 << 40, max_days=1.0) is None
    after = read_log(path)
    assert after.ids.tolist() == before.ids.tolist()
    np.testing.assert_array_equal(after.log_odds, before.log_odds)
    assert len(read_log(path, archived=False).ids) == 3
    part = read_log(path, since=1002.0, until=1005.0)
    assert part.ids.tolist() == ["r2/0", "r3/0", "r4/0"]
    assert part.embeddings is not None
    assert part.embeddings[:, 0].tolist() == [2.0, 3.0, 4.0]


def test_a_large_log_gives_its_older_half_away_and_shrinks(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with closing(connect(path)) as db:
        write_rows(db, [row(i, time=time.time(), reason="x" * 1000) for i in range(1000)])
        assert rotate(db, path, max_bytes=500_000, max_days=1.0) is not None
        assert db.execute("SELECT count(*), min(id) FROM predictions").fetchone() == (500, 501)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        assert path.stat().st_size < 900_000
    assert len(read_log(path).ids) == 1000


def test_a_rotation_that_fails_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    archive_folder(path).write_text("in the way")
    with closing(connect(path)) as db:
        write_rows(db, [row(i) for i in range(4)])
        with pytest.raises(OSError):
            rotate(db, path, max_bytes=1 << 40, max_days=1.0)
        assert db.execute("SELECT count(*) FROM predictions").fetchone() == (4,)


def test_several_writers_share_one_log(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    logs = [PredictionLog(path, max_bytes=1 << 40, max_days=1e6) for _ in range(3)]
    for n, log in enumerate(logs):
        for i in range(50):
            log.add(row(i, request_id=f"w{n}-{i}"))
    for log in logs:
        log.close()
    assert len(read_log(path).ids) == 150


def test_the_same_request_id_twice_gives_two_rows(tmp_path: Path) -> None:
    with closing(connect(tmp_path / "log.db")) as db:
        write_rows(db, [row(1), row(2, request_id="r1")])
    assert read_log(tmp_path / "log.db").ids.tolist() == ["r1/0", "r1/0/2"]


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no log"):
        read_log(tmp_path / "absent.db")
    (tmp_path / "text.db").write_text("this is no database, whatever its name says" * 100)
    with pytest.raises(DataError):
        connect(tmp_path / "text.db")
    with closing(sqlite3.connect(tmp_path / "other.db")) as db:
        db.execute("CREATE TABLE mine (x)")
    with pytest.raises(DataError, match="version"):
        connect(tmp_path / "other.db")


def test_a_log_of_version_2_gets_the_new_columns(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with closing(connect(path)) as db:
        write_rows(db, [row(1)])
        for name in ("stage", "cost"):
            db.execute(f"ALTER TABLE predictions DROP COLUMN {name}")
        db.execute("PRAGMA user_version=2")
    with closing(connect(path)) as db:
        write_rows(db, [row(2, stage=3, cost=0.25)])
    read = read_log(path)
    assert read.columns["stage"].tolist() == [0, 3]
    assert read.columns["cost"].tolist() == [1.0, 0.25]
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT typeof(cost) FROM predictions").fetchall() == [("real",), ("real",)]
