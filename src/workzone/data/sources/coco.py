"""Source ``coco``: images with objects in COCO's JSON, of which some classes mean roadwork."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import polars as pl

from workzone.data.sources.base import register
from workzone.data.sources.jsonstream import objects
from workzone.data.sources.mapped import MappedSource
from workzone.data.sources.records import Dropped, Event
from workzone.errors import DataError

UNSAFE = "the file name leaves the image folder"
TWICE = "the image is listed twice"


def category_names(file: Path) -> dict[Any, str]:
    """Category id -> name."""
    return {c.get("id"): str(c.get("name")) for c in objects(file, "categories")}


def classes_by_image(file: Path, names: dict[Any, str], wanted: Collection[str]) -> dict[Any, int]:
    """Image id -> bits of the ``wanted`` classes that it shows, in their order; one number for each image with any."""
    bit = {name: 1 << i for i, name in enumerate(wanted)}
    found: dict[Any, int] = {}
    for number, annotation in enumerate(objects(file, "annotations"), 1):
        category = annotation.get("category_id")
        if category not in names:
            raise DataError(f"annotation {number} has the unknown category {category!r}", where=str(file))
        flag = bit.get(names[category])
        if flag:
            image = annotation.get("image_id")
            found[image] = found.get(image, 0) | flag
    return found


def safe_name(image: dict[str, Any]) -> str | None:
    """File name of an image record, None for one that points out of its folder."""
    name = str(image.get("file_name") or "")
    parts = Path(name).parts
    return None if not parts or Path(name).is_absolute() or ".." in parts else name


def image_root(candidates: list[Path], file: Path) -> Path:
    """The first folder that holds the first image of an annotation file; raises DataError when none does."""
    for image in islice(objects(file, "images"), 20):
        name = safe_name(image)
        for folder in candidates if name else []:
            if (folder / str(name)).is_file():
                return folder
    raise DataError(
        "none of the first images of the annotation file is there",
        where=str(file),
        fix=f"put the images into {' or '.join(map(str, candidates[:3]))}",
    )


@register
@dataclass(frozen=True, slots=True)
class CocoSource(MappedSource):
    """``annotations/*.json`` with images in ``images``, in a folder named after the split, or beside; or one such file.

    Attributes:
        classes, rest: as for ``MappedSource``.
        images: folder of the images, relative to the location.
    """

    kind: ClassVar[str] = "coco"
    extra: ClassVar[dict[str, pl.DataType]] = {"official_split": pl.String()}

    images: str | None = None

    def events(self, location: Path, *, content: bool) -> Iterator[Event]:
        """Images of all annotation files by name."""
        root = location if location.is_dir() else location.parent
        files = [location] if location.is_file() else sorted((root / "annotations").glob("*.json"))
        files = files or sorted(root.glob("*.json"))
        if not files:
            raise DataError("there is no annotation file", where=str(location), fix="put it into annotations/")
        if root.name == "annotations":
            root = root.parent
        for file in files:
            yield from self._file(file, root, prefix="" if len(files) == 1 else f"{file.stem}/")

    def _file(self, file: Path, root: Path, prefix: str) -> Iterator[Event]:
        names = category_names(file)
        self.classes.check(set(names.values()), str(file))
        mapped = list(self.classes.meanings)
        shown = classes_by_image(file, names, mapped)
        split = file.stem.removeprefix("instances_")
        candidates = [root / self.images] if self.images else [root / "images", root / split, root / "images" / split]
        folder = image_root([*candidates, file.parent, root], file)
        seen: set[str] = set()
        for number, image in enumerate(objects(file, "images"), 1):
            name = safe_name(image)
            if name is None or name in seen:
                yield Dropped(f"{prefix}#{number}", UNSAFE if name is None else TWICE, str(image.get("file_name")))
                continue
            seen.add(name)
            bits = shown.get(image.get("id"), 0)
            classes = [c for i, c in enumerate(mapped) if bits >> i & 1]
            columns = {"source": root.absolute().name, "group": None, "official_split": split}
            yield self.judged(f"{prefix}{name}", folder / name, classes, **columns)
