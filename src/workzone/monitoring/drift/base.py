"""What a drift test is: two samples in, a statistic with a p-value out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from workzone.predictions import FloatArray

Kind = Literal["scores", "classes", "vectors"]


@dataclass(frozen=True, slots=True)
class Result:
    """Outcome of one test.

    Attributes:
        statistic: the test's own figure: how far apart the samples are.
        p: probability of a statistic at least as large where both samples are of one population.
        n_reference: images of the reference that were used.
        n_new: images of the window that were used.
    """

    statistic: float
    p: float
    n_reference: int
    n_new: int


class DriftTest(ABC):
    """Are two samples of one population? Independent images are assumed.

    A member names itself, the kind of sample it compares, and what its statistic is.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind]
    title: ClassVar[str]
    source: ClassVar[str]

    def __call__(self, reference: Any, new: Any, *, seed: int = 0) -> Result:
        """Compare ``new`` with ``reference``: (N,) scores or class codes, or (N, D) vectors.

        Args:
            reference: sample to compare with, at least two rows.
            new: sample of the window, at least two rows.
            seed: of permutations, subsamples and directions, for tests that draw them.

        Raises:
            ValueError: wrong shape, fewer than two rows, or values that are not finite.
        """
        a, b = _sample(reference, self.kind, "reference"), _sample(new, self.kind, "new")
        if self.kind == "vectors" and a.shape[1] != b.shape[1]:
            raise ValueError(f"reference has {a.shape[1]} dimensions, new has {b.shape[1]}")
        return self._compare(a, b, np.random.default_rng(seed))

    @abstractmethod
    def _compare(self, reference: NDArray[Any], new: NDArray[Any], rng: np.random.Generator) -> Result:
        """Compare two checked samples."""


def _sample(values: Any, kind: Kind, name: str) -> NDArray[Any]:
    sample = np.asarray(values, dtype=np.int64 if kind == "classes" else np.float64)
    if sample.ndim != (2 if kind == "vectors" else 1):
        raise ValueError(f"{name} must have {'two dimensions' if kind == 'vectors' else 'one dimension'}")
    if len(sample) < 2:
        raise ValueError(f"{name} needs at least two rows, not {len(sample)}")
    if not np.isfinite(sample).all():
        raise ValueError(f"{name} holds values that are not finite")
    return sample


def subsample(sample: NDArray[Any], most: int, rng: np.random.Generator) -> NDArray[Any]:
    """At most ``most`` rows of ``sample``, drawn without replacement."""
    return sample if len(sample) <= most else sample[rng.choice(len(sample), most, replace=False)]


def permutation_p(observed: float, null: FloatArray) -> float:
    """``(1 + #{null >= observed}) / (R + 1)``: valid for any number R of permutations."""
    # Sums in another order differ by rounding; equal figures must count as equal.
    slack = 1e-9 * max(1e-12, float(np.abs(null).max(initial=0.0)), abs(observed))
    return float((1 + np.count_nonzero(null >= observed - slack)) / (len(null) + 1))


def memberships(n_reference: int, n_new: int, permutations: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(N, R + 1) whether a pooled row plays the part of the reference; column 0 is as observed."""
    n = n_reference + n_new
    order = rng.random((n, permutations)).argsort(axis=0)
    return np.hstack([(np.arange(n) < n_reference)[:, None], order < n_reference])


def reduced(pooled: FloatArray, dimensions: int) -> FloatArray:
    """Pooled rows (N, D) along their first ``dimensions`` principal axes.

    The axes come from both samples together. Axes of the reference alone would fit it better than new rows of the same
    population, and that would be reported as drift.
    """
    if pooled.shape[1] <= dimensions:
        return pooled
    centred = pooled - pooled.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    return np.asarray(centred @ axes[:, -dimensions:], dtype=np.float64)
