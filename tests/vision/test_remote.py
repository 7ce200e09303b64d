from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from workzone.errors import ImageError
from workzone.vision.batch import at_hand
from workzone.vision.remote import Remote, fetch


def jpeg() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 120, 20)).save(stream, "JPEG")
    return stream.getvalue()


class Camera(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/away":
            self._head(302, [("Location", "file:///etc/hostname")])
        elif self.path == "/moved":
            self._head(302, [("Location", "/snapshot.jpg")])
        elif self.path == "/snapshot.jpg":
            self._head(200, [("Content-Type", "image/jpeg")])
            self.wfile.write(jpeg())
        elif self.path == "/drops":
            self._head(200, [("Content-Length", "100000")])
            self.wfile.write(b"\xff\xd8")
        elif self.path == "/drips":
            self._head(200, [])
            for _ in range(100):
                try:
                    self.wfile.write(b"x")
                except OSError:
                    return
                time.sleep(0.05)
        else:
            self.send_error(404)

    def _head(self, code: int, headers: list[tuple[str, str]]) -> None:
        self.send_response(code)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    found = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    found.daemon_threads = True
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{found.server_address[1]}"
    found.shutdown()
    found.server_close()


@pytest.mark.parametrize("path", ["/snapshot.jpg", "/moved"])
def test_what_a_server_shows_is_fetched(server: str, path: str) -> None:
    assert at_hand(Remote(server + path)) == jpeg()


@pytest.mark.parametrize(
    ("path", "reason", "words"),
    [
        ("/nothing", "unreachable", "404"),
        ("/away", "unreachable", "file"),
        ("/drips", "unreachable", "not complete"),
        ("/snapshot.jpg", "too_large", "limit 100 bytes"),
    ],
)
def test_anything_else_is_refused_with_the_reason(server: str, path: str, reason: str, words: str) -> None:
    limit = 100 if reason == "too_large" else 1_000_000
    with pytest.raises(ImageError, match=words) as caught:
        fetch(Remote(server + path), max_bytes=limit, seconds=0.5)
    assert caught.value.reason == reason
    assert caught.value.where == server + path


def test_a_picture_that_ends_early_is_not_taken_for_whole(server: str) -> None:
    with pytest.raises(ImageError, match="99998 bytes early"):
        fetch(Remote(server + "/drops"), max_bytes=1_000_000)


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ImageError, match="refused"):
        fetch(Remote(f"http://127.0.0.1:{port}/a.jpg"), max_bytes=1000)


@pytest.mark.parametrize("address", ["http://", "http://[", "http://host:port/", "https://a b/"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(ImageError):
        fetch(Remote(address), max_bytes=1000, seconds=1)
