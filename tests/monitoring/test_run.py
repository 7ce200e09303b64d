"""The command from files to files."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from monitored import START, make_bundle, make_rows
from typer.testing import CliRunner

from workzone.cli.monitor import app
from workzone.decisions.types import Decision
from workzone.errors import ArtifactError, BundleError, ConfigError, DataError, RunLockedError, WorkzoneError
from workzone.files import read_json, write_json
from workzone.monitoring.output import only_one
from workzone.monitoring.void import mark_path, read_mark, write_mark
from workzone.monitoring.watch import Watch, check_limits

NOW = "2026-05-10T06:00:00"


def write_lines(path: Path, rows: list[dict[str, Any]], *, without: str) -> None:
    path.write_text("\n".join(json.dumps({k: v for k, v in r.items() if k != without}) for r in rows))


class Site:
    """A bundle in use, nine days long."""

    def __init__(self, folder: Path, *, shift: float = 0.0, missed: float = 0.0, name: str = "tiny") -> None:
        self.folder = folder
        rng = np.random.default_rng(11)
        self.bundle = make_bundle(folder / "bundle", name=name)
        rows = [r for day in range(9) for r in make_rows(rng, day, 120, shift=shift if day > 6 else 0.0, missed=missed)]
        write_lines(folder / "log.jsonl", rows, without="label")
        labels = [{"id": r["id"], "label": r["label"]} for r in rows]
        pl.DataFrame(labels).write_csv(folder / "labels.csv")
        calibration = make_rows(rng, -60, 700, missed=missed)
        (folder / "calibration.jsonl").write_text("\n".join(map(json.dumps, calibration)))
        self("freeze", self.bundle, folder / "calibration.jsonl", "--out", folder / "reference.parquet")

    def __call__(self, *words: Any) -> Any:
        found = CliRunner().invoke(app, [str(w) for w in words])
        if isinstance(found.exception, WorkzoneError):
            raise found.exception
        return found

    def run(self, *words: Any) -> Any:
        given = ["--bundle", self.bundle, "--log", self.folder / "log.jsonl", "--now", NOW]
        given += ["--reference", self.folder / "reference.parquet", "--out", self.folder / "out"]
        return self("run", *given, *words)

    @property
    def json(self) -> Any:
        return read_json(self.folder / "out" / "monitor.json")


def test_labels_of_abstained_images_alone_are_not_taken_for_proof(tmp_path: Path) -> None:
    site = Site(tmp_path, missed=0.5)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    labels = pl.read_csv(tmp_path / "labels.csv")
    for decision, noted in (("abstain", True), ("no_roadwork", False)):
        kept = [r["id"] for r in rows if r["decision"] == decision]
        labels.filter(pl.col("id").is_in(kept)).write_csv(tmp_path / "some.csv")
        site.run("--labels", tmp_path / "some.csv", "--out", tmp_path / decision)
        notes = read_json(tmp_path / decision / "monitor.json")["notes"]
        assert any("no answer can be wrong" in n for n in notes) == noted


def test_errors_of_labels_name_the_file_and_the_row(tmp_path: Path) -> None:
    site = Site(tmp_path)
    (tmp_path / "some.csv").write_text("id,label\na,1\nb,maybe\n")
    with pytest.raises(DataError) as refused:
        site.run("--labels", tmp_path / "some.csv")
    assert f"Where: {tmp_path / 'some.csv'}, row 2 (b)." in str(refused.value)


def test_a_quiet_bundle_raises_no_alarm(tmp_path: Path) -> None:
    site = Site(tmp_path)
    done = site.run("--labels", tmp_path / "labels.csv")
    assert done.exit_code == 0, done.output
    assert site.json["alarms"] == []
    assert site.json["promises"][0]["fired_at"] is None
    assert site.json["reviewed"]["n"] == 9 * 120
    assert not mark_path(site.bundle).exists()
    assert [e["valid"] for e in site.json["estimates"]] == [True] * 9


def test_drift_ends_with_exit_code_three_and_an_invalid_estimate(tmp_path: Path) -> None:
    site = Site(tmp_path, shift=1.5)
    done = site.run()
    assert done.exit_code == 3
    alarms = {a["name"]: a for a in site.json["alarms"]}
    assert "probability" in alarms
    assert alarms["probability"]["since"] == "2026-05-09T00:00:00+00:00"
    last = site.json["estimates"][-1]
    assert not last["valid"]
    assert any("drift" in r for r in last["reasons"])
    assert not mark_path(site.bundle).exists()


def test_a_broken_promise_voids_the_certificate(tmp_path: Path) -> None:
    site = Site(tmp_path, missed=0.2)
    done = site.run("--labels", tmp_path / "labels.csv", "--if-void", "warn")
    assert done.exit_code == 3
    mark = read_mark(mark_path(site.bundle), site.json["bundle"]["sha256"])
    assert mark is not None
    assert mark.policy == "warn"
    assert mark.evidence[0]["risk"] == "false_negative_rate"
    assert site.json["void"]["sha256"] == mark.to_dict()["sha256"]
    assert not any(e["valid"] for e in site.json["estimates"])
    # It stays void without labels, and the first finding counts.
    assert site.run("--if-void", "abstain").exit_code == 3
    assert site.json["void"] == mark.to_dict()


def test_where_no_day_is_judged_the_reason_is_said(tmp_path: Path) -> None:
    site = Site(tmp_path)
    said = site.run("--now", "2026-05-01T23:00:00", "--out", tmp_path / "first").output
    assert "No day could be judged yet: 2026-05-01 with 1" in said.replace(",", "")
    assert "is not finished" in said
    said = site.run("--fewest", "5000", "--out", tmp_path / "few").output
    assert "2026-05-09 has 120 images, 5000 are needed" in said
    said = site.run("--now", "2027-05-10T06:00:00", "--out", tmp_path / "none").output
    assert "the log holds no image of these 14 days" in said
    page = (tmp_path / "none" / "monitor.html").read_text()
    assert "No day was tested" in page
    assert "<svg" not in page


def test_labels_count_once_however_often_one_looks(tmp_path: Path) -> None:
    site = Site(tmp_path, missed=0.05)
    labels = pl.read_csv(tmp_path / "labels.csv")
    for rows in (200, 200, 600, 1080):
        labels.head(rows).write_csv(tmp_path / "some.csv")
        site.run("--labels", tmp_path / "some.csv")
    bit_by_bit = read_json(tmp_path / "out" / "watch.json")
    (tmp_path / "out" / "watch.json").unlink()
    site.run("--labels", tmp_path / "labels.csv")
    assert read_json(tmp_path / "out" / "watch.json") == bit_by_bit


def test_limits_cannot_be_changed_after_looking(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.run("--labels", tmp_path / "labels.csv")
    with pytest.raises(ArtifactError, match="other limits"):
        site.run("--limit", "selective_error=0.5")
    with pytest.raises(ArtifactError, match="another bundle"):
        Watch.open(tmp_path / "out" / "watch.json", "f" * 64, {"false_negative_rate": 0.02}, 0.05)


def test_page_needs_nothing_from_outside_and_escapes_names(tmp_path: Path) -> None:
    site = Site(tmp_path, shift=1.5, name="<script>alert(1)</script>")
    site.run("--labels", tmp_path / "labels.csv")
    page = (tmp_path / "out" / "monitor.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert not re.findall(r"""(?:src|href)=["'](?!#)""", page)
    assert "default-src 'none'" in page


