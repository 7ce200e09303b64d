"""Stacking: a mixture of few calibrators with weights learned out of fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from workzone.calibration.base import Calibrator, read_float
from workzone.calibration.folds import fixed_folds, mean_and_se
from workzone.calibration.simplex import MAX_MEMBERS, weights_by_brier, weights_by_nll
from workzone.data.roles import CalibData
from workzone.errors import BundleError, DataError
from workzone.predictions import FloatArray

MEMBERS = ("temperature", "beta")
"""Two members are what about 700 images can tell apart."""
Loss = Literal["nll", "brier"]
_EPS = 1e-12


@dataclass(frozen=True, slots=True)
class Member:
    """One calibrator of the mixture, fitted on all images.

    Attributes:
        calibrator: the fitted member.
        weight: its share of the mixture.
        loss: mean out-of-fold loss per image of this member alone; None where no fold could be fitted.
        excess: ``loss`` minus the lowest among the members and the mixture; None likewise.
        excess_se: standard error of ``excess`` over groups, paired image by image; None likewise.
    """

    calibrator: Calibrator
    weight: float
    loss: float | None = None
    excess: float | None = None
    excess_se: float | None = None


class StackingCalibrator(Calibrator):
    """``p = sum of w_m g_m(u)`` with w on the simplex, minimising NLL or Brier of out-of-fold probabilities (convex).

    The loss of the mixture itself is measured with weights learned on the other folds. Used is the simplest among the
    members and the mixture whose loss exceeds the lowest by no more than one standard error of that excess; a single
    member is stored as weight 1. So the mixture is taken only where it is better than temperature alone by more than
    the noise of the comparison. ``members`` reports every member, used or not.

    Neither ECE nor MCC is an objective: both are step functions, ECE is lowest for the base rate of every image, and
    MCC is moved by the threshold; ``workzone.calibration.trade_off`` states that trade for those who ask for it.

    Args:
        names: one to eight calibrators of log-odds alone.
        loss: 'nll' or 'brier'.
    """

    name: ClassVar[str] = "stack"
    n_parameters: ClassVar[int] = 5

    def __init__(self, names: Sequence[str] = MEMBERS, loss: Loss = "nll") -> None:
        from workzone.calibration import create  # the registry holds this class

        self.names = tuple(dict.fromkeys(names))
        if not 1 <= len(self.names) <= MAX_MEMBERS or self.name in self.names:
            raise ValueError(f"a stack holds one to {MAX_MEMBERS} calibrators other than itself")
        if loss not in ("nll", "brier"):
            raise ValueError(f"loss must be 'nll' or 'brier', not {loss!r}")
        self.loss: Loss = loss
        self.members = [Member(create(name), 1.0 / len(self.names)) for name in self.names]
        self.mixture_loss: float | None = None
        """Out-of-fold loss of the mixture, its weights learned on the other folds."""

    def _fit(self, data: CalibData) -> None:
        fold_of, p = out_of_fold(data, self.names)
        fitted = [fit_member(name, data) for name in self.names]
        if not len(p):
            simplest = min(range(len(fitted)), key=lambda m: fitted[m].n_parameters)
            self.members = [Member(c, float(m == simplest)) for m, c in enumerate(fitted)]
            self.mixture_loss = None
            return
        mixed = np.empty(len(data))
        for fold in np.unique(fold_of).tolist():
            held_out = fold_of == fold
            mixed[held_out] = p[held_out] @ self._weights(p[~held_out], data.labels[~held_out])
        losses = [*self._losses(p, data.labels).T, self._losses(mixed[:, None], data.labels)[:, 0]]
        means = [float(row.mean()) for row in losses]
        lowest = int(np.argmin(means))
        groups = np.unique(data.groups, return_inverse=True)[1]
        excess = [mean_and_se(row - losses[lowest], groups) for row in losses]
        sizes = [c.n_parameters for c in fitted]
        sizes.append(sum(sizes) + len(sizes) - 1)
        within = [i for i, (mean, se) in enumerate(excess) if mean <= se]
        chosen = min(within, key=lambda i: (sizes[i], means[i]))
        weights = np.eye(len(fitted))[chosen] if chosen < len(fitted) else self._weights(p, data.labels)
        self.members = [Member(c, float(weights[m]), means[m], *excess[m]) for m, c in enumerate(fitted)]
        self.mixture_loss = means[-1]

    def _weights(self, p: FloatArray, labels: NDArray[np.int64]) -> FloatArray:
        if self.loss == "brier":
            return weights_by_brier(p, labels.astype(np.float64))
        return weights_by_nll(np.maximum(np.where(labels[:, None] == 1, p, 1.0 - p), _EPS))

    def _losses(self, p: FloatArray, labels: NDArray[np.int64]) -> FloatArray:
        """(N, M) loss of each image under each column of ``p``."""
        if self.loss == "brier":
            return np.asarray((p - labels[:, None]) ** 2)
        return np.asarray(-np.log(np.maximum(np.where(labels[:, None] == 1, p, 1.0 - p), _EPS)))

    @classmethod
    def of(cls, members: Sequence[Member], loss: Loss = "nll") -> Self:
        """The mixture of fitted ``members`` with their weights."""
        made = cls([m.calibrator.name for m in members], loss)
        made.members = list(members)
        return made

    def __call__(self, log_odds: FloatArray) -> FloatArray:
        """Probabilities (N,) of ``log_odds`` (N,)."""
        parts = [m.weight * m.calibrator(log_odds) for m in self.members if m.weight > 0.0]
        return np.asarray(np.minimum(np.sum(parts, axis=0), 1.0), dtype=np.float64)

    def parameters(self) -> dict[str, Any]:
        """Loss, members with their weights and out-of-fold losses, and the loss of the mixture."""
        return {
            "loss": self.loss,
            "mixture_loss": self.mixture_loss,
            "members": [
                {
                    **m.calibrator.to_dict(),
                    "weight": m.weight,
                    "loss": m.loss,
                    "excess": m.excess,
                    "excess_se": m.excess_se,
                }
                for m in self.members
            ],
        }

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Rebuild; raises BundleError on an impossible member or weights that are not a distribution."""
        from workzone.calibration import from_dict

        stored, loss = parameters.get("members"), parameters.get("loss")
        if loss not in ("nll", "brier"):
            raise BundleError(f"a stored stack has the loss {loss!r}, expected 'nll' or 'brier'")
        if not isinstance(stored, list) or not 1 <= len(stored) <= MAX_MEMBERS:
            raise BundleError(f"a stored stack must hold 1 to {MAX_MEMBERS} members")
        members = []
        for entry in stored:
            if not isinstance(entry, Mapping) or entry.get("method") == cls.name:
                raise BundleError("a member of a stored stack is not a calibrator, or is a stack itself")
            calibrator = from_dict({key: entry[key] for key in ("method", "parameters") if key in entry})
            numbers = [_optional(entry, key) for key in ("loss", "excess", "excess_se")]
            members.append(Member(calibrator, read_float(entry, "weight", low=0.0, high=1.0), *numbers))
        if abs(sum(m.weight for m in members) - 1.0) > 1e-9:
            raise BundleError("the weights of a stored stack do not sum to one")
        made = cls.of(members, loss)
        made.mixture_loss = _optional(parameters, "mixture_loss")
        return made


