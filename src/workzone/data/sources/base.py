"""Interface and registry of data sources, and what they share: image files, class names, unique ids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import ClassVar

import polars as pl

from workzone.data.columns import RowNames
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
    """

    frame: pl.DataFrame
    root: Path
    names: RowNames = field(default_factory=RowNames)
    where: str = ""


class Source(ABC):
    """A layout of files on disk. Members are frozen dataclasses whose fields are the options of the source."""

    kind: ClassVar[str]

    @classmethod
    @abstractmethod
    def recognises(cls, location: Path) -> bool:
        """Whether ``location`` looks like this layout; must be cheap and never raise on an existing path."""

    @abstractmethod
    def read(self, location: Path) -> Listing:
        """List the images of ``location`` without opening them; raises DataError when the layout is another one."""


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