def test_gauges_parse_and_agree_with_the_findings(tmp_path: Path) -> None:
    site = Site(tmp_path, shift=1.5, name='ti"ny\\')
    site.run("--labels", tmp_path / "labels.csv")
    text = (tmp_path / "out" / "monitor.prom").read_text()
    parser = pytest.importorskip("prometheus_client.parser", reason="prometheus-client is not installed")
    families = {f.name: f for f in parser.text_string_to_metric_families(text)}
    alarms = [s for s in families["workzone_monitor_alarm"].samples if s.value == 1]
    assert {s.labels["signal"] for s in alarms} == {a["name"] for a in site.json["alarms"]}
    assert families["workzone_monitor_alarms"].samples[0].labels["bundle"] == 'ti"ny\\'
    assert len(families["workzone_drift_adjusted_p"].samples) == len(site.json["days"][-2]["tests"])
    assert families["workzone_estimate_valid"].samples[0].value == 0
    assert not list((tmp_path / "out").glob("*.new"))


def test_actions_run_once(tmp_path: Path) -> None:
    site = Site(tmp_path, shift=1.5)
    program = f"import sys; open({str(tmp_path / 'got')!r}, 'a').write('x')"
    write_json(tmp_path / "a.json", {"actions": [{"kind": "command", "command": [sys.executable, "-c", program]}]})
    for _ in range(2):
        site.run("--actions", tmp_path / "a.json")
    assert (tmp_path / "got").read_text() == "x"
    assert site.json["deliveries"] == []


