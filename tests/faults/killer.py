"""Kills a tiny run at random moments inside each phase and compares what is resumed with an undisturbed run.

``killer.py FOLDER SEED KILLS [CELL ...]`` imports everything once and forks a child for each attempt, so that a kill
costs a fraction of a phase and not the start of an interpreter. A child says when the phase begins; the kill follows
after a time drawn uniformly over what the phase takes from there, by the clock of its own work, so that a busy machine
moves nothing. A killed state is resumed, and either killed again or let come to its end and compared file by file. One
line of JSON is printed for each cell. The parent itself runs neither torch nor polars nor ONNX Runtime: their threads
would not survive a fork. What their import leaves behind is idle, and no other thread may be there at a fork.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import random
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import lightning  # noqa: F401
import onnxruntime  # noqa: F401
import polars  # noqa: F401
import pytest
import timm  # noqa: F401
import torch

from helpers.tiny import tiny_words
from helpers.transformer import NAME, give_name, write_weights
from workzone.bundle import write
from workzone.config.load import load_config
from workzone.decisions import fitting
from workzone.pipeline.engine import run_pipeline
from workzone.pipeline.phase import Progress
from workzone.pipeline.phases import PHASES
from workzone.training import search
from workzone.training.pretraining import loop

_COMMON = ("model.image_size=32", f"model.backbone={NAME}")
# Plan, words beside those of the tiny run, and the phases that are killed in it.
PLANS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "frozen": (
        ("evaluate.explained=1", "evaluate.robustness=2", "fuse.aggregator=noisy_or"),
        ("prepare", "train", "fuse", "export", "calibrate", "decide", "evaluate", "bundle"),
    ),
    "learning": (
        (
            "pretrain.method=hybrid", "pretrain.start=weights", "pretrain.epochs=2", "pretrain.batch_size=8",
            "pretrain.check_every=2", "pretrain.checkpoint_seconds=0.001", "pretrain.ssl.local_crops=1",
            "pretrain.ssl.local_size=16", "pretrain.ssl.prototypes=16", "pretrain.ssl.queue=16",
            "pretrain.ssl.hidden=16", "pretrain.ssl.bottleneck=8", "augment.search=true", "augment.epochs=1",
            "augment.policies=[light]", "train.method=full", "train.augment=none", "train.epochs=3",
            "train.batch_size=16",
        ),
        ("pretrain", "augment", "train"),
    ),
}  # fmt: skip
CELLS = {
    **{name: ("frozen", name) for name in PLANS["frozen"][1]},
    "pretrain": ("learning", "pretrain"),
    "augment": ("learning", "augment"),
    "train-full": ("learning", "train"),
}
COUNTED = ("sent", "inside", "ends", "differences", "chained")
_LONGEST = 300.0
_CHAIN = 5
_ROUND = 5
Digest = dict[str, str]


def threads() -> int:
    """Threads of this process."""
    return len(list(Path("/proc/self/task").iterdir()))


class Frozen(datetime):
    """A clock that stands, so that files with the time of their making can be compared byte by byte."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)


class Steps:
    """In place of the module ``time``: a second passes with every look, so that what is measured is the same twice."""

    def __init__(self) -> None:
        self._count = count()

    def monotonic(self) -> float:
        return float(next(self._count))


class Beginning(Progress):
    """Writes one byte when the phase begins."""

    def __init__(self, phase: str, handle: int) -> None:
        self.phase, self.handle, self.began = phase, handle, 0.0

    def message(self, text: str) -> None:
        print(text, flush=True)
        if text.startswith(f"{self.phase}: ") and "up to date" not in text:
            self.began = time.process_time()
            os.write(self.handle, b"!")


@dataclass(slots=True)
class Attempt:
    """A run that was killed or came to its end: exit status, and seconds of work in its phase."""

    status: int
    seconds: float
    killed: bool


@dataclass(slots=True)
class Cell:
    """A phase of a plan: what an undisturbed run writes, the seconds it works, and what was found until now."""

    work: Work
    phase: str
    rng: random.Random
    wanted: Digest
    whole: float
    found: dict[str, Any] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0) | {"problems": []})


