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
from workzone.training.weighted import WeightedSampler
from workzone.vision import Preprocessing, ViewSpec, open_views

Loader = Callable[[str], np.ndarray[Any, np.dtype[np.uint8]]]
_MEMORY = 2 << 30


class ImageViews(Dataset[tuple[Tensor, Tensor, int]]):
    """Views of each image, uint8, with label and index; kept in memory where they fit into ``memory`` bytes.

    An image is its whole view (S, S, 3), or (V, S, S, 3) where ``views`` asks for tiles.

    Args:
        data: images of one role, with paths.
        image_size: side S.
        load: reads the views of one image; None decodes the file as the bundle does.
        views: layout; None for the whole view alone.
    """

    def __init__(
        self,
        data: RoleData,
        image_size: int,
        *,
        load: Loader | None = None,
        memory: int = _MEMORY,
        views: ViewSpec | None = None,
    ) -> None:
        if data.paths is None:
            raise DataError(f"the images of role {data.role} have no paths", fix="open the role from a manifest")
        if not len(data):
            raise DataError(f"role {data.role} has no images", fix="give more data or other split shares")
        self._paths = [str(p) for p in data.paths.tolist()]
        self._labels = torch.from_numpy(data.labels.astype(np.float32))
        self._load = load or (global_view(image_size) if views is None else all_views(image_size, views))
        each = 1 if views is None else 1 + views.fixed_tiles
        self._kept: dict[int, Tensor] | None = {} if len(data) * each * image_size**2 * 3 <= memory else None

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
    read = all_views(image_size, ViewSpec(layout="global"))
    return lambda path: read(path)[0]


def all_views(image_size: int, views: ViewSpec) -> Loader:
    """Reader of the whole view and the tiles (V, S, S, 3); raises DataError naming a file that cannot be read."""
    pre = Preprocessing(image_size=image_size, views=views.model_copy(update={"scales": (1.0,), "flip": False}))

    def load(path: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
        try:
            pixels, _ = open_views(Path(path), pre)
        except ImageError as error:
            raise DataError(
                f"a training image cannot be read ({error.reason})", where=path, fix="prepare the data again without it"
            ) from error
        found: np.ndarray[Any, np.dtype[np.uint8]] = pixels
        return found

    return load


class SeededOrder(Sampler[int]):
    """Shuffles by (seed, epoch) alone, so that epoch 7 has one order whether or not the run was interrupted.

    Of several processes, ``rank`` takes every ``world``-th image: together a step shows what one process would show.
    The first images are repeated at the end where the number does not divide.
    """

    def __init__(self, length: int, seed: int, *, rank: int = 0, world: int = 1) -> None:
        self.length, self.seed, self.epoch, self.rank, self.world = length, seed, 0, rank, world

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of ``epoch``; the trainer calls it."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        return iter(np.resize(order, len(self) * self.world)[self.rank :: self.world].tolist())

    def __len__(self) -> int:
        return -(-self.length // self.world)


def make_loaders(
    train: Dataset[Any],
    select: Dataset[Any],
    *,
    batch_size: int,
    seed: int,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    draw: Tensor | None = None,
) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Loaders of both roles: the training one in seeded order and shared among processes, the other one whole.

    With rates ``draw`` (N,) an epoch is as long as without, and images are drawn by weight.
    """
    order: Sampler[int] = SeededOrder(len(train), seed, rank=rank, world=world)  # type: ignore[arg-type]
    if draw is not None:
        order = WeightedSampler(draw, rank=rank, world=world, seed=seed)
    shared: dict[str, Any] = {"batch_size": batch_size, "num_workers": workers, "persistent_workers": workers > 0}
    return DataLoader(train, sampler=order, **shared), DataLoader(select, shuffle=False, **shared)
