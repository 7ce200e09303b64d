"""Elements of large JSON arrays one after another, so that an annotation file need not fit in memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from workzone.errors import DataError

MAX_ELEMENT = 64 * 1024 * 1024
_CHUNK = 1 << 18
_SPACE = re.compile(r"\s*")


class _Reader:
    def __init__(self, stream: TextIO, path: Path) -> None:
        self.stream, self.path = stream, path
        self.buffer, self.at, self.ended = "", 0, False
        self.decoder = json.JSONDecoder()

    def error(self, what: str) -> DataError:
        return DataError(f"the JSON file {what}", where=str(self.path), fix="copy or download it again")

    def more(self) -> bool:
        # As much again as is waiting, so that a large value is parsed few times.
        piece = self.stream.read(max(_CHUNK, len(self.buffer) - self.at))
        self.buffer, self.at = self.buffer[self.at :] + piece, 0
        self.ended = not piece
        return bool(piece)

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            match = _SPACE.match(self.buffer, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self.buffer):
                return self.buffer[self.at]
            if not self.more():
                return ""

    def take(self, wanted: str) -> None:
        found = self.peek()
        if not found:
            raise self.error("ends early")
        if found != wanted:
            raise self.error(f"has {found!r} where {wanted!r} belongs")
        self.at += 1

    def value(self) -> Any:
        self.peek()
        while True:
            try:
                value, end = self.decoder.raw_decode(self.buffer, self.at)
            except json.JSONDecodeError as error:
                if len(self.buffer) - self.at > MAX_ELEMENT:
                    raise self.error(f"has a value of more than {MAX_ELEMENT} characters") from error
                if not self.more():
                    raise self.error(f"is damaged or ends early ({error.msg})") from error
                continue
            except RecursionError as error:
                raise self.error("is nested too deeply") from error
            # A number at the end of what was read may go on, also behind a point or an exponent sign.
            open_end = not isinstance(value, (dict, list, str)) and not self.buffer[end:].strip("+-.eE")
            if open_end and not self.ended and self.more():
                continue
            self.at = end
            return value

    def elements(self) -> Iterator[Any]:
        self.take("[")
        if self.peek() == "]":
            self.at += 1
            return
        while True:
            yield self.value()
            if self.peek() == "]":
                self.at += 1
                return
            self.take(",")


def _open(path: Path) -> TextIO:
    try:
        return path.open(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror}", where=str(path), fix="check the path") from error


def iter_array(path: Path, key: str | None = None) -> Iterator[Any]:
    """Yield the elements of a JSON array: the whole file (``key`` None), or the value of a top-level key.

    Raises:
        DataError: the file is unreadable, is damaged, has no such key, or the value there is no array.
    """
    with _open(path) as stream:
        reader = _Reader(stream, path)
        try:
            if key is None:
                yield from reader.elements()
                return
            reader.take("{")
            while reader.peek() != "}":
                name = reader.value()
                reader.take(":")
                if name == key:
                    if reader.peek() != "[":
                        raise reader.error(f"has no list at {key!r}")
                    yield from reader.elements()
                    return
                if reader.peek() == "[":
                    for _ in reader.elements():
                        pass
                else:
                    reader.value()
                if reader.peek() == ",":
                    reader.at += 1
        except UnicodeDecodeError as error:
            raise reader.error("is no UTF-8 text") from error
        raise reader.error(f"has no key {key!r}")


def objects(path: Path, key: str | None = None) -> Iterator[dict[str, Any]]:
    """As ``iter_array``, for arrays of objects; raises DataError for an element that is none."""
    for number, element in enumerate(iter_array(path, key), 1):
        if not isinstance(element, dict):
            raise DataError(f"element {number} of {key or 'the list'} is no object", where=str(path))
        yield element
