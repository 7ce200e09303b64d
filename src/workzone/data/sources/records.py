"""What a source hands over, one image at a time: a record, or the reason why an image is left out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl


@dataclass(frozen=True, slots=True)
class Licence:
    """Terms under which others may use a data set, as its authors state them; the text beside the files decides."""

    name: str
    url: str
    note: str = ""

    def text(self) -> str:
        """The licence in one line."""
        return f"{self.name}, {self.url}" + (f" ({self.note})" if self.note else "")


@dataclass(frozen=True, slots=True)
class Record:
    """One image: ``path`` where it is a file of its own, else ``content`` holds the bytes of its file.

    Attributes:
        id: unique in the source and equal in every reading.
        columns: columns of the manifest other than ``id`` and ``path``.
        size: bytes of the image, where known without reading it.
    """

    id: str
    columns: Mapping[str, Any]
    path: Path | None = None
    content: bytes | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Dropped:
    """An image that the rules of its source leave out. ``rule`` is one of a few texts, ``detail`` says the rest."""

    id: str
    rule: str
    detail: str = ""

    @property
    def reason(self) -> str:
        """Rule and detail in one line."""
        return f"{self.rule}: {self.detail}" if self.detail else self.rule


Event = Record | Dropped


@dataclass(frozen=True, slots=True)
class Stream:
    """One reading of a source, in an order that never changes.

    Attributes:
        events: records and left-out images, produced while they are asked for.
        extra: columns that the manifest does not know, with their types.
        total: number of events, where known beforehand.
        where: the file or folder, for messages.
    """

    events: Iterator[Event]
    extra: Mapping[str, pl.DataType] = field(default_factory=dict)
    total: int | None = None
    where: str = ""


def digest(events: Sequence[Event]) -> str:
    """SHA-256 of what a list of events says, contents apart; tells whether a source was changed between readings."""
    total = hashlib.sha256()
    for event in events:
        if isinstance(event, Record):
            columns = sorted((k, v) for k, v in event.columns.items() if v is not None)
            total.update(repr((event.id, str(event.path), columns)).encode())
        else:
            total.update(repr((event.id, event.reason)).encode())
    return total.hexdigest()


_CITIES = {"pgh": "pittsburgh"}
_PITTSBURGH = re.compile(r"(pgh)(\w*?)_(\d+)")
_MINED = re.compile(r"([a-z][a-z .-]*?)_([^_]+)_([^_]+)_(\d+)(?:_\d+)?", re.IGNORECASE)


def sequence_group(city: object, sequence: object, video: object = None) -> str | None:
    """Group of one drive, equal for NATIX and ROADWork: city, sequence, video; None where the sequence is unknown."""
    parts = ["" if v is None else str(v).strip().lower() for v in (city, sequence, video)]
    parts[0] = _CITIES.get(parts[0], parts[0]).replace(" ", "_")
    if parts[0] == "pittsburgh":
        # Pittsburgh's drives have no video number in their names, but some tables fill one in.
        parts[2] = ""
    if not parts[1] or not parts[0]:
        return None
    return "drive:" + "/".join(p for p in parts if p)


def sequence_from_name(name: str) -> str | None:
    """Group from a file name of ROADWork: ``pgh<sequence>_<frame>`` or ``<city>_<sequence>_<video>_<frame>``."""
    stem = Path(name).stem
    if match := _PITTSBURGH.fullmatch(stem):
        return sequence_group(match[1], match[2])
    if match := _MINED.fullmatch(stem):
        return sequence_group(match[1], match[2], match[3])
    return None


def position(value: object) -> tuple[float, float] | None:
    """Latitude and longitude from a pair, a mapping or a text of two numbers; None for anything else.

    Of a pair the first is the latitude unless it cannot be one.
    """
    if isinstance(value, Mapping):
        keys = {str(k).lower(): v for k, v in value.items()}
        first = next((keys[k] for k in ("latitude", "lat") if k in keys), None)
        second = next((keys[k] for k in ("longitude", "lon", "lng", "long") if k in keys), None)
        pair: list[object] = [first, second]
    elif isinstance(value, str):
        pair = list(re.findall(r"-?\d+(?:\.\d+)?", value))
    elif isinstance(value, Sequence):
        pair = list(value)
    else:
        return None
    if len(pair) != 2:
        return None
    try:
        lat, lon = (float(str(v)) for v in pair)
    except ValueError:
        return None
    if abs(lat) > 90 >= abs(lon):
        lat, lon = lon, lat
    good = abs(lat) <= 90 and abs(lon) <= 180 and (lat, lon) != (0.0, 0.0)
    return (lat, lon) if good else None


def one_text(value: object) -> str | None:
    """A tag as text: the word itself or the words of a list, None for nothing said."""
    words = [value] if isinstance(value, str) else list(value) if isinstance(value, Sequence) else []
    said = [str(w).strip() for w in words if w is not None]
    said = [w for w in said if w and w.lower() not in ("undefined", "unknown", "none", "null", "nan")]
    return ", ".join(said) or None
