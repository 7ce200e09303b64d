"""A rule: calibrator, policy and certificate for the scores of one model, which stays where it is.

rule.json              this schema: what it was fitted on and how, hashes of the other files, and a hash of itself
calibrator.json        log-odds to probability
policy.json            from probability to decision
certificate.json       what is promised
calibration.json       every calibrator that was tried
CERTIFICATE.md         for people
evaluation/            report on the test images, where the table had any
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field

from workzone import calibration, decisions
from workzone.bundle import schema
from workzone.bundle.write import file_entries, replace_folder
from workzone.calibration import Calibrator
from workzone.decisions import Certificate, Decisions, Policy
from workzone.decisions.uncertainty import MEASURES, binary_entropy, from_views
from workzone.decisions.uncertainty.names import ENTROPY, MAX_PROBABILITY
from workzone.errors import BundleError, ConfigError, DataError
from workzone.evaluation.given import Given
from workzone.files import canonical_json, sha256_json, write_atomic
from workzone.predictions import FloatArray, Predictions, logit, sigmoid

SCHEMA_VERSION = 1
RECORD = schema.RULE
OF_THE_PROBABILITY = (MAX_PROBABILITY, ENTROPY)
"""Measures that every table has."""
_REPORT_FILE = re.compile(r"evaluation/[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class RuleFolder:
    """Places in the folder of a rule."""

    root: Path

    @property
    def record(self) -> Path:
        """What pins all the others; written last."""
        return self.root / RECORD

    @property
    def calibrator(self) -> Path:
        """From log-odds to probability."""
        return self.root / schema.CALIBRATOR

    @property
    def policy(self) -> Path:
        """From probability to decision."""
        return self.root / schema.POLICY

    @property
    def certificate(self) -> Path:
        """What is promised."""
        return self.root / schema.CERTIFICATE

    @property
    def calibration(self) -> Path:
        """Every calibrator that was tried."""
        return self.root / "calibration.json"

    @property
    def card(self) -> Path:
        """The result in words."""
        return self.root / "CERTIFICATE.md"

    @property
    def evaluation(self) -> Path:
        """Folder of the report on the test images."""
        return self.root / "evaluation"

    @property
    def report(self) -> Path:
        """The report."""
        return self.evaluation / "report.html"


class Table(schema.Strict):
    """The table of predictions that a rule was fitted on."""

    name: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    score: Literal["log_odds", "probability"] = Field(description="the column that holds the score")
    lowest: float = Field(description="lowest log-odds of the calibration images")
    highest: float
    views: int = Field(ge=0, description="columns view_log_odds_0, view_log_odds_1, ...; 0 where it has none")


class Counts(schema.Strict):
    """Images of the table by what they were for."""

    calibration: int = Field(ge=0, description="the calibrator was fitted on them")
    certification: int = Field(ge=0, description="the policy was fitted on them and the promise rests on them")
    test: int = Field(ge=0, description="measured afterwards")
    unused: int = Field(ge=0)


class RuleRecord(schema.Strict):
    """Content of ``rule.json``."""

    schema_version: Literal[1]
    created: str
    table: Table
    n: Counts
    prevalence: float = Field(ge=0, le=1, description="share of roadwork among the certification images")
    seed: int
    settings: dict[str, dict[str, Any]] = Field(description="sections calibrate and decide")
    versions: dict[str, str]
    files: dict[str, schema.FileEntry] = Field(max_length=schema.MAX_FILES)
    sha256: str = Field(description="hash of this object without this key")


@dataclass(frozen=True, slots=True)
class Rule:
    """A fitted calibrator with a fitted policy.

    Attributes:
        record: content of ``rule.json``.
    """

    calibrator: Calibrator
    policy: Policy
    certificate: Certificate
    record: RuleRecord

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Open the rule in ``folder``; no code from the files is run, and files it does not list are not read.

        Raises:
            BundleError: no rule, an unknown schema, changed or missing files, or a certificate of something else.
        """
        places = RuleFolder(folder)
        record = read_record(folder)
        fix = "take the original folder, or certify again"
        if problems := schema.changed_files(folder, record.files, record=RECORD):
            raise BundleError("; ".join(problems[:3]), where=str(folder), fix=fix)
        stored = schema.read_json_bounded(places.calibrator)
        if not isinstance(stored, dict):
            raise BundleError("calibrator.json is not an object", where=str(folder))
        calibrator = calibration.from_dict(stored)
        policy = decisions.from_dict(schema.read_json_bounded(places.policy))
        certificate = schema.read_model(places.certificate, Certificate)
        void = certificate.void_reasons(
            engine_sha256=record.table.sha256,
            calibrator_sha256=sha256_json(calibrator.to_dict()),
            policy_sha256=sha256_json(policy.to_dict()),
        )
        if void:
            raise BundleError(f"the certificate is void: {'; '.join(void)}", where=str(folder), fix=fix)
        return cls(calibrator, policy, certificate, record)

    def scores_of(self, given: Given) -> Predictions:
        """The predictions of a table, scored by the column that this rule was fitted on.

        Raises:
            DataError: the table lacks this column, or has another number of views where the policy needs them.
        """
        wanted = self.record.table
        if wanted.score not in given.score_columns:
            raise DataError(
                f"the table has no column {wanted.score!r}, and the rule was fitted on that column of {wanted.name}",
                where=str(given.path),
                fix=f"give {wanted.score} from the same model",
            )
        predictions = by_score(given, wanted.score)
        if wanted.score == "probability" and disagree(given):
            raise DataError(
                "columns log_odds and probability say different things, as where a probability is calibrated already",
                where=str(given.path),
                fix=f"give the probability of the model that made {wanted.name}, and leave log_odds out",
            )
        needed = [name for name in self.policy.needs if name not in (*OF_THE_PROBABILITY, *predictions.columns)]
        if needed and not 0 < wanted.views == count_views(predictions):
            views = f", nor the {wanted.views} columns view_log_odds_0 and on" if wanted.views else ""
            raise DataError(
                f"policy {self.policy.name!r} needs the measure {needed[0]!r}, and the table has no column of that "
                f"name{views} that the rule was fitted on",
                where=str(given.path),
                fix="give the columns that the first table had",
            )
        return predictions

    def decide(self, predictions: Predictions) -> Decisions:
        """Decisions for the scores (N,) of the model that this rule was fitted on.

        Raises:
            DataError: a column that the calibrator or the policy needs is missing.
        """
        return decide(self.calibrator, self.policy, predictions)

    def outside(self, predictions: Predictions) -> int:
        """Images whose log-odds lie outside the range of the calibration images."""
        u, table = predictions.log_odds, self.record.table
        return int(((u < table.lowest) | (u > table.highest)).sum())


