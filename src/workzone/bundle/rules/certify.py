"""Calibrate, decide and certify the scores of a model that was made elsewhere; numpy only, no network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workzone.bundle.rules import rule
from workzone.calibration import Calibrator, choice
from workzone.calibration.select import select
from workzone.config.deciding import CalibrateConfig, DecideConfig
from workzone.data.roles import CalibData
from workzone.decisions import Certificate, Decisions, Policy, fit_policy, issue, unfitted
from workzone.decisions.policies.cascade import CascadePolicy
from workzone.decisions.policies.gate import GatePolicy
from workzone.decisions.policies.scrc import SelectivePolicy
from workzone.decisions.uncertainty.names import MEASURES
from workzone.errors import ConfigError, DataError, LeakageError
from workzone.evaluation.given import Given
from workzone.evaluation.given_calibration import calib_data, split_values, told_split
from workzone.evaluation.inputs import Evaluated, groups_of
from workzone.files import sha256_file, sha256_json
from workzone.predictions import Predictions, sigmoid

UNKNOWN = "not known: the scores were made elsewhere"
_PACKAGES = ("workzone", "numpy", "scipy", "polars")


@dataclass(frozen=True, slots=True)
class Settings:
    """Sections of a configuration, and the seed of every draw."""

    calibrate: CalibrateConfig
    decide: DecideConfig
    seed: int = 0


@dataclass(frozen=True)
class Certified:
    """What came of a table of predictions.

    Attributes:
        given: the table.
        settings: what was asked for.
        first: images the calibrator was fitted on.
        second: images the policy was fitted on and the promise rests on.
        calibrator: fitted on ``first``.
        policy: fitted on ``second``.
        certificate: what is promised.
        tried: every calibrator that was tried, as phase calibrate stores them, and the scores as they are.
        test: (N,) images of the table that are measured afterwards.
        unused: images of the table that are neither.
        predictions: the whole table with the score that was used.
    """

    given: Given
    settings: Settings
    first: CalibData
    second: CalibData
    calibrator: Calibrator
    policy: Policy
    certificate: Certificate
    tried: dict[str, Any]
    test: NDArray[np.bool_]
    unused: int
    predictions: Predictions

    @property
    def decided(self) -> Decisions:
        """What the policy decides on the certification images."""
        return rule.decide(self.calibrator, self.policy, rows_of(self.predictions, self.second))

    @property
    def score(self) -> str:
        """The column that holds the score."""
        return score_column(self.given)


def score_column(given: Given) -> str:
    """Column of the score: ``log_odds`` where the table has it, which no rounding to 0 or 1 has touched."""
    return given.score_columns[0]


def certify(given: Given, settings: Settings, *, created: datetime | None = None) -> Certified:
    """Choose and fit a calibrator on one part of the calibration images, fit and certify the policy on the other.

    Calibration images are those that the column ``split`` calls so, or all where it tells no split. Whoever gives the
    table vouches that the model was neither trained nor chosen on them.

    Raises:
        ConfigError: a policy that a table cannot serve.
        DataError: no labels, no calibration images, too few groups, or one class only.
        LeakageError: a group has calibration images and images of another part of the split.
        CheckFailedError: the promise cannot be given and ``decide.if_not_certifiable`` is "stop".
    """
    predictions = rule.by_score(given, score_column(given))
    _require_served(settings.decide, predictions, given.path)
    calib, test = _roles(given)
    data = calib_data(given, calib)
    first, second = _parts(data, settings, given.path)
    chosen = choice.choose(first, settings.calibrate, seed=settings.seed)
    calibrator = chosen.best
    p = calibrator.apply(second)
    policy = unfitted(settings.decide.policy, settings.decide.model_dump())
    measured = rule.measures(rows_of(predictions, second), p)
    fit_policy(policy, calibrator, second, calibration=first, uncertainty=measured)
    roles = {"calibration": first, "certification": second}
    split = {name: sorted(part.ids.tolist()) for name, part in roles.items()} | {
        "test": sorted(predictions.ids[test].tolist())
    }
    certificate = issue(
        policy,
        calibrator,
        calibration=first,
        certification=second,
        engine=f"made elsewhere (scores in {given.path.name})",
        engine_sha256=sha256_file(given.path),
        preprocessing_sha256=UNKNOWN,
        split_sha256=sha256_json(split),
        created=created,
    )
    tried = choice.table(chosen, first, settings.calibrate)
    if all(r["name"] != "none" for r in tried["methods"]):
        tried["methods"].append(_as_given(first, settings))
    return Certified(
        given, settings, first, second, calibrator, policy, certificate, tried, test,
        len(predictions) - len(data) - int(test.sum()), predictions,
    )  # fmt: skip


def rows_of(predictions: Predictions, data: CalibData) -> Predictions:
    """The rows of the images of ``data``, in their order."""
    row = {image_id: i for i, image_id in enumerate(predictions.ids.tolist())}
    return predictions.take([row[image_id] for image_id in data.ids.tolist()])


def _require_served(settings: DecideConfig, predictions: Predictions, path: Path) -> None:
    """Refuse policies that need more than this table has."""
    name = settings.policy
    if name == CascadePolicy.name:
        raise ConfigError(
            "policy 'cascade' plans which views of a picture its network looks at, and a table has no network",
            where="decide.policy",
            fix="use decide.policy=threshold, which makes the same promise",
        )
    columns = [m for m in MEASURES if m in predictions.columns and m not in rule.OF_THE_PROBABILITY]
    views = rule.count_views(predictions) > 0
    add = "add columns view_log_odds_0, view_log_odds_1, ... (one a view), or a column named like the measure"
    if name == GatePolicy.name:
        if settings.gate_model == "mlp":
            raise ConfigError(
                "the network of the failure gate is trained with PyTorch, which this command does without",
                where="decide.gate_model",
                fix="use decide.gate_model=logistic",
            )
        if not columns and not views:
            raise ConfigError(
                "policy 'gate' learns from uncertainty measures beside the probability, and the table has none",
                where=str(path),
                fix=f"{add}; or use decide.policy=sgr, which makes the same promise by the probability alone",
            )
    by = settings.select_by
    if name == SelectivePolicy.name and by not in (*rule.OF_THE_PROBABILITY, *columns) and not views:
        raise ConfigError(
            f"policy 'scrc' is to select by {by!r}, and the table has nothing to compute it from",
            where=str(path),
            fix=f"{add}; or use decide.select_by=max_probability",
        )


def _roles(given: Given) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(N,) calibration and (N,) test images; groups stay on one side."""
    if given.predictions.labels is None:
        raise DataError(
            "the table has no column 'label', so nothing can be fitted or certified",
            where=str(given.path),
            fix="add the column label: 1 or roadwork, 0 or no_roadwork",
        )
    told = told_split(given)
    if told is None:
        every = np.ones(len(given.predictions), dtype=bool)
        return every, ~every
    calib, test = told
    if not calib.any():
        raise DataError(
            "the column 'split' names no calibration images, and only these are fitted to",
            where=f"{given.path}, {split_values(given)}",
            fix="name them 'calibration' (images the model was not trained or chosen on), or drop the column",
        )
    groups = groups_of(given.predictions)
    shared = np.intersect1d(groups[calib], groups[~calib])
    if len(shared):
        name = str(shared[0]).partition(":")[2]
        raise LeakageError(
            f"{len(shared)} groups have calibration images and images of another split, so neither the promise nor "
            "what is measured would hold",
            where=f"{given.path}, group {name!r}",
            fix="split by whole groups, or drop the column 'group' if images of one group are independent",
        )
    return calib, test


