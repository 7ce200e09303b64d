"""A test that may look after every label: the chance of ever raising a false alarm stays below ``delta``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from workzone.errors import ArtifactError
from workzone.predictions import FloatArray

BETS = 16


def bets(alpha: float) -> FloatArray:
    """Stakes: the stake for a rate q is ``(q - alpha) / (alpha (1 - alpha))``, for 16 rates above ``alpha``."""
    top = alpha + 0.9 * (1 - alpha)
    q = np.geomspace(min(1.2 * alpha, 0.5 * (alpha + top)), top, BETS)
    return np.asarray((q - alpha) / (alpha * (1 - alpha)), dtype=np.float64)


def reserve(step: int) -> float:
    """Share of the money that is not yet at stake after ``step`` observations: 1/2 after the first, to 0 slowly."""
    return 1.0 if step == 0 else 0.5 / math.log2(step + 1)


@dataclass(slots=True)
class EProcess:
    """Evidence against "each error comes with probability at most ``alpha``, given what came before".

    A gambler who starts with 1 bets on errors. Where the claim holds no strategy gains in expectation, so the wealth
    ever reaches ``1 / delta`` with probability at most ``delta`` (Ville 1939), however often one looks. The stakes are
    those of Waudby-Smith and Ramdas 2024 (arXiv 2010.09686) for bounded means, mixed over 16 rates; a part of the money
    enters at each step, so that a rate that rises late is not hidden by a good past (Shin, Ramdas and Rinaldo 2024,
    arXiv 2203.03532, with weights that sum to 1 in place of a bound on the mean run length).

    Attributes:
        alpha: limit of the error rate, in (0, 1).
        delta: probability of a false alarm over all time.
        step: observations so far.
        wealth: (16,) money at stake on each rate, their sum and the reserve being the e-value.
        highest: largest e-value so far.
        fired: observation at which the e-value first reached ``1 / delta``, None so far.
        errors: weighted errors so far.
        total: weight of the observations so far.
    """

    alpha: float
    delta: float
    step: int = 0
    wealth: FloatArray = field(default_factory=lambda: np.zeros(BETS))
    highest: float = 1.0
    fired: int | None = None
    errors: float = 0.0
    total: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1 or not 0 < self.delta < 1:
            raise ValueError("alpha and delta must lie strictly between 0 and 1")

    @property
    def e_value(self) -> float:
        """Wealth now; at least ``1 / delta`` at some time refutes the claim."""
        return float(self.wealth.sum()) + reserve(self.step)

    def update(self, error: float, weight: float = 1.0) -> float:
        """Take one observation and return the e-value.

        Args:
            error: 0 or 1, or a share of errors between.
            weight: in (0, 1], proportional to 1 / (probability that this image was reviewed).

        Raises:
            ValueError: out of range.
        """
        if not 0 <= error <= 1 or not 0 < weight <= 1:
            raise ValueError("error must lie in [0, 1] and weight in (0, 1]")
        entering = (reserve(self.step) - reserve(self.step + 1)) / BETS
        factor = 1 + bets(self.alpha) * weight * (error - self.alpha)
        # Evidence beyond 1e300 says nothing more and must not become infinite.
        self.wealth = np.minimum((self.wealth + entering) * factor, 1e300)
        self.step += 1
        self.errors += weight * error
        self.total += weight
        value = self.e_value
        self.highest = max(self.highest, value)
        if self.fired is None and value >= 1 / self.delta:
            self.fired = self.step
        return value

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return {
            "alpha": self.alpha,
            "delta": self.delta,
            "step": self.step,
            "wealth": [float(v) for v in self.wealth],
            "highest": self.highest,
            "fired": self.fired,
            "errors": self.errors,
            "total": self.total,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The process that ``to_dict`` stored.

        Raises:
            ArtifactError: the values are not those of an e-process.
        """
        try:
            made = cls(**{**values, "wealth": np.array(values["wealth"], dtype=np.float64)})
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"the stored sequential test cannot be read: {error}") from error
        if made.wealth.shape != (BETS,) or not np.isfinite(made.wealth).all() or (made.wealth < 0).any():
            raise ArtifactError("the stored sequential test cannot be read: its wealth is no list of 16 amounts")
        return made


def e_values(errors: NDArray[Any], alpha: float) -> FloatArray:
    """E-values (S, T) of S streams of T errors at once, as ``EProcess`` gives them one by one.

    Args:
        errors: (S, T) 0 or 1, or shares between.
        alpha: limit of the error rate.
    """
    streams, steps = errors.shape
    stakes, wealth = bets(alpha), np.zeros((streams, BETS))
    found = np.empty((streams, steps))
    for t in range(steps):
        entering = (reserve(t) - reserve(t + 1)) / BETS
        wealth = np.minimum((wealth + entering) * (1 + stakes * (errors[:, t, None] - alpha)), 1e300)
        found[:, t] = wealth.sum(axis=1) + reserve(t + 1)
    return found
