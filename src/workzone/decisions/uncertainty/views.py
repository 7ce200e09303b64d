"""Uncertainty of an image from how its views agree."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from workzone.decisions.uncertainty import names
from workzone.decisions.uncertainty.entropy import binary_entropy
from workzone.predictions import FloatArray, sigmoid

_P = 3.0
_BLOCK = 256


def from_views(
    probability: FloatArray,
    view_log_odds: FloatArray,
    view_embeddings: NDArray[Any] | None = None,
    *,
    p_norm: float = _P,
) -> dict[str, FloatArray]:
    """Measures (N,) by name; a function of each image alone.

    * ``max_probability``: max(p, 1 - p) of the image, in [0.5, 1].
    * ``entropy``: of p, in [0, ln 2].
    * ``view_variance``: variance of the view probabilities, in [0, 0.25].
    * ``max_minus_mean``: largest view probability minus their mean, in [0, 1).
    * ``view_disagreement``: share of views with the label that fewer of them have, in [0, 0.5].
    * ``embedding_variance``: variance over views of each embedding dimension, averaged; only where embeddings are
      given. It measures disagreement of views and is no epistemic uncertainty.
    * ``expected_entropy``: mean of the view entropies, in [0, ln 2].
    * ``mutual_information``: entropy of the mean view probability minus ``expected_entropy``, in [0, ln 2].
    * ``p_norm_max_logit``: largest |log-odds| of a view over the p-norm mean of them all, 1 where all are equal. Over
      the two logits of one image this measure is constant, so it is taken over views, where it rises with doubt: a
      view that stands out is what its neighbours do not confirm.

    With one view the disagreement measures are 0, which says that nothing could be compared.

    Args:
        probability: (N,) calibrated probability of the image.
        view_log_odds: (N, V) log-odds of each view, NaN where an image has fewer views.
        view_embeddings: (N, V, D); entries of missing views are not read.
        p_norm: exponent of ``p_norm_max_logit`` (Cattelan, Silva 2024, arXiv 2305.15508).

    Raises:
        ValueError: shapes that do not fit, or an image without any view.
    """
    p = np.asarray(probability, dtype=np.float64)
    u = np.asarray(view_log_odds, dtype=np.float64)
    if u.ndim != 2 or p.shape != (len(u),):
        raise ValueError(f"expected probability (N,) and view_log_odds (N, V), got {p.shape} and {u.shape}")
    seen = ~np.isnan(u)
    count = seen.sum(axis=1).astype(np.float64)
    if (count == 0).any():
        raise ValueError(f"image {int(np.argmin(count))} has no view")
    # Infinite log-odds would make ratios of them undefined; sigmoid is saturated long before.
    u = np.clip(np.where(seen, u, 0.0), -1e4, 1e4)
    q = np.where(seen, sigmoid(u), 0.0)
    mean = q.sum(axis=1) / count
    ayes = (seen & (u >= 0.0)).sum(axis=1)
    expected = np.where(seen, binary_entropy(q), 0.0).sum(axis=1) / count
    size = np.abs(u)
    largest = size.max(axis=1)
    scaled = np.divide(size, largest[:, None], out=np.zeros_like(size), where=largest[:, None] > 0)
    norm = ((scaled**p_norm).sum(axis=1) / count) ** (1.0 / p_norm)
    found = {
        names.MAX_PROBABILITY: np.maximum(p, 1.0 - p),
        names.VIEW_VARIANCE: np.where(seen, (q - mean[:, None]) ** 2, 0.0).sum(axis=1) / count,
        names.ENTROPY: binary_entropy(p),
        names.MAX_MINUS_MEAN: np.maximum(np.where(seen, q, -1.0).max(axis=1) - mean, 0.0),
        names.VIEW_DISAGREEMENT: np.minimum(ayes, count - ayes) / count,
        names.EXPECTED_ENTROPY: expected,
        names.MUTUAL_INFORMATION: np.maximum(binary_entropy(mean) - expected, 0.0),
        names.P_NORM_MAX_LOGIT: np.divide(1.0, norm, out=np.ones_like(norm), where=norm > 0),
    }
    if view_embeddings is not None:
        found[names.EMBEDDING_VARIANCE] = embedding_variance(view_embeddings, seen)
    return found


def embedding_variance(embeddings: NDArray[Any], seen: NDArray[np.bool_]) -> FloatArray:
    """The measure of that name (N,) from embeddings (N, V, D), which are not read where ``seen`` (N, V) is False.

    Raises:
        ValueError: shapes that do not fit.
    """
    if embeddings.ndim != 3 or embeddings.shape[:2] != seen.shape:
        raise ValueError(
            f"view_embeddings must have shape (N, V, D) with (N, V) = {seen.shape}, got {embeddings.shape}"
        )
    found = np.empty(len(seen))
    # Blocks: the float64 copies of all embeddings at once would be many times their size.
    for start in range(0, len(seen), _BLOCK):
        rows = slice(start, start + _BLOCK)
        mask = seen[rows, :, None]
        count = mask.sum(axis=1, dtype=np.float64)
        e = np.where(mask, embeddings[rows], 0.0).astype(np.float64)
        mean = e.sum(axis=1, keepdims=True) / count[:, None]
        spread = np.where(mask, (e - mean) ** 2, 0.0).sum(axis=1) / count
        found[rows] = spread.mean(axis=1)
    return found


def p_norm_max_logit(logits: FloatArray, p_norm: float = _P) -> FloatArray:
    """Largest centred logit over their p-norm (N,) from logits (N, K), K >= 3 (Cattelan, Silva 2024).

    Raises:
        ValueError: two classes, for which it is the same for every image.
    """
    z = np.asarray(logits, dtype=np.float64)
    if z.ndim != 2 or z.shape[1] < 3:
        raise ValueError(f"logits must have shape (N, K) with K >= 3, got {z.shape}: for two it is constant")
    z = z - z.mean(axis=1, keepdims=True)
    norm = (np.abs(z) ** p_norm).sum(axis=1) ** (1.0 / p_norm)
    share = np.divide(z.max(axis=1), norm, out=np.zeros_like(norm), where=norm > 0)
    return np.asarray(share, dtype=np.float64)
