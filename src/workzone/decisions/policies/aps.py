"""Adaptive prediction sets for two labels, without randomness."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from workzone.data.roles import CalibData
from workzone.decisions.certificate import Guarantee
from workzone.decisions.policies.sets import Limit, SetPolicy, by_unit, nonconformity, of_label, split_conformal
from workzone.predictions import FloatArray


class ApsPolicy(SetPolicy):
    """The more probable label, and the other one too unless the probability of the first reaches the limit.

    Promise, in expectation: over draws of exchangeable images, the set lacks the true label with probability at most
    ``alpha``. No set is empty. Without randomness, which would answer one image in two ways, sets are larger than
    needed, and larger than those of ``lac``: wherever more than ``alpha`` of the images are misclassified, the limit is
    1 and every image abstains. For two labels it is here for comparison; for more see ``conformal.Aps``.
    Source: Romano, Sesia, Candes 2020 (arXiv 2006.02544).
    """

    name: ClassVar[str] = "aps"

    def _limits(
        self, data: CalibData, probability: FloatArray, uncertainty: Mapping[str, FloatArray] | None
    ) -> tuple[tuple[Limit, Limit], tuple[Guarantee, ...]]:
        # The probability of the true label in the form in which ``decide`` meets it: as the score of the other one.
        own = of_label(nonconformity(probability), 1 - data.labels)
        scores = by_unit(np.where(own >= 0.5, own, 1.0), data, self.unit)
        reached, promise = split_conformal(
            scores,
            self.alpha,
            risk="miscoverage",
            method="split conformal, APS without randomness",
            unit=self.unit,
            things=f"{self.unit}s",
        )
        if reached is None:
            limit = Limit("uncertified", None)
        elif reached >= 1.0:
            limit = Limit("certified", None)
        else:
            # The second label is in where the first one stays below ``reached``, the first one always.
            limit = Limit("certified", max(float(np.nextafter(reached, 0.0)), 0.5))
        return (limit, limit), (promise,)
