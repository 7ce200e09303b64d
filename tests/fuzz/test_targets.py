"""Each fuzz target runs for some seconds on its first cases and on what is made of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.command import environment

TARGETS = ("bundle_reader", "image_decoder", "server_body")
FOLDER = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", TARGETS)
def test_target(tmp_path: Path, name: str) -> None:
    pytest.importorskip("atheris")
    if name == "server_body":
        pytest.importorskip("starlette")
    cases = tmp_path / "cases"
    made = f"import sys, pathlib as p; sys.path[:0] = [sys.argv[1]]; import {name}; {name}.cases(p.Path(sys.argv[2]))"
    subprocess.run([sys.executable, "-c", made, str(FOLDER), str(cases)], env=environment(), check=True, timeout=200)
    seconds = os.environ.get("WORKZONE_FUZZ_SECONDS", "20")
    words = [str(cases), f"-max_total_time={seconds}", "-seed=1", "-rss_limit_mb=4096", "-timeout=60", "-max_len=20000"]
    done = subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py"), *words, f"-artifact_prefix={tmp_path}/"],
        env=environment(), capture_output=True, text=True, timeout=550, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    runs = [line for line in done.stderr.splitlines() if line.startswith("Done ")]
    assert runs, done.stderr[-2000:]
    assert int(runs[-1].split()[1]) > 200, runs
