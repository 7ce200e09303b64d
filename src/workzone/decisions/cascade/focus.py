"""Which finer tiles of a picture are worth a look, judged by the coarser views that were looked at before."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from workzone.predictions import FloatArray, IntArray


def overlaps(boxes: NDArray[np.floating], others: NDArray[np.floating]) -> FloatArray:
    """Area (K, L) that K ``boxes`` share with L ``others``, each x0 y0 x1 y1 as shares of the picture."""
    a, b = np.asarray(boxes, dtype=np.float64)[:, None], np.asarray(others, dtype=np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    return np.asarray(np.clip(sides, 0.0, None).prod(axis=-1))


def focus_order(
    boxes: NDArray[np.floating], looked: IntArray, view_log_odds: NDArray[np.floating], rest: IntArray
) -> IntArray:
    """Order (N, R) in which the views ``rest`` are worth a look in each of N images, the most suspicious place first.

    A view counts as suspicious as the looked-at views over it, weighted by the area they share; views that show more
    than half of the picture say nothing of places. Of equal views the one with the lower number comes first.

    Args:
        boxes: (V, 4) of all views, the same in every image.
        looked: (F,) numbers of the views that were looked at.
        view_log_odds: (N, F) what the head says of each of them.
        rest: (R,) numbers of the other views.
    """
    boxes, rest = np.asarray(boxes), np.asarray(rest, dtype=np.int64)
    shown = boxes[looked]
    local = (shown[:, 2:] - shown[:, :2]).prod(axis=1) <= 0.5
    shared = overlaps(boxes[rest], shown) * local
    total = shared.sum(axis=1)
    weight = np.divide(shared, total[:, None], out=np.zeros_like(shared), where=total[:, None] > 0)
    interest = np.asarray(view_log_odds, dtype=np.float64) @ weight.T
    interest[:, total == 0] = -np.inf
    return np.asarray(rest[np.argsort(-interest, axis=1, kind="stable")])
