"""Conformal risk control of the false-negative rate."""

from __future__ import annotations

from fractions import Fraction
from math import floor
from typing import ClassVar, Literal

import numpy as np

from workzone.data.roles import CalibData
from workzone.decisions.certificate import Guarantee
from workzone.decisions.policies.base import too_few
from workzone.decisions.policies.exits import Exit, unit_scores
from workzone.decisions.policies.threshold import ThresholdPolicy
from workzone.predictions import FloatArray


class RiskControlPolicy(ThresholdPolicy):
    """Two exit thresholds like ``threshold``, but promised in expectation only.

    t_low is the largest t with ``(misses(t) + 1) / (n + 1) <= target_fnr`` on the n roadwork images, and t_high
    likewise for ``target_fpr``. Promise, in expectation: over draws of exchangeable images the mean false-negative
    rate is at most ``target_fnr`` (and the mean false-positive rate at most ``target_fpr``). For the one draw that was
    made the rate may be higher, and is in about a third of the draws; ``threshold`` promises for the draw at hand and
    needs three times the images. 49 roadwork images can prove 2 %. Source: Angelopoulos, Bates, Fisch, Lei, Schuster
    2022 (arXiv 2208.02814); the loss is 0 or 1 and falls as the threshold does.

    Args: as ``ThresholdPolicy``; ``delta`` serves only for the lower limit of the decided share.
    """

    name: ClassVar[str] = "crc"

    def _search(
        self, which: Literal["low", "high"], data: CalibData, probability: FloatArray, alpha: float
    ) -> tuple[Exit, Guarantee]:
        label = 1 if which == "low" else 0
        scores = np.sort(unit_scores(data, probability, label=label, unit=self.unit))
        n = len(scores)
        allowed = floor(Fraction(repr(float(alpha))) * (n + 1)) - 1
        threshold: float | None = None
        if allowed >= 0:
            # Errors lie strictly below t_low and at or above t_high.
            threshold = float(scores[allowed] if which == "low" else np.nextafter(scores[n - 1 - allowed], 2.0))
        saturated = threshold is not None and threshold > 1.0
        threshold = None if saturated else threshold
        promise = Guarantee(
            risk="false_negative_rate" if which == "low" else "false_positive_rate",
            status="certified" if threshold is not None else "not_certifiable",
            alpha=alpha,
            delta=1.0,
            kind="expectation",
            method="conformal risk control",
            unit=self.unit,
            n=n,
            errors=0,
            bound=(max(allowed, 0) + 1) / (n + 1) if threshold is not None else 1.0,
        )
        if threshold is not None:
            return Exit("certified", threshold), promise
        things = f"{'roadwork' if which == 'low' else 'no_roadwork'} {self.unit}s"
        if saturated:
            reason = f"More than {allowed} of {n} {things} have probability 1, so no threshold excludes them."
            return Exit("uncertified", None), promise.model_copy(update={"reason": reason})
        return Exit("uncertified", None), too_few(promise, things)
