"""The preprocessing contract that a bundle carries; normalisation of pixels is part of the exported network."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
)

from workzone.config.views import ViewSpec


class Preprocessing(BaseModel):
    """How a picture becomes network input; stored as JSON in the bundle and obeyed by training and runtime alike."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    image_size: int = Field(default=224, ge=16, le=1024, description="side of a square view in pixels, or its height")
    image_width: int = Field(default=0, ge=0, le=2048, description="width of a view that is not square, 0 for square")
    interpolation: Literal["bilinear", "bicubic"] = Field(
        default="bicubic", description="antialiased resampling filter"
    )
    views: ViewSpec = Field(default=ViewSpec(), description="which parts of the picture are looked at")

    @field_validator("image_width")
    @classmethod
    def _square_has_one_name(cls, width: int, info: ValidationInfo) -> int:
        return 0 if width == info.data.get("image_size") else width

    @field_validator("views")
    @classmethod
    def _no_pyramid_has_one_name(cls, views: ViewSpec) -> ViewSpec:
        return views if views.pyramid else views.model_copy(update={"pyramid": None})

    @property
    def width(self) -> int:
        """Width of a view in pixels."""
        return self.image_width or self.image_size

    @model_serializer(mode="wrap")
    def _without_what_is_not_said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Certificates name preprocessing by its hash: that of square views, and of views without a pyramid, stays what
        # it was without these fields.
        content: dict[str, Any] = handler(self)
        if not self.image_width:
            content.pop("image_width", None)
        return content
