"""A clock that jumps: back by a day, forward by a year. Order is kept by numbers and hashes, never by time."""

from __future__ import annotations

import itertools
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workzone.config import RunConfig
from workzone.files import write_json
from workzone.pipeline import engine, folder
from workzone.pipeline.engine import run_pipeline
from workzone.pipeline.phase import Context, PhaseSpec
from workzone.registry import log

JUMPS = [timedelta(0), timedelta(days=-1), timedelta(days=365), timedelta(days=-3650), timedelta(seconds=-1)]


@pytest.fixture
def jumping(monkeypatch: pytest.MonkeyPatch) -> type[datetime]:
    """``datetime.now`` jumps to and fro with every call, in the modules that ask it."""
    steps = itertools.cycle(JUMPS)
    start = datetime(2026, 6, 1, 12, tzinfo=UTC)

    class Jumping(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return start + next(steps)

    for module in (engine, folder, log):
        monkeypatch.setattr(module, "datetime", Jumping)
    wall = itertools.cycle([1.8e9, 1.7e9, 1.9e9, 1.0e9])
    monkeypatch.setattr(time, "time", lambda: next(wall))
    return Jumping


def phases() -> list[PhaseSpec]:
    def run(context: Context) -> None:
        write_json(context.artifacts.root / context.spec.name / "out.json", context.config.seed)

    def spec(name: str, before: str | None) -> PhaseSpec:
        return PhaseSpec(
            name=name, version=1, config=("seed",), roles=(), run=run,
            inputs=lambda a, c: [a.root / before / "out.json"] if before else [],
            outputs=lambda a, c: [a.root / name / "out.json"],
        )  # fmt: skip

    return [spec("prepare", None), spec("train", "prepare"), spec("evaluate", "train")]


def test_a_run_is_up_to_date_whatever_the_clock_says(jumping: type[datetime], tmp_path: Path) -> None:
    config = RunConfig.model_validate({"data": "synthetic", "out": tmp_path / "run", "seed": 1})
    assert [r.ran for r in run_pipeline(config, phases())] == [True] * 3
    record = json.loads((tmp_path / "run" / "run.json").read_text())["phases"]
    begun = [record[name]["started"] for name in ("prepare", "train", "evaluate")]
    assert begun != sorted(begun), "the clock did go back"
    assert all(0 <= entry["seconds"] < 60 for entry in record.values())
    assert [r.ran for r in run_pipeline(config, phases())] == [False] * 3
    changed = config.model_copy(update={"seed": 2})
    assert [r.ran for r in run_pipeline(changed, phases())] == [True] * 3


def test_files_from_the_future_or_the_past_are_the_same_files(tmp_path: Path) -> None:
    import os

    config = RunConfig.model_validate({"data": "synthetic", "out": tmp_path / "run"})
    run_pipeline(config, phases())
    for stamp in (0, 4_000_000_000):
        for path in (tmp_path / "run").rglob("*"):
            os.utime(path, (stamp, stamp))
        assert [r.ran for r in run_pipeline(config, phases())] == [False] * 3


def test_the_chain_of_the_registry_follows_numbers_and_hashes(jumping: type[datetime], tmp_path: Path) -> None:
    for number in range(6):
        log.append(tmp_path, log.require_intact(tmp_path), "add", {"number": number})
    entries = log.require_intact(tmp_path)
    times = [entry.time for entry in entries]
    assert times != sorted(times), "the clock did go back"
    assert [entry.seq for entry in entries] == list(range(6))
    assert [entry.values["number"] for entry in entries] == list(range(6))


def test_the_log_of_predictions_keeps_every_row(jumping: type[datetime], tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    from workzone.decisions import Decision
    from workzone.serving.log import PredictionLog, Row, read_log

    decision = Decision("abstain", 0.4, -0.4, frozenset(), "between the thresholds")
    store = PredictionLog(tmp_path / "log.sqlite", max_bytes=1 << 26, max_days=36500.0)
    stamps = []
    try:
        for number in range(8):
            row = Row.of(decision, None, f"r{number}", 0, "b" * 64, "certified", {})
            stamps.append(row.time)
            store.add(row)
    finally:
        store.close()
    assert stamps != sorted(stamps)
    found = read_log(tmp_path / "log.sqlite")
    times = np.asarray(found.columns["time"], dtype=float).tolist()
    assert times == sorted(stamps), "in order of time, whatever the order of arrival"


def test_windows_of_the_monitor_ignore_days_that_have_not_come(tmp_path: Path) -> None:
    from workzone.monitoring.table import to_log

    today = datetime(2026, 6, 10, tzinfo=UTC)
    moments = [today - timedelta(days=d) for d in (3, 1, -400, 2, 8)]
    columns = {
        "time": [m.timestamp() for m in moments],
        "id": [f"i{n}" for n in range(5)],
        "probability": [0.1, 0.2, 0.3, 0.4, 0.5],
        "decision": ["no_roadwork"] * 5,
    }
    table = to_log(columns, "log")
    assert len(table) == 5, "order of arrival does not matter"
    days = sorted(set(table.days.astype(str).tolist()))
    assert days == sorted(m.date().isoformat() for m in moments)
