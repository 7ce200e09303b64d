"""Source ``phone``: folders of photographs with place and time in their EXIF data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from PIL import Image

from workzone.data.sources.base import ClassNames, RecordSource, file_record, image_files, register
from workzone.data.sources.exif import ExifInfo, read_exif
from workzone.data.sources.records import Event
from workzone.data.units import geographic_cell
from workzone.errors import DataError


def _exif(path: Path) -> ExifInfo:
    try:
        with Image.open(path, formats=("JPEG", "PNG", "WEBP", "TIFF")) as image:
            return read_exif(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # The image itself is judged when it is decoded; without EXIF it only has no place.
        return ExifInfo(problems=(str(error),))


@register
@dataclass(frozen=True, slots=True)
class PhoneSource(RecordSource):
    """Photographs grouped by day and square of ``cell_metres``; a folder named after a class gives the label.

    Without a place the group is folder and day, without a time folder and place, without both the folder.

    Attributes:
        classes: names of folders that stand for the two classes; images in other folders are unlabelled.
        cell_metres: side of the squares.
    """

    kind: ClassVar[str] = "phone"

    classes: ClassNames = field(default_factory=ClassNames)
    cell_metres: float = 250.0

    def __post_init__(self) -> None:
        if not self.cell_metres > 0:
            raise DataError("cell_metres must be positive", where=self.kind)

    @classmethod
    def recognises(cls, location: Path) -> bool:
        """Never by itself: any folder of images could be meant."""
        return False

    def events(self, location: Path, *, content: bool) -> Iterator[Event]:
        """Images by name."""
        if not location.is_dir():
            raise DataError("there is no such folder", where=str(location), fix="check the path")
        return self._all(location)

    def _all(self, location: Path) -> Iterator[Event]:
        for path in image_files(location):
            below = path.relative_to(location)
            label = next((v for p in below.parts[:-1] if (v := self.classes.label(p)) is not None), None)
            # The folder of the class must not part pictures of one place.
            folder = "/".join(p for p in below.parts[:-1] if self.classes.label(p) is None)
            columns = {"label": label, "source": location.absolute().name, "group": self._group(_exif(path), folder)}
            yield file_record(below.as_posix(), path, columns)

    def _group(self, exif: ExifInfo, folder: str) -> str | None:
        day = exif.captured_at[:10] if exif.captured_at else None
        if exif.latitude is None or exif.longitude is None:
            known = [p for p in (folder, day) if p]
            return "/".join(known) or None
        cell = geographic_cell(exif.latitude, exif.longitude, self.cell_metres)
        return f"{day}@{cell}" if day else f"{folder}@{cell}"
