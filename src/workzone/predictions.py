"""The table that joins the two halves of the house: what a detector scored, image by image.

Everything after this table (calibration, decisions, metrics, evaluation) is plain numpy and knows nothing of the
model that made it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workzone.errors import DataError, needs_extra, unreadable
from workzone.files import atomic_path

if TYPE_CHECKING:
    import polars as pl

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
StrArray = NDArray[np.str_]

LABELS = ("no_roadwork", "roadwork")
_VIEW_PREFIX = "view_log_odds_"
_EMBEDDING_PREFIX = "embedding_"
_RESERVED = ("id", "label", "log_odds")
_EXACT = 2.0**53
_INTEGER = re.compile(r"-?(0|[1-9]\d*)")
_FLOAT = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")


def sigmoid(log_odds: FloatArray) -> FloatArray:
    """Probability of ``log_odds``, stable for any magnitude."""
    half = np.tanh(np.asarray(log_odds, dtype=np.float64) / 2.0)
    return np.asarray(0.5 * (1.0 + half), dtype=np.float64)


def pad_rows(rows: Sequence[Sequence[float]]) -> FloatArray:
    """Rows of different lengths as one (N, V) array, NaN where a row has ended."""
    padded = np.full((len(rows), max(map(len, rows), default=0)), np.nan)
    for padded_row, row in zip(padded, rows, strict=True):
        padded_row[: len(row)] = row
    return padded


def logit(probability: FloatArray, *, eps: float = 1e-12) -> FloatArray:
    """Log-odds of ``probability``, clipped to ``[eps, 1 - eps]``."""
    p = np.clip(np.asarray(probability, dtype=np.float64), eps, 1.0 - eps)
    return np.asarray(np.log(p) - np.log1p(-p), dtype=np.float64)


def value_name(value: object) -> str:
    """``value`` as text; a whole number reads as whole, also from a table that stored it as 7.0."""
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return str(int(value))
    return str(value)


@dataclass(frozen=True, slots=True)
class Predictions:
    """Scores of N images.

    Attributes:
        ids: (N,) unique image ids.
        log_odds: (N,) uncalibrated log-odds of roadwork, finite.
        labels: (N,) 0 or 1, or None where unknown.
        view_log_odds: (N, V) log-odds per view, NaN where an image has fewer views, or None.
        embeddings: (N, D) image embeddings, or None.
        columns: metadata columns of length N (source, group, hour, weather, path, ...).
    """

    ids: StrArray
    log_odds: FloatArray
    labels: IntArray | None = None
    view_log_odds: FloatArray | None = None
    embeddings: NDArray[np.float32] | None = None
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.ids)
        if self.log_odds.shape != (n,):
            raise DataError(f"predictions hold {n} ids but log-odds of shape {self.log_odds.shape}")
        bad = np.flatnonzero(~np.isfinite(self.log_odds))
        if len(bad):
            raise DataError(
                f"{len(bad)} predictions have a log-odds that is not a finite number",
                where=f"id {self.ids[bad[0]]!r}",
                fix="score these images again or drop them",
            )
        if len(np.unique(self.ids)) != n:
            raise DataError("prediction ids are not unique", fix="give each image its own id")
        if self.labels is not None:
            if self.labels.shape != (n,):
                raise DataError(f"predictions hold {n} ids but labels of shape {self.labels.shape}")
            if n and not np.isin(self.labels, (0, 1)).all():
                raise DataError("labels must be 0 (no_roadwork) or 1 (roadwork)")
        for name, column in self.columns.items():
            if len(column) != n:
                raise DataError(f"column {name!r} has {len(column)} values for {n} predictions")

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: NDArray[Any] | Sequence[int]) -> Predictions:
        """Rows ``index`` (integers or a boolean mask), in that order."""
        i = np.asarray(index)
        return replace(
            self,
            ids=self.ids[i],
            log_odds=self.log_odds[i],
            labels=None if self.labels is None else self.labels[i],
            view_log_odds=None if self.view_log_odds is None else self.view_log_odds[i],
            embeddings=None if self.embeddings is None else self.embeddings[i],
            columns={name: column[i] for name, column in self.columns.items()},
        )

    def column(self, name: str, default: str = "unknown") -> StrArray:
        """Metadata column as strings, see ``value_name``; ``default`` where the column or a value is missing."""
        if name not in self.columns:
            return np.full(len(self), default)
        values = [default if v is None or v == "" or v != v else value_name(v) for v in self.columns[name].tolist()]
        return np.array(values, dtype=np.str_)

    def to_frame(self) -> pl.DataFrame:
        """One row per image; view scores and embeddings become numbered columns."""
        polars = _polars()
        data: dict[str, Any] = {"id": self.ids.tolist()}
        if self.labels is not None:
            data["label"] = self.labels
        data["log_odds"] = self.log_odds
        data.update({name: column.tolist() for name, column in self.columns.items() if name not in _RESERVED})
        if self.view_log_odds is not None:
            data.update({f"{_VIEW_PREFIX}{v}": self.view_log_odds[:, v] for v in range(self.view_log_odds.shape[1])})
        if self.embeddings is not None:
            data.update({f"{_EMBEDDING_PREFIX}{d}": self.embeddings[:, d] for d in range(self.embeddings.shape[1])})
        frame: pl.DataFrame = polars.DataFrame(data)
        return frame

    def save(self, path: Path) -> None:
        """Write to ``path`` atomically, as CSV where it ends in .csv and as Parquet otherwise."""
        frame = self.to_frame()
        with atomic_path(path) as partial:
            if path.suffix == ".csv":
                frame.write_csv(partial)
            else:
                frame.write_parquet(partial)

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read a table with columns ``id``, ``log_odds`` (or ``probability``) and optionally ``label`` and metadata.

        Raises:
            DataError: the file cannot be read or lacks a column.
        """
        pl = _polars()
        try:
            frame = _read_csv(path) if path.suffix == ".csv" else pl.read_parquet(path)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise unreadable(DataError, "predictions", path, error) from error
        if "log_odds" not in frame.columns and "probability" in frame.columns:
            p = _numbers(frame, ["probability"], path).to_series().to_numpy()
            if not ((p >= 0) & (p <= 1)).all():
                raise DataError("column 'probability' holds values outside [0, 1]", where=str(path))
            frame = frame.with_columns(pl.Series("log_odds", logit(p))).drop("probability")
        missing = [name for name in ("id", "log_odds") if name not in frame.columns]
        if missing:
            raise DataError(
                f"predictions lack the column {missing[0]!r}",
                where=str(path),
                fix="name the columns id, log_odds (or probability) and label",
            )

        def block(prefix: str) -> list[str]:
            names = [c for c in frame.columns if c.startswith(prefix) and c[len(prefix) :].isdigit()]
            return sorted(names, key=lambda c: int(c[len(prefix) :]))

        views, dims = block(_VIEW_PREFIX), block(_EMBEDDING_PREFIX)
        rest = [c for c in frame.columns if c not in (*_RESERVED, *views, *dims)]
        labels = _numbers(frame, ["label"], path, whole=True) if "label" in frame.columns else None
        return cls(
            ids=np.array(frame["id"].cast(pl.String).to_list(), dtype=np.str_),
            log_odds=_numbers(frame, ["log_odds"], path).to_series().to_numpy().astype(np.float64),
            labels=None if labels is None else labels.to_series().to_numpy(),
            view_log_odds=_numbers(frame, views, path).to_numpy().astype(np.float64) if views else None,
            embeddings=_numbers(frame, dims, path).to_numpy().astype(np.float32) if dims else None,
            columns={c: np.array(frame[c].to_list(), dtype=object) for c in rest},
        )


