"""Source ``voc``: images with one Pascal VOC file each, of which some class names mean roadwork."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree

from workzone.data.sources.base import image_files, register
from workzone.data.sources.mapped import MappedSource
from workzone.data.sources.records import Dropped, Event
from workzone.errors import DataError, unreadable

_MAX_BYTES = 4 * 1024 * 1024
NO_ANNOTATION = "no annotation for the image"
UNREADABLE = "the annotation cannot be read"


def read_objects(file: Path) -> list[str]:
    """Class names of the objects of one VOC file.

    Raises:
        DataError: unreadable, too large, no VOC file, or with a document type, by which XML reaches for other files.
    """
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise DataError("the annotation is too large", where=str(file))
        data = file.read_bytes()
        if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
            raise DataError("the annotation declares a document type", where=str(file), fix="remove it")
        root = ElementTree.fromstring(data)
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise unreadable(DataError, "the annotation", file, error) from error
    if root.tag != "annotation":
        raise DataError(f"the annotation begins with <{root.tag}>", where=str(file))
    return [(node.findtext("name") or "").strip() for node in root.iter("object")]


@register
@dataclass(frozen=True, slots=True)
class VocSource(MappedSource):
    """``JPEGImages`` (or ``images``) and ``Annotations`` (or ``annotations``, ``annotations/xmls``), paired by name."""

    kind: ClassVar[str] = "voc"

    def events(self, location: Path, *, content: bool) -> Iterator[Event]:
        """Images by name; a first pass finds the class names, so that a typing error in the class map is noticed."""
        pictures = next((location / n for n in ("JPEGImages", "images") if (location / n).is_dir()), None)
        notes = ("Annotations", "annotations/xmls", "annotations")
        xmls = next((location / n for n in notes if (location / n).is_dir()), None)
        if pictures is None or xmls is None:
            raise DataError("there are no folders JPEGImages and Annotations", where=str(location), fix="add them")
        self.classes.check(self._known(xmls), str(xmls))
        for path in image_files(pictures):
            below = path.relative_to(pictures)
            xml = xmls / below.with_suffix(".xml")
            if not xml.is_file():
                yield Dropped(below.as_posix(), NO_ANNOTATION)
                continue
            try:
                shown = set(read_objects(xml))
            except DataError as error:
                yield Dropped(below.as_posix(), UNREADABLE, error.what)
                continue
            group = None if below.parent == Path() else below.parent.as_posix()
            yield self.judged(below.as_posix(), path, shown, source=location.absolute().name, group=group)

    @staticmethod
    def _known(xmls: Path) -> set[str]:
        names: set[str] = set()
        for file in sorted(xmls.rglob("*.xml")):
            try:
                names.update(read_objects(file))
            except DataError:  # named as a left-out image in the pass that follows
                continue
        return names
