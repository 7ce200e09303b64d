"""Fuzz target: bodies of requests. A body is pictures, or a Problem that says what is wrong with it.

``python tests/fuzz/server_body.py [FOLDER_OF_CASES] -max_total_time=60``; the first byte chooses the content type.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["workzone"]):
    from workzone.serving.body import Memory, asked_for, deadline_seconds, parsed_json, read_body
    from workzone.serving.problems import Problem

from starlette.requests import Request

KINDS = (
    "application/json",
    "multipart/form-data; boundary=x",
    "multipart/form-data",
    "image/jpeg",
    "application/octet-stream",
    "text/plain",
    "",
)
MOST_BYTES, MOST_IMAGES = 4096, 4
LOOP = asyncio.new_event_loop()


async def _ask(kind: str, query: bytes, body: bytes) -> None:
    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    scope = {
        "type": "http", "method": "POST", "path": "/v1/predict", "query_string": query,
        "headers": [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())],
    }  # fmt: skip
    memory = Memory(2 * MOST_BYTES)
    try:
        content = await read_body(Request(scope, receive), memory, max_bytes=MOST_BYTES, seconds=5.0)
        asked = await asked_for(Request(scope, receive), content, max_images=MOST_IMAGES)
        memory.give(len(content))
    except Problem as problem:
        if not 400 <= problem.status < 500:
            raise AssertionError(f"a bad request is not a fault of the server: {problem.status}") from problem
        return
    if memory.held or not 1 <= len(asked.pictures) <= MOST_IMAGES:
        raise AssertionError(f"{memory.held} bytes held, {len(asked.pictures)} pictures")
    if any(not isinstance(v, str) for v in asked.columns.values()):
        raise AssertionError("a column that is no text")


def one_input(data: bytes) -> None:
    """A request: kind, a query of at most 16 bytes, and a body."""
    if len(data) < 2:
        return
    kind, length = KINDS[data[0] % len(KINDS)], data[1] % 17
    query, body = data[2 : 2 + length], data[2 + length :]
    LOOP.run_until_complete(_ask(kind, query, body))
    deadline = {"x-deadline-ms": body[:40].decode("latin-1")}
    for reader in (lambda: parsed_json(body), lambda: deadline_seconds(deadline, 9)):
        try:
            reader()
        except Problem:
            continue


def cases(folder: Path) -> None:
    """Good and nearly good requests."""
    folder.mkdir(parents=True, exist_ok=True)
    form = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\nabc\r\n'
        b'--x\r\nContent-Disposition: form-data; name="slice"\r\n\r\nsource=van7\r\n--x--\r\n'
    )
    bodies = (
        (0, b"", json.dumps({"image": "aGk=", "columns": {"source": "van7"}}).encode()),
        (0, b"slice=a=b", json.dumps({"images": ["data:image/png;base64,aGk=", "aGk="]}).encode()),
        (1, b"", form),
        (2, b"", form),
        (3, b"slice=hour_band=day"[:16], b"\xff\xd8\xff"),
        (5, b"", b"hello"),
    )
    for number, (kind, query, body) in enumerate(bodies):
        (folder / f"case{number}").write_bytes(bytes([kind, len(query)]) + query + body)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
