"""What one server process is made of, and the one way in which every protocol gets its decisions."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.requests import Request

from workzone.bundle.slices import require_columns
from workzone.decisions import Decision
from workzone.errors import DataError
from workzone.monitoring.gauge_file import FILE as MONITOR_GAUGES
from workzone.monitoring.gauge_file import read_gauges
from workzone.serving.batcher import Batcher, Job, Work, late
from workzone.serving.body import Asked, Memory, Picture, asked_for, deadline_seconds, read_body
from workzone.serving.keys import ApiKeys
from workzone.serving.log import PredictionLog, Row
from workzone.serving.metrics import Metrics, log_line
from workzone.serving.model import Answer, Model
from workzone.serving.places import CHAMPION
from workzone.serving.problems import Problem, of_error
from workzone.serving.review import Kept, ReviewStore
from workzone.serving.roles import Arm, Roles
from workzone.serving.rollout import Judge
from workzone.serving.settings import MIB, ServeSettings
from workzone.serving.shadow import Shadow, Task

_READY_SECONDS = 2.0
_SEQUENCE = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(slots=True)
class Service:
    """One server process; ``open`` builds it, ``start`` and ``close`` belong to the running event loop."""

    settings: ServeSettings
    roles: Roles
    metrics: Metrics
    keys: ApiKeys | None
    log: PredictionLog | None
    review: ReviewStore | None
    batcher: Batcher
    memory: Memory
    shadow: Shadow | None = None
    judge: Judge | None = None
    draining: bool = False
    _checks: asyncio.Task[None] | None = None
    _ready: tuple[float, tuple[str, ...]] = (-1e9, ())
    _ready_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @classmethod
    def open(cls, settings: ServeSettings, model: Model | None = None, roles: Roles | None = None) -> Service:
        """Open bundle, keys, log and review folder.

        Raises:
            WorkzoneError: one of them cannot be opened; the message says what to do.
        """
        settings.require_safe_bind()
        keys = ApiKeys.load(settings.api_key_file) if settings.api_key_file else None
        roles = roles or Roles.open(settings, Metrics(), model)
        metrics = roles.metrics

        def decide(content: bytes, columns: Mapping[str, Any] | None) -> Answer:
            # Looked up each time: who is no champion any more must not be kept in memory.
            return _work(roles.champion, settings.max_pixels)(content, columns)

        batcher = Batcher(
            decide,
            metrics,
            threads=roles.champion.detector.engine.threads,
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
        shadow = None
        if settings.shadow is not None:
            shadow = Shadow(
                lambda: roles.shadow,
                metrics,
                log,
                lambda: not batcher.idle,
                size=settings.shadow_queue,
                seconds=settings.shadow_seconds,
                max_pixels=settings.max_pixels,
                embeddings=settings.log_embeddings,
            )
        judge = None
        if settings.challenger is not None and review is not None and settings.keep_share:
            judge = Judge(review, roles, event=settings.stop_event, delta=settings.stop_delta)
            judge()  # a server that is started again must not begin what was stopped before
        memory = Memory(settings.max_memory)
        return cls(settings, roles, metrics, keys, log, review, batcher, memory, shadow, judge)

    @property
    def model(self) -> Model:
        """The champion."""
        return self.roles.champion

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
        if self.shadow is not None:
            await asyncio.to_thread(self.shadow.close)
        for store in (self.log, self.review):
            if store is not None:
                await asyncio.to_thread(store.close)

    async def _check_forever(self) -> None:
        while True:
            await asyncio.sleep(self.settings.check_seconds)
            await self.check()

    def figures(self) -> bytes:
        """Text for Prometheus: of this server, and what the monitor found last."""
        folder = self.settings.monitor
        if folder is None:
            return self.metrics.text()
        try:
            found = read_gauges(folder / MONITOR_GAUGES)
        except DataError as error:
            found = ""
            log_line("monitor", error=error.what)
        self.metrics.monitor_readable.set(float(bool(found)))
        return self.metrics.text() + found.encode()

    async def check(self) -> None:
        """Look up who serves, check every bundle, and judge the challenger by the labels that came since."""
        before = self.model.void
        await asyncio.to_thread(self.roles.check)
        if self.model.void != before:
            log_line("certificate", state=self.model.state(), reasons=list(self.model.void))
        if self.judge is not None:
            await asyncio.to_thread(self.judge)

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

    def arm_of(self, request: Request, sequence: str | None = None) -> Arm:
        """Who answers a request: by its sequence where it belongs to one, else by its own id.

        Raises:
            Problem: 400 for a sequence that is no name.
        """
        trace = request.scope["workzone"]
        given = request.headers.get("x-sequence-id") if sequence is None else sequence
        if given is not None and not _SEQUENCE.fullmatch(given):
            fix = "take 1 to 64 of A-Z a-z 0-9 . _ -"
            raise Problem(400, "bad_sequence", "The id of the sequence is no name", where="X-Sequence-ID", fix=fix)
        trace.sequence = given or ""
        arm = self.roles.pick(given or trace.request_id)
        trace.role = arm.role
        return arm

    async def predict_request(self, request: Request) -> tuple[Asked, Arm, list[Answer | Problem]]:
        """Decisions for the pictures of a request whose body is a picture, a form or JSON, and who gave them."""
        began = time.monotonic()
        deadline = began + deadline_seconds(request.headers, self.settings.deadline_ms)
        arm = self.arm_of(request)
        body = await self.body_of(request)
        try:
            asked = await asked_for(request, body, max_images=self.settings.max_images)
            return asked, arm, await self.predict(request, asked.pictures, asked.columns, deadline, arm)
        finally:
            self.memory.give(len(body))

    async def body_of(self, request: Request) -> bytes:
        """The body, whose bytes the caller gives back to ``memory``."""
        s = self.settings
        return await read_body(request, self.memory, max_bytes=s.max_bytes, seconds=s.body_seconds)

    async def predict(
        self,
        request: Request,
        pictures: Sequence[Picture],
        columns: Mapping[str, str],
        deadline: float,
        arm: Arm | None = None,
    ) -> list[Answer | Problem]:
        """An answer or a problem for each picture, in order, by ``arm`` or else by the champion.

        Raises:
            Problem: for the request as a whole: queue full, time up, certificate void, columns missing.
        """
        arm = arm or Arm(CHAMPION, self.model)
        model = arm.model
        if self.settings.refuse_void and model.void:
            sentence = model.certificate()["sentence"]
            raise Problem(503, "certificate_void", sentence, fix="tell who runs this server")
        # The same request must be good or bad whoever answers it.
        needs = {*self.model.detector.calibrator.needs, *model.detector.calibrator.needs}
        unknown = sorted(set(columns) - needs)
        if unknown:
            fix = f"leave it out; this bundle calibrates by: {', '.join(sorted(needs)) or 'none'}"
            raise Problem(422, "bad_columns", f"This bundle does not use {unknown[0][:80]!r}", where="slice", fix=fix)
        try:
            require_columns(self.model.detector.calibrator, columns)
            require_columns(model.detector.calibrator, columns)
        except Exception as error:
            raise of_error(error, "slice") from error
        own = {k: v for k, v in columns.items() if k in model.detector.calibrator.needs} or None
        work = _work(model, self.settings.max_pixels, hashed=self.log is not None or self.review is not None)
        jobs = [None if p.problem else Job(p.content, p.where, deadline, own, work, arm.role) for p in pictures]
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
        self._record(request, pictures, results, columns, arm)
        return results

    def _record(
        self,
        request: Request,
        pictures: Sequence[Picture],
        results: Sequence[Answer | Problem],
        columns: Mapping[str, str],
        arm: Arm,
    ) -> None:
        trace, model = request.scope["workzone"], arm.model
        for index, (picture, result) in enumerate(zip(pictures, results, strict=True)):
            if isinstance(result, Problem):
                result.counted = True
                self.metrics.rejected.labels(result.code).inc()
                trace.count(result.code)
                continue
            decision = result.decision
            self.metrics.answered(decision, arm.role)
            trace.count(decision.label)
            if self.log is not None:
                embedding = result.embedding if self.settings.log_embeddings else None
                self.log.add(
                    Row.of(
                        decision, embedding, trace.request_id, index, model.sha256, model.state(), columns,
                        role=arm.role, sequence=trace.sequence, picture_sha256=result.sha256,
                    )
                )  # fmt: skip
            if self.review is not None:
                share = self.settings.keep_share
                kept = Kept(trace.request_id, model.sha256, index, arm.role, trace.sequence, share)
                self.review.keep_soon(picture.content, decision, kept)
            if self.shadow is not None:
                task = (picture.content, columns, trace.request_id, index, trace.sequence, result.sha256)
                self.shadow.submit(Task(*task, given=decision, role=arm.role))


def _work(model: Model, max_pixels: int, *, hashed: bool = False) -> Work:
    def work(content: bytes, columns: Mapping[str, Any] | None) -> Answer:
        answer = model.answer(content, max_pixels=max_pixels, columns=columns)
        return replace(answer, sha256=hashlib.sha256(content).hexdigest()) if hashed else answer

    return work


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
