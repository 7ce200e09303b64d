"""Policies that answer by prediction set: one label decides, both or none abstain."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np

from workzone.calibration.base import read_float
from workzone.data.roles import CalibData
from workzone.decisions.certificate import Guarantee, Unit
from workzone.decisions.conformal.quantile import conformal_quantile, conformal_rank
from workzone.decisions.policies.base import (
    IfNotCertifiable,
    Policy,
    check_rates,
    check_word,
    checked_probability,
    fit_inputs,
    make_decisions,
    rebuild,
    require_same_keys,
    stop_if_refused,
    too_few,
)
from workzone.decisions.types import Code, Decisions
from workzone.errors import BundleError
from workzone.predictions import FloatArray, IntArray

LimitStatus = Literal["certified", "uncertified", "withheld"]
PLAIN = 0.5
"""Without a promise a label is left out where it is the less probable one."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A label is in the set where ``1 - p_label <= value``; always, where ``value`` is None."""

    status: LimitStatus
    value: float | None


class SetPolicy(Policy):
    """Base of the conformal policies: ``{no_roadwork}`` and ``{roadwork}`` decide, both or neither abstain.

    A member finds the limits of the two labels and its promises in ``_limits``. Since a wrong decision is a set
    without the true label, what is promised about the sets bounds the wrong decisions too. Limits below 0.5 leave
    empty sets: there ``alpha`` exceeds the error rate of deciding everything, and a smaller one abstains less.

    Args:
        alpha: share of images whose set may lack the true label.
        if_not_certifiable: "uncertified" leaves out the less probable label and says so in every reason, "abstain"
            leaves out none, "stop" raises CheckFailedError.
        unit: "image", or "group" for groups as the exchangeable units, an error where any image of the group is one.
    """

    def __init__(
        self, *, alpha: float = 0.05, if_not_certifiable: IfNotCertifiable = "uncertified", unit: Unit = "image"
    ) -> None:
        check_rates(self.name, alpha=alpha)
        check_word(self.name, "if_not_certifiable", if_not_certifiable, get_args(IfNotCertifiable))
        check_word(self.name, "unit", unit, get_args(Unit))
        self.alpha = alpha
        self.if_not_certifiable = if_not_certifiable
        self.unit = unit
        self.limits: tuple[Limit, Limit] | None = None
        self.coverage = float("nan")

    numbers: ClassVar[tuple[str, ...]] = ("alpha",)
    optional: ClassVar[tuple[str, ...]] = ()
    words: ClassVar[tuple[str, ...]] = ("if_not_certifiable", "unit")

    def fit(
        self, data: CalibData, probability: FloatArray, uncertainty: Mapping[str, FloatArray] | None = None
    ) -> Self:
        """Find the limits; ``coverage`` is the share of these images that is decided.

        Raises:
            LeakageError: ``data`` is anything but ``CalibData``.
            DataError: a probability is NaN or outside [0, 1], or there are no images.
            CheckFailedError: a promise cannot be given and ``if_not_certifiable`` is "stop".
        """
        calib, p = fit_inputs(data, probability, policy=self.name)
        found, self.guarantees = self._limits(calib, p, uncertainty)
        stop_if_refused(self.name, self.guarantees, self.if_not_certifiable)
        first, second = (self._settle(limit) for limit in found)
        self.limits = (first, second)
        self.coverage = float(self.decide(p, uncertainty).accepted.mean())
        return self

    @abstractmethod
    def _limits(
        self, data: CalibData, probability: FloatArray, uncertainty: Mapping[str, FloatArray] | None
    ) -> tuple[tuple[Limit, Limit], tuple[Guarantee, ...]]:
        """Limits of no_roadwork and roadwork, ``uncertified`` without a value where they prove nothing."""

    def _settle(self, limit: Limit) -> Limit:
        if limit.status == "certified":
            return limit
        return Limit("withheld", None) if self.if_not_certifiable == "abstain" else Limit("uncertified", PLAIN)

    def decide(self, probability: FloatArray, uncertainty: Mapping[str, FloatArray] | None = None) -> Decisions:
        """Decisions for probabilities (N,); raises DataError on NaN or values outside [0, 1]."""
        first, second = self._fitted()
        p = checked_probability(probability)
        scores = nonconformity(p)
        inside = np.column_stack(
            [
                np.ones(len(p), dtype=bool) if limit.value is None else scores[:, k] <= limit.value
                for k, limit in enumerate((first, second))
            ]
        )
        codes = np.full(len(p), Code.ABSTAIN, dtype=np.int8)
        codes[inside[:, 0] & ~inside[:, 1]] = Code.NO_ROADWORK
        codes[inside[:, 1] & ~inside[:, 0]] = Code.ROADWORK
        made = make_decisions(codes, p, self._reasons(first, second))
        empty = ~inside.any(axis=1)
        reasons = list(made.reasons)
        for i in np.flatnonzero(empty).tolist():
            reasons[i] = "abstained: the prediction set is empty, neither label is likely enough"
        return Decisions(codes=codes, probability=p, sets=inside, reasons=reasons)

    def _reasons(self, first: Limit, second: Limit) -> dict[Code, str]:
        both = "abstained: both labels are in the prediction set"
        if "withheld" in (first.status, second.status):
            both = "abstained: both labels are in the prediction set, of which one could not be certified"
        # An answer is the other label left out, so it is as certain as the limit of the other one.
        return {
            Code.NO_ROADWORK: f"{_mark(second)}the prediction set is {{no_roadwork}}",
            Code.ROADWORK: f"{_mark(first)}the prediction set is {{roadwork}}",
            Code.ABSTAIN: both,
        }

    def _fitted(self) -> tuple[Limit, Limit]:
        if self.limits is None:
            raise ValueError("the policy has no limits yet; call fit first")
        return self.limits

    def parameters(self) -> dict[str, Any]:
        """Limits (null: the label is in every set), how each came about, the settings, and the decided share."""
        first, second = self._fitted()
        return {
            "limit_no_roadwork": first.value,
            "limit_roadwork": second.value,
            "status_no_roadwork": first.status,
            "status_roadwork": second.status,
            "coverage": self.coverage,
            **{key: getattr(self, key) for key in (*self.numbers, *self.optional, *self.words)},
        }

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Rebuild; raises BundleError on missing, unknown or impossible values."""
        policy = rebuild(cls, parameters, numbers=cls.numbers, optional=cls.optional, words=cls.words)
        policy.limits = (_read_limit(parameters, "no_roadwork"), _read_limit(parameters, "roadwork"))
        policy.coverage = read_float(parameters, "coverage", low=0.0, high=1.0)
        policy._read_more(parameters)
        require_same_keys(policy, parameters)
        return policy

    def _read_more(self, parameters: Mapping[str, Any]) -> None:
        """Read what a member stores besides; raises BundleError."""


def nonconformity(probability: FloatArray) -> FloatArray:
    """``1 - p_label`` (N, 2) for no_roadwork and roadwork; the one formula of fitting and deciding."""
    return np.column_stack([probability, 1.0 - probability])


def of_label(scores: FloatArray, labels: IntArray) -> FloatArray:
    """Score (N,) of the true label from scores (N, 2)."""
    return np.asarray(scores[np.arange(len(labels)), labels], dtype=np.float64)


def by_unit(scores: FloatArray, data: CalibData, unit: Unit) -> FloatArray:
    """``scores`` (N,) as they are, or the largest of each group."""
    if unit == "image":
        return scores
    names, place = np.unique(data.groups, return_inverse=True)
    worst = np.full(len(names), -np.inf)
    np.maximum.at(worst, place, scores)
    return worst


def split_conformal(
    scores: FloatArray, alpha: float, *, risk: str, method: str, unit: Unit, things: str
) -> tuple[float | None, Guarantee]:
    """Conformal quantile of ``scores`` with its promise in expectation; None where there are too few."""
    n, rank, limit = len(scores), conformal_rank(len(scores), alpha), conformal_quantile(scores, alpha)
    enough = rank <= n
    promise = Guarantee(
        risk=risk,
        status="certified" if enough else "not_certifiable",
        alpha=alpha,
        delta=1.0,
        kind="expectation",
        method=method,
        unit=unit,
        n=n,
        errors=int((scores > limit).sum()),
        bound=(n + 1 - rank) / (n + 1) if enough else 1.0,
    )
    if enough:
        return limit, promise
    return None, too_few(promise, things)


def _mark(limit: Limit) -> str:
    return "uncertified: " if limit.status == "uncertified" else ""


def _read_limit(parameters: Mapping[str, Any], label: str) -> Limit:
    stored, key = parameters.get(f"status_{label}"), f"limit_{label}"
    status = next((s for s in get_args(LimitStatus) if s == stored), None)
    if status is None:
        raise BundleError(f"stored parameter 'status_{label}' is {stored!r}")
    value = None if parameters.get(key) is None else read_float(parameters, key, low=0.0, high=1.0)
    if (status == "withheld" and value is not None) or (status == "uncertified" and value != PLAIN):
        raise BundleError(f"stored parameter {key!r} is {value!r}, which contradicts its status {status!r}")
    return Limit(status, value)
