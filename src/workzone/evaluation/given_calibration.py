"""Calibrators for probabilities that were made elsewhere: compared on a calibration split, or across folds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workzone.calibration import CALIBRATORS, create
from workzone.calibration.select import Selection, select
from workzone.data.roles import CalibData
from workzone.errors import DataError
from workzone.evaluation.given import Given
from workzone.predictions import FloatArray

SPLIT = "split"
CALIBRATION = frozenset({"val_calib", "calib", "calibration", "cal"})
TEST = frozenset({"val_test", "test"})
_OTHER = frozenset({"train", "training", "val", "valid", "validation", "val_select"})
_FEWEST = 20
"""Images below which folds hold too few of a class to compare anything."""


@dataclass(frozen=True)
class GivenCalibration:
    """What the calibrators make of given probabilities.

    Attributes:
        rows: of the comparison, as phase calibrate stores them.
        on_test: (M,) probabilities of the test images by each calibrator; empty where these images made the comparison.
        note: on which images the comparison rests.
        recalibrated: name and probabilities (M,) of the calibrator that would be chosen, where it changes anything.
    """

    rows: tuple[Mapping[str, Any], ...] = ()
    on_test: Mapping[str, FloatArray] = field(default_factory=dict)
    note: str = ""
    recalibrated: tuple[str, FloatArray] | None = None


def calibrate_given(given: Given, *, seed: int) -> tuple[GivenCalibration, NDArray[np.bool_]]:
    """The comparison of calibrators, and which images (N,) of the table are for the report.

    Raises:
        DataError: a column ``split`` names no test images.
    """
    calib, test = split_of(given)
    separate = bool(calib.any())
    fitted_on = calib if separate else test
    labels = np.asarray(given.predictions.labels, dtype=np.int64)[fitted_on]
    counts = np.bincount(labels, minlength=2)
    if counts.sum() < _FEWEST or counts.min() < 2:
        few = f"{counts.sum()} images, {counts[1]} with roadwork, are too few to compare calibrators on."
        return GivenCalibration(note=few), test
    data = calib_data(given, fitted_on)
    names = [name for name in CALIBRATORS if set(create(name).needs) <= set(data.columns)]
    chosen = select(data, names, seed=seed)
    fitted = chosen.fitted(data) if separate else {}
    columns = {name: values[test] for name, values in given.predictions.columns.items()}
    on_test = {name: made.on(given.predictions.log_odds[test], columns) for name, made in fitted.items()}
    best = on_test.get(chosen.best.name)
    changes = best is not None and not np.allclose(best, given.probability[test], atol=1e-9)
    recalibrated = (chosen.best.name, best) if best is not None and changes else None
    rows = tuple(chosen.rows(fitted))
    return GivenCalibration(rows, on_test, _note(chosen, data, separate=separate), recalibrated), test


def split_of(given: Given) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(N,) images for calibration and (N,) images for the report; all are for the report without a column ``split``.

    A column with none of the words for a split is an ordinary one, to slice by.

    Raises:
        DataError: the column names no test images.
    """
    everything = np.ones(len(given.probability), dtype=bool)
    told = told_split(given)
    if told is None:
        return ~everything, everything
    calib, test = told
    if not test.any():
        raise DataError(
            "the column 'split' names no test images, and only these are evaluated",
            where=f"{given.path}, {split_values(given)}",
            fix="name them 'test' (and images to compare calibrators on 'calibration'), or drop the column",
        )
    return calib, test


def told_split(given: Given) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
    """(N,) images that the column ``split`` calls calibration, and (N,) test images; None where it tells no split."""
    if SPLIT not in given.predictions.columns:
        return None
    words = _split_words(given)
    calib, test = (np.isin(words, sorted(known)) for known in (CALIBRATION, TEST))
    return (calib, test) if (calib | test | np.isin(words, sorted(_OTHER))).any() else None


def split_values(given: Given) -> str:
    """The words of the column ``split``, for a message."""
    return "values " + ", ".join(repr(w) for w in sorted(set(_split_words(given).tolist()))[:5])


def _split_words(given: Given) -> NDArray[np.str_]:
    return np.char.lower(np.char.strip(given.predictions.column(SPLIT, default="")))


def calib_data(given: Given, rows: NDArray[np.bool_]) -> CalibData:
    """Images ``rows`` (N,) of a labelled table, for calibrators and policies; an image without a group is its own."""
    from workzone.evaluation.inputs import groups_of

    part = given.predictions.take(rows)
    return CalibData(
        ids=part.ids,
        labels=np.asarray(part.labels, dtype=np.int64),
        groups=groups_of(part),
        log_odds=part.log_odds,
        columns=part.columns,
    )


def _note(chosen: Selection, data: CalibData, *, separate: bool) -> str:
    how = f"out of fold ({chosen.folds} folds of whole groups, {chosen.repeats} times)"
    images = f"{len(data):,} images, {data.n_positive:,} with roadwork"
    if separate:
        return (
            f"Measured {how} on the calibration images of the table ({images}); the last columns show each, fitted on "
            "all of them, on the images of this report."
        )
    return (
        f"The table names no calibration images, so these are the images of this report ({images}), measured {how}: "
        "each image is judged by a map that was fitted on others. A column 'split' with 'calibration' and 'test' keeps "
        "them apart."
    )
