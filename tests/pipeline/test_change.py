"""One key of a finished run is changed, and the phases that really run are counted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from helpers.command import workzone
from helpers.tiny import tiny_words
from workzone.pipeline.phases import PHASES

NAMES = [spec.name for spec in PHASES]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def phases_run(out: Path, cache: Path, *words: str) -> list[str]:
    done = workzone("run", *tiny_words(out, cache, *words))
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    return [n for n in NAMES if any(line.startswith(f"{n}: ") and "up to date" not in line for line in lines)]


@pytest.fixture
def out(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / tiny_run.name))


def test_the_level_of_intervals_and_what_changes_nothing(out: Path, tiny_run: Path) -> None:
    cache = tiny_run.parent / "cache"
    assert phases_run(out, cache) == [], "a copy of a run is as good as the run"
    assert phases_run(out, cache, "compute.threads=2", "tracking.loggers=[]") == []
    assert phases_run(out, cache, "evaluate.level=0.9") == ["evaluate", "bundle"]
    assert json.loads((out / "run.json").read_text())["roles_opened"]["val_test"] == 2


@pytest.mark.slow
def test_another_engine_comes_and_goes(out: Path, tiny_run: Path) -> None:
    cache = tiny_run.parent / "cache"
    after_fuse = NAMES[NAMES.index("export") :]
    assert phases_run(out, cache, "export.also=[openvino-fp32]") == after_fuse
    assert workzone("verify", out / "variants" / "openvino-fp32").returncode == 0
    assert phases_run(out, cache, "export.also=[openvino-fp32]") == []
    assert phases_run(out, cache) == after_fuse
    assert not (out / "variants").exists(), "a bundle that no phase answers for must not stay"
    assert not (out / "export" / "openvino-fp32").exists()
    assert workzone("verify", out / "bundle").returncode == 0
    (out / "bundle" / "policy.json").write_text("{}")
    assert phases_run(out, cache) == ["bundle"]
    (out / "train" / "probe.safetensors").unlink()
    assert phases_run(out, cache) == ["train"], "the same weights again, so nothing after it changes"