def disagree(given: Given) -> bool:
    """Whether the table has both columns of scores, and they differ by more than rounding."""
    if len(given.score_columns) < 2:
        return False
    return not np.allclose(given.probability, sigmoid(given.predictions.log_odds), atol=1e-4)


def by_score(given: Given, column: str) -> Predictions:
    """The predictions of a table, scored by ``column``, which it has."""
    if column == "log_odds":
        return given.predictions
    return replace(given.predictions, log_odds=logit(given.probability))


def decide(calibrator: Calibrator, policy: Policy, predictions: Predictions) -> Decisions:
    """See ``Rule.decide``."""
    p = calibrator.on(predictions.log_odds, predictions.columns)
    return policy.decide(p, measures(predictions, p))


def measures(predictions: Predictions, probability: FloatArray) -> dict[str, FloatArray]:
    """Uncertainty measures (N,) that a table allows: of its probability, of its views, and columns named like one.

    Such a column goes before what the views say; the measures of the probability are always computed.

    Raises:
        DataError: such a column holds something else than numbers.
    """
    found = {MAX_PROBABILITY: np.maximum(probability, 1.0 - probability), ENTROPY: binary_entropy(probability)}
    if predictions.view_log_odds is not None:
        found |= from_views(probability, _seen(predictions))
    for name in MEASURES:
        if name in predictions.columns and name not in OF_THE_PROBABILITY:
            try:
                found[name] = predictions.columns[name].astype(np.float64)
            except (TypeError, ValueError) as error:
                raise DataError(f"column {name!r} holds something else than numbers") from error
    return found


