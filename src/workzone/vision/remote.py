"""Pictures that a web server holds, such as the snapshot of a camera: asked when their turn comes, never before."""

from __future__ import annotations

import http.client
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from workzone.vision.reasons import Reason, image_error

SECONDS = 30.0
_SILENT = 10.0
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Remote(os.PathLike[str]):
    """An http or https address of one picture; as a path it is its address."""

    address: str

    def __fspath__(self) -> str:
        return self.address

    def __str__(self) -> str:
        return self.address


def fetch(remote: Remote, *, max_bytes: int, seconds: float = SECONDS) -> bytes:
    """What the server answers: at most ``max_bytes`` within ``seconds``; redirects stay with http and https.

    Raises:
        ImageError: no server, no picture there, too slow or too large.
    """
    until = time.monotonic() + seconds
    data = bytearray()
    try:
        request = urllib.request.Request(remote.address, headers={"User-Agent": "workzone", "Accept": "image/*"})
        with _opener().open(request, timeout=min(_SILENT, seconds)) as response:
            while chunk := response.read1(_CHUNK):
                data += chunk
                if len(data) > max_bytes:
                    raise image_error(Reason.TOO_LARGE, remote.address, f"limit {max_bytes} bytes")
                if time.monotonic() > until:
                    raise image_error(Reason.UNREACHABLE, remote.address, f"not complete after {seconds:g} s")
            if response.length:
                raise image_error(Reason.UNREACHABLE, remote.address, f"ended {response.length} bytes early")
    except urllib.error.HTTPError as error:
        with error:
            raise image_error(Reason.UNREACHABLE, remote.address, f"HTTP {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = str(getattr(error, "reason", error)) or type(error).__name__
        raise image_error(Reason.UNREACHABLE, remote.address, why) from error
    return bytes(data)


def _opener() -> Any:
    """Knows http and https alone: the usual one would follow a word or a redirect to files and FTP."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener
