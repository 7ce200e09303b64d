"""Each day against two references: every test of the day corrected together, an alarm on the second day in a row."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workzone.monitoring.drift import Kind, members_of
from workzone.monitoring.table import Log
from workzone.predictions import FloatArray

FROZEN, SLIDING = "frozen", "sliding"
_SAME_ORDER = ("entropy",)
"""With two classes a falling function of confidence, which is tested already."""


@dataclass(frozen=True, slots=True)
class DriftSettings:
    """How days are judged.

    Attributes:
        q: share of false alarms among the alarms of a day (Benjamini and Hochberg 1995).
        in_a_row: judged days in a row on which a signal must be off before an alarm stands.
        fewest: images of a day, and of a sliding reference, below which no verdict is given.
        sliding_days: days before the day at hand that make the sliding reference.
        fewest_days: of them with images; one odd day would make the days after it look odd.
        least: smallest statistic by test name that counts; a p-value alone finds any trifle in many images.
    """

    q: float = 0.05
    in_a_row: int = 2
    fewest: int = 50
    sliding_days: int = 7
    fewest_days: int = 3
    least: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tested:
    """One test of one day, ``adjusted`` being its p-value after Benjamini and Hochberg."""

    signal: str
    reference: str
    test: str
    statistic: float
    p: float
    adjusted: float
    n_reference: int
    n_new: int
    off: bool


@dataclass(frozen=True, slots=True)
class Day:
    """Verdict about one day.

    Attributes:
        day: the day, UTC.
        n: images.
        verdict: ``in line``, ``off``, ``not enough images`` or ``not finished``.
        tests: all tests of the day.
        off: signals that are off on this day.
        alarms: signals off on this and enough judged days before it.
        notes: what could not be tested, and why.
    """

    day: date
    n: int
    verdict: str
    tests: tuple[Tested, ...] = ()
    off: tuple[str, ...] = ()
    alarms: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def benjamini_hochberg(p: Sequence[float]) -> FloatArray:
    """Adjusted p-values (Benjamini and Hochberg 1995): rejecting those at or below q keeps the false share below q."""
    values = np.asarray(p, dtype=np.float64)
    m = len(values)
    order = np.argsort(-values)
    raised = np.minimum.accumulate(values[order] * m / np.arange(m, 0, -1)) if m else values
    out = np.empty(m)
    out[order] = np.minimum(raised, 1.0)
    return out


def signals(log: Log) -> dict[str, tuple[Kind, NDArray[Any]]]:
    """What is watched: kind of sample and values by name."""
    found: dict[str, tuple[Kind, NDArray[Any]]] = {
        "probability": ("scores", log.probability),
        "confidence": ("scores", np.maximum(log.probability, 1 - log.probability)),
        "decision": ("classes", log.codes),
    }
    for name, values in sorted(log.measures.items()):
        if name not in _SAME_ORDER:
            found[f"uncertainty {name}"] = ("scores", values[np.isfinite(values)])
    if log.embeddings is not None:
        found["embeddings"] = ("vectors", log.embeddings[np.isfinite(log.embeddings).all(axis=1)])
    return found


def judge_day(window: Log, references: Mapping[str, Log], day: date, s: DriftSettings, *, finished: bool = True) -> Day:
    """Test one day against each reference; no alarm is decided here."""
    if len(window) < s.fewest:
        return Day(day, len(window), "not enough images", notes=(f"{len(window)} of {s.fewest} images",))
    now, raw, notes = signals(window), [], []
    for name, reference in references.items():
        if len(reference) < s.fewest:
            notes.append(f"{name} reference: not enough images ({len(reference)} of {s.fewest})")
            continue
        if name == SLIDING and (past := len(np.unique(reference.days))) < s.fewest_days:
            notes.append(f"{name} reference: not enough days ({past} of {s.fewest_days})")
            continue
        then = signals(reference)
        for signal in [*now, *(k for k in then if k not in now)]:
            if signal not in now or signal not in then:
                lacking = f"the {name} reference" if signal in now else "the log"
                notes.append(f"{signal}: not tested, {lacking} does not hold it")
                continue
            (kind, new), (_, old) = now[signal], then[signal]
            if kind == "vectors" and new.shape[1] != old.shape[1]:
                notes.append(f"{signal}: {new.shape[1]} dimensions against {old.shape[1]} of the {name} reference")
                continue
            if min(len(new), len(old)) < s.fewest:
                notes.append(f"{signal}, {name}: not enough images ({min(len(new), len(old))} of {s.fewest})")
                continue
            for test in members_of(kind):
                seed = zlib.crc32(f"{day} {name} {signal} {test.name}".encode())
                raw.append((signal, name, test.name, test(old, new, seed=seed)))
    adjusted = benjamini_hochberg([r.p for *_, r in raw])
    tests = tuple(
        Tested(signal, name, test, r.statistic, r.p, float(a), r.n_reference, r.n_new,
               bool(a <= s.q and r.statistic >= s.least.get(test, -np.inf)))
        for (signal, name, test, r), a in zip(raw, adjusted, strict=True)
    )  # fmt: skip
    off = tuple(dict.fromkeys(t.signal for t in tests if t.off))
    verdict = "not finished" if not finished else "not enough images" if not tests else "off" if off else "in line"
    return Day(day, len(window), verdict, tests, off, notes=tuple(dict.fromkeys(notes)))


def judge(log: Log, reference: Log, s: DriftSettings, *, today: date, days: int = 14) -> list[Day]:
    """The last ``days`` days up to ``today``, oldest first; ``today`` is not finished and raises no alarm.

    Days that cannot be judged neither count as off nor end a row of days that are.
    """
    found: list[Day] = []
    row: dict[str, int] = {}
    stamps = log.days
    first = np.datetime64(today, "D") - (days - 1)
    for stamp in np.arange(first, np.datetime64(today, "D") + 1):
        before = (stamps < stamp) & (stamps >= stamp - s.sliding_days)
        references = {FROZEN: reference, SLIDING: log.take(before)}
        made = judge_day(log.take(stamps == stamp), references, stamp.item(), s, finished=stamp.item() != today)
        if made.verdict in ("in line", "off"):
            row = {signal: row.get(signal, 0) + 1 for signal in made.off}
            made = _with_alarms(made, tuple(k for k, count in row.items() if count >= s.in_a_row))
        found.append(made)
    return found


def _with_alarms(day: Day, alarms: tuple[str, ...]) -> Day:
    return Day(day.day, day.n, day.verdict, day.tests, day.off, alarms, day.notes)


def standing(days: Sequence[Day]) -> tuple[Day | None, tuple[str, ...]]:
    """The last judged day and the signals whose alarm stands on it."""
    judged = [d for d in days if d.verdict in ("in line", "off")]
    return (judged[-1], judged[-1].alarms) if judged else (None, ())
