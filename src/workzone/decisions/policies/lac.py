"""Split conformal prediction with the least ambiguous sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from workzone.data.roles import CalibData
from workzone.decisions.certificate import Guarantee
from workzone.decisions.policies.sets import Limit, SetPolicy, by_unit, nonconformity, of_label, split_conformal
from workzone.predictions import FloatArray


class LacPolicy(SetPolicy):
    """A label is in the set where ``1 - p_label`` is at most the ``ceil((n + 1)(1 - alpha))``-th smallest of n scores.

    Promise, in expectation: over draws of certification and new images that are exchangeable, the set lacks the true
    label with probability at most ``alpha``, and at least ``alpha - 1/(n + 1)`` where no two scores are equal. For one
    draw of n images the realised share varies as a Beta law, with standard deviation ``sqrt(alpha (1 - alpha) / n)``.
    Nothing is promised for each class: the errors may all be roadwork (``mondrian`` promises per class).
    Source: Vovk, Gammerman, Shafer 2005; Sadinle, Lei, Wasserman 2019 (arXiv 1609.00451).
    """

    name: ClassVar[str] = "lac"

    def _limits(
        self, data: CalibData, probability: FloatArray, uncertainty: Mapping[str, FloatArray] | None
    ) -> tuple[tuple[Limit, Limit], tuple[Guarantee, ...]]:
        scores = by_unit(of_label(nonconformity(probability), data.labels), data, self.unit)
        value, promise = split_conformal(
            scores,
            self.alpha,
            risk="miscoverage",
            method="split conformal, LAC",
            unit=self.unit,
            things=f"{self.unit}s",
        )
        limit = Limit("uncertified", None) if value is None else Limit("certified", value)
        return (limit, limit), (promise,)
