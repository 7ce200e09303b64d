"""Failure gate: abstain where a model of mistakes expects one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from workzone.calibration.base import as_number
from workzone.data.roles import CalibData, require_calib
from workzone.decisions.failure import Comparison, FailureModel, compare
from workzone.decisions.policies.base import checked_probability, read_measures
from workzone.decisions.policies.scrc import halves
from workzone.decisions.policies.sgr import SelectiveRiskPolicy
from workzone.decisions.types import Decisions
from workzone.decisions.uncertainty.names import MEASURES
from workzone.errors import BundleError, DataError
from workzone.predictions import FloatArray


class GatePolicy(SelectiveRiskPolicy):
    """The more probable label where the predicted probability of a mistake is below a cut, abstention elsewhere.

    On half A a logistic regression with L2 penalty learns mistakes from the uncertainty measures, out of fold and by
    group. It is used only where its AUROC of finding mistakes beats that of max-probability beyond the 95 % interval of
    the paired difference; otherwise max-probability is used and ``comparison`` says so. On half B the cut is certified
    as by ``sgr``. The scores must come from images the detector was not trained on, which ``CalibData`` are.

    Promise, with confidence ``1 - delta``: among the images that are answered, at most ``target_risk`` are answered
    wrongly. It rests on half B alone, whatever half A led to.

    ``fit`` takes the measures it is given (names of ``workzone.decisions.uncertainty``); ``decide`` needs those in
    ``needs``, which is empty where max-probability is used. Any other model of mistakes can take the place of
    ``FailureModel`` if it has names, a call from measures to probabilities, and a dictionary.

    Args: as ``SelectiveRiskPolicy``.
    """

    name: ClassVar[str] = "gate"
    certain: ClassVar[str] = "passed by the failure gate"
    doubtful: ClassVar[str] = "abstained: stopped by the failure gate"
    model: FailureModel | None = None
    comparison: Comparison | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """The measures of the model of mistakes, where it is used."""
        return self.model.names if self.model is not None else ()

    def fit(
        self, data: CalibData, probability: FloatArray, uncertainty: Mapping[str, FloatArray] | None = None
    ) -> Self:
        """Learn on half A, certify on half B.

        Raises:
            LeakageError: ``data`` is anything but ``CalibData``.
            DataError: a probability is NaN or outside [0, 1], no measures are given or one is not finite, or there are
                not two groups of images.
            CheckFailedError: the promise cannot be given and ``if_not_certifiable`` is "stop".
        """
        calib = require_calib(data, user=f"policy {self.name!r}")
        p = checked_probability(probability, n=len(calib))
        names = tuple(name for name in MEASURES if uncertainty is not None and name in uncertainty)
        if not names:
            raise DataError(
                "the failure gate needs uncertainty measures",
                where=f"policy {self.name!r}",
                fix="pass what workzone.decisions.uncertainty.from_views computes",
            )
        measures = read_measures(self.name, names, len(calib), uncertainty)
        # Sums in another order round differently; the result belongs to the images, not to their order.
        order = np.argsort(calib.ids)
        calib, p, measures = calib.take(order), p[order], measures[order]
        first = halves(calib)
        if not first.any() or first.all():
            raise DataError("the failure gate needs images of at least two groups", where=f"policy {self.name!r}")
        wrong, plain = (p >= 0.5) != (calib.labels == 1), np.minimum(p, 1.0 - p)
        self.comparison = compare(names, measures[first], wrong[first], plain[first], calib.groups[first])
        self.model = FailureModel.fit(names, measures[first], wrong[first]) if self.comparison.better else None
        doubt = plain if self.model is None else self.model(measures)
        self._certify(doubt[~first], wrong[~first])
        self.coverage = float(self._answer(p, doubt).accepted.mean())
        return self

    def decide(self, probability: FloatArray, uncertainty: Mapping[str, FloatArray] | None = None) -> Decisions:
        """Decisions for probabilities (N,) and the measures in ``needs``, each (N,).

        Raises:
            DataError: NaN or values outside [0, 1], or a measure is missing or not finite.
        """
        p = checked_probability(probability)
        if self.model is None:
            return self._answer(p, np.minimum(p, 1.0 - p))
        return self._answer(p, self.model(read_measures(self.name, self.needs, len(p), uncertainty)))

    def parameters(self) -> dict[str, Any]:
        """As ``SelectiveRiskPolicy``, with the model of mistakes (null: max-probability) and the comparison."""
        stored = super().parameters()
        c = self.comparison
        if c is None:
            raise ValueError("the policy has not been fitted yet; call fit first")
        figures = {"n": c.n, "mistakes": c.mistakes, "model": c.model, "plain": c.plain, "low": c.low, "high": c.high}
        return {**stored, "model": None if self.model is None else self.model.to_dict(), "comparison": figures}

    def _read_more(self, parameters: Mapping[str, Any]) -> None:
        stored, model = parameters.get("comparison"), parameters.get("model")
        keys = ("n", "mistakes", "model", "plain", "low", "high")
        if not isinstance(stored, Mapping) or set(stored) != set(keys):
            raise BundleError("the stored gate lacks its comparison with max-probability")
        if any(type(stored[k]) is not int for k in keys[:2]):
            raise BundleError("the stored comparison has counts that are no whole numbers")
        numbers = [None if stored[k] is None else as_number(stored[k]) for k in keys[2:]]
        if any(v is not None and not -1.0 <= v <= 1.0 for v in numbers):
            raise BundleError("the stored comparison has figures outside [-1, 1]")
        self.comparison = Comparison(stored["n"], stored["mistakes"], *numbers)
        self.model = None if model is None else FailureModel.from_dict(model)
        if (self.model is not None) != self.comparison.better:
            raise BundleError("the stored gate contradicts itself: its model is used if and only if it was better")
