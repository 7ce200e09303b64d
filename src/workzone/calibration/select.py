"""Choose a calibrator by cross-validated NLL inside ``val_calib``, preferring the simpler of equals."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workzone.calibration import Calibrator, create
from workzone.calibration.folds import group_folds, mean_and_se
from workzone.data.roles import CalibData, require_calib
from workzone.errors import DataError
from workzone.predictions import FloatArray, IntArray

_EPS = 1e-12


@dataclass(frozen=True, slots=True)
class Row:
    """What one calibrator achieved out of fold.

    Attributes:
        name: the calibrator.
        n_parameters: its free parameters.
        eligible: whether it took part in the choice.
        reason: why it did not, or why it was or was not chosen.
        cv_nll: mean NLL per image in nats, over images and repeats; None where it could not be fitted.
        se: standard error of ``cv_nll`` over groups.
        excess: ``cv_nll`` minus that of the lowest eligible row.
        excess_se: standard error of ``excess`` over groups, paired image by image.
        brier: mean squared error of the out-of-fold probabilities, averaged over repeats.
        brier_se: standard error of ``brier`` over groups.
        ece: binary expected calibration error (15 equal-width bins) of the same, averaged over repeats.
    """

    name: str
    n_parameters: int
    eligible: bool
    reason: str
    cv_nll: float | None = None
    se: float | None = None
    excess: float | None = None
    excess_se: float | None = None
    brier: float | None = None
    brier_se: float | None = None
    ece: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return {key: getattr(self, key) for key in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class Selection:
    """The chosen calibrator, fitted on all images, and every candidate's row in the order they were given."""

    best: Calibrator
    table: list[Row]
    folds: int
    repeats: int

    def fitted(self, data: CalibData, make: Callable[[str], Calibrator] = create) -> dict[str, Calibrator]:
        """By name, the chosen calibrator and every other that could be scored, each fitted on all of ``data``."""
        others = [row.name for row in self.table if row.cv_nll is not None and row.name != self.best.name]
        return {self.best.name: self.best, **{name: make(name).fit(data) for name in others}}

    def rows(self, fitted: Mapping[str, Calibrator]) -> list[dict[str, Any]]:
        """The table fit for JSON: which row was chosen, and the calibrators of ``fitted`` by their values."""
        stored = {name: calibrator.to_dict() for name, calibrator in fitted.items()}
        return [
            {**row.to_dict(), "chosen": row.name == self.best.name, "fitted": stored.get(row.name)}
            for row in self.table
        ]


@dataclass(frozen=True, slots=True)
class _OutOfFold:
    nll: FloatArray
    squared: FloatArray
    ece: float


def select(
    data: CalibData,
    names: Sequence[str],
    *,
    folds: int = 5,
    repeats: int = 2,
    seed: int,
    make: Callable[[str], Calibrator] = create,
) -> Selection:
    """Choose among calibrators ``names`` and fit the chosen one on all of ``data``.

    Each repeat deals the groups into ``folds`` stratified folds (fewer where there are fewer groups) and scores every
    image with a calibrator fitted on the other folds. Chosen is the calibrator with the fewest parameters whose NLL
    exceeds the lowest by no more than one standard error of that excess. The error is the one of the paired difference:
    the plain standard error of an NLL is dominated by how hard the images are, which all candidates share, and would
    let the identity win against real miscalibration. Candidates that need more images or groups than there are
    (``fewest_images``, ``fewest_groups``) are scored and passed over, unless there is no other. Where no candidate can
    be scored (too few groups, a fold of one class) the simplest is taken, and the rows say so (``folds`` is 0).
    ``make`` gives an unfitted calibrator by name, for those with settings of their own.

    Raises:
        LeakageError: ``data`` is anything but ``CalibData``.
        DataError: only one class.
        ConfigError: an unknown name.
    """
    if not names:
        raise ValueError("names must hold at least one calibrator")
    if folds < 2 or repeats < 1:
        raise ValueError("folds must be at least 2 and repeats at least 1")
    calib = require_calib(data, user="the choice of a calibrator")
    candidates = list(dict.fromkeys(names))
    barred = _barred(calib, {name: make(name) for name in candidates})
    groups = np.unique(calib.groups, return_inverse=True)[1]
    n_groups = int(groups.max(initial=-1)) + 1
    if n_groups < 2:
        why = f"cross-validation needs at least two groups, and the calibration images hold {n_groups}"
        return _simplest(calib, dict.fromkeys(candidates, why) | barred, repeats, make, passed_over=barred)
    used_folds = min(folds, n_groups)
    rng = np.random.default_rng(seed)
    fold_sets = [group_folds(calib.labels, calib.groups, used_folds, rng) for _ in range(repeats)]

    results: dict[str, _OutOfFold | str] = {name: _out_of_fold(calib, make, name, fold_sets) for name in candidates}
    scored = {name: r for name, r in results.items() if isinstance(r, _OutOfFold)}
    eligible = [name for name in scored if name not in barred]
    if not eligible:
        failed = {name: r if isinstance(r, str) else barred[name] for name, r in results.items()}
        return _simplest(calib, failed, repeats, make, passed_over=barred)

    lowest = min(eligible, key=lambda name: (float(scored[name].nll.mean()), make(name).n_parameters))
    excess = {name: mean_and_se(r.nll - scored[lowest].nll, groups) for name, r in scored.items()}
    within = [name for name in eligible if excess[name][0] <= excess[name][1]]
    chosen = min(within, key=lambda name: (make(name).n_parameters, excess[name][0]))

    table = []
    for name in candidates:
        result, size = results[name], make(name).n_parameters
        if isinstance(result, str):
            table.append(Row(name, size, eligible=False, reason=result))
            continue
        mean, se = mean_and_se(result.nll, groups)
        if name in barred:
            reason = barred[name]
        elif name == chosen:
            reason = "chosen: " + (
                "lowest NLL" if name == lowest else f"simplest within one standard error of {lowest}"
            )
        elif name in within:
            reason = f"within one standard error of {lowest}, not simpler than {chosen}"
        else:
            reason = f"more than one standard error above {lowest}"
        brier, brier_se = mean_and_se(result.squared, groups)
        row = Row(name, size, name not in barred, reason, mean, se, *excess[name], brier, brier_se, result.ece)
        table.append(row)
    return Selection(make(chosen).fit(calib), table, used_folds, repeats)


