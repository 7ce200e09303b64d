"""Cached embeddings of one split role, as the heads train on them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workzone.data.roles import Role
from workzone.errors import DataError, LeakageError


@dataclass(frozen=True, slots=True)
class Features:
    """Embeddings of the views of B images of one role.

    Attributes:
        embeddings: (B, V, D) float32, anything where there is no view.
        boxes: (B, V, 4) float32, x0 y0 x1 y1 as shares of the image.
        mask: (B, V) bool, True where a view exists; the first view is the global one and always exists.
        labels: (B,) 0 or 1.
        role: the split role the images belong to.
        weights: (B,) weight of each image in the loss, None for 1.
        instances: (B, V) label of single views where one was guessed, NaN where none was; None for no guesses.
        groups: (B,) code of the group of each image, None where it is not known.
        draw: (B,) rate at which each image is drawn in training, None for each once an epoch.
        sets: (B,) code of the data set of each image, for adaptive mixtures and domain-adversarial training.
    """

    embeddings: NDArray[np.float32]
    boxes: NDArray[np.float32]
    mask: NDArray[np.bool_]
    labels: NDArray[np.int64]
    role: Role
    weights: NDArray[np.float32] | None = None
    instances: NDArray[np.float32] | None = None
    groups: NDArray[np.int64] | None = None
    draw: NDArray[np.float64] | None = None
    sets: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if self.embeddings.ndim != 3:
            raise ValueError("embeddings must have shape (B, V, D)")
        b, v, _ = self.embeddings.shape
        if self.boxes.shape != (b, v, 4) or self.mask.shape != (b, v) or self.labels.shape != (b,):
            raise ValueError(f"boxes, mask and labels do not fit {b} images with {v} views")
        if self.weights is not None and self.weights.shape != (b,):
            raise ValueError(f"weights do not fit {b} images")
        if self.groups is not None and self.groups.shape != (b,):
            raise ValueError(f"groups do not fit {b} images")
        for part in (self.draw, self.sets):
            if part is not None and part.shape != (b,):
                raise ValueError(f"rates of drawing and data sets do not fit {b} images")
        if self.instances is not None and self.instances.shape != (b, v):
            raise ValueError(f"labels of views do not fit {b} images with {v} views")
        if not b:
            raise DataError(f"role {self.role} has no images", fix="give more data or other split shares")
        if not self.mask[:, 0].all():
            raise ValueError("the first view of every image must exist")
        if not np.isfinite(self.embeddings[self.mask]).all():
            raise DataError("an embedding holds a value that is not finite", where=f"role {self.role}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def dim(self) -> int:
        """Width D of an embedding."""
        return int(self.embeddings.shape[2])

    @property
    def prevalence(self) -> float:
        """Share of roadwork images."""
        return float(self.labels.mean())

    def views(self, stop: int) -> Features:
        """The first ``stop`` views of each image."""
        return replace(
            self,
            embeddings=self.embeddings[:, :stop],
            boxes=self.boxes[:, :stop],
            mask=self.mask[:, :stop],
            instances=None if self.instances is None else self.instances[:, :stop],
        )

    def with_hard_negatives(self, column: NDArray[Any] | None, weight: float) -> Features:
        """These images with ``weight`` on the negatives that ``column`` (B,) marks by 1, true or yes.

        Raises:
            DataError: no column, or a value that is neither a yes, a no nor empty.
        """
        if column is None:
            raise DataError(
                "the training images have no column hard_negative",
                where="fuse.hard_negative_weight",
                fix="add the column to the table, or leave the weight at 1",
            )
        said = np.array([_YES_NO.get(_plain(value)) for value in column.tolist()], dtype=object)
        unknown = [value for value, known in zip(column.tolist(), said.tolist(), strict=True) if known is None]
        if unknown:
            raise DataError(
                f"the column hard_negative holds {unknown[0]!r}",
                where=f"role {self.role}, {len(unknown)} images",
                fix="write 1 or 0, true or false, yes or no, or leave it empty",
            )
        marked = said.astype(bool) & (self.labels == 0)
        return replace(self, weights=np.where(marked, weight, 1.0).astype(np.float32))


_YES_NO = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False, "": False, "nan": False}


def _plain(value: object) -> str:
    text = "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return text.strip().lower()


def require_roles(train: Features, select: Features, *, user: str) -> None:
    """Raise LeakageError unless ``train`` and ``select`` have the roles of these names, DataError for one class."""
    for data, role in ((train, Role.TRAIN), (select, Role.VAL_SELECT)):
        if data.role is not role:
            raise LeakageError(
                f"{user} was handed images of role {data.role} in place of {role}",
                fix=f"pass the images of role {role}",
            )
    if len(np.unique(train.labels)) < 2:
        raise DataError(
            "the training images have one class only", where=f"role {train.role}", fix="add the other class"
        )
    if train.embeddings.shape[2] != select.embeddings.shape[2]:
        raise ValueError("training and selection embeddings differ in width")
