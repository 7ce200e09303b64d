"""One file over HTTP: resumed by ranges, bounded by its stated size, checked by its checksum."""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from workzone.errors import DataError

_CHUNK = 1 << 18
_MAX_JSON = 64 * 1024 * 1024
_LENGTHS = {"sha256": 64, "git": 40, "md5": 32}
T = TypeVar("T")
_PASSING = {408, 425, 429, 500, 502, 503, 504}


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Checksum:
    """``sha256``, ``md5``, or ``git`` (SHA-1 over git's header and the content)."""

    kind: str
    value: str

    def check_form(self, where: str) -> None:
        """Raise DataError where this is no checksum; a file without one is not downloaded."""
        if not re.fullmatch(rf"[0-9a-f]{{{_LENGTHS[self.kind]}}}", self.value):
            raise DataError(f"the listing gives no {self.kind} checksum", where=where)

    def start(self, size: int) -> _Hash:
        """A hash over nothing yet, of a file of ``size`` bytes."""
        if self.kind == "git":
            return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        return hashlib.new(self.kind, usedforsecurity=False)

    def fits(self, path: Path) -> bool:
        """Whether a file has this checksum."""
        total = self.start(path.stat().st_size)
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                total.update(chunk)
        return total.hexdigest() == self.value


def check_address(url: str) -> str:
    """An address that may be asked: https, or http on this machine; raises DataError for any other."""
    parts = urlsplit(url)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.scheme == "https" or (parts.scheme == "http" and local):
        return url
    raise DataError("only https addresses are used", where=url)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to addresses that may be asked; headers added as unredirected stay with the first host."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@dataclass(slots=True)
class Client:
    """How servers are asked: seconds to wait, turns, and a token for the first host of an address only."""

    timeout: float = 30.0
    turns: int = 5
    pause: float = 1.0
    token: str | None = None

    def open(self, url: str, *, start: int = 0) -> Any:
        """Response to a request for ``url`` from byte ``start`` on; raises what urllib raises."""
        request = urllib.request.Request(check_address(url), headers={"User-Agent": "workzone"})
        if start:
            request.add_header("Range", f"bytes={start}-")
        if self.token:
            request.add_unredirected_header("Authorization", f"Bearer {self.token}")
        return urllib.request.build_opener(_Redirects).open(request, timeout=self.timeout)

    def json(self, url: str) -> Any:
        """The JSON at ``url``; raises DataError."""

        def read() -> Any:
            with self.open(url) as response:
                data = response.read(_MAX_JSON + 1)
            if len(data) > _MAX_JSON:
                raise DataError("the listing is larger than any of its kind", where=url)
            return json.loads(data)

        try:
            return self.again(read, url)
        except ValueError as error:
            raise DataError(f"the answer is no JSON: {error}", where=url) from error

    def again(self, work: Callable[[], T], url: str) -> T:
        """Result of ``work``, tried again after errors that pass; raises DataError."""
        for turn in range(self.turns):
            try:
                return work()
            except urllib.error.HTTPError as error:
                if error.code not in _PASSING or turn == self.turns - 1:
                    raise refused(error, url) from error
            except (
                urllib.error.URLError,
                http.client.HTTPException,
                TimeoutError,
                ConnectionError,
                _BrokenError,
            ) as error:
                if turn == self.turns - 1:
                    raise unreachable(error, url) from error
            time.sleep(self.pause * 2**turn)
        raise AssertionError("unreachable")


class _BrokenError(Exception):
    """The connection ended before the file did."""


def refused(error: urllib.error.HTTPError, url: str) -> DataError:
    """The error for an answer that is a refusal."""
    if error.code in (401, 403):
        fix = "accept the terms on the page of the data set, and put your access token into HF_TOKEN"
        return DataError(f"the server does not give this out ({error.code})", where=url, fix=fix)
    if error.code == 404:
        return DataError("the server does not have this (404)", where=url, fix="check name and revision")
    return DataError(f"the server answers {error.code} {error.reason}", where=url, fix="try again later")


def unreachable(error: Exception, url: str) -> DataError:
    """The error for no answer at all."""
    reason = getattr(error, "reason", error)
    if isinstance(reason, socket.gaierror):
        what = f"there is no network, or no host {urlsplit(url).hostname}"
    elif isinstance(error, _BrokenError):
        what = f"the connection breaks again and again ({error})"
    else:
        what = f"the server cannot be reached ({reason})"
    return DataError(what, where=url, fix="check the network and give the same command; it goes on where it stopped")


def fetch(
    client: Client, url: str, target: Path, size: int, checksum: Checksum, *, step: Callable[[int], None] | None = None
) -> bool:
    """Download ``url`` to ``target`` unless the right file is there; False where it was.

    What has come is kept in ``target.part``, from which the next call goes on. ``step`` is called with bytes as
    they come, those of an earlier call included.

    Raises:
        DataError: no network, a refusal, a full disk, or content that does not have the stated size and checksum.
    """
    if target.is_file() and target.stat().st_size == size and checksum.fits(target):
        if step:
            step(size)
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    if part.is_file() and part.stat().st_size > size:
        part.unlink()
    # A part of another revision has bytes that no checksum of this one fits: then once more from the beginning.
    old = part.is_file()
    try:
        for fresh in (False, True) if old else (True,):
            if fresh:
                part.unlink(missing_ok=True)
            begun = part.stat().st_size if part.is_file() else 0
            if step and begun:
                step(begun)
            client.again(lambda: _append(client, url, part, size, step), url)
            if checksum.fits(part):
                part.replace(target)
                return True
            if step:
                step(-size)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(
                "the disk is full", where=str(part), fix="make room and give the same command; it goes on from there"
            ) from error
        raise DataError(f"the file cannot be written: {error.strerror or error}", where=str(part)) from error
    part.unlink()
    raise DataError(
        f"the file does not have the {checksum.kind} checksum of the listing",
        where=url,
        fix="try again, or tell the owners",
    )


def _append(client: Client, url: str, part: Path, size: int, step: Callable[[int], None] | None) -> None:
    have = part.stat().st_size if part.is_file() else 0
    if have == size and part.is_file():
        return
    with client.open(url, start=have) as response:
        if have and response.status != 206:
            # The server does not know ranges and sends the whole file.
            if step:
                step(-have)
            have = 0
        elif have:
            match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range") or "")
            if match is None or int(match[1]) != have:
                raise DataError("the server sends another range than was asked for", where=url)
        with part.open("ab" if have else "wb") as stream:
            while chunk := response.read(min(_CHUNK, size - have + 1)):
                have += len(chunk)
                if have > size:
                    raise DataError(f"the server sends more than the stated {size} bytes", where=url)
                stream.write(chunk)
                if step:
                    step(len(chunk))
            stream.flush()
            os.fsync(stream.fileno())
    if have < size:
        raise _BrokenError(f"{have} of {size} bytes")
