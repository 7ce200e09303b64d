"""Selective conformal risk control by two halves."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from workzone.calibration.base import COEFFICIENT_LIMIT, read_float
from workzone.data.roles import CalibData
from workzone.decisions.certificate import Guarantee
from workzone.decisions.policies.base import (
    IfNotCertifiable,
    check_rates,
    check_word,
    checked_probability,
    read_measures,
)
from workzone.decisions.policies.sets import Limit, SetPolicy, nonconformity, of_label, split_conformal
from workzone.decisions.risk import GRID, certify_threshold, tightest_alpha
from workzone.decisions.types import Code, Decisions
from workzone.decisions.uncertainty.names import CERTAINTY, MAX_PROBABILITY, MEASURES
from workzone.errors import BundleError, DataError
from workzone.predictions import FloatArray

Promise = Literal["confidence", "expectation"]
_LIMITS = GRID[GRID >= 0.5]


class SelectivePolicy(SetPolicy):
    """First select the images that look easy, then make sets that keep their promise among the selected.

    On half A the selection limit is set so that a share ``selected`` is selected by the measure ``select_by``. On the
    selected images of half B the limit on ``1 - p_label`` is found. Since A alone decides who is selected, the selected
    of B are draws from the selected new images, and the second step is an ordinary one. Images that are not selected
    abstain. Halves keep groups whole.

    Promise: among selected images the set lacks the true label with probability at most ``alpha``; ``promise`` says
    how: "confidence", with ``1 - delta`` over the draw of half B (Clopper-Pearson, fixed sequence), or "expectation",
    on average over draws (conformal risk control). A wrong answer is a set without the true label, so the answers among
    the selected are wrong at most as often. About the share of selected images nothing is promised. Source: Xu, Guo,
    Wei 2025 (arXiv 2512.12844), algorithm SCRC-I; the halves and the exact bound take the place of its inequality.

    Args:
        alpha: see above.
        selected: share of half A to select.
        select_by: "max_probability", or the name of an uncertainty measure, which ``fit`` and ``decide`` then need.
        promise: see above.
        delta: probability that the promise "confidence" fails.
        if_not_certifiable: as in ``SetPolicy``.
    """

    name: ClassVar[str] = "scrc"
    numbers: ClassVar[tuple[str, ...]] = ("alpha", "selected", "delta")
    words: ClassVar[tuple[str, ...]] = ("select_by", "promise", "if_not_certifiable")

    def __init__(
        self,
        *,
        alpha: float = 0.05,
        selected: float = 0.70,
        select_by: str = MAX_PROBABILITY,
        promise: Promise = "confidence",
        delta: float = 0.05,
        if_not_certifiable: IfNotCertifiable = "uncertified",
    ) -> None:
        super().__init__(alpha=alpha, if_not_certifiable=if_not_certifiable)
        check_rates(self.name, selected=selected, delta=delta)
        check_word(self.name, "promise", promise, get_args(Promise))
        check_word(self.name, "select_by", select_by, MEASURES)
        self.selected = selected
        self.select_by = select_by
        self.promise = promise
        self.delta = delta
        self.cut = float("nan")

    @property
    def needs(self) -> tuple[str, ...]:
        """The measure it selects by, unless that is the probability."""
        return () if self.select_by == MAX_PROBABILITY else (self.select_by,)

    def _measure(self, probability: FloatArray, uncertainty: Mapping[str, FloatArray] | None) -> FloatArray:
        """(N,) rising with the wish to abstain."""
        if self.select_by == MAX_PROBABILITY:
            return np.asarray(-nonconformity(probability).max(axis=1), dtype=np.float64)
        value: FloatArray = read_measures(self.name, self.needs, len(probability), uncertainty)[:, 0]
        return -value if self.select_by in CERTAINTY else value

    def _limits(
        self, data: CalibData, probability: FloatArray, uncertainty: Mapping[str, FloatArray] | None
    ) -> tuple[tuple[Limit, Limit], tuple[Guarantee, ...]]:
        first = halves(data)
        measure = self._measure(probability, uncertainty)
        if not first.any():
            raise DataError("selection needs images of at least two groups", where=f"policy {self.name!r}")
        self.cut = float(np.sort(measure[first])[ceil(self.selected * int(first.sum())) - 1])
        kept = ~first & (measure <= self.cut)
        scores = of_label(nonconformity(probability[kept]), data.labels[kept])
        if self.promise == "expectation":
            value, promise = split_conformal(
                scores,
                self.alpha,
                risk="selected_miscoverage",
                method="SCRC-I by halves, conformal risk control",
                unit="image",
                things="selected images in the second half",
            )
        else:
            value, promise = self._with_confidence(scores)
        limit = Limit("uncertified", None) if value is None else Limit("certified", value)
        return (limit, limit), (promise,)

    def _with_confidence(self, scores: FloatArray) -> tuple[float | None, Guarantee]:
        from workzone.metrics.proportions import n_needed_for  # the predict path imports this module

        found = certify_threshold(scores, _LIMITS, self.alpha, self.delta, side="above")
        promise = Guarantee(
            risk="selected_miscoverage",
            status="not_certifiable" if found.threshold is None else "certified",
            alpha=self.alpha,
            delta=self.delta,
            method="SCRC-I by halves, Clopper-Pearson, fixed sequence",
            n=found.n,
            errors=found.errors,
            bound=found.bound,
        )
        if found.threshold is not None:
            return float(np.nextafter(found.threshold, 0.0)), promise
        clean = n_needed_for(0, self.alpha, self.delta)
        needed = n_needed_for(found.errors, self.alpha, self.delta)
        reason = (
            f"There are {found.n} selected images in the second half and {needed} are needed with the {found.errors} "
            f"errors seen at the safest limit, {clean} without any."
        )
        update = {
            "needed": needed,
            "needed_without_errors": clean,
            "tightest": tightest_alpha(found.n, self.delta),
            "reason": reason,
        }
        return None, promise.model_copy(update=update)

    def decide(self, probability: FloatArray, uncertainty: Mapping[str, FloatArray] | None = None) -> Decisions:
        """Decisions for probabilities (N,).

        Raises:
            DataError: NaN or values outside [0, 1], or the measure it selects by is missing.
        """
        p = checked_probability(probability)
        made = super().decide(p, uncertainty)
        left = ~(self._measure(p, uncertainty) <= self.cut)
        reasons = list(made.reasons)
        for i in np.flatnonzero(left).tolist():
            reasons[i] = f"abstained: not selected by {self.select_by.replace('_', ' ')}"
        return Decisions(
            codes=np.where(left, Code.ABSTAIN, made.codes).astype(np.int8),
            probability=p,
            sets=made.sets | left[:, None],
            reasons=reasons,
        )

    def parameters(self) -> dict[str, Any]:
        """As ``SetPolicy``, with the selection limit."""
        return {**super().parameters(), "cut": self.cut}

    def _read_more(self, parameters: Mapping[str, Any]) -> None:
        self.cut = read_float(parameters, "cut", low=-COEFFICIENT_LIMIT, high=COEFFICIENT_LIMIT)
        if self.select_by == MAX_PROBABILITY and not -1.0 <= self.cut <= -0.5:
            raise BundleError(f"stored parameter 'cut' is {self.cut}, which is no limit on the probability")


def halves(data: CalibData) -> np.ndarray:
    """(N,) True for the first half; whole groups, the same whatever the order of the images."""
    first, _ = data.disjoint_parts(0.5, seed=0)
    return np.isin(data.groups, first.groups)
