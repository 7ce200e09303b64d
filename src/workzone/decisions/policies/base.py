"""What every policy is: a rule from calibrated probabilities to decisions, with the promise it can prove."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from workzone.calibration.base import read_float
from workzone.data.roles import CalibData, require_calib
from workzone.decisions.certificate import Guarantee
from workzone.decisions.conformal.quantile import n_needed
from workzone.decisions.types import Code, Decisions
from workzone.errors import BundleError, CheckFailedError, ConfigError, DataError
from workzone.predictions import FloatArray

IfNotCertifiable = Literal["uncertified", "abstain", "stop"]
"""Without a promise: decide at the plain threshold and say so in every reason, abstain, or raise CheckFailedError."""


class Policy(ABC):
    """Decides on calibrated probabilities.

    A member sets ``name``, implements ``fit``, ``decide``, ``parameters`` and ``from_parameters``, and registers
    itself in ``workzone.decisions.POLICIES``. ``guarantees`` says what the fitted policy promises, or why it cannot; it
    goes into the certificate and is not part of the stored policy, so a policy that was read back has none of its own.
    """

    name: ClassVar[str]
    guarantees: tuple[Guarantee, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the uncertainty measures that ``decide`` reads; empty for a policy of the probability alone."""
        return ()

    @abstractmethod
    def fit(
        self, data: CalibData, probability: FloatArray, uncertainty: Mapping[str, FloatArray] | None = None
    ) -> Self:
        """Fit on images the calibrator has not seen.

        Args:
            data: the part of ``val_calib`` kept for the certificate.
            probability: (N,) calibrated probabilities of these images.
            uncertainty: (N,) arrays by the names of ``workzone.decisions.uncertainty``, for the policies that use them.

        Raises:
            LeakageError: ``data`` is anything but ``CalibData``.
            DataError: a probability is NaN or outside [0, 1], or a class that the policy needs is missing.
        """

    @abstractmethod
    def decide(self, probability: FloatArray, uncertainty: Mapping[str, FloatArray] | None = None) -> Decisions:
        """Decisions for probabilities (N,); numpy only, no state, no randomness.

        ``uncertainty`` holds (N,) arrays by name; a policy whose ``needs`` is not empty raises DataError without them.
        """

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


def fit_inputs(data: CalibData, probability: FloatArray, *, policy: str) -> tuple[CalibData, FloatArray]:
    """What ``fit`` of policy ``policy`` was given, checked.

    Raises:
        LeakageError: ``data`` is anything but ``CalibData``.
        DataError: a probability is NaN or outside [0, 1], or there are no images.
    """
    calib = require_calib(data, user=f"policy {policy!r}")
    p = checked_probability(probability, n=len(calib))
    if not len(calib):
        raise DataError("a policy cannot be fitted on no images", where=f"policy {policy!r}")
    return calib, p


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


P = TypeVar("P", bound=Policy)


def check_rates(policy: str, **rates: float | None) -> None:
    """Raise ConfigError where a rate is not strictly between 0 and 1; None is no rate."""
    for key, rate in rates.items():
        if rate is not None and not 0.0 < rate < 1.0:
            raise ConfigError(f"{key} is {rate}, but must lie strictly between 0 and 1", where=f"policy {policy!r}")


def check_word(policy: str, key: str, value: object, known: tuple[str, ...]) -> None:
    """Raise ConfigError where ``value`` is none of ``known``."""
    if value not in known:
        raise ConfigError(f"{key} is {value!r}", where=f"policy {policy!r}", fix=f"use one of {', '.join(known)}")


def rebuild(
    cls: type[P],
    parameters: Mapping[str, Any],
    *,
    numbers: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
    words: tuple[str, ...] = (),
) -> P:
    """Unfitted policy with the stored settings.

    Raises:
        BundleError: a setting is missing or impossible.
    """
    settings: dict[str, Any] = {key: read_float(parameters, key) for key in numbers}
    settings |= {key: None if parameters.get(key) is None else read_float(parameters, key) for key in optional}
    settings |= {key: parameters.get(key) for key in words}
    try:
        return cls(**settings)
    except ConfigError as error:
        raise BundleError(f"the stored policy is impossible: {error.what}") from error


def stop_if_refused(
    policy: str, promises: Sequence[Guarantee], if_not_certifiable: str, *, remedy: str = "relax what is promised"
) -> None:
    """Raise CheckFailedError where a promise is refused and ``if_not_certifiable`` is "stop"."""
    refused = [g for g in promises if g.status != "certified"]
    if refused and if_not_certifiable == "stop":
        raise CheckFailedError(
            " ".join(g.sentence() for g in refused),
            where=f"policy {policy!r}",
            fix=f"add images to certify on (val_calib of a run), {remedy}, or set if_not_certifiable",
        )


def too_few(promise: Guarantee, things: str) -> Guarantee:
    """``promise``, in expectation and not certifiable, with how many ``things`` it needs and what those there allow."""
    n, needed = promise.n, n_needed(promise.alpha)
    reason = f"There are {n} {things} and at least {needed} are needed; {n} allow {1 / (n + 1):.2%} at best."
    update = {"needed": needed, "needed_without_errors": needed, "tightest": 1 / (n + 1), "reason": reason}
    return promise.model_copy(update=update)


def require_same_keys(policy: Policy, parameters: Mapping[str, Any]) -> None:
    """Raise BundleError unless ``parameters`` holds exactly what ``policy`` would store."""
    if set(parameters) != set(policy.parameters()):
        raise BundleError(f"the stored policy {policy.name!r} lacks values or holds unknown ones")


def read_measures(
    policy: str, names: tuple[str, ...], n: int, uncertainty: Mapping[str, FloatArray] | None
) -> FloatArray:
    """The named uncertainty measures as (N, D).

    Raises:
        DataError: a measure is missing or not finite.
    """
    columns = []
    for name in names:
        if uncertainty is None or name not in uncertainty:
            have = ", ".join(uncertainty) if uncertainty else "none"
            raise DataError(
                f"policy {policy!r} needs the uncertainty measure {name!r}, which was not given",
                where=f"measures given: {have}",
                fix="pass what workzone.decisions.uncertainty.from_views computes",
            )
        column = np.asarray(uncertainty[name], dtype=np.float64)
        if column.shape != (n,):
            raise ValueError(f"measure {name!r} must have shape ({n},), got {column.shape}")
        if not np.isfinite(column).all():
            where = f"policy {policy!r}"
            raise DataError(f"the uncertainty measure {name!r} is not finite for every image", where=where)
        columns.append(column)
    return np.column_stack(columns) if columns else np.zeros((n, 0))
