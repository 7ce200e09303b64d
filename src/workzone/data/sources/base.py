"""Interface and registry of data sources, and what they share: image files, class names, unique ids."""

from __future__ import annotations

import stat
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import ClassVar

import polars as pl

from workzone.data.columns import COLUMNS, RowNames
from workzone.data.sources.records import Dropped, Event, Licence, Record, Stream
from workzone.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
POSITIVE_NAMES = ("roadwork", "roadworks", "road_work", "work_zone", "workzone", "construction", "positive", "1")
NEGATIVE_NAMES = (
    "no_roadwork", "no_roadworks", "no_road_work", "no_work_zone", "non_roadwork", "none", "background", "negative", "0"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ClassNames:
    """Words that stand for the two classes; upper case, spaces and hyphens do not matter."""

    positives: Sequence[str] = POSITIVE_NAMES
    negatives: Sequence[str] = NEGATIVE_NAMES

    def __post_init__(self) -> None:
        both = {self._plain(w) for w in self.positives} & {self._plain(w) for w in self.negatives}
        if both:
            raise DataError(f"class name {min(both)!r} stands for both classes", where="class names")

    @staticmethod
    def _plain(word: str) -> str:
        return word.strip().lower().replace(" ", "_").replace("-", "_")

    def label(self, word: str) -> int | None:
        """1, 0, or None for a word that is neither."""
        plain = self._plain(word)
        if plain in {self._plain(w) for w in self.positives}:
            return 1
        return 0 if plain in {self._plain(w) for w in self.negatives} else None


@dataclass(frozen=True, slots=True)
class Listing:
    """What a source found: rows with at least ``path``, and how to name them in messages.

    Attributes:
        frame: rows; known columns are checked later, others are kept.
        root: folder that relative paths start from.
        names: names of rows in the file they came from.
        where: the file or folder, for messages.
        dropped: images that the rules of the source leave out.
    """

    frame: pl.DataFrame
    root: Path
    names: RowNames = field(default_factory=RowNames)
    where: str = ""
    dropped: Sequence[Dropped] = ()


class Source(ABC):
    """A layout of files on disk. Members are frozen dataclasses whose fields are the options of the source."""

    kind: ClassVar[str]
    licence: ClassVar[Licence | None] = None

    @classmethod
    @abstractmethod
    def recognises(cls, location: Path) -> bool:
        """Whether ``location`` looks like this layout; must be cheap and never raise on an existing path."""

    @abstractmethod
    def read(self, location: Path) -> Listing:
        """List the images of ``location`` without opening them; raises DataError when the layout is another one."""

    def stream(self, location: Path, *, start: int = 0, content: bool = True) -> Stream:
        """One reading of the source, for an import.

        Args:
            location: file or folder.
            start: events to skip.
            content: False leaves out the bytes of images that lie inside other files.

        Raises:
            DataError: as for ``read``; also while the events are read.
        """
        listing = self.read(location)
        extra = {c: t for c, t in listing.frame.schema.items() if c not in COLUMNS}

        def events() -> Iterator[Event]:
            for row in listing.frame.iter_rows(named=True):
                path = listing.root / row.pop("path")
                yield Record(row.pop("id"), row, path=path, size=_size(path))
            yield from listing.dropped

        total = listing.frame.height + len(listing.dropped)
        return Stream(islice(events(), start, None), extra, total, listing.where)


class RecordSource(Source):
    """A source that finds its images one by one and keeps no list of them. Members implement ``events``."""

    extra: ClassVar[Mapping[str, pl.DataType]] = {}

    @abstractmethod
    def events(self, location: Path, *, content: bool) -> Iterator[Event]:
        """Yield what ``location`` holds, always in the same order; see ``Source.stream``."""

    def events_from(self, location: Path, *, start: int, content: bool) -> Iterator[Event]:
        """``events`` from number ``start`` on; overridden where skipping can be cheaper than reading."""
        return islice(self.events(location, content=content), start, None)

    def stream(self, location: Path, *, start: int = 0, content: bool = True) -> Stream:
        """One reading of the source; see ``Source.stream``."""
        if not location.exists():
            raise DataError("there is no such file or folder", where=str(location), fix="check the path")
        events = self.events_from(location, start=start, content=content)
        if self.licence is None:
            return Stream(events, self.extra, None, str(location))
        name = self.licence.name
        extra = {**self.extra, "licence": pl.String()}
        return Stream((_licensed(e, name) for e in events), extra, None, str(location))

    def read(self, location: Path) -> Listing:
        """List the images, where they are files of their own.

        Raises:
            DataError: no images, another layout, or images inside other files, which have to be imported first.
        """
        rows: list[dict[str, object]] = []
        dropped: list[Dropped] = []
        stream = self.stream(location, content=False)
        for event in stream.events:
            if isinstance(event, Dropped):
                dropped.append(event)
            elif event.path is None:
                raise DataError(
                    "the images lie inside other files",
                    where=str(location),
                    fix=f"run: workzone data import {self.kind} {location} --out FOLDER, then use FOLDER",
                )
            else:
                rows.append({"id": event.id, "path": str(event.path.absolute()), **event.columns})
        if not rows:
            raise nothing_taken(dropped, stream.where)
        known = {c: COLUMNS[c] for c in COLUMNS if c in rows[0]}
        frame = pl.DataFrame(rows, schema={**known, **stream.extra}, orient="row")
        return Listing(frame, location.absolute(), where=stream.where, dropped=dropped)


def _licensed(event: Event, licence: str) -> Event:
    """Images go from manifest to manifest, so each row carries its terms; one of its own goes first."""
    if isinstance(event, Dropped):
        return event
    return replace(event, columns={**event.columns, "licence": event.columns.get("licence") or licence})


def nothing_taken(dropped: Sequence[Dropped], where: str) -> DataError:
    """The error for a source that gives no image at all."""
    first = f"; {len(dropped)} were left out, the first because: {dropped[0].reason}" if dropped else ""
    return DataError(f"there are no images to take{first}", where=where, fix="check the path and the kind of source")


def _size(path: Path) -> int | None:
    try:
        status = path.stat()
    except (OSError, ValueError):  # reading it will say what is wrong
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def file_record(id_: str, path: Path, columns: Mapping[str, object]) -> Record:
    """Record of an image that is a file of its own."""
    return Record(id_, columns, path=path, size=_size(path))


SOURCES: dict[str, type[Source]] = {}
"""Source classes by kind."""


def register(cls: type[Source]) -> type[Source]:
    """Class decorator that adds a source to ``SOURCES``; raises ValueError when the kind is taken."""
    if cls.kind in SOURCES:
        raise ValueError(f"source kind {cls.kind!r} is registered twice")
    SOURCES[cls.kind] = cls
    return cls


def is_hidden(path: Path, below: Path) -> bool:
    """Whether a part of ``path`` below a folder is hidden or left behind by an archive tool."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.relative_to(below).parts)


def image_files(folder: Path, *, recursive: bool = True) -> list[Path]:
    """Image files of a folder by suffix, sorted, hidden ones left out."""
    found = folder.rglob("*") if recursive else folder.iterdir()
    images = (p for p in found if p.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(p, folder) and p.is_file())
    return sorted(images, key=lambda p: p.relative_to(folder).as_posix())


def sub_folders(folder: Path) -> list[Path]:
    """Direct sub-folders, sorted, hidden ones left out."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not is_hidden(p, folder))


def unique_ids(paths: Sequence[str]) -> list[str]:
    """Ids for image paths: the stem where it is unique, else the path without suffix, else the whole path."""
    pure = [PurePosixPath(p) for p in paths]
    forms = ([p.stem for p in pure], [str(p.with_suffix("")) for p in pure], [str(p) for p in pure])
    counts: list[Mapping[str, int]] = [Counter(form) for form in forms]
    # An id taken from a longer form must not meet the stem of another image, so stems win only when all fit.
    for form, count in zip(forms, counts, strict=True):
        if max(count.values(), default=1) == 1:
            return list(form)
    return list(forms[-1])