def _seen(predictions: Predictions) -> FloatArray:
    views = predictions.view_log_odds
    assert views is not None
    empty = np.flatnonzero(np.isnan(views).all(axis=1))
    if len(empty):
        raise DataError("an image has no view_log_odds at all", where=f"id {predictions.ids[empty[0]]!r}")
    return views


def count_views(predictions: Predictions) -> int:
    """Columns ``view_log_odds_0`` and on."""
    return 0 if predictions.view_log_odds is None else predictions.view_log_odds.shape[1]


def read_record(folder: Path) -> RuleRecord:
    """Read and check ``rule.json``.

    Raises:
        BundleError: with the reason.
    """
    path = RuleFolder(folder).record
    if not path.is_file():
        fix = "give the folder that 'workzone certify' wrote"
        if (folder / schema.MANIFEST).is_file():
            fix = "for a bundle use 'workzone predict --bundle', which scores the images itself"
        raise BundleError("there is no rule here: rule.json is missing", where=str(folder), fix=fix)
    raw = schema.read_json_bounded(path, limit=schema.MAX_MANIFEST_BYTES)
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if type(version) is not int or version != SCHEMA_VERSION:
        raise BundleError(
            f"unknown rule schema version {str(version)[:40]!r}; this version of workzone reads {SCHEMA_VERSION}",
            where=str(path),
            fix="use the workzone version that made it, or certify again",
        )
    record = schema.validated(path, raw, RuleRecord)
    body = {k: v for k, v in raw.items() if k != "sha256"}
    if sha256_json(body) != record.sha256 or path.read_bytes() != canonical_json(raw).encode():
        raise BundleError(
            "rule.json was changed after it was sealed",
            where=str(path),
            fix="take the original folder, or certify again",
        )
    _check_names(record, folder)
    return record


def _check_names(record: RuleRecord, folder: Path) -> None:
    needed = required(folder)
    for name in record.files:
        if name not in needed and not _REPORT_FILE.fullmatch(name):
            raise BundleError(f"{name[:200]!r} has no place in a rule", where=str(folder / RECORD))
    for name in needed:
        if name not in record.files:
            raise BundleError(f"the rule lacks {name}", where=str(folder / RECORD))


def required(folder: Path) -> list[str]:
    """Names of the files of every rule, but the record."""
    places = RuleFolder(folder)
    every = (places.calibrator, places.policy, places.certificate, places.calibration, places.card)
    return [path.name for path in every]


def write_rule(fill: Callable[[Path], None], target: Path, values: dict[str, Any]) -> None:
    """Write a rule to ``target``, replacing an older one only when the new one is whole.

    Args:
        fill: writes every file but the record into an empty folder.
        target: new, empty, or the folder of a rule and nothing else.
        values: of ``RuleRecord``, but for the schema version and the hashes.

    Raises:
        ConfigError: ``target`` holds something else.
    """

    def filled(work: Path) -> None:
        fill(work)
        entries = {"schema_version": SCHEMA_VERSION, **values, "files": file_entries(work)}
        write_atomic(work / RECORD, schema.seal(entries))
        Rule.load(work)

    replace_folder(filled, target, require_replaceable)


def require_replaceable(target: Path) -> None:
    """Raise ConfigError unless ``target`` is new, empty, or the folder of a rule and nothing else."""
    fix = "name a new folder"
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise ConfigError("the output is not a folder", where=str(target), fix=fix)
    present = {p.relative_to(target).as_posix() for p in target.rglob("*") if not p.is_dir()}
    if not present:
        return
    if RECORD not in present:
        raise ConfigError("the output folder holds something else than a rule", where=str(target), fix=fix)
    known = set(required(target)) | {RECORD}
    others = sorted(name for name in present - known if not _REPORT_FILE.fullmatch(name))
    if others:
        raise ConfigError(
            f"the output folder holds {others[0]!r} beside the rule, and would be replaced as a whole",
            where=str(target),
            fix=f"move that file, or {fix}",
        )
