"""Kills a tiny run at random moments, phase by phase, and compares what is resumed with an undisturbed run.

``killer.py FOLDER SEED KILLS [PHASE ...]`` imports everything once and forks a child for each attempt, so that a kill
costs a fraction of a phase and not the start of an interpreter. One line of JSON is printed for each phase. The parent
itself never touches polars, ONNX Runtime or the pipeline: their threads would not survive a fork.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import lightning  # noqa: F401
import matplotlib.figure
import onnx  # noqa: F401
import onnxruntime  # noqa: F401
import polars  # noqa: F401
import scipy.stats  # noqa: F401
import timm  # noqa: F401
import torch

import workzone
from helpers.tiny import tiny_words
from workzone.bundle import write
from workzone.config.load import load_config
from workzone.decisions import fitting
from workzone.pipeline.engine import run_pipeline
from workzone.pipeline.phases import PHASES

NAMES = ("prepare", "train", "fuse", "export", "calibrate", "decide", "evaluate", "bundle")
USED = ("bundle", "calibration", "data", "decisions", "evaluation", "export", "metrics", "models", "training")
_WHOLE_EVERY = 5
_LONGEST = 300.0


class Frozen(datetime):
    """A clock that stands, so that files with the time of their making can be compared byte by byte."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)


def child(state: Path, phase: str, log: Path) -> int:
    """Fork a process that runs up to ``phase``; its number."""
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        with log.open("w") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
            modules: Sequence[ModuleType] = (write, fitting)
            for module in modules:
                module.datetime = Frozen  # type: ignore[attr-defined]
            config = load_config(tiny_words(state / "run", state / "cache", "evaluate.explained=1"))
            run_pipeline(config, PHASES, to=phase)
            code = 0
    except BaseException:
        with log.open("a") as stream:
            traceback.print_exc(file=stream)
    finally:
        os._exit(code)


def finished(state: Path) -> dict[str, Any]:
    """Entries of the run manifest, which must be whole at any moment."""
    path = state / "run" / "run.json"
    return dict(json.loads(path.read_text())["phases"]) if path.exists() else {}


def wait(number: int, seconds: float) -> int | None:
    """Exit status of a child, None where it is still at work after ``seconds``."""
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(number, os.WNOHANG)
        if done:
            return status
        if time.monotonic() >= end:
            return None
        time.sleep(0.002)


def restore(saved: Path, state: Path) -> None:
    shutil.rmtree(state, ignore_errors=True)
    shutil.copytree(saved, state, symlinks=True)


def reference(root: Path, names: Sequence[str]) -> tuple[dict[str, dict[str, str]], dict[str, float]]:
    """Undisturbed run: state before each phase in ``before/PHASE``, hashes of what each writes, and its seconds."""
    state = root / "state"
    (state / "run").parent.mkdir(parents=True)
    hashes, seconds = {}, {}
    for name in names:
        shutil.copytree(state, root / "before" / name)
        begun = time.monotonic()
        status = wait(child(state, name, root / "log.txt"), _LONGEST)
        if status != 0:
            raise SystemExit(f"the undisturbed run failed in {name}: {(root / 'log.txt').read_text()}")
        seconds[name] = time.monotonic() - begun
        hashes[name] = finished(state)[name]["outputs"]
    return hashes, seconds


def torment(
    root: Path, phase: str, kills: int, rng: random.Random, wanted: dict[str, str], seconds: float
) -> dict[str, Any]:
    """Kill ``phase`` so many times, letting it come to its end now and then; what was found."""
    state, log, saved = root / "state", root / "log.txt", root / "before" / phase
    found: dict[str, Any] = {"phase": phase, "kills": 0, "ends": 0, "problems": []}
    restore(saved, state)
    since_end = 0

    def problem(text: str) -> None:
        found["problems"].append(text)

    while found["kills"] < kills or since_end:
        before = finished(state)
        to_the_end = since_end >= _WHOLE_EVERY or found["kills"] >= kills
        begun = time.monotonic()
        number = child(state, phase, log)
        status = wait(number, _LONGEST if to_the_end else rng.uniform(0.0, seconds))
        if status is None:
            os.kill(number, signal.SIGKILL)
            os.waitpid(number, 0)
            if to_the_end:
                problem("a run that was resumed did not end")
        after = finished(state)
        if any(after.get(name) != entry for name, entry in before.items()):
            problem("the record of a finished phase changed")
        if phase not in after:
            found["kills"] += status is None
            since_end += 1
            print(f"{phase}: {found['kills']} kills, {found['ends']} ends", end="\r", file=sys.stderr, flush=True)
            if status is not None:
                problem(f"a resumed run failed: {log.read_text()[-2000:]}")
            if len(found["problems"]) > 3:
                break
            continue
        if status == 0:
            found["ends"] += 1
            # Moments follow the speed of the machine, or most would lie after the end.
            seconds = 0.5 * (seconds + time.monotonic() - begun)
            outputs = after[phase]["outputs"]
            if outputs != wanted:
                different = sorted(name for name in {*outputs, *wanted} if outputs.get(name) != wanted.get(name))
                problem(f"other files than undisturbed: {different}")
            left = [str(p) for p in (state / "run").rglob(".*.partial*")]
            if left:
                problem(f"left behind: {left}")
        since_end = 0
        restore(saved, state)
    return found


def main() -> None:
    root, seed, kills = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    for module in pkgutil.walk_packages(workzone.__path__, "workzone."):
        # Imported here once, or every child would do it again.
        if module.name.split(".")[1] in USED and "engines" not in module.name:
            importlib.import_module(module.name)
    matplotlib.figure.Figure()
    wanted, seconds = reference(root, NAMES)
    for phase in sys.argv[4:] or NAMES:
        begun = time.monotonic()
        rng = random.Random(f"{seed}/{phase}")
        found = torment(root, phase, kills, rng, wanted[phase], seconds[phase])
        print(json.dumps({**found, "seconds": round(time.monotonic() - begun, 1)}), flush=True)


if __name__ == "__main__":
    main()
