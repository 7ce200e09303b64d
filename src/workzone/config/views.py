"""Which views of a picture are scored: shared by the configuration, the training data and the bundle."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)


class ViewSpec(BaseModel):
    """The views of one picture, in this order: global, other scales, tiles row by row, then mirrors of all of them.

    Tiles of the pyramid follow those of the first grid, grid by grid.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layout: Literal["global", "grid", "adaptive"] = Field(
        default="grid", description="global view only, a fixed grid of tiles, or a grid chosen from the shape"
    )
    rows: int = Field(default=3, ge=1, le=8, description="tiles from top to bottom (layout grid)")
    cols: int = Field(default=3, ge=1, le=8, description="tiles from left to right (layout grid)")
    pyramid: Annotated[tuple[tuple[int, int], ...], Field(max_length=4)] | None = Field(
        default=None,
        description="further grids, rows and columns of each, such as [[4,4],[5,5]]; [] for none; in a run, unless it "
        "is said, [[5,5]] beside 3 x 3 and none beside other grids",
    )
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

    @field_validator("pyramid")
    @classmethod
    def _sensible_grids(cls, pyramid: tuple[tuple[int, int], ...] | None) -> tuple[tuple[int, int], ...] | None:
        if not all(1 <= side <= 8 for grid in pyramid or () for side in grid):
            raise ValueError("a grid of the pyramid has 1 to 8 rows and 1 to 8 columns")
        return pyramid

    @model_validator(mode="after")
    def _pyramid_stands_on_a_grid(self) -> ViewSpec:
        if self.pyramid and self.layout != "grid":
            raise ValueError(f"a pyramid adds grids to layout=grid, and layout={self.layout} has none")
        if len(set(self.grids)) != len(self.grids):
            raise ValueError("the grids of a pyramid must differ from each other and from rows x cols")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        if self.pyramid is None:
            content.pop("pyramid", None)
        return content

    @model_validator(mode="after")
    def _ordered_bounds(self) -> ViewSpec:
        if self.min_tiles > self.max_tiles:
            raise ValueError("min_tiles must not exceed max_tiles")
        return self

    @property
    def grids(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of every grid of layout grid, in order; none in layouts whose tiles are not fixed."""
        return ((self.rows, self.cols), *(self.pyramid or ())) if self.layout == "grid" else ()

    @property
    def fixed_tiles(self) -> int:
        """Tiles of every picture in layout grid; 0 in layouts without tiles, or with as many as the shape asks for."""
        return sum(rows * cols for rows, cols in self.grids)
