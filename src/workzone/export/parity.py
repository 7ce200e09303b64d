"""How far the scores of an engine lie from those of another, in plain numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workzone.errors import CheckFailedError


@dataclass(frozen=True, slots=True)
class Difference:
    """Absolute differences of one output; ``cosine`` is the lowest and mean cosine of its rows where it has rows."""

    largest: float
    mean: float
    cosine_least: float | None = None
    cosine_mean: float | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Differences by output, and on how many of N images the decision at a threshold differs."""

    outputs: Mapping[str, Difference]
    images: int
    decisions_differ: int

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    def require(self, tolerance: float, *, where: str) -> None:
        """Raise CheckFailedError when log-odds differ by more than ``tolerance``, which stops a run."""
        worst = self.outputs["log_odds"].largest
        if not worst <= tolerance:
            raise CheckFailedError(
                f"log-odds differ by up to {worst:.2g}, the tolerance is {tolerance:.2g}",
                where=where,
                fix="export again; if it stays, this engine must not be used for this network, "
                "unless you know why they differ and raise export.tolerance",
            )


def compare(
    reference: Mapping[str, NDArray[Any]], other: Mapping[str, NDArray[Any]], *, threshold: float = 0.0
) -> Comparison:
    """Compare ``log_odds`` (N,) and any further arrays that both have, such as ``embeddings`` (N, D).

    Entries that are NaN in both (views that do not exist) are left out.

    Args:
        reference: outputs of the trained network or of the reference engine.
        other: outputs of the engine in question, for the same images in the same order.
        threshold: log-odds above which the decision is roadwork.

    Raises:
        ValueError: shapes differ, or one is NaN where the other is not.
    """
    if "log_odds" not in reference or "log_odds" not in other:
        raise ValueError("both sides need log_odds")
    outputs = {name: _difference(name, reference[name], other[name]) for name in reference if name in other}
    first, second = np.asarray(reference["log_odds"]), np.asarray(other["log_odds"])
    return Comparison(outputs, len(first), int(((first > threshold) != (second > threshold)).sum()))


def _difference(name: str, a: NDArray[Any], b: NDArray[Any]) -> Difference:
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"{name}: shape {second.shape} instead of {first.shape}")
    if not np.array_equal(np.isnan(first), np.isnan(second)):
        raise ValueError(f"{name}: NaN on one side only")
    known = ~np.isnan(first)
    gap = np.abs(first[known] - second[known])
    largest, mean = (float(gap.max()), float(gap.mean())) if gap.size else (0.0, 0.0)
    if name != "embeddings":
        return Difference(largest, mean)
    u, v = first.reshape(-1, first.shape[-1]), second.reshape(-1, second.shape[-1])
    norms = np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1)
    cosine = (u * v).sum(axis=1) / np.maximum(norms, 1e-30)
    return Difference(largest, mean, float(cosine.min()), float(cosine.mean()))
