"""A Ray cluster of two CPUs on this machine, as a process of its own that others join by address."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from helpers.command import environment

SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
"""Of the processes that join, too: a cluster of the loopback needs no token."""
_FLAGS = ("port", "runtime-env-agent-port")


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def cluster(folder: Path, cpus: int = 2) -> Iterator[str]:
    """Address of a cluster that ends with the block.

    Its processes have 15 seconds, by a constant in Ray, to tell each other their ports, which is too little on a busy
    machine: what they would tell is fixed, or said for them.
    """
    ports = free_ports(len(_FLAGS))
    # Paths of sockets are short.
    words = ["--head", "--block", f"--num-cpus={cpus}", "--include-dashboard=false", "--disable-usage-stats"]
    words += ["--node-ip-address=127.0.0.1", f"--object-store-memory={100 * 2**20}"]
    words += [f"--{flag}={port}" for flag, port in zip(_FLAGS, ports, strict=True)]
    sessions = Path(tempfile.mkdtemp(prefix="ray-"))
    words.append(f"--temp-dir={sessions}")
    log = folder / "ray-start.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", *words],
            stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
            env=environment(**SETTINGS),
        )  # fmt: skip
    try:
        limit = time.monotonic() + 120
        while "Ray runtime started" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < limit, log.read_text()
            _say_ports(sessions)
            time.sleep(0.1)
        yield f"127.0.0.1:{ports[0]}"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(sessions, ignore_errors=True)


def _say_ports(sessions: Path) -> None:
    """Without the dashboard its agent serves nothing, and says -1 once it has imported everything."""
    for known in sessions.glob("session_2*/gcs_server_port_*"):
        node = known.name.removeprefix("gcs_server_port_")
        for name in ("dashboard_agent_listen_port", "metrics_agent_port", "metrics_export_port"):
            if not (path := known.with_name(f"{name}_{node}")).exists():
                path.write_text("-1")
