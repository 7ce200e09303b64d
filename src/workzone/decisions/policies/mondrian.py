"""Class-conditional split conformal prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from workzone.data.roles import CalibData
from workzone.decisions.certificate import Guarantee, Unit
from workzone.decisions.policies.base import IfNotCertifiable, check_rates
from workzone.decisions.policies.sets import Limit, SetPolicy, by_unit, nonconformity, split_conformal
from workzone.predictions import LABELS, FloatArray


class MondrianPolicy(SetPolicy):
    """LAC with a limit of its own for each label, found on the certification images of that label.

    Promise, in expectation: over draws of exchangeable images, among images without roadwork the set lacks
    ``no_roadwork`` with probability at most ``alpha``, and among roadwork images it lacks ``roadwork`` with probability
    at most ``alpha_roadwork``. The second bounds the false-negative rate in expectation. Both hold at any prevalence,
    if the images of each class stay alike. n images of a class allow 1/(n + 1) at best: 49 for 2 %.
    Source: Vovk 2012 (arXiv 1209.2673).

    Args:
        alpha: see above.
        alpha_roadwork: see above; ``alpha`` where None.
        if_not_certifiable: as in ``SetPolicy``, for each label on its own.
        unit: as in ``SetPolicy``; groups are taken within a class.
    """

    name: ClassVar[str] = "mondrian"
    optional: ClassVar[tuple[str, ...]] = ("alpha_roadwork",)

    def __init__(
        self,
        *,
        alpha: float = 0.05,
        alpha_roadwork: float | None = None,
        if_not_certifiable: IfNotCertifiable = "uncertified",
        unit: Unit = "image",
    ) -> None:
        super().__init__(alpha=alpha, if_not_certifiable=if_not_certifiable, unit=unit)
        check_rates(self.name, alpha_roadwork=alpha_roadwork)
        self.alpha_roadwork = alpha_roadwork

    def _limits(
        self, data: CalibData, probability: FloatArray, uncertainty: Mapping[str, FloatArray] | None
    ) -> tuple[tuple[Limit, Limit], tuple[Guarantee, ...]]:
        scores = nonconformity(probability)
        limits, promises = [], []
        for k, alpha in ((0, self.alpha), (1, self.alpha_roadwork or self.alpha)):
            chosen = data.labels == k
            value, promise = split_conformal(
                by_unit(scores[chosen, k], data.take(chosen), self.unit),
                alpha,
                risk=f"miscoverage_{LABELS[k]}",
                method="split conformal by class, LAC",
                unit=self.unit,
                things=f"{LABELS[k]} {self.unit}s",
            )
            limits.append(Limit("uncertified", None) if value is None else Limit("certified", value))
            promises.append(promise)
        return (limits[0], limits[1]), tuple(promises)
