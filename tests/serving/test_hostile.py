"""Thousands of requests that nobody should send: no crash, no 500, no memory or connection that stays."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from helpers import hostile
from helpers.server import Running
from workzone.bundle.starter import starter_bundle

pytestmark = pytest.mark.e2e
_SETTINGS = (
    *("--body-seconds", "1", "--keep-alive-seconds", "2", "--check-seconds", "0"),
    *("--max-queue", "16", "--max-pixels", "60000000"),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    bundle = starter_bundle()
    assert bundle is not None
    folder = tmp_path_factory.mktemp("hostile")
    hostile.PICTURE = (bundle / "golden" / "00.jpg").read_bytes()
    hostile.NAMES = [json.loads((bundle / "bundle.json").read_text())["name"], "other"]
    started = Running([str(bundle), *_SETTINGS, "--keep-abstained", str(folder / "keep")], folder / "errors.txt")
    yield started
    started.stop()


def attack(server: Running, count: int, seed: int, threads: int) -> Counter[tuple[str, int | None]]:
    """Fire; how often each kind was answered with each status. The order of what arrives is up to the threads."""
    with ThreadPoolExecutor(threads) as pool:
        shots = hostile.shots(count, seed)
        codes = pool.map(lambda shot: hostile.fire(server.port, shot), shots)
        return Counter(zip((s.kind for s in shots), codes, strict=True))


def quiet(server: Running, most: int) -> int:
    """Open files once those of the attack are closed, waiting a few seconds for it."""
    limit = time.monotonic() + 15
    while server.open_files() > most and time.monotonic() < limit:
        time.sleep(0.2)
    return server.open_files()


def require_unharmed(server: Running, seen: Counter[tuple[str, int | None]], before: str) -> None:
    assert server.process.poll() is None, server.errors.read_text()[-3000:]
    faults = [x for x in server.errors.read_text().splitlines() if '"fault"' in x or "Traceback" in x]
    assert not faults, faults[0][:3000]
    wrong = {k: n for k, n in seen.items() if k[1] is not None and k[1] >= 500 and k[1] not in (501, 503, 504, 505)}
    assert not wrong
    after = server.ask(hostile.PICTURE)
    assert after.status_code == 200
    assert after.json()["probability"] == pytest.approx(json.loads(before)["probability"])


def test_some_hostile_requests(server: Running) -> None:
    before = server.ask(hostile.PICTURE).text
    files = server.open_files()
    seen = attack(server, 250, seed=1, threads=12)
    require_unharmed(server, seen, before)
    assert {kind for kind, _ in seen} >= {"bomb", "bad tensor", "bad multipart", "slow sender", "damaged picture"}
    assert {400, 413, 415, 422} <= {code for _, code in seen}
    assert quiet(server, files + 2) <= files + 2


def test_a_head_that_never_ends_is_dropped(server: Running) -> None:
    import socket

    for begin in (b"", b"GET /hea", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthz HT"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as wire:
            wire.sendall(begin)
            at, said = time.monotonic(), b""
            while more := wire.recv(65536):
                said += more
            assert 0.5 < time.monotonic() - at < 25
            assert said.count(b" 200 ") == begin.count(b"\r\n\r\n")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_thousand_hostile_requests(server: Running) -> None:
    before = server.ask(hostile.PICTURE).text
    attack(server, 1000, seed=2, threads=16)  # every kind of buffer has been used once
    files, memory = quiet(server, 0), server.resident_mb()
    seen: Counter[tuple[str, int | None]] = Counter()
    course = []
    for part in range(9):
        seen += attack(server, 1000, seed=3 + part, threads=16)
        course.append(round(server.resident_mb()))
    require_unharmed(server, seen, before)
    codes = sorted(Counter(code or 0 for _, code in seen.elements()).items())
    print(f"memory {memory:.0f} MB before, then {course}; files {files}; answers by status (0: closed): {codes}")
    assert quiet(server, files + 2) <= files + 2
    # Bombs of allowed size are decoded, 150 MB each: the peak moves, the floor must not.
    assert min(course[-3:]) < memory + 100


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_openapi_description_is_kept(server: Running) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

    found = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    wrong, count = [], 0
    for result in found.get_all_operations():
        operation = result.ok()
        if operation.path == "/readyz":
            continue  # it answers a golden picture
        strategy = operation.as_strategy()

        @given(case=strategy)
        @settings(
            max_examples=60,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        def ask(case: object) -> None:
            checks = [not_a_server_error, status_code_conformance, response_schema_conformance]
            case.call_and_validate(checks=checks)  # type: ignore[attr-defined]

        try:
            ask()
        except BaseExceptionGroup as failures:
            wrong.append(f"{operation.method} {operation.path}: {failures.exceptions[0]!s:.600}")
        count += 1
    assert not wrong, "\n\n".join(wrong)
    assert count >= 15
    assert httpx2.get(f"{server.url}/healthz").status_code == 200
    assert '"fault"' not in server.errors.read_text()
