"""The real pipeline, killed in every phase and started again, ends with what an uninterrupted run writes."""

from __future__ import annotations

import json
import random
import subprocess
import time
from pathlib import Path
from typing import IO

import polars as pl
import pytest

from helpers.command import command, environment, workzone
from helpers.tiny import tiny_words

NAMES = ("prepare", "train", "fuse", "export", "calibrate", "decide", "evaluate", "bundle")
EQUAL = (
    "prepare/manifest.parquet",
    "prepare/splits.json",
    "prepare/rejected.csv",
    "prepare/synthetic/metadata.csv",
    "train/probe.safetensors",
    "train/probe.json",
    "train/preprocessing.json",
    "train/onnx/backbone.onnx",
    "fuse/fusion.safetensors",
    "fuse/fusion.json",
    "export/onnxruntime-fp32/backbone.onnx",
    "export/onnxruntime-fp32/head.onnx",
    "export/parity.json",
    "calibrate/onnxruntime-fp32/calibrator.json",
    "decide/onnxruntime-fp32/policy.json",
    "evaluate/bootstrap_ci.json",
    "bundle/engine/head.onnx",
    "bundle/policy.json",
)


def kill_in(phase: str, delay: float, words: list[str], log: IO[str]) -> list[str]:
    """Start a run, kill it ``delay`` seconds after ``phase`` has begun, and return the lines it wrote until then."""
    lines: list[str] = []
    process = subprocess.Popen(
        command(["run", *words]), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line.rstrip())
            log.write(line)
            if line.startswith(f"{phase}: ") and "up to date" not in line:
                time.sleep(delay)
                break
    finally:
        process.kill()
        process.communicate()
    assert lines, "the run ended before it said anything"
    assert lines[-1].startswith(f"{phase}: "), lines[-3:]
    return lines


def finished(out: Path) -> dict[str, object]:
    record = out / "run.json"
    return json.loads(record.read_text())["phases"] if record.exists() else {}


def begun(lines: list[str]) -> list[str]:
    return [n for line in lines for n in NAMES if line.startswith(f"{n}: ") and "up to date" not in line]


def assert_same_results(out: Path, reference: Path) -> None:
    different = [name for name in EQUAL if (out / name).read_bytes() != (reference / name).read_bytes()]
    assert different == []
    for name in ("calibrate/onnxruntime-fp32/val_calib.parquet", "evaluate/predictions.parquet"):
        # The drawn images lie in the folder of the run, so their paths differ.
        frames = [pl.read_parquet(f / name).drop("path") for f in (out, reference)]
        assert frames[0].equals(frames[1]), name
    certificates = [
        json.loads((f / "decide" / "onnxruntime-fp32" / "certificate.json").read_text()) for f in (out, reference)
    ]
    for certificate in certificates:
        assert certificate.pop("created")
    assert certificates[0] == certificates[1]
    left = [p for p in out.rglob(".*") if p.name != ".lock"]
    assert left == []


def resume_through(kills: list[tuple[str, float]], tmp_path: Path, reference: Path) -> None:
    # The name of the folder is the name of the bundle.
    out = tmp_path / reference.name
    words = tiny_words(out, tmp_path / "cache")
    with (tmp_path / "log.txt").open("w") as log:
        for phase, delay in kills:
            before = finished(out)
            lines = kill_in(phase, delay, words, log)
            assert not set(begun(lines)) & before.keys(), "a finished phase ran again"
            after = finished(out)
            assert {n: after[n] for n in before} == before, "the record of a finished phase changed"
        before = finished(out)
        done = workzone("run", *words)
        log.write(done.stderr)
    assert done.returncode == 0, done.stderr
    assert begun(done.stderr.splitlines()) == [n for n in NAMES if n not in before]
    assert_same_results(out, reference)
    verified = workzone("verify", out / "bundle")
    assert verified.returncode == 0, verified.stdout
    again = workzone("run", *words)
    assert begun(again.stderr.splitlines()) == []


@pytest.mark.e2e
def test_killed_once_in_every_phase(tmp_path: Path, tiny_run: Path) -> None:
    kills = [("prepare", 0.4), ("train", 1.5), ("fuse", 0.0), ("export", 0.5), ("calibrate", 0.0), ("decide", 0.0)]
    resume_through([*kills, ("evaluate", 0.3), ("bundle", 0.0)], tmp_path, tiny_run)


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_killed_at_many_moments(tmp_path: Path, tiny_run: Path, seed: int) -> None:
    rng = random.Random(seed)
    longest = {"prepare": 3.0, "train": 8.0, "export": 4.0, "evaluate": 3.0}
    kills = [(n, rng.uniform(0, longest.get(n, 0.3))) for n in NAMES for _ in range(2)]
    out = tmp_path / tiny_run.name
    # A phase may be over before it is killed; then the next moment in it no longer exists.
    words = tiny_words(out, tmp_path / "cache")
    with (tmp_path / "log.txt").open("w") as log:
        for phase, delay in kills:
            if phase not in finished(out):
                before = finished(out)
                assert not set(begun(kill_in(phase, delay, words, log))) & before.keys()
    resume_through([], tmp_path, tiny_run)
