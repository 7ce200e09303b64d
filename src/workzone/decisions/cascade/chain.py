"""Several models in one cascade: what each of them looks at, and what a look costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from workzone.calibration.base import read_float
from workzone.errors import BundleError

MAX_MODELS = 8
_KEYS = ("views", "looks", "cost")


@dataclass(frozen=True, slots=True)
class Model:
    """One model of a cascade.

    Attributes:
        views: views that it cuts of an image.
        looks: views that it looks at, at most.
        cost: of one look, in any unit that is the same for all models of the cascade.
    """

    views: int
    looks: int
    cost: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return {key: getattr(self, key) for key in _KEYS}

    @classmethod
    def from_dict(cls, stored: object) -> Self:
        """Read what ``to_dict`` wrote; raises BundleError for missing, unknown or impossible values."""
        if not isinstance(stored, Mapping) or set(stored) != set(_KEYS):
            raise BundleError(f"a stored model of a cascade must hold exactly {', '.join(_KEYS)}")
        if any(type(stored[key]) is not int for key in ("views", "looks")):
            raise BundleError("stored views and looks of a model must be whole numbers")
        return cls(stored["views"], stored["looks"], read_float(stored, "cost", low=0.0, high=1e15))


def chain_problem(models: Sequence[Model], order: Sequence[int], stages: Sequence[int], most: int) -> str:
    """Why several models with these looks and stages are no cascade, empty where they are."""
    if not 2 <= len(models) <= MAX_MODELS:
        return f"a cascade of models has 2 to {MAX_MODELS} of them"
    end = 0
    for model in models:
        if not (1 <= model.looks <= model.views <= most) or not (0.0 < model.cost < math.inf):
            return "a model looks at none of its views, at more than it has, or at no cost"
        seen = order[end : end + model.looks]
        if len(set(seen)) != model.looks or seen[0] != 0 or not all(0 <= view < model.views for view in seen):
            return "the looks of a model are not different views that start with the whole picture"
        end += model.looks
        if end not in stages:
            return "a model does not end with a stage of its own"
    if end != len(order):
        return "the order of views is not that of the models"
    return "" if models[-1].looks == models[-1].views else "the last model does not look at all its views"
