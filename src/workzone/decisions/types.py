"""A decision about one image, as arrays for many and as a record for one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from workzone.predictions import FloatArray

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
    """

    codes: NDArray[np.int8]
    probability: FloatArray
    sets: NDArray[np.bool_]
    reasons: Sequence[str]

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
    """

    label: DecisionLabel
    probability: float
    log_odds: float
    prediction_set: frozenset[str]
    reason: str
    uncertainty: Mapping[str, float] = field(default_factory=dict)
    views: Sequence[ViewScore] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return {
            "decision": self.label,
            "probability": self.probability,
            "log_odds": self.log_odds,
            "prediction_set": sorted(self.prediction_set),
            "reason": self.reason,
            "uncertainty": dict(self.uncertainty),
            "views": [{"box": list(v.box), "log_odds": v.log_odds, "weight": v.weight} for v in self.views],
        }
