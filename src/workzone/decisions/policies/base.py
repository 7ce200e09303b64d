"""What every policy is: a rule from calibrated probabilities to decisions, with the promise it can prove."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from workzone.data.roles import CalibData
from workzone.decisions.certificate import Guarantee
from workzone.decisions.types import Code, Decisions
from workzone.errors import DataError
from workzone.predictions import FloatArray


class Policy(ABC):
    """Decides on calibrated probabilities.

    A member sets ``name``, implements ``fit``, ``decide``, ``parameters`` and ``from_parameters``, and registers
    itself in ``workzone.decisions.POLICIES``. ``guarantees`` says what the fitted policy promises, or why it cannot; it
    goes into the certificate and is not part of the stored policy, so a policy that was read back has none of its own.
    """

    name: ClassVar[str]
    guarantees: tuple[Guarantee, ...] = ()

    @abstractmethod
    def fit(self, data: CalibData, probability: FloatArray) -> Self:
        """Fit on images the calibrator has not seen.

        Args:
            data: the part of ``val_calib`` kept for the certificate.
            probability: (N,) calibrated probabilities of these images.

        Raises:
            LeakageError: ``data`` is anything but ``CalibData``.
            DataError: a probability is NaN or outside [0, 1], or a class that the policy needs is missing.
        """

    @abstractmethod
    def decide(self, probability: FloatArray, uncertainty: Mapping[str, FloatArray] | None = None) -> Decisions:
        """Decisions for probabilities (N,); numpy only, no state, no randomness."""

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """The fitted numbers, fit for JSON."""

    @classmethod
    @abstractmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Rebuild from ``parameters()``; raises BundleError on missing or impossible values."""

    def to_dict(self) -> dict[str, Any]:
        """Name and numbers; ``workzone.decisions.from_dict`` reads it back."""
        return {"policy": self.name, "parameters": self.parameters()}


def checked_probability(probability: FloatArray, *, n: int | None = None) -> FloatArray:
    """``probability`` as float64 (N,).

    Raises:
        DataError: a value is NaN or outside [0, 1].
    """
    p = np.asarray(probability, dtype=np.float64)
    if p.ndim != 1 or (n is not None and len(p) != n):
        raise ValueError(f"probability must have shape ({'N' if n is None else n},), got {p.shape}")
    bad = np.flatnonzero(~((p >= 0.0) & (p <= 1.0)))
    if len(bad):
        raise DataError(
            f"{len(bad)} probabilities are not numbers in [0, 1]",
            where=f"position {bad[0]}: {p[bad[0]]}",
            fix="score these images again or drop them",
        )
    return p


def best_threshold(data: CalibData, probability: FloatArray) -> float:
    """Threshold in [0, 1] with the highest MCC of ``p >= threshold`` on ``data``.

    Raises:
        DataError: only one class is present, so that no threshold is better than another.
    """
    from workzone.metrics.classification import best_mcc_threshold  # the predict path imports this module

    if data.n_positive in (0, len(data)):
        raise DataError(
            "the MCC-optimal threshold needs images of both classes",
            where=f"{data.n_positive} roadwork images among {len(data)}",
            fix="give val_calib more images or change the split seed",
        )
    return float(np.clip(best_mcc_threshold(data.labels, probability).value, 0.0, 1.0))


def make_decisions(codes: NDArray[np.int8], probability: FloatArray, reasons: Mapping[Code, str]) -> Decisions:
    """Decisions whose sets are {no_roadwork}, {roadwork}, or both where the policy abstains."""
    sets = np.column_stack([codes != Code.ROADWORK, codes != Code.NO_ROADWORK])
    text = {int(code): reason for code, reason in reasons.items()}
    return Decisions(codes=codes, probability=probability, sets=sets, reasons=[text[c] for c in codes.tolist()])
