"""The manifest: one table of images, read and written as Parquet or CSV."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from workzone.data.columns import RowNames, conform, typed_csv
from workzone.errors import ManifestError, unreadable
from workzone.files import atomic_path, sha256_json

SUFFIXES = (".parquet", ".csv")
NOTES = {"id": pl.String(), "path": pl.String(), "reason": pl.String()}


def read_table(path: Path) -> pl.DataFrame:
    """Read a Parquet file, or a CSV file with every value as text.

    Raises:
        ManifestError: the file is missing, of another kind, or cannot be parsed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ManifestError("a table must be a .parquet or .csv file", where=str(path), fix="give one of these")
    if not path.is_file():
        raise ManifestError("there is no such file", where=str(path), fix="check the path")
    try:
        if path.suffix.lower() == ".parquet":
            return pl.read_parquet(path)
        frame = pl.read_csv(path, infer_schema=False, encoding="utf8")
        # Blank lines are no rows.
        return frame.filter(pl.any_horizontal(pl.all().fill_null("") != ""))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable(ManifestError, "the table", path, error) from error


def _no_notes() -> pl.DataFrame:
    return pl.DataFrame(schema=NOTES)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A table of images.

    Attributes:
        frame: the columns of ``COLUMNS`` (unknown values are null), then any others as they came.
        root: folder that relative paths start from.
        rejected: images that could not be read when the manifest was built: id, path, reason.
        warnings: images with metadata that was left out because it is malformed: id, path, reason.
    """

    frame: pl.DataFrame
    root: Path
    rejected: pl.DataFrame = field(default_factory=_no_notes)
    warnings: pl.DataFrame = field(default_factory=_no_notes)

    def __len__(self) -> int:
        return self.frame.height

    @classmethod
    def from_frame(cls, frame: pl.DataFrame, *, root: Path | str) -> Manifest:
        """Check and type ``frame``; raises ManifestError naming rows and columns."""
        return cls(conform(frame), Path(root).absolute())

    @classmethod
    def load(cls, path: Path | str) -> Manifest:
        """Read and check a manifest file; raises ManifestError naming lines (CSV) or rows (Parquet)."""
        file = Path(path)
        frame = read_table(file)
        if file.suffix.lower() == ".csv":
            frame = typed_csv(frame)
        return cls(conform(frame, names=RowNames(file), where=str(file)), file.absolute().parent)

    def save(self, path: Path | str) -> Path:
        """Write Parquet or CSV, by suffix, atomically; paths below the file's folder are written relative to it."""
        target = Path(path).absolute()
        if target.suffix.lower() not in SUFFIXES:
            raise ManifestError("a manifest must be a .parquet or .csv file", where=str(target))
        folder = target.parent
        paths = [str(p.relative_to(folder)) if p.is_relative_to(folder) else str(p) for p in self.paths]
        frame = self.frame.with_columns(pl.Series("path", paths, dtype=pl.String()))
        with atomic_path(target) as partial:
            if target.suffix.lower() == ".parquet":
                frame.write_parquet(partial)
            else:
                frame.write_csv(partial)
        return target

    @property
    def paths(self) -> list[Path]:
        """Absolute path of each image."""
        return [self.root / p for p in self.frame["path"].to_list()]

    @property
    def groups(self) -> list[str]:
        """Group of each image; an image of unknown group is a group of its own, named after its id."""
        pairs = zip(self.frame["group"].to_list(), self.frame["id"].to_list(), strict=True)
        return [own if group is None else group for group, own in pairs]

    @property
    def fingerprint(self) -> str:
        """Hash of ids, labels and contents, whatever the order of rows."""
        rows = self.frame.select("id", "label", "sha256").rows()
        return sha256_json(sorted([list(r) for r in rows], key=lambda r: str(r[0])))
