"""Throughput and times of ``workzone serve`` and of the same detector behind plain FastAPI, LitServe and MLflow.

    python benchmarks/serving.py [--quick] [--out FILE] [--bundle FOLDER]

Every server answers the same pictures with the same detector (two threads, or two processes of one), so what differs
is the server. The client is a process of its own; clients and servers share the cores, and the servers take turns,
stopped by a signal while another is measured. Needs the extra ``peers``.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SECONDS = {1: 3.0, 4: 3.0, 16: 5.0, 64: 8.0}
QUICK = {1: 3.0, 16: 4.0}
DEADLINE_MS = 30_000
TURNS = 2
WAIT = 30.0
MOST_OPEN = 1000


@dataclass
class Server:
    """A running contender."""

    name: str
    path: str
    kind: str
    body: Callable[[bytes], bytes]
    process: subprocess.Popen[bytes]
    port: int

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def request(self, picture: bytes) -> bytes:
        body = self.body(picture)
        head = f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nContent-Type: {self.kind}\r\n"
        return head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body

    def used(self) -> tuple[float, float]:
        """Resident memory (MB) and processor time so far (seconds) of all its processes."""
        pages = ticks = 0
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError, ValueError):
                    if os.getpgid(int(folder.name)) == self.process.pid:
                        pages += int((folder / "statm").read_text().split()[1])
                        ticks += sum(map(int, (folder / "stat").read_text().rpartition(")")[2].split()[11:13]))
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, ticks / os.sysconf("SC_CLK_TCK")


@dataclass
class Seen:
    """What clients saw: seconds of the answers, and how often each status came."""

    seconds: list[float] = field(default_factory=list)
    codes: Counter[int] = field(default_factory=Counter)
    wall: float = 0.0
    """Length of the measurement, at whose end no further request is sent."""
    within: int = 0
    """Answers before its end."""
    cpu: float = 0.0
    """Seconds of processor time of the server until the last answer."""

    def quantile(self, q: float) -> float:
        ordered = sorted(self.seconds)
        return ordered[min(int(q * len(ordered)), len(ordered) - 1)] if ordered else float("nan")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def start_all(bundle: Path, work: Path) -> dict[str, Server]:
    """Every contender, answering."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PEER_BUNDLE": str(bundle)}
    environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{work}/mlflow.db"
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parent / "src"), environment.get("PYTHONPATH", "")])
    model = work / "model"
    subprocess.run([sys.executable, __file__, "--save-mlflow", str(model)], check=True, env=environment, cwd=work)
    workzone = [sys.executable, "-c", "from workzone.cli.main import main; main()", "serve", str(bundle)]
    workzone += ["--deadline-ms", str(DEADLINE_MS), "--port"]
    raw, base = (lambda picture: picture), (lambda picture: base64.b64encode(picture).decode())
    json_body = lambda picture: json.dumps({"image": base(picture)}).encode()  # noqa: E731
    frame = lambda p: json.dumps({"dataframe_split": {"columns": ["image"], "data": [[base(p)]]}}).encode()  # noqa: E731
    uvicorn = [sys.executable, "-m", "uvicorn", "--log-level", "warning", "--no-access-log", "--port"]
    peers, scoring = str(HERE / "peers"), "mlflow.pyfunc.scoring_server.app:app"
    served = {**environment, "__pyfunc_model_path__": str(model)}
    octets, text = "application/octet-stream", "application/json"
    plans: list[tuple[str, str, str, Any, list[str], list[str], dict[str, str]]] = [
        ("workzone serve", "/v1/predict", octets, raw, workzone, [], environment),
        ("plain FastAPI", "/predict", octets, raw, uvicorn, ["--app-dir", peers, "plain_fastapi:app"], environment),
        ("LitServe", "/predict", text, json_body, [sys.executable, f"{peers}/litserve_app.py"], [], environment),
        ("MLflow", "/invocations", text, frame, uvicorn, ["--workers", "2", scoring], served),
    ]
    servers = {}
    for name, path, kind, body, before, after, env in plans:
        port = free_port()
        log = (work / f"{name.replace(' ', '-')}.log").open("wb")
        words = [*before, str(port), *after]
        process = subprocess.Popen(words, env=env, cwd=work, stdout=log, stderr=log, start_new_session=True)
        servers[name] = Server(name, path, kind, body, process, port)
    return servers


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> int:
    """Status of the answer, whose body is read."""
    writer.write(request)
    await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
    await reader.readexactly(int(fields[b"content-length"]))
    return int(head.split(b" ", 2)[1])


