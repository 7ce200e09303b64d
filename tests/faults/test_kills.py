"""Killed at fifty random moments of every phase, a run still ends with the files of an undisturbed one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.command import environment

KILLER = Path(__file__).with_name("killer.py")
FROZEN = ("prepare", "train", "fuse", "export", "calibrate", "decide", "evaluate", "bundle")
LEARNING = ("pretrain", "augment", "train-full")
KILLS = int(os.environ.get("WORKZONE_KILLS", "50"))
pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    words = [sys.executable, str(KILLER), str(tmp_path_factory.mktemp("kills") / "work"), "0", str(KILLS)]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=7000)
    assert done.returncode == 0, done.stderr[-4000:]
    return {found["phase"]: found for found in map(json.loads, done.stdout.splitlines())}


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("cell", [*FROZEN, *LEARNING])
def test_killed_anywhere_it_ends_with_the_same_files(outcomes: dict[str, dict[str, Any]], cell: str) -> None:
    found = outcomes[cell]
    assert found["problems"] == []
    assert found["inside"] >= KILLS
    # What a kill left is resumed to its end, or resumed and killed once more.
    assert found["ends"] + found["chained"] >= found["inside"]
    assert found["differences"] == 0
