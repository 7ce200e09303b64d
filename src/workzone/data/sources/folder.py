"""Source ``folder``: one sub-folder of images per class."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import polars as pl

from workzone.data.sources.base import ClassNames, Listing, Source, image_files, register, sub_folders, unique_ids
from workzone.errors import DataError


@register
@dataclass(frozen=True, slots=True)
class FolderSource(Source):
    """``<location>/<class>/[<group>/]image``; folders below a class name the group, also across classes."""

    kind: ClassVar[str] = "folder"

    classes: ClassNames = field(default_factory=ClassNames)
    source: str | None = None

    @classmethod
    def recognises(cls, location: Path) -> bool:
        """A folder with a sub-folder named after a class."""
        names = ClassNames()
        return location.is_dir() and any(names.label(p.name) is not None for p in sub_folders(location))

    def read(self, location: Path) -> Listing:
        """List the images of all classes.

        Raises:
            DataError: not a folder, a sub-folder that is no class, images outside classes, or a class without images.
        """
        if not location.is_dir():
            raise DataError("there is no such folder", where=str(location), fix="check the path")
        folders = sub_folders(location)
        unknown = [p for p in folders if self.classes.label(p.name) is None]
        if unknown:
            raise DataError(
                f"the sub-folder {unknown[0].name!r} is no class name",
                where=str(unknown[0]),
                fix=f"rename it, move it away, or add {unknown[0].name!r} to the positive or negative class names "
                f"(now {', '.join(self.classes.positives)} and {', '.join(self.classes.negatives)})",
            )
        stray = image_files(location, recursive=False)
        if stray:
            raise DataError(
                f"{len(stray)} images lie outside the class folders", where=str(stray[0]), fix="move them into a class"
            )
        rows: list[tuple[str, int, str | None]] = []
        for folder in folders:
            images = image_files(folder)
            if not images:
                raise DataError("a class folder holds no images", where=str(folder), fix="add images or remove it")
            label = self.classes.label(folder.name)
            assert label is not None  # unknown names were refused above
            for image in images:
                below = image.parent.relative_to(folder).as_posix()
                rows.append((image.relative_to(location).as_posix(), label, None if below == "." else below))
        missing = [name for value, name in ((1, "roadwork"), (0, "no_roadwork")) if all(r[1] != value for r in rows)]
        if missing:
            raise DataError(
                f"there are no images of class {' and '.join(missing)}",
                where=str(location),
                fix="add a sub-folder for each class, or read the folder as an 'unlabelled' source",
            )
        schema = {"path": pl.String(), "label": pl.Int8(), "group": pl.String()}
        frame = pl.DataFrame(rows, schema=schema, orient="row").with_columns(
            pl.Series("id", unique_ids([r[0] for r in rows]), dtype=pl.String()),
            pl.lit(self.source or location.absolute().name).alias("source"),
        )
        return Listing(frame, location.absolute(), where=str(location))
