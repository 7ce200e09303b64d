"""Tokens of a frozen teacher on fixed views, kept on disk so that an epoch costs the student only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from workzone.files import atomic_path, sha256_json
from workzone.models.backbones import Backbone
from workzone.training.pretraining.images import StoredImages, cut, draw_boxes, mapped

SHARD_IMAGES = 64
_SMALLEST_SHARE = 0.3
Half = NDArray[np.float16]


def tokens(backbone: Backbone, images: Tensor) -> tuple[Tensor, Tensor]:
    """Class token (N, D) and patch tokens (N, h, w, D) of normalised images; a convolution gives means."""
    network = cast(Any, backbone.network)
    found = network.forward_features(images)
    if backbone.spec.family == "conv":
        return found.mean(dim=(2, 3)), found.permute(0, 2, 3, 1)
    prefix = int(getattr(network, "num_prefix_tokens", 0))
    rows, cols = (side // backbone.patch for side in images.shape[-2:])
    patches = found[:, prefix:].unflatten(1, (rows, cols))
    return (found[:, 0] if backbone.pooling in ("cls", "cls_avg") else patches.mean(dim=(1, 2))), patches


def regrid(patches: Tensor, side: int) -> Tensor:
    """Patch tokens (N, side, side, D) as means over cells of (N, h, w, D)."""
    if patches.shape[1:3] == (side, side):
        return patches
    return F.adaptive_avg_pool2d(patches.permute(0, 3, 1, 2), side).permute(0, 2, 3, 1)


def fixed_boxes(images: int, views: int, seed: int) -> Tensor:
    """Crops (images, views, 4) that never change; the first shows the whole image."""
    generator = torch.Generator().manual_seed(seed + 17)
    boxes = draw_boxes(images * views, _SMALLEST_SHARE, 1.0, generator).view(images, views, 4)
    boxes[:, 0] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    return boxes


@dataclass(frozen=True, slots=True)
class TeacherFeatures:
    """Tokens of V views of N images.

    Attributes:
        shards: arrays (64 V, 1 + grid * grid, D) float16, the class token first, mapped from files.
        views: V.
        grid: patch tokens along a side.
        boxes: (N, V, 4) crops that the teacher saw.
    """

    shards: tuple[Half, ...]
    views: int
    grid: int
    boxes: Tensor

    @property
    def width(self) -> int:
        """D."""
        return int(self.shards[0].shape[2])

    def batch(self, rows: Sequence[int], views: Sequence[int]) -> Tensor:
        """Tokens (B, 1 + grid * grid, D) float32 of one view of each image."""
        found = []
        for row, view in zip(rows, views, strict=True):
            shard, inside = divmod(row, SHARD_IMAGES)
            found.append(np.asarray(self.shards[shard][inside * self.views + view], dtype=np.float32))
        return torch.from_numpy(np.stack(found))

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean (2, D) and mean variance (2,) of the class token and of the patch tokens over images.

        A constant answer, the mean, has the variance as its error.
        """
        some = np.concatenate([np.asarray(s, dtype=np.float32) for s in self.shards[:8]])
        kinds = [torch.from_numpy(part.reshape(-1, self.width)) for part in (some[:, 0], some[:, 1:])]
        means = torch.stack([k.mean(dim=0) for k in kinds])
        return means, torch.stack([k.var(dim=0, correction=0).mean() for k in kinds])


def teacher_features(
    teacher: Backbone,
    images: StoredImages,
    *,
    side: int,
    grid: int,
    views: int,
    seed: int,
    folder: Path,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> TeacherFeatures:
    """Tokens of ``teacher`` on fixed views of ``images``; shards that an earlier call left in ``folder`` are kept.

    Args:
        teacher: made for views of ``side`` pixels.
        images: what it looks at.
        side: side of its views.
        grid: patch tokens along a side after averaging.
        views: fixed crops of each image.
        seed: of the crops.
        folder: cache folder.
        device: where the teacher runs.
        progress: called with (images done, images in all).
    """
    boxes = fixed_boxes(len(images), views, seed)
    key = sha256_json(
        {
            "teacher": teacher.fingerprint(),
            "images": list(images.sha256),
            "stored": list(images.pixels.shape),
            "side": side,
            "grid": grid,
            "views": views,
            "seed": seed if views > 1 else None,
            "version": 1,
        }
    )
    place = folder / "teacher" / key[:32]
    teacher = teacher.to(device).eval()
    shards: list[Half] = []
    for start in range(0, len(images), SHARD_IMAGES):
        rows = np.arange(start, min(start + SHARD_IMAGES, len(images)))
        file = place / f"{start // SHARD_IMAGES:06d}.npy"
        found = _open(file, len(rows) * views, 1 + grid * grid)
        if found is None:
            with atomic_path(file) as partial, partial.open("wb") as stream:
                np.save(stream, _look(teacher, images, rows, boxes[rows], side, grid, device), allow_pickle=False)
            found = _open(file, len(rows) * views, 1 + grid * grid)
            assert found is not None
        shards.append(found)
        if progress is not None:
            progress(int(rows[-1]) + 1, len(images))
    return TeacherFeatures(tuple(shards), views, grid, boxes)


@torch.inference_mode()
def _look(
    teacher: Backbone, images: StoredImages, rows: NDArray[np.int64], boxes: Tensor, side: int, grid: int, device: str
) -> Half:
    found = []
    for part in np.array_split(np.arange(len(rows)), max(1, len(rows) // 16)):
        whole = images.batch(rows[part]).to(device)
        seen = [cut(whole, boxes[part][:, v], side) for v in range(boxes.shape[1])]
        pixels = torch.stack(seen, dim=1).flatten(0, 1)
        token, patches = tokens(teacher, teacher.normalise(pixels))
        together = torch.cat([token.unsqueeze(1), regrid(patches, grid).flatten(1, 2)], dim=1)
        found.append(together.float().cpu().numpy().astype(np.float16))
    return np.concatenate(found)


def _open(file: Path, rows: int, length: int) -> Half | None:
    found = mapped(file)
    fits = found is not None and found.ndim == 3 and found.dtype == np.float16 and found.shape[:2] == (rows, length)
    return found if fits else None
