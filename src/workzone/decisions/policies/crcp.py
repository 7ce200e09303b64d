"""Conformal prediction from calibration labels of which a known share is random."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

import numpy as np

from workzone.data.roles import CalibData
from workzone.decisions.certificate import Guarantee
from workzone.decisions.policies.base import IfNotCertifiable, check_rates
from workzone.decisions.policies.sets import Limit, SetPolicy, nonconformity, of_label
from workzone.errors import ConfigError
from workzone.predictions import FloatArray, IntArray, sigmoid

GRID: FloatArray = sigmoid(np.linspace(10.0, 0.0, 201))
"""Candidate limits from safe to bold, 0.05 apart in log-odds; at 0.5 nothing abstains, so the search ends there."""
GRID.setflags(write=False)
_SHARE = 0.9
"""Share of delta for the errors; the rest is for the count that is subtracted from them, which matters less."""


class ContaminationPolicy(SetPolicy):
    """Limit on ``1 - p_label`` for clean labels, from certification labels with uniform noise of known rate.

    ``epsilon`` is the share of labels replaced by one of the two at random, so that half of it are wrong: state 0.10
    where 5 % of the labels are wrong. With w the share of images whose noisy label is outside the set and v the mean
    share of labels outside it, the miscoverage of clean labels is ``(w - epsilon v) / (1 - epsilon)``.

    Promise, with confidence ``1 - delta``: the set lacks the clean label with probability at most ``alpha``. Instead of
    w and v their Clopper-Pearson bounds at 0.9 ``delta`` (upper) and 0.1 ``delta`` (lower) are used: the finite-sample
    slack. Limits are tested from the safe end and the search stops at the first failure (fixed sequence). The slack of
    a promise in expectation by the uniform bound of Dvoretzky, Kiefer and Wolfowitz, ``sqrt(pi / 8n) / (1 - epsilon)``,
    would be larger than this at common sizes (0.025 for n = 716, epsilon = 0.05).

    The promise rests on ``epsilon`` being true, or stated too low: with noise that depends on the image, or less of it
    than stated, it does not hold. Source: Clarkson, Xu, Cucuringu, Reinert (arXiv 2407.07700); the test sequence and
    the bounds are ours.

    Args:
        alpha: share of new images whose set may lack the clean label.
        epsilon: see above, in [0, 1).
        delta: probability that the promise fails over the draw of images and noise.
        if_not_certifiable: as in ``SetPolicy``.
    """

    name: ClassVar[str] = "crcp"
    numbers: ClassVar[tuple[str, ...]] = ("alpha", "epsilon", "delta")
    words: ClassVar[tuple[str, ...]] = ("if_not_certifiable",)

    def __init__(
        self,
        *,
        alpha: float = 0.05,
        epsilon: float = 0.05,
        delta: float = 0.05,
        if_not_certifiable: IfNotCertifiable = "uncertified",
    ) -> None:
        super().__init__(alpha=alpha, if_not_certifiable=if_not_certifiable)
        check_rates(self.name, delta=delta)
        if not 0.0 <= epsilon < 1.0:
            raise ConfigError(f"epsilon is {epsilon}, but must lie in [0, 1)", where=f"policy {self.name!r}")
        self.epsilon = epsilon
        self.delta = delta

    def _limits(
        self, data: CalibData, probability: FloatArray, uncertainty: Mapping[str, FloatArray] | None
    ) -> tuple[tuple[Limit, Limit], tuple[Guarantee, ...]]:
        from workzone.metrics.proportions import n_needed_for  # the predict path imports this module

        scores, n = nonconformity(probability), len(data)
        outside = n - np.searchsorted(np.sort(of_label(scores, data.labels)), GRID, side="left")
        single = n - np.searchsorted(np.sort(scores.max(axis=1)), GRID, side="left")
        bound = clean_bound(outside, single, n, self.epsilon, self.delta)
        failed = np.flatnonzero(bound > self.alpha)
        passed = len(GRID) if not len(failed) else int(failed[0])
        chosen = max(passed - 1, 0)
        promise = Guarantee(
            risk="miscoverage",
            status="certified" if passed else "not_certifiable",
            alpha=self.alpha,
            delta=self.delta,
            method=f"CRCP for label noise {self.epsilon:g}, Clopper-Pearson, fixed sequence",
            n=n,
            errors=int(outside[chosen]),
            bound=float(np.clip(bound[chosen], 0.0, 1.0)),
        )
        if passed:
            # Left out is a label whose score is at or above the candidate.
            limit = Limit("certified", float(np.nextafter(GRID[chosen], 0.0)))
            return (limit, limit), (promise,)
        clean = n_needed_for(0, self.alpha * (1.0 - self.epsilon), self.delta * _SHARE)
        reason = (
            f"There are {n} images and at least {clean} without a label outside its set are needed; at the safest "
            f"limit {outside[0]} were outside."
        )
        limit = Limit("uncertified", None)
        return (limit, limit), (
            promise.model_copy(update={"needed": clean, "needed_without_errors": clean, "reason": reason}),
        )


def clean_bound(outside: IntArray, single: IntArray, n: int, epsilon: float, delta: float) -> FloatArray:
    """Upper bound at ``delta`` of the miscoverage of clean labels, for limits of 0.5 and above.

    Args:
        outside: images whose noisy label is outside the set.
        single: images whose set has one label (the others have both).
        n: images.
        epsilon: noise rate.
        delta: probability that the bound fails.
    """
    from workzone.metrics.proportions import clopper_pearson_upper  # the predict path imports this module

    most = clopper_pearson_upper(outside, n, _SHARE * delta)
    fewest = 1.0 - clopper_pearson_upper(n - single, n, (1.0 - _SHARE) * delta)
    return cast(FloatArray, (most - epsilon * fewest / 2.0) / (1.0 - epsilon))