async def closed(server: Server, requests: list[bytes], clients: int, seconds: float) -> Seen:
    """Clients that each wait for their answer before they ask again."""
    seen, began = Seen(wall=seconds), time.perf_counter()
    before = server.used()[1]

    async def one(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        while time.perf_counter() - began < seconds:
            at = time.perf_counter()
            code = await ask(reader, writer, requests[number % len(requests)])
            seen.codes[code] += 1
            if code == 200:
                now = time.perf_counter()
                seen.seconds.append(now - at)
                seen.within += now - began <= seconds
            number += 1
        writer.close()

    await asyncio.gather(*(one(n) for n in range(clients)))
    seen.cpu = server.used()[1] - before
    return seen


async def opened(server: Server, requests: list[bytes], rate: float, seconds: float) -> tuple[Seen, list[float]]:
    """Requests at a steady rate, whether or not those before were answered; and the memory of the server over time.

    Code 0 counts what got no answer within ``WAIT`` seconds, -1 what was not sent because ``MOST_OPEN`` were open.
    """
    seen, memory, idle = Seen(wall=seconds), [server.used()[0]], []
    tasks: set[asyncio.Task[None]] = set()
    began = time.perf_counter()

    async def one(request: bytes) -> None:
        at = time.perf_counter()
        try:
            async with asyncio.timeout(WAIT):
                pair = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", server.port)
                code = await ask(*pair, request)
            idle.append(pair)
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            code = 0
        seen.codes[code] += 1
        if code == 200:
            seen.seconds.append(time.perf_counter() - at)

    sent, sampled = 0, began
    while (now := time.perf_counter()) - began < seconds:
        while sent < (now - began) * rate:  # what the last pass was late for is sent now
            if len(tasks) < MOST_OPEN:
                task = asyncio.create_task(one(requests[sent % len(requests)]))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            else:
                seen.codes[-1] += 1
            sent += 1
        if now - sampled > 0.5:
            sampled = now
            memory.append(server.used()[0])
        await asyncio.sleep(0.002)
    if tasks:
        await asyncio.wait(tasks)
    memory.append(server.used()[0])
    return seen, memory


def warm(server: Server, requests: list[bytes]) -> None:
    """Wait until it answers, then ask eight more times."""
    limit = time.monotonic() + 120
    while True:
        try:
            seen = asyncio.run(closed(server, requests, 1, 0.01))
            if seen.codes == {200: 1}:
                break
        except (OSError, asyncio.IncompleteReadError):
            pass
        if time.monotonic() > limit or server.process.poll() is not None:
            raise SystemExit(f"{server.name} does not answer")
        time.sleep(0.3)
    asyncio.run(closed(server, requests, 4, 1.0))


@contextlib.contextmanager
def turn(server: Server) -> Iterator[None]:
    server.signal(signal.SIGCONT)
    time.sleep(0.2)
    yield
    server.signal(signal.SIGSTOP)


def pictures(count: int) -> list[bytes]:
    from io import BytesIO

    from workzone.data.synthetic import generate

    found = []
    for scene in generate(count, seed=7, size=(1280, 720)):
        out = BytesIO()
        scene.image.save(out, "JPEG", quality=90)
        found.append(out.getvalue())
    return found


def measure(servers: dict[str, Server], images: list[bytes], *, quick: bool) -> dict[str, Any]:
    lengths, turns, scale = (QUICK, 1, 0.2) if quick else (SECONDS, TURNS, 1.0)
    requests = {name: [s.request(p) for p in images] for name, s in servers.items()}
    for server in servers.values():
        warm(server, requests[server.name])
        server.signal(signal.SIGSTOP)
    cells: dict[str, dict[int, list[Seen]]] = {n: {c: [] for c in lengths} for n in servers}
    for number in range(turns):
        for clients, seconds in lengths.items():
            for name in sorted(servers, reverse=bool(number % 2)):
                with turn(servers[name]):
                    seen = asyncio.run(closed(servers[name], requests[name], clients, seconds))
                cells[name][clients].append(seen)
    rows = {name: {c: summary(seen) for c, seen in by.items()} for name, by in cells.items()}
    rate = 10 * rows["workzone serve"][16]["per_second"]
    over = {}
    for name, server in servers.items():
        with turn(server):
            seconds = (15.0 if name == "workzone serve" else 4.0) * scale
            seen, memory = asyncio.run(opened(server, requests[name], rate, seconds))
        over[name] = {
            "answered": seen.codes[200],
            "refused_429": seen.codes[429],
            "unanswered": seen.codes[0],
            "not_sent": seen.codes[-1],
            "other": sum(n for c, n in seen.codes.items() if c not in (200, 429, 0, -1)),
            "seconds": seen.wall,
            "p50": seen.quantile(0.5),
            "p99": seen.quantile(0.99),
            "memory_mb": [memory[0], max(memory), memory[-1]],
        }
        server.signal(signal.SIGKILL)
    return {"closed": rows, "overload": over, "rate": rate}


def summary(turns: list[Seen]) -> dict[str, Any]:
    """All turns together; throughput and processor time of each turn besides."""
    both = Seen([s for t in turns for s in t.seconds])
    rates = [t.within / t.wall for t in turns]
    return {
        "n": len(both.seconds),
        "per_second": statistics.mean(rates),
        "turns": rates,
        "p50": both.quantile(0.5),
        "p99": both.quantile(0.99),
        "cpu_turns": [1000 * t.cpu / max(len(t.seconds), 1) for t in turns],
        "cpu_ms": 1000 * sum(t.cpu for t in turns) / max(len(both.seconds), 1),
        "not_200": sum(n for t in turns for c, n in t.codes.items() if c != 200),
    }


def told(found: dict[str, Any]) -> str:
    head = ["clients", "server", "n", "not 200", "answers/s (turns)", "ratio", "p50 ms", "p99 ms", "p99 ratio"]
    lines = [row([*head, "CPU ms (turns)", "CPU ratio"]), "|---|---|---|---|---|---|---|---|---|---|---|"]
    first = found["closed"]["workzone serve"]
    for clients in first:
        for name, by in found["closed"].items():
            c, ours = by[clients], first[clients]
            per_second = f"{c['per_second']:.1f} ({', '.join(f'{r:.1f}' for r in c['turns'])})"
            cells = [clients, name, c["n"], c["not_200"], per_second, ratio(c["per_second"], ours["per_second"])]
            cells += [f"{1000 * c['p50']:.0f}", f"{1000 * c['p99']:.0f}", ratio(c["p99"], ours["p99"])]
            cpu = f"{c['cpu_ms']:.0f} ({', '.join(f'{t:.0f}' for t in c['cpu_turns'])})"
            cells += [cpu, ratio(c["cpu_ms"], ours["cpu_ms"])]
            lines.append(row(cells))
    lines += ["", f"Overload: {found['rate']:.0f} requests a second.", ""]
    head = ["server", "seconds", "answered", "429", f"no answer in {WAIT:.0f} s", "not sent", "p50 s", "p99 s"]
    lines += [row([*head, "memory MB: before, most, after"]), "|---|---|---|---|---|---|---|---|---|"]
    for name, o in found["overload"].items():
        counts = [o["answered"], o["refused_429"], o["unanswered"] + o["other"], o["not_sent"]]
        memory = ", ".join(f"{m:.0f}" for m in o["memory_mb"])
        lines.append(row([name, f"{o['seconds']:.0f}", *counts, f"{o['p50']:.2f}", f"{o['p99']:.2f}", memory]))
    return "\n".join(lines)


def ratio(value: float, first: float) -> str:
    """On a machine that is too busy, nobody may have been answered in time."""
    return f"{value / first:.2f}" if first > 0 else "-"


def row(cells: list[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def save_mlflow(folder: Path) -> None:
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    signature = ModelSignature(inputs=Schema([ColSpec("string", "image")]))
    code = str(HERE / "peers/mlflow_model.py")
    mlflow.pyfunc.save_model(str(folder), python_model=code, signature=signature, pip_requirements=[])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two cells of one turn, in place of four of two")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--bundle", type=Path, default=HERE.parent / "src/workzone/starter")
    parser.add_argument("--save-mlflow", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.save_mlflow:
        save_mlflow(given.save_mlflow)
        return
    try:
        import litserve  # noqa: F401
        import mlflow  # noqa: F401
    except ImportError as error:
        print(f"Not measured: {error.name} is missing, pip install 'workzone[peers]'")
        return
    with tempfile.TemporaryDirectory() as name:
        servers: dict[str, Server] = {}
        try:
            servers = start_all(given.bundle.resolve(), Path(name))
            found = measure(servers, pictures(16), quick=given.quick)
        finally:
            for server in servers.values():
                server.signal(signal.SIGKILL)
                server.process.wait()
    names = ("fastapi", "uvicorn", "litserve", "mlflow", "onnxruntime")
    load = " ".join(f"{x:.1f}" for x in os.getloadavg())
    about = {"cores": os.cpu_count(), "load": load, "python": platform.python_version()}
    about |= {name: version(name) for name in names}
    print(told(found), "", " ".join(f"{k} {v}" for k, v in about.items()), sep="\n")
    if given.out:
        given.out.write_text(json.dumps({**found, "about": about}, indent=1) + "\n")


if __name__ == "__main__":
    main()
