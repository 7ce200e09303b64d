"""A second bundle decides on the same images when the first has time to spare; nobody gets its answers.

It works in one thread of the lowest priority, on images whose answer was given already, and only while none is waited
for. What comes too fast is dropped and counted, so it costs the clients nothing but processor caches and memory.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from workzone.decisions import Decision
from workzone.errors import WorkzoneError
from workzone.serving.log import PredictionLog, Row
from workzone.serving.metrics import Metrics, log_line
from workzone.serving.model import Model
from workzone.serving.places import SHADOW
from workzone.serving.settings import MIB

OUTCOMES = ("agree", "differ", "opposite", "dropped", "late", "failed")
MAX_BYTES = 64 * MIB
_NICE, _POLL = 19, 0.005


@dataclass(frozen=True, slots=True)
class Task:
    """An image that was answered: ``given`` by the bundle of ``role``."""

    content: bytes
    columns: Mapping[str, str]
    request_id: str
    position: int
    sequence: str
    sha256: str
    given: Decision
    role: str


class Shadow:
    """Bounded queue and thread of the shadow.

    Args:
        model: the bundle in the shadow now, None where there is none.
        metrics: where outcomes are counted.
        log: where its decisions go, with the role ``shadow``.
        busy: whether an image of a client waits or is in work.
        size: images that may wait.
        seconds: age at which they are dropped.
        max_pixels: as for the answers.
        embeddings: whether they are logged.
    """

    def __init__(
        self,
        model: Callable[[], Model | None],
        metrics: Metrics,
        log: PredictionLog | None,
        busy: Callable[[], bool],
        *,
        size: int,
        seconds: float,
        max_pixels: int,
        embeddings: bool,
    ) -> None:
        self._model, self._metrics, self._log, self._busy = model, metrics, log, busy
        self._seconds, self._max_pixels, self._embeddings = seconds, max_pixels, embeddings
        self._tasks: queue.Queue[tuple[float, Task] | None] = queue.Queue(size)
        self._bytes, self._lock = 0, threading.Lock()
        self._closing = threading.Event()
        self.counts: Counter[str] = Counter()
        self.absolute = 0.0
        self._thread = threading.Thread(target=self._work_forever, name="workzone-shadow", daemon=True)
        self._thread.start()

    def submit(self, task: Task) -> None:
        """Hand over an image; dropped and counted where the queue is full."""
        if self._model() is None:
            return
        with self._lock:
            fits = self._bytes + len(task.content) <= MAX_BYTES
            if fits:
                try:
                    self._tasks.put_nowait((time.monotonic(), task))
                    self._bytes += len(task.content)
                except queue.Full:
                    fits = False
        if not fits:
            self._count("dropped")
        self._metrics.shadow_queue.set(self._tasks.qsize())

    def close(self) -> None:
        """Give up what waits and end the thread; an image in work is finished."""
        self._closing.set()
        while True:
            try:
                self._tasks.get_nowait()
                self._tasks.task_done()
                self._count("dropped")
            except queue.Empty:
                break
        self._tasks.put(None)
        self._thread.join(self._seconds)

    def flush(self) -> None:
        """Wait until nothing waits and nothing is in work."""
        while self._tasks.unfinished_tasks:
            time.sleep(_POLL)

    def to_dict(self) -> dict[str, Any]:
        """What this process has seen: images by outcome, and how far probabilities lie apart on average."""
        compared = sum(self.counts[name] for name in ("agree", "differ", "opposite"))
        apart = self.absolute / compared if compared else None
        return {"compared": compared, **{n: self.counts[n] for n in OUTCOMES}, "mean_absolute_difference": apart}

    def _count(self, outcome: str) -> None:
        self.counts[outcome] += 1
        self._metrics.shadow.labels(outcome).inc()

    def _work_forever(self) -> None:
        _be_nice()
        while True:
            item = self._tasks.get()
            if item is None:
                self._tasks.task_done()
                return
            queued, task = item
            with self._lock:
                self._bytes -= len(task.content)
            self._metrics.shadow_queue.set(self._tasks.qsize())
            try:
                self._count(self._outcome(queued, task))
            finally:
                self._tasks.task_done()

    def _outcome(self, queued: float, task: Task) -> str:
        while self._busy() and time.monotonic() < queued + self._seconds and not self._closing.is_set():
            time.sleep(_POLL)
        model = self._model()
        if model is None or self._closing.is_set():
            return "dropped"
        if time.monotonic() >= queued + self._seconds:
            return "late"
        began = time.monotonic()
        try:
            answer = model.answer(task.content, max_pixels=self._max_pixels, columns=task.columns or None)
        except (WorkzoneError, MemoryError) as error:
            log_line("shadow", request_id=task.request_id, position=task.position, failed=str(error))
            return "failed"
        except Exception as error:  # a fault of the shadow must not end its thread
            self._metrics.fault(error)
            return "failed"
        self._metrics.role_seconds.labels(SHADOW).observe(time.monotonic() - began)
        ours, given = answer.decision, task.given
        self.absolute += abs(ours.probability - given.probability)
        if self._log is not None:
            embedding = answer.embedding if self._embeddings else None
            self._log.add(
                Row.of(
                    ours, embedding, task.request_id, task.position, model.sha256, model.state(), task.columns,
                    role=SHADOW, sequence=task.sequence, picture_sha256=task.sha256,
                )
            )  # fmt: skip
        if ours.label == given.label:
            return "agree"
        log_line(
            "shadow",
            request_id=task.request_id,
            position=task.position,
            given=given.label,
            given_by=task.role,
            shadow=ours.label,
            probability=round(given.probability, 4),
            probability_shadow=round(ours.probability, 4),
        )
        return "differ" if "abstain" in (ours.label, given.label) else "opposite"


def _be_nice() -> None:
    """Lowest priority for this thread; only Linux has priorities of threads, elsewhere waiting for a pause must do."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
