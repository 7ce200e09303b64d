"""Labels of single views, guessed from a trained head: weak localisation by rounds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from workzone.errors import ConfigError
from workzone.training.features import Features


def guess_instances(data: Features, view_log_odds: NDArray[np.float64]) -> NDArray[np.float32]:
    """Labels (B, V) of the tiles of ``data``: 1, 0, or NaN for do not know.

    No tile of a negative image shows roadwork. Of a positive image, the tile with the highest score does if that score
    is above 0 and above 95 % of the highest scores of the negative images; nothing is said of its other tiles, nor of
    the global view, whose label is the image's.

    Args:
        data: images with labels.
        view_log_odds: (B, V) scores of the views by the head of the round before.

    Raises:
        ConfigError: no image has a tile.

    Reference: the maximal instance of a positive bag as its label, Andrews, Tsochantaridis, Hofmann 2002 (NIPS 15).
    """
    if view_log_odds.shape != data.mask.shape:
        raise ValueError("scores and views differ in shape")
    tiles = data.mask.copy()
    tiles[:, 0] = False
    if not tiles.any():
        raise ConfigError(
            "the images have no tiles to label", where="fuse.refine_rounds", fix="take views.layout=grid or 0 rounds"
        )
    scores = np.where(tiles, view_log_odds, -np.inf)
    best = scores.argmax(axis=1)
    top = scores[np.arange(len(scores)), best]
    negative = (data.labels == 0) & tiles.any(axis=1)
    limit = max(0.0, float(np.quantile(top[negative], 0.95))) if negative.any() else 0.0
    out = np.full(data.mask.shape, np.nan, dtype=np.float32)
    out[tiles & (data.labels == 0)[:, None]] = 0.0
    sure = (data.labels == 1) & (top > limit)
    out[np.flatnonzero(sure), best[sure]] = 1.0
    return out
