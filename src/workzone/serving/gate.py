"""Everything that happens to every request before and after its route: id, host, key, draining, log line, figures."""

from __future__ import annotations

import re
import time
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workzone.serving.keys import key_in
from workzone.serving.metrics import log_line
from workzone.serving.problems import Problem, of_error
from workzone.serving.service import Service

HEALTH = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")
# Pages hold nothing secret; what they show comes from routes that ask for the key.
OPEN = (*HEALTH, "/", "/review", "/docs", "/openapi.json")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LOCAL = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", re.IGNORECASE)
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Trace:
    """What is remembered of one request for its log line."""

    def __init__(self, request_id: str) -> None:
        self.request_id, self.key = request_id, ""
        self.sequence, self.role = "", ""
        self.status, self.started = 0, False
        self.counts: Counter[str] = Counter()

    def count(self, name: str) -> None:
        """Count one picture by its decision or problem."""
        self.counts[name] += 1


class Gate:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, service: Callable[[], Service]) -> None:
        self.app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        service, headers = self._service(), Headers(scope=scope)
        given = headers.get("x-request-id", "")
        trace = Trace(given if _ID.fullmatch(given) else uuid.uuid4().hex)
        scope["workzone"] = trace
        began = time.monotonic()

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                trace.status, trace.started = message["status"], True
                out = MutableHeaders(scope=message)
                out["X-Request-ID"] = trace.request_id
                for name, value in _HEADERS.items():
                    out[name] = value
                out.setdefault("Cache-Control", "no-store")
                if service.draining:
                    out["Connection"] = "close"
            await send(message)

        try:
            self._admit(service, scope["path"], headers, trace)
            await self.app(scope, receive, sending)
        except Problem as problem:
            service.metrics.rejected.labels(problem.code).inc()
            trace.count(problem.code)
            await problem.response()(scope, receive, sending)
        except Exception as error:
            service.metrics.fault(error)
            if trace.started:
                raise
            await of_error(error, "request").response()(scope, receive, sending)
        finally:
            self._write(service, scope, trace, time.monotonic() - began)

    def _admit(self, service: Service, path: str, headers: Headers, trace: Trace) -> None:
        settings = service.settings
        if service.keys is None and not settings.insecure and not _LOCAL.fullmatch(headers.get("host", "")):
            # A page on the web could otherwise name itself into this machine and read the answers (DNS rebinding).
            raise Problem(
                421,
                "wrong_host",
                "This server answers to its local name only",
                where="header Host",
                fix="use localhost",
            )
        if path in HEALTH:
            return
        if service.draining and path != "/metrics":
            raise Problem(
                503,
                "draining",
                "The server is stopping and takes no new requests",
                fix="ask another one, or again after the seconds in Retry-After",
                headers={"Connection": "close", "Retry-After": "5"},
            )
        if service.keys is None or path in OPEN or path.startswith("/static/"):
            return
        key = key_in(headers)
        name = None if key is None else service.keys.name_of(key)
        if name is None:
            raise Problem(
                401,
                "no_key" if key is None else "wrong_key",
                "This server asks for an API key" if key is None else "This API key is not known",
                where="header Authorization",
                fix="send Authorization: Bearer KEY, or X-API-Key: KEY",
                headers={"WWW-Authenticate": "Bearer"},
            )
        trace.key = name

    def _write(self, service: Service, scope: Scope, trace: Trace, seconds: float) -> None:
        route: Any = scope.get("route")
        path = getattr(route, "path", "") or "other"
        service.metrics.requests.labels(path, str(trace.status)).inc()
        if path in HEALTH or path == "/metrics" or path.startswith("/static"):
            return
        service.metrics.seconds.labels("total").observe(seconds)
        log_line(
            "request",
            request_id=trace.request_id,
            method=scope["method"],
            route=path,
            status=trace.status,
            ms=round(seconds * 1000, 2),
            key=trace.key or None,
            role=trace.role or None,
            pictures=dict(trace.counts),
        )
