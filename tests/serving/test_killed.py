"""A worker that is killed under load: whoever asked gets an answer or a broken connection, and the log agrees."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from helpers.server import Running
from workzone.bundle.starter import starter_bundle

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
CLIENTS = 12
UNWRITTEN = 1.0
"""Seconds within which a row of the log may not have reached the disk."""


@dataclass(frozen=True)
class Outcome:
    request_id: str
    began: float
    ended: float
    status: int | None
    """None where the connection broke."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    bundle = starter_bundle()
    assert bundle is not None
    words = [str(bundle), "--workers", "2", "--log-db", str(tmp_path / "log.db"), "--deadline-ms", "60000"]
    started = Running([*words, "--max-queue", "16"], tmp_path / "errors.txt")
    limit = time.monotonic() + 120
    while started.errors.read_text().count('"started"') < 2:
        assert time.monotonic() < limit, started.errors.read_text()
        time.sleep(0.2)
    yield started
    started.stop()


def workers(server: Running) -> list[int]:
    """Processes that the supervisor has started to answer."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (folder / "stat").exists():
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == server.process.pid and b"spawn_main" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


@pytest.mark.timeout(600)
def test_no_request_is_lost_in_silence(server: Running, tmp_path: Path) -> None:
    bundle = starter_bundle()
    assert bundle is not None
    picture, ended = (bundle / "golden" / "00.jpg").read_bytes(), threading.Event()
    outcomes: list[Outcome] = []

    def client(number: int) -> None:
        count = 0
        while not ended.is_set():
            name, began = f"client{number}-{count}", time.monotonic()
            try:
                status = server.ask(picture, **{"X-Request-ID": name}).status_code
            except httpx2.TimeoutException:
                raise  # a request that hangs is lost in silence
            except httpx2.TransportError:
                status = None
            outcomes.append(Outcome(name, began, time.monotonic(), status))
            count += 1

    with ThreadPoolExecutor(CLIENTS) as pool:
        running = [pool.submit(client, n) for n in range(CLIENTS)]
        try:
            wait_for(lambda: sum(o.status == 200 for o in outcomes) > 3 * CLIENTS)
            before = workers(server)
            assert len(before) == 2
            os.kill(before[0], signal.SIGKILL)
            killed = time.monotonic()
            wait_for(lambda: server.errors.read_text().count('"started"') == 3)
            again = len(outcomes)
            wait_for(lambda: len(outcomes) > again + 3 * CLIENTS)
        finally:
            ended.set()
        for one in running:
            one.result()

    assert '"event": "worker", "died": ' + str(before[0]) in server.errors.read_text()
    assert "workzone_queue_depth 0.0" in httpx2.get(f"{server.url}/metrics").text
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0
    from workzone.serving.log import read_log

    written = {str(i).partition("/")[0] for i in read_log(tmp_path / "log.db").ids}
    by_id = {o.request_id: o for o in outcomes}
    assert len(by_id) == len(outcomes)
    answered = {o.request_id for o in outcomes if o.status == 200}
    broken = [o for o in outcomes if o.status is None]
    print(f"{len(outcomes)} asked, {len(answered)} answered, {len(broken)} connections broke, {len(written)} logged")
    assert {o.status for o in outcomes} <= {200, 429, None}
    assert broken, "the worker was killed while it had nothing to do"
    assert all(o.began <= killed <= o.ended + 1.0 for o in broken), "only requests in flight at the kill may break"
    unlogged = [by_id[i] for i in answered - written]
    assert all(killed - UNWRITTEN <= o.ended <= killed + 0.5 for o in unlogged)
    # What is logged was asked, and was answered or broke with the worker after it had been decided.
    assert written <= set(by_id)
    assert {by_id[i].status for i in written} <= {200, None}
    assert max(o.ended for o in outcomes if o.status == 200) > killed
    assert len(re.findall(r'"stopped"', server.errors.read_text())) == 2


def wait_for(condition: object, seconds: float = 120.0) -> None:
    limit = time.monotonic() + seconds
    assert callable(condition)
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.1)