def out_of_fold(data: CalibData, names: Sequence[str]) -> tuple[NDArray[np.int64], FloatArray]:
    """Fold (N,) and out-of-fold probabilities (N, M) of calibrators ``names``; (0, M) where a fold cannot be fitted."""
    nothing = np.zeros((0, len(names)))
    fold_of = fixed_folds(data.labels, data.groups)
    if len(np.unique(fold_of)) < 2:
        return fold_of, nothing
    p = np.empty((len(data), len(names)))
    for fold in np.unique(fold_of).tolist():
        held_out = fold_of == fold
        train, test = data.take(~held_out), data.take(held_out)
        if train.n_positive in (0, len(train)):
            return fold_of, nothing
        for m, name in enumerate(names):
            p[held_out, m] = fit_member(name, train).apply(test)
    return fold_of, p


def fit_member(name: str, data: CalibData) -> Calibrator:
    """Calibrator ``name`` fitted to ``data``; raises DataError for one that needs slices."""
    from workzone.calibration import create
    from workzone.calibration.slices import SliceCalibrator

    made = create(name)
    if isinstance(made, SliceCalibrator):
        raise DataError(f"{name!r} needs slices and cannot be a member of a stack", fix="stack maps of log-odds alone")
    return made.fit(data)


def _optional(stored: Mapping[str, Any], key: str) -> float | None:
    return None if stored.get(key) is None else read_float(stored, key)
