"""Requests that nobody should send, as bytes for the wire; each kind is a function of a seeded generator.

A ``Shot`` is sent in pieces with pauses; ``leave`` closes the connection without waiting for the answer.
"""

from __future__ import annotations

import base64
import errno
import io
import json
import random
import socket
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

PICTURE = b""
"""A good picture, set by the test."""


@dataclass(frozen=True)
class Shot:
    """What one connection sends."""

    kind: str
    pieces: list[bytes]
    pause: float = 0.0
    leave: bool = False


def post(body: bytes, kind: str, path: str = "/v1/predict", *more: str, length: int | None = None) -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {kind}", "Connection: close", *more]
    head.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body


def head_only(*lines: str, first: str = "GET /healthz HTTP/1.1") -> bytes:
    return "\r\n".join([first, *lines, "", ""]).encode("latin-1", "replace")


def png(width: int, height: int, rows: bytes = b"", *chunks: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    between = b"".join(chunk(c[:4], c[4:]) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + header + between + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


_ZEROS = zlib.compress(bytes(40_000_000), 9)
_VALUES: list[object] = [
    None,
    True,
    0,
    -1,
    1e308,
    "",
    "a",
    "\ud800",
    "\x00",
    [],
    [[]],
    {},
    {"a": {}},
    ["AAAA"],
    "AAAA",
    "data:,",
    "%%%",
    "=" * 50,
    "é",
    10**400,
    float("nan"),
    [None] * 20,
    [[[[["AAAA"]]]]],
    "A" * 5001,
]


def malformed_head(r: random.Random) -> Shot:
    line = r.choice(
        [
            b"\x00\x01\x02\x03\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"get / http/1.1\r\n\r\n",
            b"GET  / HTTP/1.1\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"GET /%00%ff%fe HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            b"GET /" + b"a" * r.randint(1, 70_000) + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            b"GET /static/"
            + b"../" * r.randint(1, 900)
            + b"etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            b"GET /static/%00 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nHost\r\n\r\n",
            b"GET /healthz HTTP/1.1\nHost: localhost\n\n",
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: elsewhere\r\nConnection: close\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: \x00\x7f\xff\r\nConnection: close\r\n\r\n",
            r.randbytes(r.randint(1, 3000)),
        ]
    )
    return Shot("malformed head", [line])


def lengths(r: random.Random) -> Shot:
    value = r.choice(["-1", "0x10", "1e3", "", "+5", "5,5", "9" * r.randint(5, 6000), "0" * 30 + "5", " 5 ", "²"])
    first = "POST /v1/predict HTTP/1.1"
    lines = ["Host: localhost", "Content-Type: image/png", f"Content-Length: {value}", "Connection: close"]
    if r.random() < 0.3:
        lines.append(r.choice(["Content-Length: 7", "Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked"]))
    return Shot("lengths", [head_only(*lines, first=first) + r.randbytes(r.randint(0, 50))], leave=True)


def chunks(r: random.Random) -> Shot:
    lines = ["Host: localhost", "Content-Type: image/png", "Transfer-Encoding: chunked", "Connection: close"]
    head = head_only(*lines, first="POST /v1/predict HTTP/1.1")
    size = r.choice(
        [b"zz\r\n", b"-5\r\n", b"ffffffffffffffffff\r\n", b"5;" + b"x" * 20_000 + b"\r\n", b"5\r\nab\r\n", b"\r\n"]
    )
    return Shot("chunks", [head + size + r.randbytes(20)], leave=r.random() < 0.5)


def huge_headers(r: random.Random) -> Shot:
    if r.random() < 0.5:
        lines = [f"X-{i}: {'v' * r.randint(1, 80)}" for i in range(r.randint(100, 3000))]
    else:
        name = r.choice(
            ["Authorization", "X-API-Key", "X-Request-ID", "X-Deadline-Ms", "Content-Type", "Cookie", "Host"]
        )
        lines = [f"{name}: {r.choice('9aé;') * r.randint(1000, 200_000)}"]
    return Shot(
        "huge headers", [head_only("Host: localhost", *lines, "Connection: close", first="GET /v1/model HTTP/1.1")]
    )


def odd_headers(r: random.Random) -> Shot:
    odd = r.choice(
        [
            f"X-Deadline-Ms: {r.choice(['0', '-5', 'nan', '1e9', '9' * 40, '²', '0' * 13 + '9' * 5000])}",
            "X-Request-ID: a b\x01",
            "Content-Encoding: gzip",
            "Expect: 100-continue",
            "Expect: 200-ok",
            "Upgrade: websocket",
            "Range: bytes=0-0,-1",
            f"Inference-Header-Content-Length: {r.choice(['-1', '0', '99999999', '0' * 13 + '1' * 5000, 'x', '²'])}",
            "Content-Type: image/" + "x" * 3000,
            "If-None-Match: " + '"' * 500,
            "Accept: " + "*/*," * 500,
        ]
    )
    path = r.choice(["/v1/predict", "/v2/models/tiny/infer", "/static/page.js", "/", "/v1/review", "/nothing"])
    return Shot("odd headers", [post(PICTURE[: r.randint(0, len(PICTURE))], "image/png", path, odd)])


def truncated(r: random.Random) -> Shot:
    whole = post(PICTURE, "image/png")
    return Shot("truncated request", [whole[: r.randint(1, len(whole) - 1)]], leave=True)


def cut_picture(r: random.Random) -> Shot:
    kind = r.choice(["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
    out = io.BytesIO()
    Image.frombytes("RGB", (64, 48), r.randbytes(64 * 48 * 3)).save(out, kind)
    content = bytearray(out.getvalue())
    if r.random() < 0.5:
        del content[r.randint(1, len(content) - 1) :]
    for _ in range(r.randint(0, 20)):
        content[r.randrange(len(content))] = r.randrange(256)
    return Shot("damaged picture", [post(bytes(content), r.choice(["image/png", "application/octet-stream"]))])


def bomb(r: random.Random) -> Shot:
    side = r.choice([8000, 30_000, 65_535, 2**31 - 1])
    text = r.choice([b"zTXta\0\0" + _ZEROS, b"iCCPa\0\0" + _ZEROS, b"iTXta\0\1\0\0\0" + _ZEROS])
    content = r.choice(
        [
            png(side, side, _ZEROS),
            png(64, 48, _ZEROS),
            png(64, 48, zlib.compress(bytes(48 * 193)), text),
            b"GIF89a"
            + struct.pack("<HH", 65535, 65535)
            + b"\x80\0\0\0\0\0\xff\xff\xff,"
            + struct.pack("<HHHH", 0, 0, 65535, 65535)
            + b"\0\2\2\4\1\0;",
            b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0),
            b"II*\0\x08\0\0\0\x02\0"
            + struct.pack("<HHII", 256, 4, 1, 2**31 - 1)
            + struct.pack("<HHII", 257, 4, 1, 2**31 - 1)
            + b"\0" * 4,
        ]
    )
    return Shot("bomb", [post(content, "image/png", "/v1/predict", *r.choice([[], ["Content-Encoding: gzip"]]))])


def wrong_json(r: random.Random) -> Shot:
    value, other = r.choice(_VALUES), r.choice(_VALUES)
    text = r.choice(
        [
            json.dumps({"image": value}),
            json.dumps({"images": value}),
            json.dumps({"images": [value, other]}),
            json.dumps({"image": "AAAA", "columns": value}),
            json.dumps({"image": "AAAA", "columns": {"\ud800": other}}),
            json.dumps({"image": "AAAA", "columns": {str(value): "x"}}),
            json.dumps({str(value): other}),
            json.dumps(value),
            '{"image": ' * 5000,
            "[" * r.randint(1, 100_000),
            '{"image": ' + "9" * 6000 + "}",
            "{",
            '{"image": "AAAA", "image": 5}',
            "NaN",
            '"\\ud800"',
            "\ufeff{}",
            '{"image": "' + "A" * r.randint(1, 200_000) + '"}',
        ]
    )
    body = text.encode(r.choice(["utf-8", "utf-8", "utf-16", "utf-32", "latin-1"]), "replace")
    return Shot("wrong JSON", [post(body, r.choice(["application/json", "application/json; charset=utf-99"]))])


def wrong_base64(r: random.Random) -> Shot:
    good = base64.b64encode(PICTURE).decode()
    at = r.randrange(len(good))
    bad = r.choice(
        [
            good[:at],
            good[:at] + "\n" + good[at:],
            good[:at] + "_-*" + good[at:],
            "data:image/png;base64" + good,
            good * 2,
            "data:" + good,
        ]
    )
    return Shot("bad base64", [post(json.dumps({"images": [bad] * r.randint(1, 20)}).encode(), "application/json")])


def bad_multipart(r: random.Random) -> Shot:
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + PICTURE[:200] + b"\r\n"
    body = r.choice(
        [
            b"",
            b"--b",
            b"--b--",
            b"--b\r\n\r\n--b--",
            part,
            part[:-30],
            part * 40 + b"--b--\r\n",
            b"--c\r\n" + part + b"--b--",
            part.replace(b"form-data", b"\xff\xfe"),
            part.replace(b'"file"', b'"' + b"n" * 50_000 + b'"') + b"--b--",
            part.replace(b"Content-Disposition", b"X" * 30_000) + b"--b--",
            b"--b\r\nX: y\r\n\r\nz\r\n--b--",
            b'--b\r\nContent-Disposition: form-data; name="slice"\r\n\r\n' + r.randbytes(60) + b"\r\n--b--",
            r.randbytes(2000),
            b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n' * 200 + b"--b--",
            b"--b\r\n: \r\n\r\n\r\n--b--\r\n",
        ]
    )
    kind = r.choice(
        [
            "multipart/form-data; boundary=b",
            "multipart/form-data",
            'multipart/form-data; boundary=""',
            "multipart/form-data; boundary=" + "b" * 5000,
            "multipart/form-data; boundary=b; charset=nothing",
        ]
    )
    return Shot("bad multipart", [post(body, kind)])


def bad_tensor(r: random.Random) -> Shot:
    value, other = r.choice(_VALUES), r.choice(_VALUES)
    tensor: dict[str, object] = {"name": "image", "datatype": "BYTES", "shape": [1], "data": ["AAAA"]}
    whole: dict[str, object] = {"inputs": [tensor]}
    what = r.choice(
        ["name", "datatype", "shape", "data", "parameters", "inputs", "outputs", "id", "header", "many", "deep"]
    )
    if what in ("inputs", "id"):
        whole[what] = r.choice([value, [value]])
    elif what == "header":
        whole["parameters"] = r.choice([value, {"binary_data_output": value}, {"column_x": value}])
    elif what == "outputs":
        whole["outputs"] = [r.choice([value, {"name": value}, {"name": "decision", "parameters": value}])]
    elif what == "many":
        tensor["shape"] = [2**20] * r.choice([2, 100, 20_000])
    elif what == "deep":
        tensor["data"] = json.loads("[" * 400 + '"AAAA"' + "]" * 400)
    else:
        tensor[what] = r.choice([value, [value], [value, other], {"binary_data_size": other}])
    text = json.dumps(whole).encode()
    tail = r.choice([b"", struct.pack("<I", 2**32 - 1), r.randbytes(30)])
    more = [] if r.random() < 0.6 else [f"Inference-Header-Content-Length: {r.choice([len(text), 0, len(text) + 99])}"]
    return Shot("bad tensor", [post(text + tail, "application/json", f"/v2/models/{r.choice(NAMES)}/infer", *more)])


NAMES = ["tiny"]
"""Names of models to ask for, set by the test."""


def wrong_route(r: random.Random) -> Shot:
    method = r.choice(["GET", "PUT", "DELETE", "OPTIONS", "HEAD", "TRACE", "PATCH", "POST", "CONNECT"])
    path = r.choice(
        [
            "/v1/predict",
            "/v1/review",
            "/v1/review?reviewer=%ff%00",
            "/v1/review/picture/..%2f..%2fetc",
            "/v2/models/%F0%9F/infer",
            "/v1/review/picture/" + "a" * 64,
            "/metrics",
            "/openapi.json",
            "/static/../../app.py",
            "/v2/models//versions//ready",
            "//",
            "/?" + "a=b&" * 3000,
            "/v1/predict?slice=%00=%ff&views=[]&slice",
            "*",
            "http://elsewhere/healthz",
        ]
    )
    return Shot("wrong route", [head_only("Host: localhost", "Connection: close", first=f"{method} {path} HTTP/1.1")])


def bad_label(r: random.Random) -> Shot:
    value = {k: r.choice(_VALUES) for k in ("sha256", "reviewer", "label")}
    if r.random() < 0.5:
        value |= {"reviewer": "ann", "label": "roadwork"}
    return Shot("bad label", [post(json.dumps(value).encode(), "application/json", "/v1/review")])


def slow(r: random.Random) -> Shot:
    whole = post(PICTURE, "image/png")
    at = r.choice([r.randint(1, 60), whole.index(b"\r\n\r\n") + r.randint(4, 40)])
    return Shot("slow sender", [whole[:at], whole[at : at + 1], whole[at + 1 : at + 2]], pause=0.7, leave=True)


KINDS: list[tuple[Callable[[random.Random], Shot], int]] = [
    (malformed_head, 10),
    (lengths, 10),
    (chunks, 8),
    (huge_headers, 6),
    (odd_headers, 8),
    (truncated, 8),
    (cut_picture, 10),
    (bomb, 2),
    (wrong_json, 12),
    (wrong_base64, 6),
    (bad_multipart, 10),
    (bad_tensor, 12),
    (wrong_route, 8),
    (bad_label, 5),
    (slow, 2),
]


_CLOSED = (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN)
"""What one meets who still sends, or ends sending, on a connection that the server has closed."""


def shots(count: int, seed: int) -> list[Shot]:
    """``count`` hostile requests of all kinds, in a mixed order that ``seed`` fixes."""
    r = random.Random(seed)
    makers, weights = [k for k, _ in KINDS], [w for _, w in KINDS]
    return [make(r) for make in r.choices(makers, weights, k=count)]


def fire(port: int, shot: Shot, seconds: float = 60.0) -> int | None:
    """Send it; the status of the answer, None where the connection was closed without one.

    Raises:
        TimeoutError: the server neither answered nor closed.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as wire:
        try:
            for number, piece in enumerate(shot.pieces):
                if number:
                    time.sleep(shot.pause)
                wire.sendall(piece)
            if shot.leave:
                return None
            wire.shutdown(socket.SHUT_WR)
            said = b""
            while b"\r\n" not in said and (more := wire.recv(65536)):
                said += more
        except OSError as error:
            if error.errno not in _CLOSED:
                raise
            return None
    words = said.split(b"\r\n")[0].split(b" ")
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else None
