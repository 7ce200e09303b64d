"""One look at a bundle in use: drift by day, error rates without labels, promises against reviewed labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from workzone.bundle.chain import read_bundle
from workzone.bundle.schema import CERTIFICATE, read_model
from workzone.decisions.certificate import Certificate
from workzone.monitoring.alerts import Alarm, Delivery
from workzone.monitoring.daily import Day, DriftSettings, judge, standing
from workzone.monitoring.drift import DRIFT_TESTS
from workzone.monitoring.estimate import CONTRADICTION, Estimate, contradiction, estimate
from workzone.monitoring.reference import Reference
from workzone.monitoring.reviewed import Reviewed, join
from workzone.monitoring.table import Columns, Log, PredictionLog, to_log
from workzone.monitoring.void import Policy, VoidMark, read_mark, write_mark
from workzone.monitoring.watch import Watch, evidence, limits_of, sentences


@dataclass(frozen=True, slots=True)
class Watched:
    """The bundle at hand, as far as it matters here.

    Attributes:
        name: name of the bundle.
        sha256: its hash.
        limits: promised limits that labels can refute, by risk.
        notes: promises that are not watched, and why.
    """

    name: str
    sha256: str
    limits: Mapping[str, float]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, bundle: Path, limits: Mapping[str, float] | None = None) -> Watched:
        """Read a bundle without opening its engine; ``limits`` are watched besides its promises, or in their place.

        Raises:
            BundleError: the bundle or its certificate cannot be read.
        """
        manifest = read_bundle(bundle)
        promised, notes = limits_of(read_model(bundle / CERTIFICATE, Certificate))
        return cls(manifest.name, manifest.sha256, {**promised, **(limits or {})}, tuple(notes))


@dataclass(frozen=True, slots=True)
class Settings:
    """How a bundle is watched.

    Attributes:
        drift: how days are judged.
        days: days that are looked at.
        delta: probability that any watched promise is ever called refuted though it holds.
        policy: what a void certificate means for further answers.
    """

    drift: DriftSettings = field(default_factory=DriftSettings)
    days: int = 14
    delta: float = 0.05
    policy: Policy = "abstain"


@dataclass(frozen=True, slots=True)
class Findings:
    """What one look found.

    Attributes:
        bundle: what was watched.
        time: of the look, UTC.
        reference: what days were compared with.
        days: verdicts, oldest first.
        estimates: by day, for days with enough images.
        reviewed: labels that count, 0 without any.
        calibration_p: p-value of "the probabilities are calibrated" on them, NaN where they are too few.
        watch: state of the watched promises.
        mark: the certificate is void, None while it is not.
        alarms: what stands.
        notes: what was left out, and why.
        settings: as given.
    """

    bundle: Watched
    time: datetime
    reference: Reference
    days: tuple[Day, ...]
    estimates: Mapping[date, Estimate]
    reviewed: int
    calibration_p: float
    watch: Watch
    mark: VoidMark | None
    alarms: tuple[Alarm, ...]
    notes: tuple[str, ...]
    settings: Settings

    def to_dict(self, deliveries: Sequence[Delivery] = ()) -> dict[str, Any]:
        """Plain values, fit for JSON; what does not exist is null."""
        found: dict[str, Any] = _plain(
            {
                "schema": "workzone-monitor-1",
                "bundle": {"name": self.bundle.name, "sha256": self.bundle.sha256},
                "time": self.time.isoformat(timespec="seconds"),
                "reference": {"sha256": self.reference.sha256, "n": len(self.reference.log)},
                "settings": asdict(self.settings),
                "alarms": [a.to_dict() for a in self.alarms],
                "days": [asdict(d) for d in self.days],
                "estimates": [{"day": day, **asdict(e)} for day, e in self.estimates.items()],
                "reviewed": {"n": self.reviewed, "calibration_p": self.calibration_p},
                "promises": [
                    {"risk": k, "alpha": e.alpha, "delta": e.delta, "reviewed": e.step, "errors": e.errors,
                     "weight": e.total, "e_value": e.e_value, "highest": e.highest, "fired_at": e.fired}
                    for k, e in self.watch.processes.items()
                ],
                "void": None if self.mark is None else self.mark.to_dict(),
                "deliveries": [asdict(d) for d in deliveries],
                "notes": list(self.notes),
            }
        )  # fmt: skip
        return found


def look(
    bundle: Watched,
    log: PredictionLog,
    reference: Reference,
    out: Path,
    void: Path,
    *,
    labels: Columns | None = None,
    settings: Settings | None = None,
    where: str = "the log",
    labels_where: str = "reviewed labels",
    day: date | None = None,
    now: datetime | None = None,
) -> Findings:
    """Look once; the state of the watch is kept in ``out`` and the mark of a void certificate in ``void``.

    Args:
        bundle: what is watched.
        log: its predictions.
        reference: frozen predictions to compare with.
        out: folder for ``watch.json``.
        void: file of the mark, see ``mark_path``.
        labels: reviewed labels, see ``reviewed.join``.
        settings: how to look.
        where: name of the log in errors.
        labels_where: name of the labels in errors.
        day: the day of all predictions, for a log without times; that day is taken as finished.
        now: time of the look, now where left out.

    Raises:
        DataError: the log or the labels cannot be used.
        ArtifactError: the stored watch cannot be read or belongs to something else.
        BundleError: the mark cannot be read.
    """
    s = settings or Settings()
    moment = (now or datetime.now(UTC)).astimezone(UTC)
    today = moment.date() if day is None else day + timedelta(days=1)
    first = today - timedelta(days=s.days - 1 + s.drift.sliding_days)
    # Reviews come late, so labels need the whole log.
    since = None if labels is not None or day else datetime(first.year, first.month, first.day, tzinfo=UTC)
    table = to_log(log.columns(since), where, bundle_sha256=bundle.sha256, day=day)
    dated = table.take(~np.isnat(table.time))
    notes = [*bundle.notes, *(f"{count} rows of the log left out: {why}" for why, count in table.skipped.items())]
    if len(dated) < len(table):
        notes.append(f"{len(table) - len(dated)} predictions without a time belong to no day; give --day for them")
    days = judge(dated, reference.log, s.drift, today=today, days=s.days)
    _, off = standing(days)
    reviewed, watch = _review(bundle, table, out, labels, labels_where, s, notes)
    p = float("nan")
    if reviewed is not None:
        p = contradiction(reviewed.labels, reviewed.probability, reviewed.weights)
    mark = _mark(bundle, watch, void, s.policy, moment)
    return Findings(
        bundle=bundle,
        time=moment,
        reference=reference,
        days=tuple(days),
        estimates=_estimates(dated, days, s.drift.fewest, p, mark),
        reviewed=0 if reviewed is None else len(reviewed),
        calibration_p=p,
        watch=watch,
        mark=mark,
        alarms=(*_void_alarms(bundle, mark), *(_drift_alarm(bundle, days, signal) for signal in off)),
        notes=tuple(notes),
        settings=s,
    )


def _review(
    bundle: Watched, table: Log, out: Path, labels: Columns | None, where: str, s: Settings, notes: list[str]
) -> tuple[Reviewed | None, Watch]:
    path = out / "watch.json"
    watch = Watch.open(path, bundle.sha256, bundle.limits, s.delta)
    if labels is None:
        return None, watch
    reviewed = join(labels, table, where)
    if reviewed.unknown:
        notes.append(f"{reviewed.unknown} reviewed labels are of images that the log does not hold")
    if len(reviewed) and (reviewed.codes == -1).all():
        notes.append("every reviewed image was abstained on, where no answer can be wrong: review answered ones too")
    if watch.update(reviewed) or not path.is_file():
        watch.save(path)
    return reviewed, watch


def _mark(bundle: Watched, watch: Watch, void: Path, policy: Policy, now: datetime) -> VoidMark | None:
    if watch.fired:
        return write_mark(void, bundle.sha256, sentences(watch.fired), evidence(watch.fired), policy, now=now)
    return read_mark(void, bundle.sha256)


def _estimates(
    log: Log, days: Sequence[Day], fewest: int, p: float, mark: VoidMark | None
) -> dict[date, Estimate]:
    found = {}
    for day in days:
        window = log.take(log.days == np.datetime64(day.day, "D"))
        if len(window) < fewest:
            continue
        reasons = [f"drift of {signal}" for signal in day.alarms]
        if p < CONTRADICTION:
            reasons.append(f"reviewed labels contradict the calibration (p {p:.2g})")
        if mark is not None:
            reasons.append("the certificate is void")
        found[day.day] = estimate(window.probability, window.codes, reasons, seed=day.day.toordinal())
    return found


def _void_alarms(bundle: Watched, mark: VoidMark | None) -> list[Alarm]:
    if mark is None:
        return []
    risks = [str(found.get("risk", "certificate")) for found in mark.evidence]
    return [
        Alarm("certificate", risk, "critical", bundle.name, bundle.sha256, mark.time, text)
        for risk, text in zip(risks, mark.reasons, strict=True)
    ]


def _drift_alarm(bundle: Watched, days: Sequence[Day], signal: str) -> Alarm:
    judged = [d for d in days if d.verdict in ("in line", "off")]
    began = judged[-1]
    for d in reversed(judged):
        if signal not in d.alarms:
            break
        began = d
    worst = min((t for t in judged[-1].tests if t.signal == signal and t.off), key=lambda t: t.adjusted)
    text = (
        f"On {judged[-1].day} ({judged[-1].n} images) {signal} differs from the {worst.reference} reference: "
        f"{DRIFT_TESTS[worst.test].title} {worst.statistic:.3g}, p {worst.adjusted:.2g}, corrected for "
        f"{len(judged[-1].tests)} tests."
    )
    since = f"{began.day.isoformat()}T00:00:00+00:00"
    return Alarm("drift", signal, "warning", bundle.name, bundle.sha256, since, text)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return float(value) if np.isfinite(value) else None
    return value.isoformat() if isinstance(value, date) else value
