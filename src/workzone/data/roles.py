"""Split roles as types: a phase is handed only the types it declared, and a calibrator takes ``CalibData`` alone.

The four roles have no common constructor that a caller could use to relabel data: ``open_role`` makes the object of the
role it was asked for, and the ``fit`` methods downstream check the type at run time as mypy does before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from workzone.data.allocate import first_part
from workzone.errors import DataError, LeakageError
from workzone.files import sha256_json
from workzone.predictions import FloatArray, IntArray, Predictions, StrArray


class Role(StrEnum):
    """The four split roles."""

    TRAIN = "train"
    VAL_SELECT = "val_select"
    VAL_CALIB = "val_calib"
    VAL_TEST = "val_test"


@dataclass(frozen=True, slots=True)
class RoleData:
    """Images of one split role.

    Attributes:
        ids: (N,) image ids.
        labels: (N,) 0 or 1.
        groups: (N,) group of each image; images of one group are not independent.
        paths: (N,) image files, or None when only scores are used.
        log_odds: (N,) scores of one engine, or None before scoring.
        columns: further metadata columns of length N.
    """

    role: ClassVar[Role]

    ids: StrArray
    labels: IntArray
    groups: StrArray
    paths: StrArray | None = None
    log_odds: FloatArray | None = None
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.ids) or len(self.groups) != len(self.ids):
            raise ValueError("ids, labels and groups must have one length")
        if len(self.labels) and not np.isin(self.labels, (0, 1)).all():
            raise DataError("labels must be 0 (no_roadwork) or 1 (roadwork)", where=f"role {self.role}")
        if self.log_odds is not None and self.log_odds.shape != (len(self.ids),):
            raise ValueError(f"log_odds must have shape ({len(self.ids)},)")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_positive(self) -> int:
        """Number of roadwork images."""
        return int(self.labels.sum())

    @property
    def fingerprint(self) -> str:
        """Hash of which images these are and how they are labelled, whatever their order."""
        return sha256_json(sorted(zip(self.ids.tolist(), self.labels.tolist(), strict=True)))

    @property
    def scores(self) -> FloatArray:
        """(N,) log-odds; raises DataError when the images have not been scored."""
        if self.log_odds is None:
            raise DataError(f"the images of role {self.role} have no scores yet", fix="attach them with with_scores()")
        return self.log_odds

    def take(self, index: NDArray[Any]) -> Self:
        """Rows ``index`` (integers or a boolean mask)."""
        return replace(
            self,
            ids=self.ids[index],
            labels=self.labels[index],
            groups=self.groups[index],
            paths=None if self.paths is None else self.paths[index],
            log_odds=None if self.log_odds is None else self.log_odds[index],
            columns={name: column[index] for name, column in self.columns.items()},
        )

    def with_scores(self, predictions: Predictions) -> Self:
        """Attach the scores of ``predictions`` by id.

        Raises:
            DataError: an image of this role was not scored.
        """
        row = {image_id: i for i, image_id in enumerate(predictions.ids.tolist())}
        missing = [image_id for image_id in self.ids.tolist() if image_id not in row]
        if missing:
            raise DataError(f"{len(missing)} images of role {self.role} were not scored", where=f"id {missing[0]!r}")
        order = np.array([row[image_id] for image_id in self.ids.tolist()], dtype=np.int64)
        return replace(self, log_odds=predictions.log_odds[order])

    @classmethod
    def from_arrays(cls, labels: Any, log_odds: Any, *, groups: Any = None, ids: Any = None) -> Self:
        """Wrap the scores of a model trained elsewhere; the caller vouches that the images had this role."""
        y = np.asarray(labels, dtype=np.int64)
        names = np.array([f"{i:08d}" for i in range(len(y))]) if ids is None else np.asarray(ids, dtype=np.str_)
        return cls(
            ids=names,
            labels=y,
            groups=names if groups is None else np.asarray(groups, dtype=np.str_),
            log_odds=np.asarray(log_odds, dtype=np.float64),
        )


@dataclass(frozen=True, slots=True)
class TrainData(RoleData):
    """For augmentation search, pretraining, training and fusion."""

    role: ClassVar[Role] = Role.TRAIN


@dataclass(frozen=True, slots=True)
class SelectData(RoleData):
    """For early stopping and model selection only."""

    role: ClassVar[Role] = Role.VAL_SELECT


@dataclass(frozen=True, slots=True)
class CalibData(RoleData):
    """For calibrators, policies and gates only."""

    role: ClassVar[Role] = Role.VAL_CALIB

    def disjoint_parts(self, fraction: float, *, seed: int) -> tuple[CalibData, CalibData]:
        """Split by group into a part for the calibrator (about ``fraction``) and a part for the certificate.

        Groups never straddle the parts; each part gets its share of images and of groups of both
        classes as nearly as whole groups allow.
        """
        if not 0.0 < fraction < 1.0:
            raise ValueError("fraction must lie strictly between 0 and 1")
        mask = first_part(self.labels, self.groups, fraction, seed=seed)
        return self.take(mask), self.take(~mask)


@dataclass(frozen=True, slots=True)
class TestData(RoleData):
    """For the final evaluation only."""

    __test__ = False  # pytest would collect a class of this name
    role: ClassVar[Role] = Role.VAL_TEST


ROLE_TYPES: Mapping[Role, type[RoleData]] = {
    cls.role: cls for cls in (TrainData, SelectData, CalibData, TestData)
}


def require_calib(data: object, *, user: str) -> CalibData:
    """Return ``data`` if it is ``CalibData``; raise LeakageError naming ``user`` otherwise."""
    if not isinstance(data, CalibData):
        got = f"role {data.role}" if isinstance(data, RoleData) else type(data).__name__
        raise LeakageError(
            f"{user} was given {got}, but may be fitted on role {Role.VAL_CALIB} only",
            fix="pass the CalibData of the run, or CalibData.from_arrays for scores made elsewhere",
        )
    return data