class Work:
    """A plan below ``root``: the folder that is worked in, and the state before each phase."""

    def __init__(self, root: Path, plan: str) -> None:
        self.root = root / plan
        self.state, self.log, self.learned = self.root / "state", self.root / "log.txt", self.root / "modules.json"
        self.spent, self.waits = self.root / "spent.txt", random.Random(0)
        self.state.mkdir(parents=True)
        self.words = (*_COMMON, f"model.weights={write_weights(self.root)}", *PLANS[plan][0])

    idle = 1

    def attempt(self, phase: str, kill_after: float | None = None) -> Attempt:
        """Fork a run up to ``phase``, and kill it so many seconds after the phase began."""
        if threads() > self.idle:
            raise SystemExit("the parent has threads, which a fork would lose")
        reader, writer = os.pipe()
        number = os.fork()
        if not number:
            os.close(reader)
            self._child(phase, writer)
        os.close(writer)
        try:
            began = bool(select.select([reader], [], [], _LONGEST)[0]) and os.read(reader, 1) == b"!"
        finally:
            os.close(reader)
        clock, limit, killed = ~number << 3 | 2, time.monotonic() + _LONGEST, False
        begun = spent = time.clock_gettime(clock) if began else 0.0
        while True:
            done, status = os.waitpid(number, os.WNOHANG)
            if done:
                break
            spent = time.clock_gettime(clock)
            late = time.monotonic() > limit
            if not killed and (late or (began and kill_after is not None and spent - begun >= kill_after)):
                # A part of the moments waits for the disk, which takes no work.
                time.sleep(0.0 if late else self.waits.uniform(0.0, 0.02))
                os.kill(number, signal.SIGKILL)
                killed = True
            time.sleep(0.001)
        return Attempt(status, float(self.spent.read_text()) if not status else spent - begun, killed)

    def _child(self, phase: str, writer: int) -> None:
        code = 1
        try:
            with self.log.open("w") as stream:
                os.dup2(stream.fileno(), 1)
                os.dup2(stream.fileno(), 2)
                for module in (write, fitting):
                    module.datetime = Frozen  # type: ignore[attr-defined]
                for timed in (search, loop):
                    timed.time = Steps()  # type: ignore[attr-defined]
                # After a fork torch makes its pool of threads anew at the first look, and two threads looking
                # at once find none.
                torch.set_num_threads(1)
                before = set(sys.modules)
                config = load_config(tiny_words(self.state / "run", self.state / "cache", *self.words))
                show = Beginning(phase, writer)
                run_pipeline(config, PHASES, to=phase, progress=show)
                self.spent.write_text(str(time.process_time() - show.began))
                new = [name for name in sys.modules if name not in before]
                self.learned.write_text(json.dumps(new))
                code = 0
        except BaseException:
            with self.log.open("a") as stream:
                traceback.print_exc(file=stream)
        finally:
            os._exit(code)

    def finished(self) -> dict[str, Any]:
        """Entries of the run manifest, which must be whole at any moment."""
        path = self.state / "run" / "run.json"
        return dict(json.loads(path.read_text())["phases"]) if path.exists() else {}

    def restore(self, saved: Path) -> None:
        shutil.rmtree(self.state, ignore_errors=True)
        shutil.copytree(saved, self.state, symlinks=True)

    def digest(self) -> Digest:
        """Hash of every file of the run. Left out is what tells of the way and not of the result.

        That is the lock, curves and checkpoints that no later phase reads, and in the run manifest the times.
        """
        found = {}
        run = self.state / "run"
        for path in sorted(p for p in run.rglob("*") if p.is_file()):
            name = path.relative_to(run).as_posix()
            if name == ".lock" or "/tensorboard/" in name or "/logs/" in name or path.suffix == ".ckpt":
                continue
            content = path.read_bytes()
            if name == "run.json":
                phases = json.loads(content)["phases"]
                for entry in phases.values():
                    del entry["started"], entry["seconds"]
                content = json.dumps(phases, sort_keys=True).encode()
            found[name] = hashlib.sha256(content).hexdigest()
        return found


def warm(work: Work) -> None:
    """Import what the children imported, where that starts no thread."""
    for name in json.loads(work.learned.read_text()):
        with suppress(ImportError):  # some modules exist only under the name of another
            importlib.import_module(name)


