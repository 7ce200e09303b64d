"""Two runs at the same time: one folder has one owner, and one cache serves all."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from helpers.command import environment, workzone
from helpers.tiny import tiny_words
from workzone.bundle.embedding import EmbeddingCache
from workzone.bundle.starter import STARTER
from workzone.pipeline.artifacts import Artifacts
from workzone.pipeline.folder import run_folder
from workzone.vision import Preprocessing

WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_two_at_once import IMAGES, cache, row
root, first = Path(sys.argv[2]), int(sys.argv[3])
for number in range(first, IMAGES, 2):
    found = cache(root)
    assert not found.dropped, found.dropped
    for seen in range(number):
        assert f"{seen:064d}" not in found or (found.get(f"{seen:064d}")[0] == row(seen)[0]).all()
    found.append({f"{number:064d}": row(number), f"{number + 1:064d}": row(number + 1)})
    print(number, flush=True)
"""
IMAGES = 40
starter = pytest.mark.skipif(not STARTER.exists(), reason="this checkout has no starter bundle")


def cache(root: Path) -> EmbeddingCache:
    engine: Any = SimpleNamespace(name="onnxruntime", precision="fp32")
    return EmbeddingCache(root, engine, STARTER / "engine" / "head.onnx", Preprocessing())


def row(number: int) -> tuple[Any, Any]:
    """Views of one image, as many as its number says."""
    views = 1 + number % 3
    return np.full((views, 256), number, dtype=np.float32), np.zeros((views, 4), dtype=np.float32)


@starter
def test_writers_of_one_cache_lose_nothing_and_one_is_killed(tmp_path: Path) -> None:
    root, here = tmp_path / "cache", str(Path(__file__).parent)

    def writer(first: int) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", WRITER, here, str(root), str(first)]
        path = f"{environment()['PYTHONPATH']}:{Path(__file__).parents[1]}"
        return subprocess.Popen(
            words, env=environment(PYTHONPATH=path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    writers = [writer(first) for first in (0, 1, 0)]
    assert writers[2].stdout is not None
    assert writers[2].stdout.readline().strip() == "0"
    writers[2].send_signal(signal.SIGKILL)
    for process, code in zip(writers, (0, 0, -signal.SIGKILL), strict=True):
        _, errors = process.communicate(timeout=120)
        assert process.returncode == code, errors
    found = cache(root)
    assert found.dropped == []
    for number in range(IMAGES):
        embeddings, boxes = found.get(f"{number:064d}")
        assert (embeddings == row(number)[0]).all()
        assert boxes.shape == row(number)[1].shape


def test_the_second_run_in_a_folder_says_who_holds_it(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    with (out / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write("process 4711 on here")
        held.flush()
        done = workzone("run", *tiny_words(out, tmp_path / "cache"))
    assert done.returncode == 2, done.stderr
    assert "another run is working in this folder (process 4711 on here)" in done.stderr
    assert "out=DIR" in done.stderr
    assert [p.name for p in out.iterdir()] == [".lock"]


def test_a_forked_child_that_outlives_a_killed_run_does_not_hold_its_folder(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path / "run")
    with run_folder(artifacts):
        ready, begun = os.pipe()
        child = os.fork()
        if not child:
            os.write(begun, b"!")
            time.sleep(60)
            os._exit(0)
        assert os.read(ready, 1) == b"!"
        with artifacts.lock.open("a") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the child is at work"
        with run_folder(artifacts):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def results(out: Path) -> dict[str, bytes]:
    """What was learned, without the paths of drawn images, which lie in each folder of its own."""
    names = ("train/probe.safetensors", "train/onnx/backbone.onnx", "fuse/fusion.safetensors")
    return {name: (out / name).read_bytes() for name in names}


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_runs_with_one_cache_give_what_one_gives(tmp_path: Path, tiny_run: Path) -> None:
    from helpers.command import command

    started = [
        subprocess.Popen(
            command(["run", *tiny_words(tmp_path / name, tmp_path / "cache"), "--to", "fuse"]),
            env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for name in ("one", "two")
    ]  # fmt: skip
    for process in started:
        _, errors = process.communicate(timeout=800)
        assert process.returncode == 0, errors
    wanted = results(tiny_run)
    assert results(tmp_path / "one") == wanted
    assert results(tmp_path / "two") == wanted
