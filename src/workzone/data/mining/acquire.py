"""Active learning: which unlabelled images to label first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def entropy(p: Floats) -> Floats:
    """(N,) entropy in bits of the decision, 0 to 1; the largest at p = 0.5."""
    q = np.clip(np.asarray(p, dtype=np.float64), 1e-12, 1 - 1e-12)
    return np.asarray(-(q * np.log2(q) + (1 - q) * np.log2(1 - q)))


def margin(p: Floats) -> Floats:
    """(N,) difference between the probabilities of the two classes; the smallest is the least sure.

    With two classes it orders as entropy does.
    """
    return np.asarray(np.abs(2 * np.asarray(p, dtype=np.float64) - 1))


def disagreement(view_log_odds: Floats, exists: NDArray[np.bool_]) -> Floats:
    """(N,) standard deviation over views of their probabilities of roadwork, 0 for one view.

    Args:
        view_log_odds: (N, V).
        exists: (N, V) whether there is such a view.
    """
    p = 1.0 / (1.0 + np.exp(-np.clip(np.where(exists, view_log_odds, 0.0), -40, 40)))
    count = np.maximum(exists.sum(axis=1), 1)
    mean = (p * exists).sum(axis=1) / count
    return np.asarray(np.sqrt((((p - mean[:, None]) ** 2) * exists).sum(axis=1) / count))


def k_centre_greedy(
    embeddings: NDArray[np.floating], count: int, *, first: int = 0, known: NDArray[np.floating] | None = None
) -> NDArray[np.int64]:
    """(count,) rows, each the farthest from all that were chosen before and from ``known``.

    Sener, Savarese 2018 (arXiv 1708.00489): a set that covers the others within a radius at most twice the least.

    Args:
        embeddings: (N, D), finite; compared by the angle between them.
        count: rows to choose, at most N.
        first: row to start from, without ``known``.
        known: (M, D) images that are labelled already.

    Raises:
        ValueError: ``count`` or ``first`` is out of range.
    """
    n = len(embeddings)
    if not 0 <= count <= n or (n and not 0 <= first < n):
        raise ValueError(f"cannot choose {count} rows of {n} from row {first}")
    unit = _unit(embeddings)
    far = np.full(n, np.inf)
    if known is not None and len(known):
        for start in range(0, len(known), 1024):
            far = np.minimum(far, 1.0 - (unit @ _unit(known[start : start + 1024]).T).max(axis=1))
    chosen: list[int] = []
    for turn in range(count):
        row = first if turn == 0 and not np.isfinite(far).any() else int(np.argmax(far))
        chosen.append(row)
        far = np.minimum(far, 1.0 - unit @ unit[row])
        # A copy of a chosen row is at distance 0 like the row itself, which must not come again.
        far[chosen] = -np.inf
    return np.array(chosen, dtype=np.int64)


def _unit(rows: NDArray[np.floating]) -> Floats:
    values = np.asarray(rows, dtype=np.float64)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12))


RANKINGS = ("entropy", "margin", "disagreement", "diversity", "mixed")


def rank(
    name: str,
    p: Floats,
    spread: Floats,
    embeddings: NDArray[np.floating],
    count: int,
    *,
    known: NDArray[np.floating] | None = None,
) -> NDArray[np.int64]:
    """(count,) rows to label, in order.

    Args:
        name: of ``RANKINGS``; diversity covers all images whatever their scores, mixed takes the five times ``count``
        images
            with the best mean rank by entropy and disagreement and covers those.
        p: (N,) calibrated probability.
        spread: (N,) disagreement of views.
        embeddings: (N, D).
        count: at most N.
        known: (M, D) images that are labelled already.

    Raises:
        ValueError: unknown ranking.
    """
    if name not in RANKINGS:
        raise ValueError(f"unknown ranking {name!r}")
    count = min(count, len(p))
    order = {"entropy": -entropy(p), "margin": margin(p), "disagreement": -spread}
    if name in order:
        return np.asarray(np.argsort(order[name], kind="stable")[:count])
    if name == "diversity":
        return k_centre_greedy(embeddings, count, first=int(np.argmax(entropy(p))) if len(p) else 0, known=known)
    places = [
        np.argsort(np.argsort(key, kind="stable"), kind="stable") for key in (order["entropy"], order["disagreement"])
    ]
    pool = np.argsort(np.mean(places, axis=0), kind="stable")[: 5 * count]
    return np.asarray(pool[k_centre_greedy(embeddings[pool], min(count, len(pool)), known=known)])