def reference(work: Work, names: Sequence[str], log: Any) -> dict[str, tuple[Digest, float]]:
    """Undisturbed run up to the last of ``names``: what is there after each phase, and its seconds.

    Each phase is run twice: the second time shows that undisturbed runs agree, and how much work a warm one is.
    """
    found = {}
    for name in names:
        before = work.root / "before" / name
        shutil.copytree(work.state, before)
        results = []
        for again in (False, True):
            if again:
                warm(work)
                work.restore(before)
            done = work.attempt(name)
            if done.status:
                raise SystemExit(f"the undisturbed run failed in {name}: {work.log.read_text()[-4000:]}")
            results.append((work.digest(), done.seconds))
        first, second = results[0][0], results[1][0]
        if different := _different(first, second):
            raise SystemExit(f"two undisturbed runs differ after {name}: {different}")
        found[name] = results[1]
        print(json.dumps({"reference": name, "seconds": round(results[1][1], 2), "files": len(second)}), file=log)
        log.flush()
    return found


def _different(one: Digest, other: Digest) -> list[str]:
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def torment(cell: Cell, kills: int, log: Any) -> dict[str, Any]:
    """Kill the phase of ``cell`` inside until that was done ``kills`` times in all, and say what was found."""
    work, phase, rng, wanted, whole = cell.work, cell.phase, cell.rng, cell.wanted, cell.whole
    fresh, killed, found = work.root / "before" / phase, work.root / "killed", cell.found
    source, seconds, chain = fresh, whole, 0

    def problem(text: str) -> None:
        found["problems"].append(text)

    def ended(attempt: Attempt) -> None:
        if attempt.status:
            problem(f"a resumed run failed: {work.log.read_text()[-3000:]}")
            return
        found["ends"] += 1
        different = _different(work.digest(), wanted)
        if different:
            found["differences"] += 1
            # Kept, since the moment cannot be met again.
            shutil.copytree(work.state, work.root / f"different-{phase}-{found['differences']}", dirs_exist_ok=True)
            shutil.copy(work.log, work.root / f"different-{phase}-{found['differences']}.txt")
            problem(f"other files than undisturbed: {different[:8]}")
        if left := [str(p) for p in (work.state / "run").rglob(".*.partial*")]:
            problem(f"left behind: {left}")

    while found["inside"] < kills and len(found["problems"]) < 4:
        work.restore(source)
        before = work.finished()
        after = rng.uniform(0.0, seconds)
        attempt = work.attempt(phase, after)
        found["sent"] += attempt.killed
        now = work.finished()
        if any(now.get(name) != entry for name, entry in before.items()):
            problem("the record of a finished phase changed")
        if phase in now or not attempt.killed:
            # It was over before the kill; a kill after the record was written must have left the whole result.
            ended(Attempt(0, 0.0, False) if attempt.killed else attempt)
            source, seconds, chain = fresh, whole, 0
            continue
        found["inside"] += 1
        found["chained"] += chain > 0
        moment = {"after": round(after, 3), "of": round(seconds, 3), "chain": chain}
        print(json.dumps({"phase": phase, **moment, "problems": len(found["problems"])}), file=log, flush=True)
        if chain + 1 < _CHAIN and found["inside"] < kills and rng.random() < 0.5:
            shutil.rmtree(killed, ignore_errors=True)
            source, seconds, chain = work.state.rename(killed), max(whole - after, 0.3 * whole), chain + 1
            continue
        ended(work.attempt(phase))
        source, seconds, chain = fresh, whole, 0
    return found


def main() -> None:
    root, seed, kills = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    give_name(pytest.MonkeyPatch())
    Work.idle = threads()
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    print(f"threads left by imports: {names}", file=sys.stderr, flush=True)
    asked = sys.argv[4:] or list(CELLS)
    root.mkdir(parents=True, exist_ok=True)
    with (root / "progress.jsonl").open("a") as log:
        cells: dict[str, Cell] = {}
        for plan, (_, names) in PLANS.items():
            mine = [cell for cell in asked if CELLS[cell][0] == plan]
            if not mine:
                continue
            work = Work(root, plan)
            last = max(names.index(CELLS[cell][1]) for cell in mine) + 1
            known = reference(work, (*(() if plan == "frozen" else ("prepare",)), *names[:last]), log)
            cells |= {c: Cell(work, CELLS[c][1], random.Random(f"{seed}/{c}"), *known[CELLS[c][1]]) for c in mine}
        # By turns, so that a run that is stopped early has seen every phase.
        for target in (*range(_ROUND, kills, _ROUND), kills):
            for name, cell in cells.items():
                found = torment(cell, target, log)
                print(json.dumps({"cell": name, **found, "whole": cell.whole}), file=log, flush=True)
        for name, cell in cells.items():
            print(json.dumps({"phase": name, **cell.found, "whole": round(cell.whole, 2)}), flush=True)


if __name__ == "__main__":
    main()
