"""From the body of a request to pictures, within limits that hold while the body still arrives."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from workzone.serving.problems import Problem

_FIELDS = 20


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a request, or the problem it has; ``where`` says which one it is."""

    where: str
    content: bytes = b""
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for: pictures, metadata columns, and whether it was one picture or a batch."""

    pictures: list[Picture]
    single: bool
    columns: dict[str, str] = field(default_factory=dict)


class Memory:
    """Bytes of request bodies that are held at the same time."""

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0

    def take(self, size: int) -> None:
        """Count ``size`` more bytes; raises Problem 429 where they do not fit."""
        if self.held + size > self.limit:
            raise Problem(
                429,
                "memory_full",
                "The requests in work fill the memory set aside for them",
                fix="try again after the seconds in Retry-After",
                headers={"Retry-After": "1"},
            )
        self.held += size

    def give(self, size: int) -> None:
        """Count ``size`` bytes less."""
        self.held -= size


async def read_body(request: Request, memory: Memory, *, max_bytes: int, seconds: float) -> bytes:
    """The whole body; the caller gives its bytes back to ``memory``.

    Raises:
        Problem: 413 too large, 408 too slow, 400 malformed length or broken off, 429 no memory.
    """
    stated = request.headers.get("content-length")
    if stated is not None and (not stated.isascii() or not stated.isdigit()):
        raise Problem(400, "bad_length", "The Content-Length is no number", where="header Content-Length")
    if stated is not None and (len(stated) > 18 or int(stated) > max_bytes):
        raise _too_large(max_bytes)
    content = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                if len(content) + len(chunk) > max_bytes:
                    raise _too_large(max_bytes)
                memory.take(len(chunk))
                content += chunk
    except BaseException as error:
        memory.give(len(content))
        if isinstance(error, TimeoutError):
            raise Problem(
                408,
                "too_slow",
                f"The request did not arrive within {seconds:g} seconds",
                fix="send smaller pictures, or over a faster line",
                headers={"Connection": "close"},
            ) from error
        if isinstance(error, ClientDisconnect):
            raise Problem(400, "broken_off", "The client went away before its request was complete") from error
        raise
    return bytes(content)


def _too_large(limit: int) -> Problem:
    # The rest of the body is not read, so the connection cannot be used again.
    return Problem(
        413,
        "request_too_large",
        f"The request is larger than {limit} bytes",
        fix="send fewer or smaller pictures in one request",
        headers={"Connection": "close"},
    )


async def asked_for(request: Request, body: bytes, *, max_images: int) -> Asked:
    """Pictures of a body of any accepted kind; raises Problem 400, 413, 415 or 422 where there are none."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not body:
        raise Problem(400, "empty_body", "The request has no body", fix="send a picture, see /docs")
    if kind == "multipart/form-data":
        asked = await _multipart(request, body, max_images)
    elif kind == "application/json":
        asked = await asyncio.to_thread(_json, body, max_images)
    elif kind.startswith("image/") or kind == "application/octet-stream":
        asked = Asked([Picture("body", body)], single=True)
    else:
        raise Problem(
            415,
            "content_type",
            f"Bodies of the kind {kind[:80]!r} are not read",
            where="header Content-Type",
            fix="send multipart/form-data, application/json, image/* or application/octet-stream",
        )
    asked.columns.update(_columns(request.query_params.getlist("slice")))
    return asked


async def _multipart(request: Request, body: bytes, max_images: int) -> Asked:
    async def once() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(request.headers, once(), max_files=max_images, max_fields=_FIELDS)
    parser.spool_max_size = len(body) + 1  # in memory, which is bounded, rather than on disk
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise _too_many(max_images) from error
        raise Problem(400, "bad_multipart", f"The form cannot be read: {error.message}", where="body") from error
    pictures: list[Picture] = []
    columns: list[str] = []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            pictures.append(Picture(f"file {len(pictures)}", await value.read()))
        elif name == "slice":
            columns.append(value)
    await form.close()
    if not pictures:
        raise Problem(422, "no_picture", "The form holds no file", where="body", fix="add a part with a file name")
    return Asked(pictures, single=False, columns=_columns(columns))


def parsed_json(body: bytes) -> dict[str, Any]:
    """The object that ``body`` holds; raises Problem 400."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Problem(400, "bad_json", f"The body is no JSON: {reason}", where="body") from error
    if not isinstance(value, dict):
        raise Problem(422, "bad_request", "The JSON is no object", where="body", fix='send {"image": "BASE64"}')
    return value


def _json(body: bytes, max_images: int) -> Asked:
    value = parsed_json(body)
    unknown = sorted(set(value) - {"image", "images", "columns"})
    if unknown or ("image" in value) == ("images" in value):
        raise Problem(
            422,
            "bad_request",
            f"Unknown key {unknown[0][:80]!r}" if unknown else "The JSON must hold either 'image' or 'images'",
            where="body",
            fix='send {"image": "BASE64"} or {"images": ["BASE64", ...]}, and "columns" where the bundle needs them',
        )
    columns = value.get("columns", {})
    if not isinstance(columns, dict) or not all(isinstance(v, str) for v in columns.values()):
        raise Problem(422, "bad_request", "'columns' must map names to text", where="body.columns")
    single = "image" in value
    given = [value["image"]] if single else value["images"]
    if not isinstance(given, list) or not given:
        raise Problem(422, "no_picture", "'images' must be a list with a picture or more", where="body.images")
    if len(given) > max_images:
        raise _too_many(max_images)
    names = ["image"] if single else [f"images[{i}]" for i in range(len(given))]
    return Asked([decoded(text, name) for text, name in zip(given, names, strict=True)], single, dict(columns))


def decoded(text: object, where: str) -> Picture:
    """The picture that base64 ``text`` holds, with or without ``data:`` in front; a problem of its own otherwise."""
    problem = Problem(422, "bad_base64", "This is no base64 text", where=where)
    if not isinstance(text, str):
        return Picture(where, problem=problem)
    try:
        words = text.partition(",")[2] if text.startswith("data:") else text
        return Picture(where, base64.b64decode(words, validate=True))
    except (binascii.Error, ValueError):
        return Picture(where, problem=problem)


def _columns(words: list[str]) -> dict[str, str]:
    columns = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not name.strip():
            raise Problem(
                422, "bad_columns", f"{word[:80]!r} is no COLUMN=VALUE", where="slice", fix="say slice=source=van7"
            )
        columns[name.strip()] = value.strip()
    return columns


def _too_many(limit: int) -> Problem:
    return Problem(413, "too_many_images", f"More than {limit} pictures in one request", fix="send several requests")


def deadline_seconds(headers: Mapping[str, str], most_ms: int) -> float:
    """Seconds that a request may take (``X-Deadline-Ms``, at most ``most_ms``); raises Problem 400."""
    text = headers.get("x-deadline-ms")
    if text is None:
        return most_ms / 1000.0
    if not text.isascii() or not text.isdigit() or not int(text[:12]) > 0:
        raise Problem(400, "bad_deadline", "X-Deadline-Ms is no positive number", where="header X-Deadline-Ms")
    return min(int(text[:12]), most_ms) / 1000.0
