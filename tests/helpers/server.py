"""``workzone serve`` as a process of its own, for tests that ask it over the wire."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

import httpx2

from helpers.command import command, environment


class Running:
    """A server process and where it listens; ``words`` come after ``serve``."""

    def __init__(self, words: list[str], errors: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.errors = errors
        with errors.open("w") as stream:
            self.process = subprocess.Popen(
                command(["serve", *words, "--port", str(self.port), "--threads", "1"]), env=environment(), stderr=stream
            )
        limit = time.monotonic() + 60
        while not self._ready():
            assert time.monotonic() < limit, errors.read_text()
            assert self.process.poll() is None, errors.read_text()
            time.sleep(0.1)

    def _ready(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/readyz").status_code == 200
        except httpx2.TransportError:
            return False

    def ask(self, content: bytes, **headers: str) -> httpx2.Response:
        kind = {"Content-Type": "application/octet-stream"}
        return httpx2.post(f"{self.url}/v1/predict", content=content, headers={**kind, **headers}, timeout=60)

    def resident_mb(self) -> float:
        """Resident memory of the process (the supervisor where there are several workers)."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
