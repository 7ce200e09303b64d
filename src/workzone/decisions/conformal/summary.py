"""What prediction sets are worth on labelled images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workzone.predictions import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class SetSummary:
    """Figures of the sets of N images.

    Attributes:
        n: images.
        coverage: share whose set holds the true label.
        coverage_low: lower end of the Clopper-Pearson interval of ``coverage`` at 95 %.
        coverage_high: upper end.
        class_coverage: coverage among the images of each class, NaN where there are none.
        mean_size: labels per set.
        singleton: share of sets with one label.
        empty: share of empty sets.
        full: share of sets with every label.
        singleton_error: share of the singletons that are wrong, NaN without any.
    """

    n: int
    coverage: float
    coverage_low: float
    coverage_high: float
    class_coverage: tuple[float, ...]
    mean_size: float
    singleton: float
    empty: float
    full: float
    singleton_error: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def summarise_sets(sets: NDArray[np.bool_], labels: IntArray) -> SetSummary:
    """Figures of ``sets`` (N, K) against ``labels`` (N,).

    Raises:
        ValueError: no images, or shapes that do not fit.
    """
    from workzone.metrics.proportions import clopper_pearson  # the predict path imports this package

    inside, y = np.asarray(sets, dtype=bool), np.asarray(labels, dtype=np.int64)
    if inside.ndim != 2 or not len(inside) or y.shape != (len(inside),):
        raise ValueError(f"expected sets (N, K) and labels (N,) of at least one image, got {inside.shape}, {y.shape}")
    n, classes = inside.shape
    covered, size = inside[np.arange(n), y], inside.sum(axis=1)
    low, high = clopper_pearson(int(covered.sum()), n)

    def share(what: NDArray[np.bool_]) -> float:
        return float(what.mean()) if len(what) else float("nan")

    sizes: FloatArray = size.astype(np.float64)
    return SetSummary(
        n=n,
        coverage=share(covered),
        coverage_low=float(low),
        coverage_high=float(high),
        class_coverage=tuple(share(covered[y == k]) for k in range(classes)),
        mean_size=float(sizes.mean()),
        singleton=share(size == 1),
        empty=share(size == 0),
        full=share(size == classes),
        singleton_error=share(~covered[size == 1]),
    )
