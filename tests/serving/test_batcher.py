from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from typing import Any, cast

import pytest

from workzone.serving.batcher import Batcher, Job
from workzone.serving.metrics import Metrics
from workzone.serving.model import Answer
from workzone.serving.problems import Problem


class Worker:
    """Gives each content back, once it may."""

    def __init__(self, *, held: bool = False) -> None:
        self.may = threading.Event()
        self.seen: list[bytes] = []
        if not held:
            self.may.set()

    def __call__(self, content: bytes, columns: Mapping[str, Any] | None) -> Answer:
        self.seen.append(content)
        assert self.may.wait(10)
        return cast(Answer, content)


def batcher(work: Worker, **values: Any) -> Batcher:
    made = Batcher(work, Metrics(), **{"threads": 1, "max_queue": 4, "batch_size": 2, "batch_wait": 0.0, **values})
    made.start()
    return made


def job(content: bytes, seconds: float = 10.0) -> Job:
    return Job(content, "here", time.monotonic() + seconds)


def test_every_job_gets_its_own_answer() -> None:
    async def go() -> None:
        b = batcher(Worker(), max_queue=100, threads=4)
        jobs = [job(bytes([i])) for i in range(100)]
        b.submit(jobs)
        assert await asyncio.gather(*(j.done for j in jobs)) == [bytes([i]) for i in range(100)]
        await b.close(1)

    asyncio.run(go())


def test_a_full_queue_refuses_all_of_a_request_or_nothing() -> None:
    async def go() -> None:
        work = Worker(held=True)
        b = batcher(work)
        first = [job(b"0")]
        b.submit(first)
        await asyncio.sleep(0.05)
        b.submit([job(b"1"), job(b"2"), job(b"3")])
        with pytest.raises(Problem) as error:
            b.submit([job(b"4"), job(b"5")])
        assert (error.value.status, error.value.code) == (429, "queue_full")
        assert int(error.value.headers["Retry-After"]) >= 1
        assert b.depth == 3
        b.submit([job(b"4")])
        work.may.set()
        await b.close(5)
        assert sorted(work.seen) == [b"0", b"1", b"2", b"3", b"4"]

    asyncio.run(go())


def test_retry_after_follows_the_measured_time() -> None:
    async def go() -> None:
        b = batcher(Worker())
        b._service = 2.0
        b._waiting.extend([job(b"0")] * 3)
        assert b.retry_after() == 6
        b._threads = 2
        assert b.retry_after() == 3
        b._waiting.clear()
        await b.close(1)

    asyncio.run(go())


def test_expired_and_abandoned_jobs_cost_no_work() -> None:
    async def go() -> None:
        work = Worker(held=True)
        b = batcher(work, batch_size=1)
        b.submit([job(b"0")])
        await asyncio.sleep(0.05)
        late, left, good = job(b"late", 0.05), job(b"left"), job(b"good")
        b.submit([late, left, good])
        left.done.cancel()
        await asyncio.sleep(0.1)
        work.may.set()
        assert await good.done == cast(Answer, b"good")
        with pytest.raises(Problem) as error:
            await late.done
        assert error.value.status == 504
        assert work.seen == [b"0", b"good"]
        await b.close(1)

    asyncio.run(go())


def test_a_backlog_is_taken_in_batches_and_an_idle_server_does_not_wait() -> None:
    async def go() -> list[float]:
        work = Worker(held=True)
        b = batcher(work, max_queue=10, batch_size=4)
        b.submit([job(b"0")])
        await asyncio.sleep(0.05)
        assert work.seen == [b"0"]
        jobs = [job(bytes([i])) for i in range(8)]
        b.submit(jobs)
        work.may.set()
        await asyncio.gather(*(j.done for j in jobs))
        await b.close(1)
        (samples,) = [m.samples for m in b._metrics.registry.collect() if m.name == "workzone_batch_size"]
        return [s.value for s in samples if s.name.endswith(("_count", "_sum"))]

    count, total = asyncio.run(go())
    assert total == 9
    assert count == 3


def test_a_batch_waits_to_fill_but_not_longer_than_it_may() -> None:
    async def go() -> None:
        b = batcher(Worker(), batch_wait=0.2)
        began = time.monotonic()
        alone = job(b"alone")
        b.submit([alone])
        await alone.done
        assert 0.15 < time.monotonic() - began < 1.0
        began = time.monotonic()
        both = [job(b"1"), job(b"2")]
        b.submit(both)
        await asyncio.gather(*(j.done for j in both))
        assert time.monotonic() - began < 0.15
        await b.close(1)

    asyncio.run(go())


def test_closing_finishes_what_was_accepted_and_fails_the_rest_in_time() -> None:
    async def go() -> None:
        work = Worker(held=True)
        b = batcher(work, batch_size=1)
        jobs = [job(b"0"), job(b"1")]
        b.submit(jobs)
        await asyncio.sleep(0.05)
        await b.close(0.1)
        with pytest.raises(Problem) as error:
            await jobs[1].done
        assert error.value.status == 503
        work.may.set()
        assert await jobs[0].done == cast(Answer, b"0")

    asyncio.run(go())
