"""What a mixture of calibrators gains in MCC over calibration alone, with the threshold named as what moves it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np

from workzone.calibration.base import Calibrator
from workzone.calibration.simplex import weights_by_brier
from workzone.calibration.stack import MEMBERS, Member, StackingCalibrator, fit_member, out_of_fold
from workzone.data.roles import CalibData, require_calib
from workzone.errors import DataError
from workzone.predictions import FloatArray

_STEPS = 10
_MOST = 4


@dataclass(frozen=True, slots=True)
class TradeRow:
    """One mixture, measured on out-of-fold probabilities.

    Attributes:
        name: a member, 'calibration only' or 'trade-off'.
        weights: shares of the members.
        skill: Brier skill score, ``1 - Brier / (base rate * (1 - base rate))``.
        mcc_at_half: MCC of deciding at 0.5.
        mcc: MCC at ``threshold``, the best one on these images and so optimistic.
        threshold: roadwork is said at this probability and above.
        objective: ``(1 - mcc_weight) * skill + mcc_weight * mcc``.
    """

    name: str
    weights: tuple[float, ...]
    skill: float
    mcc_at_half: float
    mcc: float
    threshold: float
    objective: float


@dataclass(frozen=True, slots=True)
class TradeOff:
    """The mixture with the highest objective, and what it is made of.

    Attributes:
        calibrator: the mixture, its members fitted on all images.
        threshold: its threshold; no part of the calibrator, a policy has to be given it.
        rows: every member, the mixture by calibration alone, and the trade-off.
        from_threshold: MCC gained by moving the threshold of the mixture from 0.5 to ``threshold``.
        from_weights: MCC at its best threshold minus the same of the best single member: what the weights gained.
    """

    calibrator: Calibrator
    threshold: float
    rows: list[TradeRow]
    from_threshold: float
    from_weights: float

    def to_dict(self) -> dict[str, Any]:
        """Rows and the two shares of the gain, fit for JSON."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "threshold": self.threshold,
            "mcc_from_threshold": self.from_threshold,
            "mcc_from_weights": self.from_weights,
        }


def trade_off(data: CalibData, names: Sequence[str] = MEMBERS, *, mcc_weight: float = 0.5) -> TradeOff:
    """Weights and threshold with the highest ``(1 - mcc_weight) * Brier skill + mcc_weight * MCC``, out of fold.

    A monotone map keeps the ranking, and with it the set of decisions that some threshold can reach, so all monotone
    members have one best MCC up to ties: what moves MCC is the threshold. ``from_threshold`` and ``from_weights`` say
    how much each did here. The weights are searched on a grid of tenths because MCC is a step function.

    Raises:
        LeakageError: ``data`` is anything but ``CalibData``.
        DataError: one class only, or too few groups for folds.
    """
    from workzone.metrics.classification import best_mcc_threshold, confusion, mcc  # not part of the light core

    calib = require_calib(data, user="the trade-off of calibration and MCC")
    members = tuple(dict.fromkeys(names))
    if not 1 <= len(members) <= _MOST or not 0.0 <= mcc_weight <= 1.0:
        raise ValueError(f"a trade-off takes 1 to {_MOST} calibrators and a weight of MCC in [0, 1]")
    fitted = [fit_member(name, calib) for name in members]
    p = out_of_fold(calib, members)[1]
    if not len(p):
        raise DataError("the calibration images cannot be cut into folds with both classes", fix="give more groups")

    def row(name: str, weights: FloatArray) -> TradeRow:
        mixed, y = p @ weights, calib.labels
        skill = 1.0 - float(np.mean((mixed - y) ** 2) / (y.mean() * (1.0 - y.mean())))
        best = best_mcc_threshold(y, mixed)
        half = float(mcc(confusion(y, (mixed >= 0.5).astype(np.int64))))
        objective = (1.0 - mcc_weight) * skill + mcc_weight * best.mcc
        return TradeRow(name, tuple(weights.tolist()), skill, half, best.mcc, best.value, objective)

    rows = [row(name, unit) for name, unit in zip(members, np.eye(len(members)), strict=True)]
    best_member = max(r.mcc for r in rows)
    rows.append(row("calibration only", weights_by_brier(p, calib.labels.astype(np.float64))))
    lattice = (w for w in product(range(_STEPS + 1), repeat=len(members)) if sum(w) == _STEPS)
    # Of equals the one nearest to calibration alone, as its skill is the higher.
    best = max((row("trade-off", np.array(w) / _STEPS) for w in lattice), key=lambda r: (r.objective, r.skill))
    rows.append(best)
    stack = StackingCalibrator.of([Member(c, w) for c, w in zip(fitted, best.weights, strict=True)], "brier")
    return TradeOff(stack, best.threshold, rows, best.mcc - best.mcc_at_half, best.mcc - best_member)