def _barred(calib: CalibData, candidates: Mapping[str, Calibrator]) -> dict[str, str]:
    """Why candidates are passed over that need more images or groups than there are; of several, one is left."""
    groups = min(len(np.unique(calib.groups[calib.labels == label])) for label in (0, 1))
    found = {}
    for name, member in candidates.items():
        if len(calib) < member.fewest_images:
            found[name] = f"needs {member.fewest_images} images or more, has {len(calib)}"
        elif groups < member.fewest_groups:
            found[name] = f"needs {member.fewest_groups} groups of each class or more, has {groups}"
    if len(found) == len(candidates):
        del found[min(found, key=lambda name: candidates[name].n_parameters)]
    return {name: f"{why}; chosen only where no candidate needs fewer" for name, why in found.items()}


def _simplest(
    calib: CalibData,
    failed: Mapping[str, str],
    repeats: int,
    make: Callable[[str], Calibrator],
    *,
    passed_over: Collection[str],
) -> Selection:
    """The candidate with the fewest parameters, its row saying that nothing could be compared and why."""
    chosen = min(failed, key=lambda name: (name in passed_over, make(name).n_parameters))
    table = [
        Row(
            name,
            make(name).n_parameters,
            eligible=name == chosen,
            reason=f"chosen without comparison, as the simplest: {why}" if name == chosen else why,
        )
        for name, why in failed.items()
    ]
    return Selection(make(chosen).fit(calib), table, 0, repeats)


def _out_of_fold(
    calib: CalibData, make: Callable[[str], Calibrator], name: str, fold_sets: Sequence[IntArray]
) -> _OutOfFold | str:
    """Out-of-fold results of one calibrator, or the reason why a fold could not be fitted."""
    from workzone.metrics.calibration import ece  # the predict path imports this package

    y = calib.labels.astype(np.float64)
    nll = np.zeros(len(calib))
    squared = np.zeros(len(calib))
    eces = []
    for fold_of in fold_sets:
        p = np.full(len(calib), np.nan)
        for fold in np.unique(fold_of).tolist():
            held_out = fold_of == fold
            try:
                p[held_out] = make(name).fit(calib.take(~held_out)).apply(calib.take(held_out))
            except DataError as error:
                return f"fold {fold + 1} of {len(np.unique(fold_of))} cannot be fitted: {error.what}"
        q = np.clip(p, _EPS, 1.0 - _EPS)
        nll -= (y * np.log(q) + (1.0 - y) * np.log1p(-q)) / len(fold_sets)
        squared += (p - y) ** 2 / len(fold_sets)
        eces.append(float(ece(calib.labels, p)))
    return _OutOfFold(nll, squared, float(np.mean(eces)))
