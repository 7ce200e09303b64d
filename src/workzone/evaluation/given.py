"""Predictions that were made elsewhere: a table, a run folder or the folder of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workzone.decisions.types import NAMES, Decisions
from workzone.errors import DataError, WorkzoneError, unreadable
from workzone.evaluation.inputs import Evaluated
from workzone.predictions import LABELS, Predictions, logit, sigmoid

SUFFIXES = (".csv", ".parquet")
TABLE = "predictions.parquet"
_PLACES = (f"evaluate/{TABLE}", TABLE, "predictions.csv")
_CODES: dict[str, int] = {name: int(code) for code, name in NAMES.items()}
_COLUMNS = "name the columns id, label, and probability or log_odds"
SCORES = ("log_odds", "probability")
"""Columns that hold a score."""
_OWN = ("id", "label", *SCORES, "decision")


@dataclass(frozen=True)
class Given:
    """A table of predictions.

    Attributes:
        name: short name for tables, the file or the folder it came from.
        path: file that was read.
        predictions: ids, log-odds, labels where known, metadata columns.
        probability: (N,) probability of roadwork.
        codes: (N,) decision codes where the table has a column ``decision``, else None.
        score_columns: which of ``log_odds`` and ``probability`` the table has.
    """

    name: str
    path: Path
    predictions: Predictions
    probability: NDArray[np.float64]
    codes: NDArray[np.int8] | None = None
    score_columns: tuple[str, ...] = ()

    @property
    def abstains(self) -> bool:
        """Whether any decision is to abstain."""
        return self.codes is not None and bool((self.codes < 0).any())

    @property
    def answers(self) -> NDArray[np.int64]:
        """(N,) 0 or 1 for every image: the decisions where they never abstain, else the probability at 0.5."""
        if self.codes is None or self.abstains:
            return np.asarray(self.probability >= 0.5, dtype=np.int64)
        return self.codes.astype(np.int64)


def is_table(path: Path) -> bool:
    """Whether ``path`` is named like a table of predictions and is no folder."""
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


def load_given(path: Path, *, answers: bool = True) -> Given:
    """Read a table (CSV or Parquet), or the table in a run folder or in the folder of an evaluation.

    Without ``answers`` the columns ``label`` and ``decision`` are not read.

    Raises:
        DataError: nothing to read, a missing column, or values that mean nothing.
    """
    file = path
    if path.is_dir():
        found = [path / place for place in _PLACES if (path / place).is_file()]
        if not found:
            raise DataError(
                "the folder holds no predictions",
                where=str(path),
                fix=f"give a table, a finished run, or a folder with {TABLE} written by 'workzone evaluate'",
            )
        file = found[0]
    elif not path.exists():
        raise DataError("there is no such file or folder", where=str(path), fix="check the path")
    elif path.suffix.lower() not in SUFFIXES:
        fix = "give such a table, or the folder of a run or an evaluation"
        raise DataError("a table of predictions ends in .csv or .parquet", where=str(path), fix=fix)
    try:
        return _given(path.resolve().name if path.is_dir() else path.stem, file, _read(file), answers=answers)
    except WorkzoneError as error:
        if error.where is not None and str(file) in error.where:
            raise
        where = f"{file}, {error.where}" if error.where else str(file)
        raise DataError(error.what, where=where, fix=error.fix) from error


def _read(file: Path) -> Any:
    from workzone.errors import needs_extra

    with needs_extra("polars", "eval", feature="reading tables"):
        import polars as pl
    try:
        if file.suffix.lower() == ".csv":
            # An id such as 007 is a name, not a number.
            text = {"id": pl.String, "label": pl.String, "group": pl.String, "decision": pl.String}
            return pl.read_csv(file, infer_schema_length=None, schema_overrides=text)
        return pl.read_parquet(file)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise unreadable(DataError, "the table", file, error) from error


def _given(name: str, file: Path, frame: Any, *, answers: bool) -> Given:
    if "id" not in frame.columns:
        has = ", ".join(" ".join(name.split())[:40] for name in frame.columns[:8])
        raise DataError(f"the table lacks the column 'id'; it has {has}", fix=_COLUMNS)
    if not frame.height:
        raise DataError("the table holds no rows", fix="give one row an image, below the names of columns")
    ids = [None if v is None else str(v) for v in frame["id"].to_list()]
    if None in ids or "" in ids:
        raise DataError("an image has no id", where=f"row {_row([v in (None, '') for v in ids])}")
    _require_unique(ids)
    if not answers:
        frame = frame.drop("label", "decision", strict=False)
    score_columns = tuple(c for c in SCORES if c in frame.columns)
    if not score_columns:
        raise DataError("the table has neither a column 'probability' nor 'log_odds'", fix=_COLUMNS)
    p = odds = None
    if "probability" in frame.columns:
        p = _numbers(frame, "probability")
        bad = ~((p >= 0) & (p <= 1))
        if bad.any():
            raise DataError(
                f"column 'probability' holds {int(bad.sum())} values outside [0, 1]",
                where=f"row {_row(bad)}, value {p[bad][0]:g}",
                fix="give probabilities, or name the column log_odds if these are log-odds",
            )
    if "log_odds" in frame.columns:
        odds = _numbers(frame, "log_odds")
    rest = [c for c in frame.columns if c not in _OWN]
    views = sorted((c for c in rest if _numbered(c, "view_log_odds_")), key=lambda c: int(c.rpartition("_")[2]))
    rest = [c for c in rest if c not in views and not _numbered(c, "embedding_")]
    predictions = Predictions(
        ids=np.array(ids, dtype=np.str_),
        log_odds=logit(np.asarray(p)) if odds is None else odds,
        labels=_labels(frame),
        view_log_odds=frame.select(views).to_numpy().astype(np.float64) if views else None,
        columns={c: np.array(frame[c].to_list(), dtype=object) for c in rest},
    )
    probability = sigmoid(predictions.log_odds) if p is None else p
    return Given(name, file, predictions, probability, _decisions(frame), score_columns)


def _require_unique(ids: list[Any]) -> None:
    first: dict[Any, int] = {}
    for row, image_id in enumerate(ids, 1):
        if first.setdefault(image_id, row) != row:
            raise DataError(
                f"prediction ids are not unique: {image_id!r} stands there twice",
                where=f"rows {first[image_id]} and {row}",
                fix="keep one row for each image, or give each image its own id",
            )


def _numbered(column: str, prefix: str) -> bool:
    return column.startswith(prefix) and column[len(prefix) :].isdigit()


def _row(bad: Any) -> int:
    """Number of the first bad row, from 1, the heading not counted."""
    return int(np.flatnonzero(np.asarray(bad))[0]) + 1


def _numbers(frame: Any, column: str) -> NDArray[np.float64]:
    import polars as pl

    values = frame[column].cast(pl.Float64, strict=False).to_numpy().astype(np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        raise DataError(
            f"column {column!r} holds {int(bad.sum())} values that are no finite numbers",
            where=f"row {_row(bad)}, value {frame[column][_row(bad) - 1]!r}",
            fix="score these images again or drop them",
        )
    return np.asarray(values)


def _labels(frame: Any) -> NDArray[np.int64] | None:
    texts = _texts(frame, "label")
    if not any(texts):
        return None
    known = {**{name: code for code, name in enumerate(LABELS)}, "0": 0, "1": 1, "0.0": 0, "1.0": 1}
    known |= {"false": 0, "true": 1}
    fix = "labels are 0 or no_roadwork, and 1 or roadwork; drop images without a label"
    return np.array(_coded(texts, known, "label", fix), dtype=np.int64)


def _decisions(frame: Any) -> NDArray[np.int8] | None:
    texts = _texts(frame, "decision")
    if not texts:
        return None
    fix = "decisions are roadwork, no_roadwork or abstain; leave the column out for answers at 0.5"
    return np.array(_coded(texts, _CODES, "decision", fix), dtype=np.int8)


def _texts(frame: Any, column: str) -> list[str]:
    """Texts of ``column`` in lower case, empty where there is no value; none without the column."""
    values = frame[column].to_list() if column in frame.columns else []
    return [("" if v is None else str(v)).strip().lower() for v in values]


def _coded(texts: list[str], known: Mapping[str, int], column: str, fix: str) -> list[int]:
    """The number of each text in ``known``; raises DataError for those that have none."""
    bad = [t not in known for t in texts]
    if any(bad):
        raise DataError(
            f"column {column!r} holds {sum(bad)} values that are no {column}",
            where=f"row {_row(bad)}, value {texts[_row(bad) - 1]!r}",
            fix=fix,
        )
    return [known[t] for t in texts]


def evaluated_from(given: Given, *, seed: int = 42) -> Evaluated:
    """What an evaluation needs from a labelled table; policy ``given`` or ``argmax``, and no certificate.

    Where a column ``split`` names calibration and test images, the calibrators are compared on the former and the
    latter alone are evaluated.

    Raises:
        DataError: the table has no labels.
    """
    if given.predictions.labels is None:
        raise DataError(
            "the table has no column 'label', so nothing can be evaluated",
            where=str(given.path),
            fix="add the column label: 1 or roadwork, 0 or no_roadwork",
        )
    from workzone.evaluation.given_calibration import calibrate_given

    calibration, test = calibrate_given(given, seed=seed)
    predictions, p = given.predictions.take(test), given.probability[test]
    told = given.codes is not None
    codes = np.asarray(given.codes[test] if given.codes is not None else p >= 0.5, dtype=np.int8)
    reasons = {-1: "abstained", 0: "decided no_roadwork", 1: "decided roadwork"}
    how = "as given in the table" if told else "by the probability at 0.5"
    return Evaluated(
        predictions=predictions,
        probability=p,
        decisions=Decisions(
            codes,
            p,
            np.stack([codes != 1, codes != 0], axis=1),
            [f"{reasons[c]} {how}" for c in codes.tolist()],
        ),
        policy={"policy": "given" if told else "argmax", "parameters": {}},
        calibrators=calibration.rows,
        calibrated=calibration.on_test,
        calibration_note=calibration.note,
        calibrator_in_use=False,
        recalibrated=calibration.recalibrated,
        meta={"run": given.name, "data": str(given.path), "engine": "made elsewhere"},
        root=given.path.resolve().parent,
    )


def save_scores(e: Evaluated, path: Path) -> None:
    """Write the table that ``load_given`` reads: scores, probability and decision of each image."""
    names = np.array([NAMES[int(code)] for code in e.decisions.codes])
    columns = {**e.predictions.columns, "probability": e.probability, "decision": names}
    replace(e.predictions, columns=columns).save(path)
