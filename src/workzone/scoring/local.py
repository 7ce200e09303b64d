"""Shards made by processes of this machine."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import Any

from workzone.bundle.chain import AnyDetector
from workzone.errors import WorkzoneError
from workzone.scoring.plan import Shard
from workzone.scoring.shard import Job, Scorer

_scorer: Scorer | None = None


def run_local(job: Job, shards: Sequence[Shard], workers: int, detector: AnyDetector) -> Iterator[int]:
    """Make ``shards``; yields the images of each as it is finished, in any order.

    No more than two shards a worker wait at any time. One worker is this process itself.

    Raises:
        WorkzoneError: a process died; what is finished is kept.
    """
    count = min(workers, len(shards))
    if count == 1:
        own = Scorer(job, detector=detector)
        yield from (own(shard) for shard in shards)
        return
    context = get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=(job, stop))
    try:
        waiting: set[Future[int]] = set()
        for shard in shards:
            waiting.add(pool.submit(_score, shard))
            if len(waiting) >= 2 * count:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (f.result() for f in done)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (f.result() for f in done)
    except BrokenProcessPool as error:
        raise WorkzoneError(
            "a process that scored ended without a word; the system ends processes when memory runs out",
            where=f"{count} processes",
            fix="run the same command again, it goes on; with fewer --workers if it happens again",
        ) from error
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(job: Job, stop: Any) -> None:
    """Open the bundle in a new process."""
    global _scorer
    # The parent alone answers to Ctrl-C, and tells.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_leave_with, args=(parent.join,), daemon=True).start()
    _scorer = Scorer(job, stopped=stop.is_set)


def _leave_with(gone: Callable[[], None]) -> None:
    """A parent that was killed tells nobody, and its workers would wait for ever."""
    gone()
    os._exit(1)


def _score(shard: Shard) -> int:
    assert _scorer is not None
    return _scorer(shard)
