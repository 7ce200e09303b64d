"""Failure gate: abstain where a model of mistakes expects one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np

from workzone.calibration.base import as_number
from workzone.data.roles import CalibData
from workzone.decisions.failure import MLP, Comparison, FailureModel, FitMistakes, MistakeModel, compare
from workzone.decisions.policies.base import (
    IfNotCertifiable,
    check_word,
    checked_probability,
    fit_inputs,
    read_measures,
)
from workzone.decisions.policies.scrc import halves
from workzone.decisions.policies.sgr import SelectiveRiskPolicy
from workzone.decisions.types import Decisions
from workzone.decisions.uncertainty.names import MEASURES
from workzone.errors import BundleError, ConfigError, DataError
from workzone.predictions import FloatArray

GateModel = Literal["logistic", "mlp"]
_READERS: Mapping[str, type[FailureModel] | type[MLP]] = {"logistic": FailureModel, "mlp": MLP}


class GatePolicy(SelectiveRiskPolicy):
    """The more probable label where the predicted probability of a mistake is below a cut, abstention elsewhere.

    On half A a model of mistakes learns from the uncertainty measures, out of fold and by group: a logistic regression
    with L2 penalty, or a small network that ``fit_model`` trains. It is used only where its AUROC of finding mistakes
    beats that of max-probability beyond the 95 % interval of the paired difference; otherwise max-probability is used
    and ``comparison`` says so. On half B the cut is certified as by ``sgr``. The scores must come from images the
    detector was not trained on, which ``CalibData`` are.

    Promise, with confidence ``1 - delta``: among the images that are answered, at most ``target_risk`` are answered
    wrongly. It rests on half B alone, whatever half A led to.

    ``fit`` takes the measures it is given (names of ``workzone.decisions.uncertainty``); ``decide`` needs those in
    ``needs``, which is empty where max-probability is used.

    Args:
        target_risk: as ``SelectiveRiskPolicy``.
        delta: as ``SelectiveRiskPolicy``.
        if_not_certifiable: as ``SelectiveRiskPolicy``.
        gate_model: "logistic" or "mlp".
        fit_model: trains the network for "mlp", such as ``workzone.training.gate.fit_mlp``; not needed to decide.
    """

    name: ClassVar[str] = "gate"
    certain: ClassVar[str] = "passed by the failure gate"
    doubtful: ClassVar[str] = "abstained: stopped by the failure gate"
    model: MistakeModel | None = None
    comparison: Comparison | None = None

    def __init__(
        self,
        *,
        target_risk: float = 0.05,
        delta: float = 0.05,
        if_not_certifiable: IfNotCertifiable = "uncertified",
        gate_model: GateModel = "logistic",
        fit_model: FitMistakes | None = None,
    ) -> None:
        super().__init__(target_risk=target_risk, delta=delta, if_not_certifiable=if_not_certifiable)
        check_word(self.name, "gate_model", gate_model, get_args(GateModel))
        self.gate_model: str = gate_model
        self.fit_model = fit_model

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
            ConfigError: ``gate_model`` is "mlp" and no ``fit_model`` was given.
            DataError: a probability is NaN or outside [0, 1], no measures are given or one is not finite, or there are
                not two groups of images.
            CheckFailedError: the promise cannot be given and ``if_not_certifiable`` is "stop".
        """
        calib, p = fit_inputs(data, probability, policy=self.name)
        fit = self._fit_model()
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
        self.comparison = compare(names, measures[first], wrong[first], plain[first], calib.groups[first], fit=fit)
        self.model = fit(names, measures[first], wrong[first]) if self.comparison.better else None
        doubt = plain if self.model is None else self.model(measures)
        self._certify(doubt[~first], wrong[~first])
        self.coverage = float(self._answer(p, doubt).accepted.mean())
        return self

    def _fit_model(self) -> FitMistakes:
        if self.gate_model == "logistic":
            return FailureModel.fit
        if self.fit_model is None:
            raise ConfigError(
                "the network of the failure gate is trained with torch, and nothing that does so was given",
                where=f"policy {self.name!r}, gate_model 'mlp'",
                fix="pass fit_model=workzone.training.gate.fit_mlp, or use gate_model 'logistic'",
            )
        return self.fit_model

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
        stored["gate_model"] = self.gate_model
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
        reader = _READERS.get(str(parameters.get("gate_model")))
        if reader is None:
            raise BundleError(f"stored parameter 'gate_model' is {parameters.get('gate_model')!r}")
        self.gate_model = str(parameters["gate_model"])
        self.model = None if model is None else reader.from_dict(model)
        if (self.model is not None) != self.comparison.better:
            raise BundleError("the stored gate contradicts itself: its model is used if and only if it was better")
