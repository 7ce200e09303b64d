"""The application: service, routes, gate."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

from workzone.serving import docs, openapi, routes_v1, routes_v2
from workzone.serving.gate import HEALTH, Gate
from workzone.serving.metrics import log_line
from workzone.serving.model import Model
from workzone.serving.problems import Problem
from workzone.serving.roles import Roles
from workzone.serving.routes_v1 import certificate_headers, service_of
from workzone.serving.service import Service
from workzone.serving.settings import ServeSettings

_STATIC = Path(__file__).parent / "static"
_KEPT = {"Cache-Control": "no-cache"}


def create_app(settings: ServeSettings, *, model: Model | None = None, roles: Roles | None = None) -> FastAPI:
    """The application for ``settings``; what it serves is opened when it starts.

    Args:
        settings: of the server.
        model: an opened model, instead of the bundle of ``settings``.
        roles: all bundles opened, in place of those of ``settings``.
    """

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        service = Service.open(settings, model, roles)
        app.state.service = service
        service.start()
        _drain_on_sigterm(service)
        state, name = service.model.state(), service.model.name
        log_line("started", bundle=name, bundle_sha256=service.model.sha256, certificate=state)
        yield
        await service.close()
        service.metrics.leave()
        log_line("stopped")

    app = FastAPI(
        title="workzone",
        version=version("workzone"),
        description="Roadwork decisions on street images; every answer says whether its certificate holds.",
        docs_url=None,  # FastAPI's own page loads its scripts from another site
        redoc_url=None,
        lifespan=life,
    )
    app.include_router(routes_v1.router)
    app.include_router(routes_v2.router)
    _health(app)
    _pages(app)
    _describe(app, keys=settings.api_key_file is not None)
    app.mount("/static", StaticFiles(directory=_STATIC), name="static")
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_middleware(Gate, service=lambda: app.state.service)
    return app


def from_environment() -> FastAPI:
    """The application in a worker process."""
    return create_app(ServeSettings.from_environment())


def _drain_on_sigterm(service: Service) -> None:
    """On SIGTERM, refuse new requests for ``drain_seconds``, then let the server that runs us close and finish."""
    if threading.current_thread() is not threading.main_thread():
        return  # in a test, whose signals are its own
    loop, server = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)
    if not callable(server):
        return  # no server runs us that would have to be told

    def stop(number: int, frame: FrameType | None) -> None:
        first, service.draining = not service.draining, True
        if first:
            log_line("draining", seconds=service.settings.drain_seconds)
            loop.call_soon_threadsafe(loop.call_later, service.settings.drain_seconds, server, number, None)

    signal.signal(signal.SIGTERM, stop)


def _health(app: FastAPI) -> None:
    @app.get("/healthz", summary="Whether the process lives", response_description="The process lives")
    async def healthz() -> Response:
        """Always 200; restart the process where it is not."""
        return JSONResponse({"status": "live"})

    @app.get(
        "/readyz",
        summary="Whether requests should come here",
        responses={**openapi.answered("Ready"), **openapi.NOT_READY},
    )
    async def readyz(request: Request) -> Response:
        """200 when a golden image was just answered as it must be and the certificate is not void; 503 otherwise."""
        service = service_of(request)
        reasons = await service.not_ready()
        state = service.model.state()
        body = {"status": "not ready" if reasons else "ready", "certificate": state, "reasons": list(reasons)}
        return JSONResponse(body, 503 if reasons else 200, headers=certificate_headers(service))

    @app.get(
        "/metrics",
        summary="Figures for Prometheus",
        response_class=Response,
        responses={
            200: {"description": "The figures", "content": {"text/plain": {"schema": {"type": "string"}}}},
            **openapi.refused(openapi.ERRORS),
        },
    )
    async def metrics(request: Request) -> Response:
        """Text format 0.0.4; of all processes of this server, and of the monitor where its folder was given."""
        text = await asyncio.to_thread(service_of(request).figures)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _describe(app: FastAPI, *, keys: bool) -> None:
    of_routes = app.openapi

    def described() -> dict[str, Any]:
        return openapi.with_keys(of_routes(), asked=keys, free=HEALTH)

    app.openapi = described  # type: ignore[method-assign]  # as FastAPI's documentation has it


def _pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return FileResponse(_STATIC / "index.html", headers=_KEPT)

    @app.get("/review", include_in_schema=False)
    async def review() -> Response:
        return FileResponse(_STATIC / "review.html", headers=_KEPT)

    @app.get("/docs", include_in_schema=False)
    async def documentation() -> Response:
        return HTMLResponse(docs.page(app.openapi()))


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    if not error.counted:
        service_of(request).metrics.rejected.labels(error.code).inc()
        request.scope["workzone"].count(error.code)
    if request.url.path.startswith("/v2/"):
        return routes_v2.problem_response(error)
    return error.response()


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    codes = {404: ("not_found", "There is nothing at this address"), 405: ("method", "This address has another method")}
    code, what = codes.get(error.status_code, ("http", str(error.detail)))
    problem = Problem(
        error.status_code, code, what, where=request.url.path[:200], fix="see /docs", headers=error.headers
    )
    return await _problem(request, problem)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(p) for p in first["loc"])[:200]
    return await _problem(request, Problem(422, "bad_request", str(first["msg"]), where=where, fix="see /docs"))
