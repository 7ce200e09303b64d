"""Which views of a picture are scored: shared by the configuration, the training data and the bundle."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class ViewSpec(BaseModel):
    """The views of one picture, in this order: global, other scales, tiles row by row, then mirrors of all of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layout: Literal["global", "grid", "adaptive"] = Field(
        default="grid", description="global view only, a fixed grid of tiles, or a grid chosen from the shape"
    )
    rows: int = Field(default=3, ge=1, le=8, description="tiles from top to bottom (layout grid)")
    cols: int = Field(default=3, ge=1, le=8, description="tiles from left to right (layout grid)")
    overlap: float = Field(default=0.125, ge=0, le=0.5, description="part of a tile that its neighbour shows too")
    flip: bool = Field(default=False, description="add the left-right mirror of each view")
    scales: tuple[float, ...] = Field(
        default=(1.0,), description="global views; above 1 zooms in on the centre, below 1 adds a mirrored border"
    )
    min_tiles: int = Field(default=4, ge=1, le=64, description="fewest tiles (layout adaptive)")
    max_tiles: int = Field(default=16, ge=1, le=64, description="most tiles (layout adaptive)")

    @field_validator("scales")
    @classmethod
    def _sensible_scales(cls, scales: tuple[float, ...]) -> tuple[float, ...]:
        if 1.0 not in scales:
            raise ValueError("scales must contain 1.0, the whole picture")
        if len(set(scales)) != len(scales) or not all(0.5 <= scale <= 2 for scale in scales):
            raise ValueError("scales must be different numbers from 0.5 to 2")
        return scales

    @model_validator(mode="after")
    def _ordered_bounds(self) -> ViewSpec:
        if self.min_tiles > self.max_tiles:
            raise ValueError("min_tiles must not exceed max_tiles")
        return self

    @property
    def fixed_tiles(self) -> int:
        """Tiles of every picture in layout grid; 0 in layouts without tiles, or with as many as the shape asks for."""
        return self.rows * self.cols if self.layout == "grid" else 0
