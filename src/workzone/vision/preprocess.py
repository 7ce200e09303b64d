"""The preprocessing contract that a bundle carries, and its last step from bytes to network input."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from workzone.vision.views import ViewSpec

Triple = tuple[float, float, float]


class Preprocessing(BaseModel):
    """How a picture becomes network input; stored as JSON in the bundle and obeyed by training and runtime alike."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    image_size: int = Field(default=224, ge=16, le=1024, description="side of a square view in pixels")
    mean: Triple = Field(
        default=(0.485, 0.456, 0.406), description="mean per channel (RGB, 0 to 1); ImageNet by default"
    )
    std: Triple = Field(default=(0.229, 0.224, 0.225), description="standard deviation per channel (RGB, 0 to 1)")
    interpolation: Literal["bilinear", "bicubic"] = Field(
        default="bicubic", description="antialiased resampling filter"
    )
    views: ViewSpec = Field(default=ViewSpec(), description="which parts of the picture are looked at")

    @field_validator("std")
    @classmethod
    def _positive(cls, std: Triple) -> Triple:
        if min(std) < 1e-3:
            raise ValueError("each std must be at least 0.001")
        return std


def to_pixels(views: NDArray[np.uint8], pre: Preprocessing) -> NDArray[np.float32]:
    """Normalise views: ``(x / 255 - mean) / std`` as one float32 multiplication and one subtraction per value.

    Args:
        views: uint8 (V, S, S, 3), or with further leading axes.
        pre: gives mean and std.

    Returns:
        float32 (V, 3, S, S), C-contiguous.

    Raises:
        ValueError: wrong type or shape.
    """
    if views.dtype != np.uint8 or views.ndim < 3 or views.shape[-1] != 3:
        raise ValueError(f"views must be uint8 (..., S, S, 3), not {views.dtype} {views.shape}")
    mean, std = np.array(pre.mean, dtype=np.float64), np.array(pre.std, dtype=np.float64)
    channels_first = np.moveaxis(views, -1, -3)
    pixels = np.empty(channels_first.shape, dtype=np.float32)
    pixels[...] = channels_first
    pixels *= (1 / (255 * std)).astype(np.float32)[:, None, None]
    pixels -= (mean / std).astype(np.float32)[:, None, None]
    return pixels
