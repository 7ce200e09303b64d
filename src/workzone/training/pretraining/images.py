"""Decoded images at a reduced size, kept on disk, and random crops of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from workzone.errors import DataError, ImageError
from workzone.files import atomic_path, sha256_json
from workzone.vision import Preprocessing, ViewSpec
from workzone.vision.batch import load_views
from workzone.vision.decode import MAX_PIXELS

Pixels = NDArray[np.uint8]
_COLOUR = 0.25
_GREY = 0.1
_ASPECT = 4 / 3


@dataclass(frozen=True, slots=True)
class StoredImages:
    """N images as (N, C, C, 3) uint8, mapped from a file.

    Attributes:
        pixels: the images, squeezed to squares as the global view of a bundle is.
        sha256: SHA-256 of each file.
    """

    pixels: Pixels
    sha256: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, rows: Sequence[int] | NDArray[np.integer]) -> Tensor:
        """Images (B, 3, C, C) float32 in [0, 1]."""
        chosen = np.ascontiguousarray(self.pixels[np.asarray(rows)])
        return torch.from_numpy(chosen).permute(0, 3, 1, 2).float().mul_(1.0 / 255.0)


def store_images(
    paths: Sequence[str],
    sha256s: Sequence[str],
    side: int,
    folder: Path,
    *,
    workers: int = 1,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[int, int], None] | None = None,
) -> StoredImages:
    """Decode ``paths`` to squares of ``side`` pixels, or take what an earlier call left in ``folder``.

    Raises:
        DataError: an image cannot be read.
    """
    key = sha256_json({"side": side, "images": list(sha256s), "version": 1})
    target = folder / "pixels" / f"{key[:32]}.npy"
    shape = (len(paths), side, side, 3)
    found = _open(target, shape)
    if found is None:
        pre = Preprocessing(image_size=side, views=ViewSpec(layout="global"))

        def refuse(index: int, error: ImageError) -> None:
            raise DataError(
                f"an image cannot be read ({error.reason})", where=paths[index], fix="prepare the data again without it"
            ) from error

        with atomic_path(target) as partial:
            out: Any = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
            views = load_views(
                [Path(p) for p in paths], pre, workers=max(1, workers), on_error=refuse, max_pixels=max_pixels
            )
            for index, pixels, _ in views:
                out[index] = pixels[0]
                if progress is not None:
                    progress(index + 1, len(paths))
            out.flush()
            del out
        found = _open(target, shape)
        assert found is not None
    return StoredImages(found, tuple(sha256s))


def _open(target: Path, shape: tuple[int, ...]) -> Pixels | None:
    found = mapped(target)
    return found if found is not None and found.shape == shape and found.dtype == np.uint8 else None


def mapped(file: Path) -> Any:
    """The array in an .npy file, read as it is used; None where there is none or it is damaged, to be made again."""
    if not file.is_file():
        return None
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None


def draw_boxes(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Random crops (n, 4) as centre and half extent in [-1, 1], showing ``low`` to ``high`` of the area."""
    area = torch.rand(n, generator=generator) * (high - low) + low
    log_ratio = (torch.rand(n, generator=generator) * 2 - 1) * float(np.log(_ASPECT)) * 0.5
    width = (area.sqrt() * log_ratio.exp()).clamp(max=1.0)
    height = (area / width).clamp(max=1.0)
    half = torch.stack([width, height], dim=1)
    centre = (torch.rand(n, 2, generator=generator) * 2 - 1) * (1 - half)
    return torch.cat([centre, half], dim=1)


def cut(images: Tensor, boxes: Tensor, side: int, mirror: Tensor | None = None) -> Tensor:
    """Crops (N, 3, side, side) of ``images`` (N, 3, C, C) at ``boxes`` (N, 4); never turned upside down."""
    theta = torch.zeros(len(images), 2, 3, dtype=images.dtype, device=images.device)
    boxes = boxes.to(images)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = boxes[:, 2], boxes[:, 3], boxes[:, :2]
    if mirror is not None:
        theta[:, 0, 0] *= torch.where(mirror.to(images.device), -1.0, 1.0)
    grid = F.affine_grid(theta, [len(images), 3, side, side], align_corners=False)
    # Shrinking by more than two would skip pixels.
    while images.shape[-1] * float(boxes[:, 2:].min()) > 2 * side:
        images = F.avg_pool2d(images, 2)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def jitter(images: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness, contrast and saturation moved by up to a quarter, one image in ten made grey; hues stay."""
    n = len(images)
    draws = (1.0 + _COLOUR * (2 * torch.rand(3, n, 1, 1, 1, generator=generator) - 1)).to(images)
    grey = (torch.rand(n, 1, 1, 1, generator=generator) < _GREY).to(images.device)
    weights = torch.tensor((0.299, 0.587, 0.114), device=images.device).view(1, 3, 1, 1)
    luma = (images * weights).sum(dim=1, keepdim=True)
    out = luma + (images - luma) * torch.where(grey, torch.zeros_like(draws[0]), draws[0])
    mean = out.mean(dim=(1, 2, 3), keepdim=True)
    return (((out - mean) * draws[1] + mean) * draws[2]).clamp(0.0, 1.0)
