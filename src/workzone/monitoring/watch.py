"""Promises watched over all time with reviewed labels, and kept in a file between runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workzone.errors import ArtifactError, ConfigError
from workzone.files import read_json, write_json
from workzone.monitoring.reviewed import Reviewed
from workzone.monitoring.sequential import EProcess
from workzone.predictions import FloatArray

if TYPE_CHECKING:
    from workzone.decisions.certificate import Certificate

SCHEMA = "workzone-watch-1"
TITLES: Mapping[str, str] = {
    "false_negative_rate": "roadwork images that are answered 'no_roadwork'",
    "decided_false_negative_rate": "roadwork images, among the answered ones, that are answered 'no_roadwork'",
    "false_positive_rate": "images without roadwork that are answered 'roadwork'",
    "selective_error": "answered images that are answered wrongly",
}


def counted(risk: str, r: Reviewed) -> tuple[NDArray[np.bool_], FloatArray]:
    """Which reviewed images (M,) count for ``risk``, and which of all are errors (M,) 0 or 1."""
    answered = r.codes != -1
    wrong = (answered & (r.codes != r.labels)).astype(np.float64)
    among = {
        "false_negative_rate": r.labels == 1,
        "decided_false_negative_rate": (r.labels == 1) & answered,
        "false_positive_rate": r.labels == 0,
        "selective_error": answered,
    }
    return among[risk], wrong


def limits_of(certificate: Certificate) -> tuple[dict[str, float], list[str]]:
    """Limits that one draw of images can refute, and sentences about promises that cannot be watched."""
    limits, notes = {}, []
    for g in certificate.guarantees:
        if g.status != "certified":
            continue
        name = g.risk.replace("_", " ")
        if g.risk not in TITLES:
            notes.append(f"{name}: not watched, reviewed labels alone do not tell it")
        elif g.unit != "image":
            notes.append(f"{name}: not watched, it is promised by {g.unit} and labels are counted by image")
        elif g.kind != "confidence":
            notes.append(f"{name}: not watched, it is promised in expectation and one draw may exceed it")
        elif not 0 < g.alpha < 1:
            notes.append(f"{name}: not watched, its limit is {g.alpha:g}")
        else:
            limits[g.risk] = g.alpha
    return limits, notes


def check_limits(limits: Mapping[str, float]) -> None:
    """Raise ConfigError for an unknown risk or a limit outside (0, 1)."""
    for risk, alpha in limits.items():
        if risk not in TITLES:
            raise ConfigError(f"unknown risk {risk!r}", where="--limit", fix=f"take one of {', '.join(TITLES)}")
        if not 0 < alpha < 1:
            raise ConfigError(f"the limit of {risk} must lie strictly between 0 and 1", where="--limit")


@dataclass(slots=True)
class Watch:
    """One e-process for each risk; ``delta`` is shared equally, so it bounds false alarms of all of them together.

    Attributes:
        bundle_sha256: whose promises these are.
        delta: probability that any of them ever raises a false alarm.
        processes: by risk.
        seen: images taken so far, in order. Later labels are added behind them: what was bet on cannot be revised.
    """

    bundle_sha256: str
    delta: float
    processes: dict[str, EProcess]
    seen: dict[str, None] = field(default_factory=dict)

    @classmethod
    def start(cls, bundle_sha256: str, limits: Mapping[str, float], delta: float) -> Watch:
        """A watch that has seen nothing."""
        each = delta / max(len(limits), 1)
        return cls(bundle_sha256, delta, {risk: EProcess(alpha, each) for risk, alpha in limits.items()})

    @classmethod
    def open(cls, path: Path, bundle_sha256: str, limits: Mapping[str, float], delta: float) -> Watch:
        """The stored watch, or a new one where there is none.

        Raises:
            ArtifactError: the file cannot be read, or it watches another bundle or other limits.
        """
        if not path.is_file():
            return cls.start(bundle_sha256, limits, delta)
        fix = "give another --out folder, or move the file away to start anew"
        try:
            stored = read_json(path)
            if stored["schema"] != SCHEMA:
                raise ValueError(f"unknown schema {str(stored['schema'])[:40]!r}")
            made = cls(
                str(stored["bundle_sha256"]),
                float(stored["delta"]),
                {str(k): EProcess.from_dict(v) for k, v in stored["processes"].items()},
                dict.fromkeys(str(s) for s in stored["seen"]),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(f"the watch cannot be read: {error}", where=str(path), fix=fix) from error
        if made.bundle_sha256 != bundle_sha256:
            raise ArtifactError("the watch in this folder is of another bundle", where=str(path), fix=fix)
        if made.delta != delta or {k: e.alpha for k, e in made.processes.items()} != dict(limits):
            # Changing them after having looked would void the bound on false alarms.
            raise ArtifactError("the watch in this folder has other limits or another delta", where=str(path), fix=fix)
        return made

    def update(self, r: Reviewed) -> int:
        """Take the reviewed images that were not seen before; returns their number."""
        fresh = [i for i, name in enumerate(r.ids.tolist()) if name not in self.seen]
        for risk, process in self.processes.items():
            among, wrong = counted(risk, r)
            for i in fresh:
                if among[i]:
                    process.update(float(wrong[i]), float(r.weights[i]))
        self.seen.update(dict.fromkeys(r.ids[fresh].tolist()))
        return len(fresh)

    @property
    def fired(self) -> dict[str, EProcess]:
        """Processes that have refuted their limit."""
        return {k: e for k, e in self.processes.items() if e.fired is not None}

    def save(self, path: Path) -> None:
        """Write as JSON, atomically."""
        write_json(
            path,
            {
                "schema": SCHEMA,
                "bundle_sha256": self.bundle_sha256,
                "delta": self.delta,
                "processes": {k: e.to_dict() for k, e in self.processes.items()},
                "seen": list(self.seen),
            },
        )


def evidence(fired: Mapping[str, EProcess]) -> list[dict[str, Any]]:
    """What refuted each limit, as plain values."""
    return [
        {"risk": k, "alpha": e.alpha, "delta": e.delta, "e_value": e.highest, "reviewed": e.step, "errors": e.errors,
         "weight": e.total, "fired_at": e.fired}
        for k, e in fired.items()
    ]  # fmt: skip


def sentences(fired: Mapping[str, EProcess]) -> Sequence[str]:
    """The same in words."""
    return [
        f"The share of {TITLES[k]} is not at most {e.alpha:.2%}: {e.errors:g} errors in {e.total:g} reviewed, "
        f"the evidence against it (e-value) reached {1 / e.delta:g} at number {e.fired} and {e.highest:.3g} at most."
        for k, e in fired.items()
    ]
