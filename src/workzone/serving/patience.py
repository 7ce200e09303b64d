"""Connections on which a request never comes, or only begins to come."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

_Base: Any = AutoHTTPProtocol


class Patient(_Base):  # type: ignore[misc]
    """The protocol of the server, which closes a connection whose next head is not complete after ``seconds``.

    uvicorn waits for ever for a head that has begun, so that a client could hold any number of connections. A head that
    begins while the request before is answered is waited for as long as an idle connection is kept.
    """

    def __init__(self, *words: Any, seconds: float, **named: Any) -> None:
        super().__init__(*words, **named)
        self._seconds = seconds
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Wait for the first head."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Wait on, unless a request has come."""
        super().data_received(data)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop()
        super().connection_lost(exc)

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait(self) -> None:
        if self._answering():
            self._stop()
        elif self._patience is None and not self.transport.is_closing():
            self._patience = self.loop.call_later(self._seconds, self._give_up)

    def _stop(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        self._patience = None
        if not self._answering():
            self.transport.close()
