"""Frames of one drive decided together: pooling of log-odds over time, and intervals of time.

A pooled score is a new score. What a certificate says about single images is not said about pooled scores or intervals;
``DriveScore.fit`` gives pooled scores a calibrator of their own, and still no certified limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from workzone import calibration
from workzone.calibration import Calibrator
from workzone.calibration.base import as_number
from workzone.data.roles import CalibData, require_calib
from workzone.decisions.pooling import Pool, pool_from_dict, pool_groups
from workzone.decisions.types import NAMES, Code, DecisionLabel
from workzone.errors import BundleError, DataError
from workzone.predictions import FloatArray, sigmoid

HOLD = 5.0
"""Seconds that abstaining frames may prolong a stretch of roadwork."""


@dataclass(frozen=True, slots=True)
class DriveScore:
    """Probability of roadwork at the frames of one drive: a pool, and a calibrator where one was fitted.

    Attributes:
        pool: pooling over time.
        calibrator: from pooled log-odds to probability; None takes the pooled log-odds at their word.
        frames: labelled frames the calibrator was fitted on.
        drives: drives they came from.
    """

    pool: Pool
    calibrator: Calibrator | None = None
    frames: int = 0
    drives: int = 0

    @classmethod
    def fit(
        cls,
        data: CalibData,
        pool: Pool,
        *,
        seconds: FloatArray,
        embeddings: NDArray[np.floating[Any]] | None = None,
        method: str = "platt",
    ) -> Self:
        """Fit a calibrator to pooled scores; frames are pooled within their group, which is their drive.

        All frames count as seen; where only some have labels, use ``fit_pooled``.

        Args:
            data: scores are the calibrated log-odds of single frames.
            pool: pooling over time.
            seconds: (N,) time of each frame in its drive.
            embeddings: (N, D), for the pools that compare pictures.
            method: name of the calibrator.

        Raises:
            LeakageError: ``data`` is anything but ``CalibData``.
            DataError: one class only, or one drive only.
        """
        calib = require_calib(data, user="pooled score")
        pooled = pool_groups(pool, calib.scores, calib.groups, seconds, embeddings)
        return cls.fit_pooled(replace(calib, log_odds=pooled), pool, method=method)

    @classmethod
    def fit_pooled(cls, data: CalibData, pool: Pool, *, method: str = "platt") -> Self:
        """Fit a calibrator to scores that were pooled before, over frames with and without labels.

        Args:
            data: scores are pooled log-odds (``pool_groups``), groups are drives.
            pool: what pooled them.
            method: name of the calibrator.

        Raises:
            LeakageError: ``data`` is anything but ``CalibData``.
            DataError: one class only, or one drive only.
        """
        calib = require_calib(data, user="pooled score")
        names = np.unique(calib.groups)
        if len(names) < 2:
            raise DataError(
                f"pooled scores of {len(names)} drive say nothing about another",
                where="calibration of pooled scores",
                fix="give labelled frames of several drives, the drive as group",
            )
        return cls(pool, calibration.create(method).fit(calib), len(calib), len(names))

    def __call__(
        self, log_odds: FloatArray, seconds: FloatArray, embeddings: NDArray[np.floating[Any]] | None = None
    ) -> FloatArray:
        """Probabilities (N,) of the frames of one drive, see ``Pool``."""
        pooled = self.pool(log_odds, seconds, embeddings)
        return sigmoid(pooled) if self.calibrator is None else self.calibrator(pooled)

    def promise(self) -> str:
        """What may be said about these probabilities."""
        if self.calibrator is None:
            return (
                "The certificate of the bundle speaks of single images. It does not cover scores pooled over frames, "
                "nor intervals of time."
            )
        return (
            f"Pooled scores are calibrated on {self.frames} frames of {self.drives} drives. The certificate of the "
            "bundle speaks of single images; it does not cover pooled scores, nor intervals of time."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        stored = None if self.calibrator is None else self.calibrator.to_dict()
        return {**self.pool.to_dict(), "calibrator": stored, "frames": self.frames, "drives": self.drives}

    @classmethod
    def from_dict(cls, stored: object) -> Self:
        """Rebuild what ``to_dict`` wrote; raises BundleError on missing or impossible values."""
        if not isinstance(stored, Mapping) or set(stored) != {"pool", "parameters", "calibrator", "frames", "drives"}:
            raise BundleError("a stored pooled score lacks values or holds unknown ones")
        counts = [as_number(stored[key]) for key in ("frames", "drives")]
        if not all(c >= 0 and c == int(c) for c in counts if np.isfinite(c)) or not np.isfinite(counts).all():
            raise BundleError("a stored pooled score must count its frames and drives")
        pool = pool_from_dict({key: stored[key] for key in ("pool", "parameters")})
        inner = stored["calibrator"]
        if inner is not None and not isinstance(inner, Mapping):
            raise BundleError("the calibrator of a stored pooled score is no object")
        return cls(pool, None if inner is None else calibration.from_dict(inner), int(counts[0]), int(counts[1]))


@dataclass(frozen=True, slots=True)
class Interval:
    """A stretch of time with one decision.

    Attributes:
        start: seconds of its first frame.
        end: seconds up to which its last frame stands.
        label: the decision.
        frames: sampled frames in it.
        peak: highest probability of roadwork in it.
        mean: mean probability.
    """

    start: float
    end: float
    label: DecisionLabel
    frames: int
    peak: float
    mean: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        stored = asdict(self)
        return {"start": stored.pop("start"), "end": stored.pop("end"), "decision": stored.pop("label"), **stored}


def threshold_codes(probability: FloatArray, *, lower: float, upper: float) -> NDArray[np.int8]:
    """Codes (N,): roadwork from ``upper`` on, no roadwork below ``lower``, abstain between; ValueError if crossed."""
    if not 0.0 <= lower <= upper <= 1.0:
        raise ValueError("thresholds must satisfy 0 <= lower <= upper <= 1")
    p = np.asarray(probability, dtype=np.float64)
    return np.where(p >= upper, Code.ROADWORK, np.where(p < lower, Code.NO_ROADWORK, Code.ABSTAIN)).astype(np.int8)


def intervals(
    seconds: FloatArray,
    codes: NDArray[np.int8],
    probability: FloatArray,
    *,
    every: float,
    hold: float = HOLD,
    min_seconds: float = 0.0,
    end: float | None = None,
) -> list[Interval]:
    """Merge frames (N,) into stretches of one decision; together they cover all frames, in order.

    Hysteresis: frames that abstain after roadwork, at most ``hold`` seconds from the last frame decided as roadwork,
    belong to it until a frame is decided otherwise. A frame stands until the next one, but no longer than ``every``
    where frames are missing; a hole ends the stretch.

    Args:
        seconds: times, rising.
        codes: values of ``Code``, from a policy or ``threshold_codes``.
        probability: of roadwork.
        every: seconds between frames.
        hold: see above.
        min_seconds: a shorter stretch of roadwork becomes abstain: it is neither claimed nor denied.
        end: seconds at which the video ends, None for ``every`` after the last frame.
    """
    t, c, p = np.asarray(seconds, dtype=np.float64), np.asarray(codes), np.asarray(probability, dtype=np.float64)
    if not t.shape == c.shape == p.shape or t.ndim != 1 or (np.diff(t) <= 0).any():
        raise ValueError("seconds must rise, and have one shape (N,) with codes and probability")
    if not len(t):
        return []
    held = _held(t, c, every, hold)
    until = np.append(t[1:], max(t[-1], min(t[-1] + every, np.inf if end is None else end)))
    hole = np.diff(t) > 1.5 * every
    until[:-1][hole] = t[:-1][hole] + every
    starts = np.flatnonzero(np.append(True, (held[1:] != held[:-1]) | hole))
    pairs = list(zip(starts, np.append(starts[1:], len(t)), strict=True))
    for a, b in pairs:
        if held[a] == Code.ROADWORK and until[b - 1] - t[a] < min_seconds:
            held[a:b] = Code.ABSTAIN
    return _merged(pairs, t, until, held, p)


def _held(t: FloatArray, c: NDArray[np.int8], every: float, hold: float) -> NDArray[np.int8]:
    held, last = c.copy(), -np.inf
    for i in range(len(c)):
        if c[i] == Code.ROADWORK:
            last = t[i]
        elif c[i] == Code.NO_ROADWORK or (i and t[i] - t[i - 1] > 1.5 * every):
            last = -np.inf
        elif t[i] - last <= hold:
            held[i] = Code.ROADWORK
    return held


def _merged(
    pairs: Sequence[tuple[Any, Any]], t: FloatArray, until: FloatArray, held: NDArray[np.int8], p: FloatArray
) -> list[Interval]:
    """One interval for each run; neighbours that became equal are one."""
    runs: list[tuple[int, int]] = []
    for a, b in pairs:
        if runs and held[runs[-1][0]] == held[a] and until[a - 1] == t[a]:
            runs[-1] = (runs[-1][0], int(b))
        else:
            runs.append((int(a), int(b)))
    return [
        Interval(
            start=float(t[a]),
            end=float(until[b - 1]),
            label=NAMES[int(held[a])],
            frames=b - a,
            peak=float(p[a:b].max()),
            mean=float(p[a:b].mean()),
        )
        for a, b in runs
    ]
