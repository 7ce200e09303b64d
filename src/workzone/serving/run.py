"""Start the server in this process, or in several that share one address."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from workzone.errors import CheckFailedError, ConfigError
from workzone.serving.settings import ServeSettings

if TYPE_CHECKING:
    import uvicorn
    from uvicorn.supervisors.multiprocess import Process

_FAILED = 3
_PATIENCE, _POLL = 60.0, 0.1


def serve(settings: ServeSettings) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish what was accepted and return.

    Raises:
        WorkzoneError: the settings, the keys or the bundle are not good; found before anything listens.
    """
    from workzone.serving.keys import ApiKeys

    settings.require_safe_bind()
    if settings.api_key_file is not None:
        ApiKeys.load(settings.api_key_file)
    _serve_alone(settings) if settings.workers == 1 else _serve_many(settings)


def _config(settings: ServeSettings, app: object) -> uvicorn.Config:
    import uvicorn

    from workzone.serving.patience import Patient

    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        factory=isinstance(app, str),
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        access_log=False,  # the gate writes one line a request, without addresses
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        ws="none",
        http=partial(Patient, seconds=settings.body_seconds),  # type: ignore[arg-type]
        lifespan="on",
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.grace_seconds,
    )


def _serve_alone(settings: ServeSettings) -> None:
    import uvicorn

    from workzone.serving.app import create_app
    from workzone.serving.metrics import Metrics
    from workzone.serving.roles import Roles

    # Opened here, so that a bad bundle is one sentence instead of a failed start-up of the server.
    roles = Roles.open(settings, Metrics())
    _try_places(settings)
    server = uvicorn.Server(_config(settings, create_app(settings, roles=roles)))
    # After a graceful end uvicorn raises the signal once more; it has been obeyed by then.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        server.run()
    except SystemExit as error:
        raise _not_started(settings) from error
    if not server.started:
        raise _not_started(settings)


def _serve_many(settings: ServeSettings) -> None:
    from prometheus_client.multiprocess import mark_process_dead
    from uvicorn.supervisors import Multiprocess

    from workzone.bundle import open_bundle
    from workzone.serving.metrics import MULTIPROCESS, log_line
    from workzone.serving.places import CHALLENGER, CHAMPION, SHADOW, place_of

    class Supervisor(Multiprocess):
        """Remembers whether it was asked to stop."""

        asked = False

        def keep_subprocess_alive(self) -> None:
            before = {p.pid for p in self.processes}
            for worker in self.processes:
                self.hear(worker)
            super().keep_subprocess_alive()
            for pid in before - {p.pid for p in self.processes}:
                # A worker that was killed could not say so itself, and its queue would be counted for ever.
                mark_process_dead(pid)  # type: ignore[no-untyped-call]
                log_line("worker", died=pid)

        def hear(self, worker: Process) -> None:
            """Wait until a worker answers, has died, or somebody wants us to stop.

            uvicorn kills who is silent for a few seconds. A worker that still imports and opens its bundles on a busy
            machine is, and would be killed and started anew for ever.
            """
            limit = time.monotonic() + _PATIENCE
            try:
                worker.parent_conn.send(b"ping")
                while time.monotonic() < limit and worker.process.is_alive() and not self.signal_queue:
                    if worker.parent_conn.poll(_POLL):
                        worker.parent_conn.recv()
                        return
            except (OSError, EOFError):
                return  # it has died; the caller sees that by itself

        def handle_int(self) -> None:
            self.asked = True
            super().handle_int()

        def handle_term(self) -> None:
            self.asked = True
            super().handle_term()

    for role in (CHAMPION, CHALLENGER, SHADOW):  # as above
        folder = place_of(settings, role)
        if folder is not None:
            opened = open_bundle(folder, threads=1)
            if role == CHAMPION and settings.budget is not None:
                opened.at_budget(settings.budget)
    _try_places(settings)
    settings.to_environment()
    with ExitStack() as stack:
        if not os.environ.get(MULTIPROCESS):
            # Must be set before prometheus_client is imported in a worker.
            os.environ[MULTIPROCESS] = stack.enter_context(tempfile.TemporaryDirectory(prefix="workzone-metrics-"))
        config = _config(settings, "workzone.serving.app:from_environment")
        try:
            socket = config.bind_socket()
        except SystemExit as error:
            raise _not_started(settings) from error
        supervisor = Supervisor(config, sockets=[socket])
        supervisor.run()
        socket.close()
        # A worker that is stopped while it starts ends in the same way as one that cannot start.
        if not supervisor.asked and any(p.exitcode == _FAILED for p in supervisor.processes):
            raise CheckFailedError("a worker did not start", where=settings.host, fix="read what it said above")


def _try_places(settings: ServeSettings) -> None:
    """Open and close what the server will write to, and look where it will read."""
    from workzone.serving.log import connect
    from workzone.serving.review import ReviewStore

    if settings.log_db is not None:
        connect(settings.log_db).close()
    if settings.keep_abstained is not None:
        ReviewStore(settings.keep_abstained, max_bytes=0).close()
    if settings.monitor is not None and settings.monitor.exists() and not settings.monitor.is_dir():
        fix = "give the folder of 'workzone monitor run --out'"
        raise ConfigError("the monitor writes into a folder, and this is none", where=str(settings.monitor), fix=fix)


def _not_started(settings: ServeSettings) -> ConfigError:
    sys.stderr.flush()
    return ConfigError(
        "the server could not start",
        where=f"{settings.host}:{settings.port}",
        fix="read what it said above; where the address is in use, take another --port",
    )
