from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.command import workzone
from helpers.server import Running
from workzone.bundle import schema
from workzone.bundle.starter import starter_bundle
from workzone.errors import CheckFailedError, ConfigError, DataError
from workzone.serving.checklist import ROWS, Given, checklist
from workzone.serving.load import MAX_FILE, LoadReport, _quantile, run_load


def report(**changed: Any) -> LoadReport:
    values = {
        "created": "2026-05-01T00:00:00+00:00", "url": "http://127.0.0.1:8000", "bundle_sha256": "a" * 64, "users": 8,
        "pause": 0.0, "seconds": 60.0, "statuses": {"200": 2000}, "p50": 100.0, "p95": 200.0, "p99": 300.0,
        "slowest": 400.0, "limit_p99": 500.0, "limit_failed": 0.0,
    }  # fmt: skip
    return LoadReport(**{**values, **changed})


def test_limits_are_judged_by_the_figures() -> None:
    assert report().problems() == []
    assert "show little" in report(statuses={"200": 999}).problems()[0]
    assert "show little" in report(seconds=5.0).problems()[0]
    assert "429: 20" in report(statuses={"200": 1980, "429": 20}).problems()[0]
    assert report(statuses={"200": 1980, "429": 20}, limit_failed=0.01).problems() == []
    assert "p99 is 501 ms" in report(p99=501.0).problems()[0]
    nothing = report(statuses={}, p50=None, p95=None, p99=None, slowest=None, seconds=0.0)
    assert len(nothing.problems()) == 3
    assert "no answer" in nothing.sentence()


PLACES = [(1, 0.99, 1), (100, 0.99, 99), (101, 0.99, 100), (2, 0.5, 1), (3, 0.5, 2)]


@pytest.mark.parametrize(("n", "q", "place"), PLACES)
def test_quantiles_are_times_that_were_seen(n: int, q: float, place: int) -> None:
    assert _quantile([float(i) for i in range(1, n + 1)], q) == place
    assert _quantile([], q) is None


def test_other_files_are_no_reports(tmp_path: Path) -> None:
    path = tmp_path / "load.json"
    path.write_text(report().model_dump_json())
    assert LoadReport.read(path) == report()
    told = json.loads(path.read_text())
    others = [json.dumps({**told, "passed": True}), json.dumps({**told, "version": 2})]
    for text in ("", "[]", *others, " " * MAX_FILE + "{}"):
        path.write_text(text)
        with pytest.raises(DataError, match="no report"):
            LoadReport.read(path)
    with pytest.raises(DataError):
        LoadReport.read(tmp_path / "none.json")


def test_the_checklist_reads_the_report(tmp_path: Path) -> None:
    bundle = starter_bundle()
    assert bundle is not None
    path, sha256 = tmp_path / "load.json", schema.read_manifest(bundle).sha256

    def row(made: LoadReport | None) -> tuple[bool, str]:
        if made is not None:
            path.write_text(made.model_dump_json())
        return ROWS["load test"](Given(bundle, load=path if made else None))

    assert row(None)[0] is False
    assert row(report(bundle_sha256=sha256))[0] is True
    assert row(report())[0] is False
    passed, detail = row(report(bundle_sha256=sha256, p99=900.0))
    assert (passed, "900" in detail) == (False, True)
    path.write_text("{}")
    assert next(g for g in checklist(Given(bundle, load=path)) if g.name == "load test").passed is False


def test_wrong_use_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("gevent", reason="Locust is not installed")
    picture = tmp_path / "a.jpg"
    picture.write_bytes(b"x")
    with pytest.raises(ConfigError, match="address"):
        run_load("file:///etc/passwd", [picture], users=1, seconds=1, limit_p99=1)
    with pytest.raises(ConfigError, match="picture"):
        run_load("http://127.0.0.1:1", [], users=1, seconds=1, limit_p99=1)
    with pytest.raises(CheckFailedError, match="does not say"):
        run_load("http://127.0.0.1:1", [picture], users=1, seconds=1, limit_p99=1)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    keys = tmp_path / "keys"
    keys.write_text("tester " + "k" * 32 + "\n")
    bundle = starter_bundle()
    started = Running([str(bundle), "--api-key-file", str(keys)], tmp_path / "errors.txt")
    yield started
    started.stop()


@pytest.mark.slow
@pytest.mark.e2e
def test_locust_asks_a_running_server(server: Running, tmp_path: Path) -> None:
    bundle = starter_bundle()
    assert bundle is not None
    words = ["load", server.url, str(bundle / "golden"), "--p99-ms", "60000", "--seconds", "6", "--users", "3"]
    words += ["--out", str(tmp_path / "load.json"), "--html", str(tmp_path / "load.html")]
    done = workzone(*words, env={"WORKZONE_API_KEY": "k" * 32})
    assert (done.returncode, "show little" in done.stderr) == (3, True), done.stderr
    made = LoadReport.read(tmp_path / "load.json")
    assert made.bundle_sha256 == schema.read_manifest(bundle).sha256
    assert set(made.statuses) == {"200"}
    assert made.requests >= 3
    assert made.p50 is not None
    assert made.p99 is not None
    assert 0 < made.p50 <= made.p99 <= 60_000
    assert "/v1/predict" in (tmp_path / "load.html").read_text()
    refused = workzone(*words, env={"WORKZONE_API_KEY": "wrong"})
    assert (refused.returncode, "does not say" in refused.stderr) == (3, True)
