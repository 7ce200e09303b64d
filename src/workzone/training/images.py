"""Views of one split role as tensors, and an order of them that a resumed run repeats."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from workzone.data.roles import RoleData
from workzone.errors import DataError, ImageError
from workzone.vision import Preprocessing, ViewSpec, open_views

Loader = Callable[[str], np.ndarray[Any, np.dtype[np.uint8]]]
_MEMORY = 2 << 30


class ImageViews(Dataset[tuple[Tensor, Tensor, int]]):
    """Global views (S, S, 3) uint8 with label and index; kept in memory where they fit into ``memory`` bytes.

    Args:
        data: images of one role, with paths.
        image_size: side S.
        load: reads one view; None decodes the file as the bundle does.
    """

    def __init__(self, data: RoleData, image_size: int, *, load: Loader | None = None, memory: int = _MEMORY) -> None:
        if data.paths is None:
            raise DataError(f"the images of role {data.role} have no paths", fix="open the role from a manifest")
        if not len(data):
            raise DataError(f"role {data.role} has no images", fix="give more data or other split shares")
        self._paths = [str(p) for p in data.paths.tolist()]
        self._labels = torch.from_numpy(data.labels.astype(np.float32))
        self._load = load or global_view(image_size)
        self._kept: dict[int, Tensor] | None = {} if len(data) * image_size**2 * 3 <= memory else None

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        if self._kept is not None and index in self._kept:
            return self._kept[index], self._labels[index], index
        view = torch.from_numpy(np.ascontiguousarray(self._load(self._paths[index])))
        if self._kept is not None:
            self._kept[index] = view
        return view, self._labels[index], index


def global_view(image_size: int) -> Loader:
    """Reader of the global view (S, S, 3) of an image file; raises DataError naming a file that cannot be read."""
    pre = Preprocessing(image_size=image_size, views=ViewSpec(layout="global"))

    def load(path: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
        try:
            pixels, _ = open_views(Path(path), pre)
        except ImageError as error:
            raise DataError(
                f"a training image cannot be read ({error.reason})", where=path, fix="prepare the data again without it"
            ) from error
        view: np.ndarray[Any, np.dtype[np.uint8]] = pixels[0]
        return view

    return load


class SeededOrder(Sampler[int]):
    """Shuffles by (seed, epoch) alone, so that epoch 7 has one order whether or not the run was interrupted."""

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed, self.epoch = length, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of ``epoch``; the trainer calls it."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        return iter(order.tolist())

    def __len__(self) -> int:
        return self.length


def make_loaders(
    train: Dataset[Any], select: Dataset[Any], *, batch_size: int, seed: int, workers: int = 0
) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Loaders of both roles; the training one in seeded order."""
    order = SeededOrder(len(train), seed)  # type: ignore[arg-type]
    shared: dict[str, Any] = {"batch_size": batch_size, "num_workers": workers, "persistent_workers": workers > 0}
    return DataLoader(train, sampler=order, **shared), DataLoader(select, shuffle=False, **shared)
