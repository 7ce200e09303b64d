"""The preprocessing contract that a bundle carries; normalisation of pixels is part of the exported network."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from workzone.config.views import ViewSpec


class Preprocessing(BaseModel):
    """How a picture becomes network input; stored as JSON in the bundle and obeyed by training and runtime alike."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    image_size: int = Field(default=224, ge=16, le=1024, description="side of a square view in pixels")
    interpolation: Literal["bilinear", "bicubic"] = Field(
        default="bicubic", description="antialiased resampling filter"
    )
    views: ViewSpec = Field(default=ViewSpec(), description="which parts of the picture are looked at")

