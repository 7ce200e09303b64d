"""The server as a process of its own: signals, a full queue, slow clients, several workers, a real Triton client."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from helpers.command import environment, workzone
from helpers.server import Running

pytestmark = pytest.mark.e2e


Serve = Callable[..., Running]


@pytest.fixture
def serve(tiny_bundle: Path, tmp_path: Path) -> Iterator[Serve]:
    running: list[Running] = []

    def go(*words: str) -> Running:
        running.append(Running([str(tiny_bundle), *words], tmp_path / f"errors-{len(running)}.txt"))
        return running[-1]

    yield go
    for server in running:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


def test_sigterm_finishes_what_was_accepted_and_exits_0(serve: Serve, large_picture: bytes) -> None:
    server = serve("--max-queue", "40", "--drain-seconds", "1", "--deadline-ms", "60000")
    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(server.ask, large_picture) for _ in range(20)]
        limit = time.monotonic() + 20
        while "workzone_queue_depth 0.0" in httpx2.get(f"{server.url}/metrics").text:
            assert time.monotonic() < limit
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        refused = server.ask(large_picture)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
        assert refused.headers["connection"] == "close"
        codes = [a.result().status_code for a in asked]
    # A request that had not been read when the signal came is refused, which is no loss.
    assert set(codes) <= {200, 503}
    assert codes.count(200) >= 10
    assert server.process.wait(30) == 0
    assert '"stopped"' in server.errors.read_text()


def test_a_full_queue_answers_429_at_once(serve: Serve, large_picture: bytes) -> None:
    server = serve("--max-queue", "2", "--max-images", "1", "--batch-size", "1")
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: server.ask(large_picture), range(16)))
    codes = [a.status_code for a in answers]
    assert set(codes) == {200, 429}
    assert all(int(a.headers["retry-after"]) >= 1 for a in answers if a.status_code == 429)


def test_a_slow_client_is_dropped_and_others_are_answered(serve: Serve, picture: bytes) -> None:
    server = serve("--body-seconds", "1")
    with socket.create_connection(("127.0.0.1", server.port)) as slow:
        head = (
            "POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 100000\r\n\r\n"
        )
        slow.sendall(head.encode() + b"x" * 10)
        assert server.ask(picture).status_code == 200
        slow.settimeout(10)
        said = slow.recv(65536)
        assert b" 408 " in said.split(b"\r\n")[0]


def test_an_answered_connection_stays_open_for_the_next_request(serve: Serve) -> None:
    server = serve("--body-seconds", "1", "--keep-alive-seconds", "6")
    proxy = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    proxy.connect()
    proxy.auto_open = 0
    for pause in (0.0, 1.3):  # longer than a head may take: nobody has begun one
        time.sleep(pause)
        proxy.request("GET", "/healthz")
        assert proxy.getresponse().read() == b'{"status":"live"}'
    answered = time.monotonic()
    assert proxy.sock.recv(65536) == b""
    assert time.monotonic() - answered > 4
    proxy.close()


def test_limits_hold_over_the_wire(serve: Serve) -> None:
    server = serve("--max-bytes", "10000")
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        # The server may answer and hang up before all of it is sent.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(20):
                raw.sendall(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        raw.settimeout(10)
        assert b" 413 " in raw.recv(65536).split(b"\r\n")[0]
    stated = httpx2.post(f"{server.url}/v1/predict", content=b"x" * 20_000, headers={"Content-Type": "image/png"})
    assert stated.status_code == 413


def test_workers_share_an_address_and_their_figures(serve: Serve, picture: bytes, tmp_path: Path) -> None:
    log = tmp_path / "log.db"
    server = serve("--workers", "2", "--log-db", str(log))
    limit = time.monotonic() + 60
    while server.errors.read_text().count('"started"') < 2:
        assert time.monotonic() < limit
        time.sleep(0.1)
    for _ in range(12):
        with httpx2.Client() as client:
            answer = client.post(
                f"{server.url}/v1/predict", content=picture, headers={"Content-Type": "image/png"}, timeout=60
            )
            assert answer.status_code == 200
    text = httpx2.get(f"{server.url}/metrics").text
    assert sum(float(v) for v in re.findall(r"workzone_predictions_total\{.*\} (.*)", text)) == 12
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0
    lines = [json.loads(x) for x in server.errors.read_text().splitlines() if x.startswith("{")]
    assert sum(x["event"] == "started" for x in lines) == 2
    assert sum(x["event"] == "stopped" for x in lines) == 2
    from workzone.serving.log import read_log

    assert len(read_log(log).ids) == 12


def test_wrong_use_is_one_sentence(tiny_bundle: Path, tmp_path: Path) -> None:
    def said(*words: str) -> Any:
        done = workzone("serve", *words)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr

    code, text = said(str(tiny_bundle), "--host", "0.0.0.0")
    assert (code, "--api-key-file" in text) == (2, True)
    code, text = said(str(tmp_path))
    assert (code, "What to do" in text) == (3, True)
    code, text = said(str(tiny_bundle), "--max-queue", "1")
    assert (code, "max_queue" in text) == (2, True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, text = said(str(tiny_bundle), "--port", str(taken.getsockname()[1]))
    assert (code, "--port" in text) == (2, True)


def test_the_triton_client(serve: Serve, tiny_bundle: Path, picture: bytes) -> None:
    http = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
    import numpy as np

    from workzone.bundle import Detector

    server = serve()
    expected = Detector.load(tiny_bundle, threads=1)(picture)
    name = json.loads((tiny_bundle / "bundle.json").read_text())["name"]
    client = http.InferenceServerClient(f"127.0.0.1:{server.port}")
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(name)
    assert client.get_model_metadata(name)["inputs"][0]["datatype"] == "BYTES"
    tensor = http.InferInput("image", [2], "BYTES")
    tensor.set_data_from_numpy(np.array([picture, picture], dtype=object), binary_data=True)
    wanted = [http.InferRequestedOutput(n, binary_data=b) for n, b in (("decision", True), ("probability", False))]
    result = client.infer(name, [tensor], outputs=wanted)
    assert [x.decode() for x in result.as_numpy("decision")] == [expected.label] * 2
    assert result.as_numpy("probability").tolist() == [expected.probability] * 2


def test_the_example_runs(tiny_bundle: Path) -> None:
    import os
    import sys

    script = Path(__file__).parents[2] / "examples" / "serve_and_ask.sh"
    picture = sorted((tiny_bundle / "golden").glob("*.png"))[0]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", str(script), str(tiny_bundle), str(picture), str(port)],
        env=environment(PATH=path),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    # Each of the four ways gives the decision once.
    assert len(re.findall(r'"decision": ?"|"name": "decision"', done.stdout)) == 4, done.stdout


def test_workers_that_cannot_start_end_the_server(tiny_bundle: Path, tmp_path: Path) -> None:
    # Where the workers would count; the process that starts them does not.
    nowhere = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "none")}
    done = workzone("serve", str(tiny_bundle), "--workers", "2", "--port", "0", env=nowhere, timeout=100)
    assert done.returncode == 3, done.stderr
    assert "a worker did not start" in done.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_log_that_is_none_is_said_before_anything_listens(tiny_bundle: Path, tmp_path: Path, workers: str) -> None:
    log = tmp_path / "log.db"
    log.write_text("this is no database" * 1000)
    done = workzone("serve", str(tiny_bundle), "--workers", workers, "--port", "0", "--log-db", str(log))
    assert done.returncode == 2
    assert f"Where: {log}." in done.stderr
    assert "Traceback" not in done.stderr
