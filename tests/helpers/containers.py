"""Docker or Podman, for tests that build and run the image.

WORKZONE_CONTAINER_ENGINE   program and options before every command, for example "podman --runtime runc"
WORKZONE_CONTAINER_BUILD    further options of ``build``
WORKZONE_CONTAINER_RUN      further options of ``run``
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

BASE = "docker.io/library/python:3.11-slim"


def _flags(name: str) -> list[str]:
    return shlex.split(os.environ.get(f"WORKZONE_CONTAINER_{name}", ""))


class Containers:
    """The engine, what was made by it, and how to be rid of that."""

    def __init__(self) -> None:
        named = _flags("ENGINE")
        found = [named] if named else [[n] for n in ("docker", "podman") if shutil.which(n)]
        # A client alone is no engine.
        self.engine = next((e for e in found if self._code([*e, "info"]) == 0), [])
        if not self.engine:
            pytest.skip("neither docker nor podman runs containers here")
        self.podman = "podman" in Path(self.engine[0]).name
        self.names: list[str] = []
        self.images: list[str] = []

    @staticmethod
    def _code(words: list[str]) -> int:
        try:
            return subprocess.run(words, capture_output=True, timeout=60, check=False).returncode
        except (OSError, subprocess.TimeoutExpired):
            return 1

    def __call__(self, *words: str, timeout: float = 60, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run a command of the engine; ``code`` None takes any end."""
        done = subprocess.run([*self.engine, *words], capture_output=True, text=True, timeout=timeout, check=False)
        assert code is None or done.returncode == code, f"{words}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done

    def need(self, image: str) -> None:
        """Skip unless ``image`` is here or can be had."""
        if self._code([*self.engine, "image", "inspect", image]):
            try:
                code = self("pull", image, timeout=240, code=None).returncode
            except subprocess.TimeoutExpired:
                code = 1
            if code:
                pytest.skip(f"the image {image} is not here and could not be pulled")

    def build(self, tag: str, file: Path, context: Path) -> str:
        """Build an image; it goes with ``clean``."""
        # Of the formats that podman can write, only that of docker keeps a health check; and it would keep every step.
        own = ["--format", "docker", "--layers=false", "--force-rm"] if self.podman else []
        self.images.append(tag)
        self("build", *own, *_flags("BUILD"), "-f", str(file), "-t", tag, str(context), timeout=1500)
        return tag

    def run(self, name: str, *words: str) -> str:
        """Start a container; it goes with ``clean``."""
        self.names.append(name)
        self("run", "--detach", "--name", name, *_flags("RUN"), *words)
        return name

    def inspect(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("inspect", name).stdout)[0]
        return found

    def python(self, name: str, program: str) -> str:
        """What ``program`` prints inside a running container."""
        return self("exec", name, "python", "-c", program).stdout.strip()

    def healthy(self, name: str) -> bool:
        """Whether the health check of the image passes."""
        if self.podman:  # its timers need systemd, so it is asked by hand
            return self("healthcheck", "run", name, code=None).returncode == 0
        return bool(self.inspect(name)["State"]["Health"]["Status"] == "healthy")

    def clean(self) -> None:
        """Remove all that was made."""
        for name in self.names:
            self("rm", "--force", "--volumes", name, code=None)
        for image in self.images:
            self("rmi", "--force", image, code=None)


def wait_for(what: Callable[[], bool], seconds: float, said: Callable[[], str] = str) -> None:
    """Wait until ``what`` holds; ``said`` explains where it never does."""
    limit = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < limit, said()
        time.sleep(0.3)
