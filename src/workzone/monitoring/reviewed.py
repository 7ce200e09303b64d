"""Reviewed labels, joined with the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workzone.errors import DataError
from workzone.monitoring.table import Columns, Log
from workzone.predictions import FloatArray, IntArray, StrArray

_LABELS = {"1": 1, "roadwork": 1, "true": 1, "0": 0, "no_roadwork": 0, "false": 0}


@dataclass(frozen=True, slots=True)
class Reviewed:
    """M predictions whose true label is known, in the order of the review.

    Attributes:
        ids: (M,) images.
        labels: (M,) 0 or 1.
        probability: (M,) what was announced.
        codes: (M,) what was answered, -1 for abstain.
        weights: (M,) in (0, 1], proportional to 1 / (probability of being reviewed).
        unknown: labels of images that the log does not hold.
    """

    ids: StrArray
    labels: IntArray
    probability: FloatArray
    codes: NDArray[np.int64]
    weights: FloatArray
    unknown: int = 0

    def __len__(self) -> int:
        return len(self.ids)


def join(columns: Columns, log: Log, where: str) -> Reviewed:
    """Labels (columns ``id`` or ``path``, ``label``, optionally ``weight``) of images in ``log``, in their given order.

    An image that was predicted more than once counts with its first prediction. A second label of an image is an error.
    Where log and labels both have the hash of the picture (``sha256``), it must agree: a client may have used the id of
    a request twice, and the label is about one of the two pictures.

    Raises:
        DataError: a column is missing or malformed, or an image has two labels; ``where`` and the row are named.
    """
    ids = columns.get("id", columns.get("path"))
    if ids is None or "label" not in columns:
        held = ", ".join(" ".join(name.split())[:40] for name in list(columns)[:8]) or "none"
        raise DataError(
            f"reviewed labels need the columns id (or path) and label, and these have {held}",
            where=where,
            fix="give the CSV file that the review page exports, or a table with these columns",
        )
    place: dict[str, int] = {}
    exact: dict[tuple[str, str], int] = {}
    hashes = None if log.sha256 is None or "sha256" not in columns else [str(h or "") for h in columns["sha256"]]
    for at, name in enumerate(log.ids.tolist()):
        place.setdefault(name, at)
        if hashes is not None and log.sha256 is not None:
            exact.setdefault((name, str(log.sha256[at])), at)
    weights: Any = columns.get("weight", [1.0] * len(ids))
    rows, labels, kept, unknown = [], [], [], 0
    seen: dict[str, int] = {}
    for number, (name, label, weight, sha) in enumerate(
        zip(map(str, ids), columns["label"], weights, hashes or [""] * len(ids), strict=True), 1
    ):
        if label is None or label == "":
            continue
        here = f"{where}, row {number} ({name[:80]})"
        text = str(int(label)) if isinstance(label, (int, float)) and label in (0, 1) else str(label).strip().lower()
        if text not in _LABELS:
            raise DataError(f"unknown label {str(label)[:40]!r}", where=here, fix="say 0 or 1")
        if name in seen:
            rows_of = f"{where}, rows {seen[name]} and {number}"
            raise DataError(f"the image {name[:80]!r} has two labels", where=rows_of, fix="keep one of them")
        seen[name] = number
        try:
            share = float(weight)
        except (TypeError, ValueError) as error:
            raise DataError(f"the weight {str(weight)[:40]!r} is no number", where=here, fix="say 1") from error
        if not 0 < share <= 1:
            raise DataError(
                f"weight {share:g} lies outside (0, 1]",
                where=here,
                fix="divide the smallest review probability in use by that of the image",
            )
        # Rows that were logged before the log held hashes have an empty one.
        at_log = exact.get((name, sha), exact.get((name, ""))) if sha else place.get(name)
        if at_log is None:
            unknown += 1
            continue
        rows.append(at_log)
        labels.append(_LABELS[text])
        kept.append(share)
    index = np.array(rows, dtype=np.int64)
    return Reviewed(
        ids=log.ids[index],
        labels=np.array(labels, dtype=np.int64),
        probability=log.probability[index],
        codes=log.codes[index],
        weights=np.array(kept, dtype=np.float64),
        unknown=unknown,
    )
