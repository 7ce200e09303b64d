"""Pictures unlike the others: a ranking for a person to look at, not a share that is declared wrong."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from workzone.errors import needs_extra

DIMENSIONS = 32


def rank_outliers(
    embeddings: NDArray[np.floating], *, trees: int = 200, dimensions: int = DIMENSIONS, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rows from the oddest to the most usual, and the score (N,) of each row, larger is odder.

    Isolation forest (Liu, Ting, Zhou 2008) on the leading principal components: trees that split on random features
    find little in hundreds of dimensions. There is no contamination: which rank is odd is for a person to say.

    Args:
        embeddings: (N, D), finite.
        trees: trees of the forest.
        dimensions: principal components that are kept.
        seed: of components and trees.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    with needs_extra("scikit-learn", "train", feature="the search for outliers"):
        from sklearn.decomposition import PCA
        from sklearn.ensemble import IsolationForest
    kept = min(dimensions, embeddings.shape[1], len(embeddings))
    reduced = PCA(kept, whiten=True, random_state=seed).fit_transform(np.asarray(embeddings, dtype=np.float64))
    forest = IsolationForest(n_estimators=trees, random_state=seed).fit(reduced)
    score = -forest.score_samples(reduced)
    return np.argsort(-score, kind="stable"), score
