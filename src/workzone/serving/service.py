"""What one server process is made of, and the one way in which every protocol gets its decisions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from workzone.bundle.slices import require_columns
from workzone.decisions import Decision
from workzone.serving.batcher import Batcher, Job, late
from workzone.serving.body import Asked, Memory, Picture, asked_for, deadline_seconds, read_body
from workzone.serving.keys import ApiKeys
from workzone.serving.log import PredictionLog, Row
from workzone.serving.metrics import Metrics, log_line
from workzone.serving.model import Answer, Model
from workzone.serving.problems import Problem, of_error
from workzone.serving.review import ReviewStore
from workzone.serving.settings import MIB, ServeSettings

_READY_SECONDS = 2.0


@dataclass(slots=True)
class Service:
    """One server process; ``open`` builds it, ``start`` and ``close`` belong to the running event loop."""

    settings: ServeSettings
    model: Model
    metrics: Metrics
    keys: ApiKeys | None
    log: PredictionLog | None
    review: ReviewStore | None
    batcher: Batcher
    memory: Memory
    draining: bool = False
    _checks: asyncio.Task[None] | None = None
    _ready: tuple[float, tuple[str, ...]] = (-1e9, ())
    _ready_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @classmethod
    def open(cls, settings: ServeSettings, model: Model | None = None) -> Service:
        """Open bundle, keys, log and review folder.

        Raises:
            WorkzoneError: one of them cannot be opened; the message says what to do.
        """
        settings.require_safe_bind()
        keys = ApiKeys.load(settings.api_key_file) if settings.api_key_file else None
        model = model or Model.load(settings.bundle, threads=settings.threads)
        metrics = Metrics()
        metrics.state(model.state())

        def work(content: bytes, columns: Mapping[str, Any] | None) -> Answer:
            return model.answer(content, max_pixels=settings.max_pixels, columns=columns)

        batcher = Batcher(
            work,
            metrics,
            threads=model.detector.engine.threads,
            max_queue=settings.max_queue,
            batch_size=settings.batch_size,
            batch_wait=settings.batch_wait_ms / 1000.0,
        )
        log = None
        if settings.log_db is not None:
            log = PredictionLog(
                settings.log_db,
                max_bytes=int(settings.log_max_mb * MIB),
                max_days=settings.log_max_days,
                dropped=metrics.log_dropped.inc,
            )
        review = None
        if settings.keep_abstained is not None:
            review = ReviewStore(settings.keep_abstained, max_bytes=int(settings.keep_max_mb * MIB))
        return cls(settings, model, metrics, keys, log, review, batcher, Memory(settings.max_memory))

    def start(self) -> None:
        """Begin to work on the queue and to check the certificate from time to time."""
        self.batcher.start()
        if self.settings.check_seconds:
            self._checks = asyncio.get_running_loop().create_task(self._check_forever())

    async def close(self) -> None:
        """Finish the queue and write out the log."""
        self.draining = True
        if self._checks is not None:
            self._checks.cancel()
        await self.batcher.close(self.settings.grace_seconds)
        if self.log is not None:
            await asyncio.to_thread(self.log.close)

    async def _check_forever(self) -> None:
        while True:
            await asyncio.sleep(self.settings.check_seconds)
            before = self.model.void
            await asyncio.to_thread(self.model.check)
            self.metrics.state(self.model.state())
            if self.model.void != before:
                log_line("certificate", state=self.model.state(), reasons=list(self.model.void))

    async def not_ready(self) -> tuple[str, ...]:
        """Why no requests should come here: stopping, a void certificate, or a wrong answer to a golden image."""
        if self.draining:
            return ("the server is stopping",)
        async with self._ready_lock:
            # Anybody may ask, so one inference answers all who ask within a short time.
            if time.monotonic() - self._ready[0] > _READY_SECONDS:
                wrong = await asyncio.to_thread(self.model.golden_answers)
                self._ready = (time.monotonic(), wrong)
        return (*self.model.void, *(w for w in self._ready[1] if w not in self.model.void))

    async def predict_request(self, request: Request) -> tuple[Asked, list[Answer | Problem]]:
        """Decisions for the pictures of a request whose body is a picture, a form or JSON."""
        began = time.monotonic()
        deadline = began + deadline_seconds(request.headers, self.settings.deadline_ms)
        body = await self.body_of(request)
        try:
            asked = await asked_for(request, body, max_images=self.settings.max_images)
            return asked, await self.predict(request, asked.pictures, asked.columns, deadline)
        finally:
            self.memory.give(len(body))

    async def body_of(self, request: Request) -> bytes:
        """The body, whose bytes the caller gives back to ``memory``."""
        s = self.settings
        return await read_body(request, self.memory, max_bytes=s.max_bytes, seconds=s.body_seconds)

    async def predict(
        self, request: Request, pictures: Sequence[Picture], columns: Mapping[str, str], deadline: float
    ) -> list[Answer | Problem]:
        """An answer or a problem for each picture, in order.

        Raises:
            Problem: for the request as a whole: queue full, time up, certificate void, columns missing.
        """
        if self.settings.refuse_void and self.model.void:
            sentence = self.model.certificate()["sentence"]
            raise Problem(503, "certificate_void", sentence, fix="tell who runs this server")
        calibrator = self.model.detector.calibrator
        unknown = sorted(set(columns) - set(calibrator.needs))
        if unknown:
            known = ", ".join(calibrator.needs) or "none"
            fix = f"leave it out; this bundle calibrates by: {known}"
            raise Problem(422, "bad_columns", f"This bundle does not use {unknown[0][:80]!r}", where="slice", fix=fix)
        try:
            require_columns(calibrator, columns)
        except Exception as error:
            raise of_error(error, "slice") from error
        jobs = [None if p.problem else Job(p.content, p.where, deadline, columns or None) for p in pictures]
        queued = [job for job in jobs if job is not None]
        self.batcher.submit(queued)
        try:
            if queued:
                await asyncio.wait([job.done for job in queued], timeout=max(deadline - time.monotonic(), 0.0))
        finally:
            # Nobody waits for what is left: it is dropped from the queue before it costs anything.
            for job in queued:
                job.done.cancel()
        results = [_result(picture, job) for picture, job in zip(pictures, jobs, strict=True)]
        self._record(request, pictures, results, columns)
        return results

    def _record(
        self,
        request: Request,
        pictures: Sequence[Picture],
        results: Sequence[Answer | Problem],
        columns: Mapping[str, str],
    ) -> None:
        state = request.scope["workzone"]
        for index, (picture, result) in enumerate(zip(pictures, results, strict=True)):
            if isinstance(result, Problem):
                result.counted = True
                self.metrics.rejected.labels(result.code).inc()
                state.count(result.code)
                continue
            decision = result.decision
            self.metrics.decisions.labels(decision.label).inc()
            state.count(decision.label)
            if self.log is not None:
                self.log.add(self._row(state.request_id, index, result, columns))
            if self.review is not None and decision.label == "abstain":
                self.review.keep_soon(picture.content, decision, state.request_id, self.model.sha256)

    def _row(self, request_id: str, index: int, answer: Answer, columns: Mapping[str, str]) -> Row:
        embedding = answer.embedding if self.settings.log_embeddings else None
        return Row.of(answer.decision, embedding, request_id, index, self.model.sha256, self.model.state(), columns)


def _result(picture: Picture, job: Job | None) -> Answer | Problem:
    if job is None:
        return picture.problem or late(picture.where)
    if job.done.cancelled():
        return late(picture.where)
    error = job.done.exception()
    if error is None:
        return job.done.result()
    return of_error(error if isinstance(error, Exception) else RuntimeError(str(error)), picture.where)


def answer_json(answer: Answer, *, views: bool) -> dict[str, Any]:
    """What is told about one picture."""
    decision: Decision = answer.decision
    told = decision.to_dict()
    if not views:
        del told["views"]
    return told