def _numbers(frame: pl.DataFrame, names: list[str], path: Path, *, whole: bool = False) -> pl.DataFrame:
    """Columns ``names`` as numbers; raises DataError naming the first that holds something else."""
    polars = _polars()
    found = []
    for name in names:
        try:
            found.append(frame[name].cast(polars.Int64 if whole else polars.Float64))
        except polars.exceptions.PolarsError as error:
            raise DataError(
                f"column {name!r} holds something else than numbers: {str(error).splitlines()[0]}",
                where=str(path),
                fix="write one number a row, or leave the column out",
            ) from error
    numbers: pl.DataFrame = polars.DataFrame(found)
    return numbers


def typed_text(column: pl.Series) -> pl.Series:
    """A text column as integers, numbers or booleans where every value is one as it stands; '007' stays text."""
    polars = _polars()
    values = column.drop_nulls().to_list()
    typed: pl.Series = column
    if values and all(_INTEGER.fullmatch(v) and v != "-0" and len(v) < 19 for v in values):
        typed = column.cast(polars.Int64)
    elif all(_FLOAT.fullmatch(v) or v == "NaN" for v in values) and any(v != "NaN" for v in values):
        typed = column.cast(polars.Float64)
    elif values and all(v in ("true", "false") for v in values):
        typed = column == "true"
    return typed


def _read_csv(path: Path) -> pl.DataFrame:
    """Every value as text first, so that an id such as 007 stays what it is."""
    polars = _polars()
    frame: pl.DataFrame = polars.read_csv(path, infer_schema=False)
    return frame.with_columns(typed_text(frame[c]) for c in frame.columns if c != "id")


def _polars() -> Any:
    with needs_extra("polars", "eval", feature="reading and writing tables"):
        import polars
    return polars