def test_a_table_without_times_needs_a_day(tmp_path: Path) -> None:
    site = Site(tmp_path)
    rows = [json.loads(x) for x in (tmp_path / "log.jsonl").read_text().splitlines()[:120]]
    write_lines(tmp_path / "log.jsonl", rows, without="time")
    site.run()
    assert any("without a time" in note for note in site.json["notes"])
    assert site.run("--day", "2026-05-09").exit_code == 0
    assert site.json["days"][-2]["verdict"] == "in line"


def test_wrong_words_are_refused(tmp_path: Path) -> None:
    site = Site(tmp_path)
    for words in ("--least psy=1", "--least psi", "--limit luck=0.1", "--day today", "--once --every 9"):
        with pytest.raises(ConfigError):
            site.run(*words.split())
    with pytest.raises(ConfigError):
        check_limits({"selective_error": 1.0})


def test_two_monitors_do_not_share_a_folder(tmp_path: Path) -> None:
    with only_one(tmp_path / "out"), pytest.raises(RunLockedError), only_one(tmp_path / "out"):
        pass


def test_a_mark_is_honoured_as_it_asks(tmp_path: Path) -> None:
    decision = Decision("roadwork", 0.9, 2.0, frozenset({"roadwork"}), "sure")
    stop = write_mark(tmp_path / "a", "a" * 64, ["r"], [{"risk": "x"}])
    assert stop.honour(decision).label == "abstain"
    assert stop.honour(decision).prediction_set == {"roadwork", "no_roadwork"}
    warn = write_mark(tmp_path / "b", "a" * 64, ["r"], [{"risk": "x"}], "warn")
    assert warn.honour(decision).label == "roadwork"
    assert warn.honour(decision).reason == "certificate void; sure"
    assert read_mark(tmp_path / "a", "b" * 64) is None
    assert read_mark(tmp_path / "none", "a" * 64) is None


@pytest.mark.parametrize("change", [{"policy": "shrug"}, {"reasons": []}, {"time": "later"}, {"sha256": "0"}])
def test_a_damaged_mark_does_not_pass_for_none(tmp_path: Path, change: dict[str, Any]) -> None:
    mark = write_mark(tmp_path / "m", "a" * 64, ["r"], [{"risk": "x"}], now=START)
    write_json(tmp_path / "m", {**mark.to_dict(), **change})
    with pytest.raises(BundleError, match="cannot be read"):
        read_mark(tmp_path / "m", "a" * 64)
    (tmp_path / "m").write_text("{")
    with pytest.raises(BundleError, match="cannot be read"):
        read_mark(tmp_path / "m", "a" * 64)
