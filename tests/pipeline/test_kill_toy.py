from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from toy import NAMES, config, journal, phases

from helpers.command import environment
from workzone.errors import RunLockedError
from workzone.pipeline.engine import run_pipeline

TOY = Path(__file__).with_name("toy.py")


def toy(out: Path, phase: str, moment: str, number: signal.Signals) -> list[str]:
    return [sys.executable, str(TOY), str(out), phase, moment, str(int(number))]


def artifacts(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for n in NAMES for p in sorted((out / n).rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "run"
    run_pipeline(config(out), phases())
    return artifacts(out)


@pytest.mark.parametrize(
    ("phase", "moment", "number"),
    [
        *((p, m, signal.SIGKILL) for p in ("prepare", "decide", "evaluate") for m in ("start", "middle", "end")),
        ("decide", "middle", signal.SIGTERM),
        ("decide", "middle", signal.SIGINT),
    ],
)
def test_killed_anywhere_it_resumes(
    tmp_path: Path, whole: dict[str, bytes], phase: str, moment: str, number: signal.Signals
) -> None:
    out = tmp_path / "run"
    done = subprocess.run(toy(out, phase, moment, number), env=environment(), capture_output=True, timeout=60)
    assert done.returncode == -number, done.stderr
    assert journal(out)[-1] == phase
    before = journal(out)
    assert (out / phase / ".part2-0123abcd.partial.json").exists()
    results = run_pipeline(config(out), phases())
    assert not (out / phase / ".part2-0123abcd.partial.json").exists()
    again = list(NAMES[NAMES.index(phase) :])
    assert [r.name for r in results if r.ran] == again
    assert journal(out) == before + again
    assert artifacts(out) == whole
    assert json.loads((out / "run.json").read_text())["phases"].keys() == set(NAMES)


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = toy(out, "train", "middle", signal.SIGCONT)
    first = subprocess.Popen(words, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == b"reached\n"
        with pytest.raises(RunLockedError, match=f"process {first.pid} "):
            run_pipeline(config(out), phases())
    finally:
        first.kill()
        first.communicate()
    assert [r.name for r in run_pipeline(config(out), phases()) if r.ran] == ["train", "decide", "evaluate"]
