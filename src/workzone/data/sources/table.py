"""Source ``table``: a CSV or Parquet file with one row per image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import polars as pl

from workzone.data.columns import COLUMNS, Problem, RowNames, raise_problems, typed_csv
from workzone.data.manifest import SUFFIXES, read_table
from workzone.data.sources.base import ClassNames, Listing, Source, register, unique_ids
from workzone.errors import DataError

ALIASES: Mapping[str, tuple[str, ...]] = {
    "path": ("path", "file", "image", "filename", "file_name", "filepath"),
    "label": ("label", "y", "target", "class"),
    "group": ("group", "sequence", "drive", "place"),
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lon", "lng"),
    "camera_id": ("camera_id", "camera"),
    "id": ("id", "image_id"),
}
INDEX_FILES = ("manifest.parquet", "manifest.csv", "metadata.parquet", "metadata.csv", "labels.csv")


def index_file(location: Path) -> Path | None:
    """The table at ``location``: the file itself, or the index file of a folder."""
    if location.is_dir():
        return next((location / name for name in INDEX_FILES if (location / name).is_file()), None)
    return location if location.suffix.lower() in SUFFIXES else None


def read_renamed(file: Path) -> pl.DataFrame:
    """Read a table with its columns renamed to those of the manifest; raises DataError when no column is the path."""
    frame = read_table(file)
    if not frame.height:
        fix = "give one row an image, below the names of columns"
        raise DataError("the table has no rows", where=str(file), fix=fix)
    plain = {c.strip().lower(): c for c in reversed(frame.columns)}
    renames = {}
    for column, aliases in ALIASES.items():
        found = next((plain[a] for a in aliases if a in plain), None)
        if found is not None:
            renames[found] = column
    for column in COLUMNS:
        if column in plain and column not in renames.values():
            renames[plain[column]] = column
    if "path" not in renames.values():
        raise DataError(
            f"no column of the table names the image file; its columns are {', '.join(frame.columns)}",
            where=str(file),
            fix=f"name it one of {', '.join(ALIASES['path'])}",
        )
    # A column that lost to an earlier alias keeps its name unless the winner now has it.
    taken = set(renames.values())
    renames |= {c: f"{c}_original" for c in frame.columns if c not in renames and c in taken}
    frame = frame.rename(renames)
    if file.suffix.lower() == ".csv":
        frame = typed_csv(frame)
    if "id" not in frame.columns:
        paths = [("" if p is None else str(p)) for p in frame["path"].to_list()]
        frame = frame.with_columns(pl.Series("id", unique_ids(paths), dtype=pl.String()))
    return frame


def _labels(frame: pl.DataFrame, classes: ClassNames, names: RowNames, where: str) -> pl.Series:
    labels: list[int | None] = []
    bad: list[int] = []
    known: dict[str, int | None] = {}
    for row, value in enumerate(frame["label"].to_list()):
        # Some writers turn a column of whole numbers with gaps into 1.0 and 0.0.
        word = "" if value is None else str(int(value)) if isinstance(value, bool) else str(value).strip()
        word = {"1.0": "1", "0.0": "0"}.get(word, word)
        if word not in known:
            known[word] = classes.label(word) if word else None
        label = known[word]
        if word and label is None:
            bad.append(row)
        labels.append(label)
    rule = f"must be empty, {', '.join(classes.positives)} or {', '.join(classes.negatives)}"
    if bad:
        raise_problems([Problem("label", rule, bad, frame["label"].gather(bad).to_list())], names, where=where)
    return pl.Series("label", labels, dtype=pl.Int8())


@register
@dataclass(frozen=True, slots=True)
class TableSource(Source):
    """A table of images; paths are relative to its folder or absolute, labels are 0, 1 or class names."""

    kind: ClassVar[str] = "table"

    classes: ClassNames = field(default_factory=ClassNames)
    source: str | None = None

    @classmethod
    def recognises(cls, location: Path) -> bool:
        """A CSV or Parquet file with a label column, or a folder that holds such a file under a usual name."""
        file = index_file(location)
        return file is not None and has_labels(file)

    def read(self, location: Path) -> Listing:
        """Read the rows.

        Raises:
            DataError: no table, no column for the path or the label, or an unknown label word.
        """
        file = index_file(location)
        if file is None:
            raise DataError(
                "this is no table", where=str(location), fix=f"give a file or folder with {', '.join(INDEX_FILES)}"
            )
        frame, names = read_renamed(file), RowNames(file)
        if "label" not in frame.columns:
            raise DataError(
                f"no column of the table is the label; its columns are {', '.join(frame.columns)}",
                where=str(file),
                fix=f"name it one of {', '.join(ALIASES['label'])}, or read the table as an 'unlabelled' source",
            )
        frame = frame.with_columns(_labels(frame, self.classes, names, str(file)))
        if "source" not in frame.columns:
            frame = frame.with_columns(pl.lit(self.source or file.absolute().parent.name).alias("source"))
        return Listing(frame, file.absolute().parent, names, str(file))


def has_labels(file: Path) -> bool:
    """Whether the header of a table names a label column; False for a file that cannot be read as a table."""
    try:
        if file.suffix.lower() == ".parquet":
            columns = list(pl.read_parquet_schema(file))
        else:
            columns = pl.read_csv(file, infer_schema=False, n_rows=1).columns
    except (pl.exceptions.PolarsError, OSError):
        return False
    return any(c.strip().lower() in ALIASES["label"] for c in columns)
