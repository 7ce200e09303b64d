"""From an answer to a void certificate and back to the answers: server, review queue, monitor, one id for a picture."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from typer.testing import CliRunner

from workzone.bundle.schema import read_manifest
from workzone.cli.main import app
from workzone.data.manifest import Manifest
from workzone.errors import DataError
from workzone.monitoring.reviewed import join
from workzone.monitoring.sqlite import ArchiveLog, SqliteLog, open_log
from workzone.monitoring.table import TableLog, to_log
from workzone.monitoring.void import mark_path
from workzone.serving.app import create_app
from workzone.serving.log import SCHEMA_VERSION, Row, archive_folder, connect, read_log, rotate, write_rows
from workzone.serving.settings import ServeSettings

RAW = {"Content-Type": "application/octet-stream"}
PICTURES = 24


def noise(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    out = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (96, 96, 3), dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def run(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return f"{done.exit_code} {done.output}"


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture
def client(bundle: Path, tmp_path: Path) -> Iterator[TestClient]:
    settings = ServeSettings(
        bundle=bundle, threads=1, check_seconds=0.2, grace_seconds=5, log_db=tmp_path / "log.db",
        keep_abstained=tmp_path / "review", keep_share=1.0, monitor=tmp_path / "monitor",
    )  # fmt: skip
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as made:
        yield made


def label_all(client: TestClient, opposite: dict[str, str]) -> None:
    """Two reviewers say of each picture the opposite of what was answered."""
    for reviewer in ("ann", "bob"):
        while queue := client.get(f"/v1/review?reviewer={reviewer}").json()["queue"]:
            for item in queue:
                said = {"sha256": item["sha256"], "reviewer": reviewer, "label": opposite[item["sha256"]]}
                assert client.post("/v1/review", json=said).status_code == 200


def test_wrong_answers_void_the_certificate_of_the_running_server(
    client: TestClient, bundle: Path, tmp_path: Path
) -> None:
    contents = [noise(i) for i in range(PICTURES)]
    told = [
        client.post("/v1/predict", content=c, headers={**RAW, "X-Request-ID": f"van-{i}"}).json()
        for i, c in enumerate(contents)
    ]
    answered = [t["decision"] for t in told]
    assert sum(a != "abstain" for a in answered) >= 15, "the tiny bundle answers too little for this test"
    service = client.app.state.service  # type: ignore[attr-defined]
    service.review.flush()
    opposite = {
        hashlib.sha256(c).hexdigest(): "none" if a == "roadwork" else "roadwork"
        for c, a in zip(contents, answered, strict=True)
    }
    label_all(client, opposite)
    manifest = tmp_path / "review" / "manifest.csv"
    manifest.write_text(client.get("/v1/review/export").text)

    # One picture has one id in log, manifest and monitor.
    rows = list(csv.DictReader(io.StringIO(manifest.read_text())))
    limit = time.monotonic() + 20
    while len(rows) != len(SqliteLog(tmp_path / "log.db").columns()["id"]):
        assert time.monotonic() < limit
        time.sleep(0.05)
    log = SqliteLog(tmp_path / "log.db").columns()
    assert {(r["id"], r["sha256"]) for r in rows} == set(zip(log["id"], log["sha256"], strict=True))
    assert {r["id"] for r in rows} == {f"van-{i}/0" for i in range(PICTURES)}
    assert Manifest.load(manifest).frame["id"].to_list() == [r["id"] for r in rows]

    # Half of the log has moved to the archive by now; the monitor sees all of it.
    with closing(connect(tmp_path / "log.db")) as db:
        assert rotate(db, tmp_path / "log.db", max_bytes=1, max_days=1e6) is not None
    sha = read_manifest(bundle).sha256
    table = to_log(open_log(tmp_path / "log.db").columns(), "log", bundle_sha256=sha)
    reviewed = join(TableLog(manifest).columns(), table, "labels")
    assert (len(reviewed), reviewed.unknown) == (PICTURES, 0)

    # A reference of the same kind, so that only the labels speak.
    reference = tmp_path / "reference.jsonl"
    lines = [
        json.dumps({"id": f"{i}-{k}", "probability": t["probability"], "decision": t["decision"]})
        for k in range(5)
        for i, t in enumerate(told)
    ]
    reference.write_text("\n".join(lines))
    run("monitor", "freeze", str(bundle), str(reference), "--out", str(tmp_path / "reference.parquet"))
    words = [
        "monitor", "run", "--bundle", str(bundle), "--log", str(tmp_path / "log.db"),
        "--reference", str(tmp_path / "reference.parquet"), "--labels", str(manifest),
        "--out", str(tmp_path / "monitor"), "--limit", "selective_error=0.1", "--if-void", "abstain",
    ]  # fmt: skip
    said = run(*words)
    assert said.startswith("3 "), said
    assert "answered wrongly" in said
    assert mark_path(bundle).is_file()

    # The server reads the mark at its next check, without a restart, and shows what the monitor found.
    limit = time.monotonic() + 30
    while service.model.state() != "void":
        assert time.monotonic() < limit
        time.sleep(0.05)
    first = next(c for c, a in zip(contents, answered, strict=True) if a != "abstain")
    after = client.post("/v1/predict", content=first, headers=RAW).json()
    assert (after["decision"], after["reason"]) == ("abstain", "certificate void")
    assert "answered wrongly" in after["certificate"]["sentence"]
    assert client.get("/readyz").status_code == 503
    figures = client.get("/metrics").text
    assert 'workzone_certificate{state="void"} 1.0' in figures
    assert "workzone_monitor_readable 1.0" in figures
    line = next(x for x in figures.splitlines() if x.startswith("workzone_promise_e_value") and "selective" in x)
    assert float(line.split()[-1]) >= 20

    # The labels go on to training.
    fused = run("data", "fuse", f"review={manifest}", "--out", str(tmp_path / "fused.csv"))
    assert fused.startswith("0 "), fused
    assert len(Manifest.load(tmp_path / "fused.csv").frame) == PICTURES


def row(i: int, **more: object) -> Row:
    values = {
        "time": 1_770_000_000.0 + i, "request_id": f"r{i}", "position": 0, "bundle_sha256": "b" * 64,
        "certificate": "certified", "log_odds": 0.0, "probability": 0.5, "decision": "abstain", "reason": "",
        "uncertainty": "{}", "views": 1, "columns": "{}", "embedding": np.full(3, i, dtype="<f2").tobytes(),
    }  # fmt: skip
    return Row(**{**values, **more})  # type: ignore[arg-type]


def test_the_monitor_reads_database_and_archive_as_one(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with closing(connect(path)) as db:
        write_rows(db, [row(i) for i in range(8)])
        write_rows(db, [row(i, role="shadow", decision="roadwork") for i in range(8)])
        write_rows(db, [row(i, time=time.time()) for i in range(8, 10)])
        assert rotate(db, path, max_bytes=1 << 40, max_days=1.0) is not None
        (twice,) = archive_folder(path).glob("*.parquet")
        write_rows(db, [row(7)])  # as if the row were just on its way
    log = open_log(path).columns()
    assert log["id"] == [f"r{i}/0" for i in range(10)]
    assert [e[0] for e in log["embedding"]] == list(range(10))
    assert set(open_log(path, "shadow").columns()["decision"]) == {"roadwork"}
    assert open_log(archive_folder(path)).columns()["id"] == [f"r{i}/0" for i in range(8)]
    assert open_log(twice).columns()["id"] == [f"r{i}/0" for i in range(8)]
    with pytest.raises(DataError, match="no log"):
        ArchiveLog(tmp_path / "absent").columns()
    with pytest.raises(DataError, match="challenger"):
        open_log(path, "challenger").columns()
    twice.write_bytes(b"this is no table")
    with pytest.raises(DataError, match="archive"):
        open_log(path).columns()


def test_a_log_of_the_first_version_is_carried_on(tmp_path: Path) -> None:
    import polars as pl

    path = tmp_path / "log.db"
    with closing(connect(path)) as db:
        write_rows(db, [row(i) for i in range(4)])
        rotate(db, path, max_bytes=1 << 40, max_days=1.0)
        (file,) = archive_folder(path).glob("*.parquet")
        write_rows(db, [row(9, time=time.time())])
        for name in ("role", "sequence", "picture_sha256"):
            db.execute(f"ALTER TABLE predictions DROP COLUMN {name}")
        db.execute("PRAGMA user_version=1")
    pl.read_parquet(file).drop("role", "sequence", "picture_sha256").write_parquet(file)
    assert open_log(path).columns()["id"] == ["r0/0", "r1/0", "r2/0", "r3/0", "r9/0"]
    with closing(connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        write_rows(db, [row(10, time=time.time(), role="challenger")])
    assert read_log(path).columns["role"].tolist() == ["champion"] * 5 + ["challenger"]
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM predictions WHERE role = 'champion'").fetchone() == (1,)


def test_a_label_is_of_one_picture_even_where_an_id_was_used_twice(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with closing(connect(path)) as db:
        pictures = [{"picture_sha256": "1" * 64, "decision": "roadwork"}, {"picture_sha256": "2" * 64}]
        write_rows(db, [row(i, request_id="same", **more) for i, more in enumerate(pictures)])
    table = to_log(open_log(path).columns(), "log")
    for sha, code in (("1" * 64, 1), ("2" * 64, -1)):
        (tmp_path / "labels.csv").write_text(f"id,label,sha256\nsame/0,0,{sha}\n")
        reviewed = join(TableLog(tmp_path / "labels.csv").columns(), table, "labels")
        assert reviewed.codes.tolist() == [code]
    (tmp_path / "labels.csv").write_text(f"id,label,sha256\nsame/0,0,{'3' * 64}\n")
    assert join(TableLog(tmp_path / "labels.csv").columns(), table, "labels").unknown == 1


@pytest.mark.parametrize(
    "text",
    [
        "workzone_monitor_alarms{} 1\nanything_else{} 1\n",
        "workzone_monitor_alarms{} one\n",
        'workzone_monitor_alarms{bundle="x} 1\n',
        "# HELP other text\n",
        "\x00",
    ],
)
def test_a_file_that_no_monitor_wrote_is_not_shown(
    client: TestClient, tmp_path: Path, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "monitor").mkdir()
    (tmp_path / "monitor" / "monitor.prom").write_text(text)
    figures = client.get("/metrics")
    assert figures.status_code == 200
    assert "workzone_monitor_readable 0.0" in figures.text
    assert "workzone_monitor_alarms" not in figures.text
    assert "no gauge of a monitor" in capfd.readouterr().err

