"""A decision about one image, as arrays for many and as a record for one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from workzone.predictions import LABELS, FloatArray, IntArray

DecisionLabel = Literal["roadwork", "no_roadwork", "abstain"]


class Code(IntEnum):
    """Decision codes in arrays."""

    ABSTAIN = -1
    NO_ROADWORK = 0
    ROADWORK = 1


NAMES: Mapping[int, DecisionLabel] = {
    Code.ABSTAIN: "abstain",
    Code.NO_ROADWORK: "no_roadwork",
    Code.ROADWORK: "roadwork",
}


@dataclass(frozen=True, slots=True)
class Decisions:
    """Decisions of one policy about N images.

    Attributes:
        codes: (N,) values of ``Code``.
        probability: (N,) calibrated probability of roadwork.
        sets: (N, 2) booleans, whether no_roadwork and roadwork are in the prediction set.
        reasons: (N,) short reason for each decision.
        stage: (N,) stage of a cascade, from 1, at which each image stopped; None without a cascade.
        cost: (N,) share of its views that each image needed; None without a cascade.
    """

    codes: NDArray[np.int8]
    probability: FloatArray
    sets: NDArray[np.bool_]
    reasons: Sequence[str]
    stage: IntArray | None = None
    cost: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def accepted(self) -> NDArray[np.bool_]:
        """(N,) True where the policy decided rather than abstained."""
        return np.asarray(self.codes != Code.ABSTAIN)


@dataclass(frozen=True, slots=True)
class ViewScore:
    """One view of an image: normalised box (x0, y0, x1, y1), its log-odds and its weight in the decision."""

    box: tuple[float, float, float, float]
    log_odds: float
    weight: float


@dataclass(frozen=True, slots=True)
class Decision:
    """What the detector says about one image.

    Attributes:
        label: the decision.
        probability: calibrated probability of roadwork.
        log_odds: uncalibrated log-odds.
        prediction_set: labels the policy does not exclude.
        reason: why the policy decided or abstained.
        uncertainty: named uncertainty measures.
        views: the views that were scored, global view first.
        stage: stage of a cascade, from 1, at which the image stopped; None without a cascade.
        cost: share of all its views that a cascade needed; None without a cascade.
    """

    label: DecisionLabel
    probability: float
    log_odds: float
    prediction_set: frozenset[str]
    reason: str
    uncertainty: Mapping[str, float] = field(default_factory=dict)
    views: Sequence[ViewScore] = ()
    stage: int | None = None
    cost: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON; ``stage`` and ``cost`` only for a cascade."""
        cascade = {} if self.stage is None else {"stage": self.stage, "cost": self.cost}
        return {
            "decision": self.label,
            "probability": self.probability,
            "log_odds": self.log_odds,
            "prediction_set": sorted(self.prediction_set),
            "reason": self.reason,
            "uncertainty": dict(self.uncertainty),
            **cascade,
            "views": [{"box": list(v.box), "log_odds": v.log_odds, "weight": v.weight} for v in self.views],
        }


def together(one_by_one: Sequence[Decision]) -> Decisions:
    """Decisions about N images as arrays."""
    codes = {name: code for code, name in NAMES.items()}
    staged = bool(one_by_one) and all(d.stage is not None for d in one_by_one)
    return Decisions(
        codes=np.array([codes[d.label] for d in one_by_one], dtype=np.int8),
        probability=np.array([d.probability for d in one_by_one], dtype=np.float64),
        sets=np.array([[name in d.prediction_set for name in LABELS] for d in one_by_one], dtype=bool).reshape(-1, 2),
        reasons=[d.reason for d in one_by_one],
        stage=np.array([d.stage for d in one_by_one], dtype=np.int64) if staged else None,
        cost=np.array([d.cost for d in one_by_one], dtype=np.float64) if staged else None,
    )
