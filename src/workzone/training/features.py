"""Cached embeddings of one split role, as the heads train on them."""

from __future__ import annotations

from dataclasses import dataclass

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
    """

    embeddings: NDArray[np.float32]
    boxes: NDArray[np.float32]
    mask: NDArray[np.bool_]
    labels: NDArray[np.int64]
    role: Role

    def __post_init__(self) -> None:
        if self.embeddings.ndim != 3:
            raise ValueError("embeddings must have shape (B, V, D)")
        b, v, _ = self.embeddings.shape
        if self.boxes.shape != (b, v, 4) or self.mask.shape != (b, v) or self.labels.shape != (b,):
            raise ValueError(f"boxes, mask and labels do not fit {b} images with {v} views")
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
        return Features(self.embeddings[:, :stop], self.boxes[:, :stop], self.mask[:, :stop], self.labels, self.role)


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
