"""What predicts the label without a look at the road: source, camera, size of the file, light, share of orange."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workzone.errors import needs_extra
from workzone.metrics.bootstrap import Interval, bootstrap

FOLDS = 5


@dataclass(frozen=True, slots=True)
class Shortcut:
    """How well one fact about an image predicts its label, out of fold.

    Attributes:
        auroc: area under the ROC curve with its interval over groups; 0.5 says that the fact knows nothing.
        groups: number of groups.
        values: number of different values.
    """

    name: str
    auroc: Interval
    groups: int
    values: int

    @property
    def told(self) -> bool:
        """Whether the interval lies above 0.5."""
        return bool(self.auroc.low > 0.5)


def find_shortcuts(
    facts: Mapping[str, NDArray[Any]],
    labels: NDArray[np.int64],
    groups: Sequence[str],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> list[Shortcut]:
    """Shortcuts, the strongest first; facts with one value are left out, and all if a class has fewer than two groups.

    Args:
        facts: name to (N,) words or (N, K) numbers, NaN where unknown.
        labels: (N,) 0 or 1.
        groups: N names; a group lies in one fold, and the interval draws groups.
        resamples: draws of the interval.
        seed: of folds and draws.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    with needs_extra("scikit-learn", "train", feature="the search for shortcuts"):
        from sklearn.ensemble import HistGradientBoostingClassifier
        from sklearn.model_selection import StratifiedGroupKFold
    codes = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)[1]
    fewest = min(len(np.unique(codes[labels == c])) for c in (0, 1))
    if fewest < 2:
        return []
    found = []
    for name, fact in facts.items():
        columns, categorical = _columns(fact)
        values = len(np.unique(columns, axis=0))
        if values < 2:
            continue
        p = np.zeros(len(labels))
        dealt = StratifiedGroupKFold(min(FOLDS, fewest), shuffle=True, random_state=seed)
        for seen, held in dealt.split(columns, labels, codes):
            model = HistGradientBoostingClassifier(
                max_iter=50, min_samples_leaf=5, max_leaf_nodes=8, random_state=seed, early_stopping=False,
                categorical_features=[0] if categorical else None,
            )  # fmt: skip
            p[held] = model.fit(columns[seen], labels[seen]).predict_proba(columns[held])[:, 1]
        interval = bootstrap(["auroc"], labels, p, groups=codes, n_resamples=resamples, seed=seed)["auroc"]
        found.append(Shortcut(name, interval, int(codes.max()) + 1, values))
    return sorted(found, key=lambda s: -s.auroc.value)


def _columns(fact: NDArray[Any]) -> tuple[NDArray[np.float64], bool]:
    """Numbers as they are; words as codes, all rare ones as one, because trees take 255 categories at most."""
    if fact.dtype.kind in "fiu":
        return fact.reshape(len(fact), -1).astype(np.float64), False
    names, inverse, counts = np.unique(fact.astype(np.str_), return_inverse=True, return_counts=True)
    rank = np.empty(len(names), dtype=np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(names))
    return np.minimum(rank[inverse], 200).astype(np.float64)[:, None], True