def _parts(data: CalibData, settings: Settings, path: Path) -> tuple[CalibData, CalibData]:
    n_groups = len(np.unique(data.groups))
    if n_groups < 2:
        raise DataError(
            f"calibrator and certificate need images of their own, and the {len(data)} calibration images are of "
            f"{n_groups} group",
            where=str(path),
            fix="add images of other groups, or drop the column 'group' if images of one group are independent",
        )
    first, second = data.disjoint_parts(settings.calibrate.fraction, seed=settings.seed)
    for what, part in (("the calibrator", first), ("the certificate", second)):
        if part.n_positive in (0, len(part)):
            raise DataError(
                f"the part for {what} has {part.n_positive} roadwork images among {len(part)}, and needs both classes",
                where=str(path),
                fix="add labelled images, of several groups where there are groups",
            )
    return first, second


def _as_given(first: CalibData, settings: Settings) -> dict[str, Any]:
    """Row of the scores as they are, which was no candidate, so that before and after can be seen."""
    alone = select(first, ["none"], folds=settings.calibrate.folds, seed=settings.seed)
    why = "the scores as given; no candidate"
    row = replace(alone.table[0], eligible=False, reason=why, excess=None, excess_se=None)
    return {**row.to_dict(), "chosen": False, "fitted": alone.best.to_dict()}


def evaluated(c: Certified) -> Evaluated:
    """What a report on the test images needs; there must be some."""
    from workzone.calibration import from_dict

    part = c.predictions.take(c.test)
    decided = rule.decide(c.calibrator, c.policy, part)
    columns = part.columns
    fitted = {row["name"]: from_dict(row["fitted"]) for row in c.tried["methods"] if row["fitted"] is not None}
    before = sigmoid(part.log_odds)
    note = (
        f"Measured out of fold on {c.tried['n']:,} calibration images of the table; the last columns show each, fitted "
        "on all of these, on the images of this report."
    )
    return Evaluated(
        predictions=part,
        probability=decided.probability,
        decisions=decided,
        policy=c.policy.to_dict(),
        calibrators=c.tried["methods"],
        calibrated={name: calibrator.on(part.log_odds, columns) for name, calibrator in fitted.items()},
        calibration_note=note,
        before=None if np.allclose(before, decided.probability, atol=1e-9) else before,
        certificate=c.certificate,
        meta={"run": c.given.name, "data": c.given.path.name, "engine": "made elsewhere"},
        root=c.given.path.resolve().parent,
    )


def record_values(c: Certified) -> dict[str, Any]:
    """Values of ``RuleRecord`` but for the hashes; the date is that of the certificate."""
    scores = np.concatenate([c.first.scores, c.second.scores])
    return {
        "created": c.certificate.created,
        "table": {
            "name": c.given.path.name,
            "sha256": c.certificate.engine_sha256,
            "score": c.score,
            "lowest": float(scores.min()),
            "highest": float(scores.max()),
            "views": rule.count_views(c.predictions),
        },
        "n": {
            "calibration": len(c.first),
            "certification": len(c.second),
            "test": int(c.test.sum()),
            "unused": c.unused,
        },
        "prevalence": c.certificate.prevalence,
        "seed": c.settings.seed,
        "settings": {
            "calibrate": c.settings.calibrate.model_dump(mode="json"),
            "decide": c.settings.decide.model_dump(mode="json"),
        },
        "versions": {name: version(name) for name in _PACKAGES},
    }

