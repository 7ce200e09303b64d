"""Safe decoding, the preprocessing contract and view geometry: the same code in training and at runtime."""

from __future__ import annotations

from workzone.config.views import ViewSpec
from workzone.vision.batch import load_views, open_views
from workzone.vision.decode import decode
from workzone.vision.draw import draw_views
from workzone.vision.preprocess import Preprocessing
from workzone.vision.reasons import Reason
from workzone.vision.views import boxes, count, make_views, needed_side

__all__ = [
    "Preprocessing",
    "Reason",
    "ViewSpec",
    "boxes",
    "count",
    "decode",
    "draw_views",
    "load_views",
    "make_views",
    "needed_side",
    "open_views",
]
