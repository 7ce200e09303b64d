"""``workzone evaluate --robustness`` on a bundle and images it has not seen."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from helpers.command import workzone
from workzone.data.manifest import Manifest


@pytest.mark.e2e
@pytest.mark.slow
def test_the_report_gets_the_section_and_the_terminal_the_sentence(tiny_run: Path, tmp_path: Path) -> None:
    manifest = Manifest.load(tiny_run / "prepare" / "manifest.parquet")
    roles = json.loads((tiny_run / "prepare" / "splits.json").read_text())["assignment"]
    frame = manifest.frame.with_columns(pl.Series("path", [str(p.absolute()) for p in manifest.paths]))
    rows = frame.filter(pl.col("id").is_in([i for i, role in roles.items() if role == "val_test"]))
    rows.select("id", "path", "label", "source", "group").write_csv(tmp_path / "test.csv")
    out = tmp_path / "evaluation"
    words = ["--robustness", "--robustness-images", "2", "--out", out, "robustness_levels=[5]", "resamples=100"]
    done = workzone("evaluate", tiny_run / "bundle", tmp_path / "test.csv", *words, "explained=0")
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "robustness.json").read_text())
    assert found["sentence"] in " ".join(done.stdout.split())
    assert {row["level"] for row in found["rows"] if row["kind"] == "corruption"} == {5}
    assert "On changed pictures: what breaks first" in (out / "report.html").read_text()
