"""Source ``unlabelled``: images without labels, in a folder or listed in a table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import polars as pl

from workzone.data.columns import RowNames
from workzone.data.sources.base import Listing, Source, image_files, register, sub_folders, unique_ids
from workzone.data.sources.table import has_labels, index_file, read_renamed
from workzone.errors import DataError


@register
@dataclass(frozen=True, slots=True)
class UnlabelledSource(Source):
    """A folder of images at any depth (sub-folders name the group), or a table without labels."""

    kind: ClassVar[str] = "unlabelled"

    source: str | None = None

    @classmethod
    def recognises(cls, location: Path) -> bool:
        """A table without a label column, or a folder with images and without sub-folders."""
        file = index_file(location)
        if file is not None:
            return not has_labels(file)
        # Sub-folders might be classes under names that nobody mapped: the user has to say that they are not.
        return location.is_dir() and bool(image_files(location, recursive=False)) and not sub_folders(location)

    def read(self, location: Path) -> Listing:
        """List the images; raises DataError when there are none or when the table has labels after all."""
        file = index_file(location)
        if location.is_dir() and (file is None or has_labels(file)):
            return self._folder(location)
        if file is None:
            raise DataError("there is no such folder or table", where=str(location), fix="check the path")
        if has_labels(file):
            raise DataError(
                "the table has a label column", where=str(file), fix="read it as a 'table' source, or drop the column"
            )
        frame = read_renamed(file)
        frame = frame.with_columns(pl.lit(None, dtype=pl.Int8()).alias("label"))
        if "source" not in frame.columns:
            frame = frame.with_columns(pl.lit(self.source or file.absolute().parent.name).alias("source"))
        return Listing(frame, file.absolute().parent, RowNames(file), str(file))

    def _folder(self, location: Path) -> Listing:
        images = image_files(location)
        if not images:
            raise DataError("the folder holds no images", where=str(location), fix="check the path")
        paths = [p.relative_to(location).as_posix() for p in images]
        groups = [p.parent.relative_to(location).as_posix() for p in images]
        frame = pl.DataFrame(
            {
                "id": unique_ids(paths),
                "path": paths,
                "label": pl.Series([None] * len(paths), dtype=pl.Int8()),
                "group": pl.Series([None if g == "." else g for g in groups], dtype=pl.String()),
                "source": [self.source or location.absolute().name] * len(paths),
            }
        )
        return Listing(frame, location.absolute(), where=str(location))
