"""One bounded queue in front of the detector: batches when there is a backlog, no wait when there is none.

Images of a batch are worked on side by side, one a thread, because an image must get the same score alone and among
many: the passes of the network never mix views of two images. A batch begins as soon as a thread is free.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from workzone.serving.metrics import Metrics
from workzone.serving.model import Answer
from workzone.serving.problems import Problem, of_error

_SMOOTHING = 0.1
Work = Callable[[bytes, Mapping[str, Any] | None], Answer]


@dataclass(slots=True)
class Job:
    """One image in the queue; ``deadline`` and ``queued`` are times of ``time.monotonic``.

    ``work`` decides on it in place of the work of the queue, for the bundle in the role ``role``.
    """

    content: bytes
    where: str
    deadline: float
    columns: Mapping[str, Any] | None = None
    work: Work | None = None
    role: str = "champion"
    queued: float = field(default_factory=time.monotonic)
    done: asyncio.Future[Answer] = field(init=False)

    def __post_init__(self) -> None:
        self.done = asyncio.get_running_loop().create_future()


class Batcher:
    """Queue, collector and threads.

    Args:
        work: decides on one image; called in threads.
        metrics: where waits, batches and times are counted.
        threads: images in work at the same time.
        max_queue: images that may wait.
        batch_size: images taken from the queue at once.
        batch_wait: seconds a batch may wait to fill; 0 takes what is there.
    """

    def __init__(
        self, work: Work, metrics: Metrics, *, threads: int, max_queue: int, batch_size: int, batch_wait: float
    ) -> None:
        self._work, self._metrics = work, metrics
        self._threads, self._max, self._size, self._wait = threads, max_queue, batch_size, batch_wait
        self._waiting: deque[Job] = deque()
        self._changed = asyncio.Event()
        self._in_work = 0
        self._service = 0.0
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="workzone-serve")
        self._collector: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to take jobs from the queue."""
        self._collector = asyncio.get_running_loop().create_task(self._collect())

    @property
    def depth(self) -> int:
        """Images that wait."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is in work."""
        return not self._waiting and not self._in_work

    def retry_after(self) -> int:
        """Seconds until there is room, from the measured time of an image."""
        return max(1, math.ceil((len(self._waiting) + self._in_work) * self._service / self._threads))

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue all ``jobs`` or none.

        Raises:
            Problem: 429 when they do not all fit.
        """
        if len(self._waiting) + len(jobs) > self._max:
            raise Problem(
                429,
                "queue_full",
                f"{len(self._waiting)} images wait already, and at most {self._max} may",
                fix="try again after the seconds in Retry-After",
                headers={"Retry-After": str(self.retry_after())},
            )
        self._waiting.extend(jobs)
        self._metrics.queue_depth.set(len(self._waiting))
        self._changed.set()

    async def close(self, seconds: float) -> None:
        """Finish what is queued, for at most ``seconds``, then end the threads; what is left gets a 503."""
        limit = time.monotonic() + seconds
        while not self.idle and time.monotonic() < limit:
            await asyncio.sleep(0.01)
        if self._collector is not None:
            self._collector.cancel()
        while self._waiting:
            _fail(self._waiting.popleft(), Problem(503, "draining", "The server is stopping", fix="ask another one"))
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _collect(self) -> None:
        while True:
            await self._until(lambda: bool(self._waiting) and self._in_work < self._threads)
            if self._wait and len(self._waiting) < self._size:
                # The oldest image has waited for the whole time at most, however long it took to find a free thread.
                rest = self._waiting[0].queued + self._wait - time.monotonic()
                with suppress(TimeoutError):  # a batch that is not full goes as it is
                    await asyncio.wait_for(self._until(lambda: len(self._waiting) >= self._size), max(rest, 0.0))
            batch = self._take()
            self._metrics.queue_depth.set(len(self._waiting))
            if batch:
                self._metrics.batch_size.observe(len(batch))
            for job in batch:
                self._in_work += 1
                self._pool.submit(self._run, job, asyncio.get_running_loop())

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def _take(self) -> list[Job]:
        batch: list[Job] = []
        while self._waiting and len(batch) < self._size:
            job = self._waiting.popleft()
            if not self._dropped(job):
                batch.append(job)
        return batch

    def _dropped(self, job: Job) -> bool:
        """Whether nobody waits for ``job`` any more; an expired one is answered."""
        if job.done.done():
            return True
        if time.monotonic() >= job.deadline:
            _fail(job, late(job.where))
            return True
        return False

    def _run(self, job: Job, loop: asyncio.AbstractEventLoop) -> None:
        begun = time.monotonic()
        result: Answer | Problem
        if begun >= job.deadline or job.done.cancelled():
            result = late(job.where)
        else:
            self._metrics.seconds.labels("queue").observe(begun - job.queued)
            try:
                result = (job.work or self._work)(job.content, job.columns)
            except Exception as error:
                result = of_error(error, job.where)
                if result.code == "internal":
                    self._metrics.fault(error)
        loop.call_soon_threadsafe(self._settle, job, result, time.monotonic() - begun)

    def _settle(self, job: Job, result: Answer | Problem, seconds: float) -> None:
        self._in_work -= 1
        self._changed.set()
        if isinstance(result, Problem):
            _fail(job, result)
            return
        self._metrics.seconds.labels("inference").observe(seconds)
        self._metrics.role_seconds.labels(job.role).observe(seconds)
        self._service += (_SMOOTHING if self._service else 1.0) * (seconds - self._service)
        if not job.done.done():
            job.done.set_result(result)


def late(where: str) -> Problem:
    """The problem of a request whose time is up."""
    return Problem(
        504, "deadline", "The time of this request is up", where=where, fix="ask again later, or raise X-Deadline-Ms"
    )


def _fail(job: Job, problem: Problem) -> None:
    if not job.done.done():
        job.done.set_exception(problem)
