"""The mark that a certificate no longer holds, and what to do with answers that rest on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from workzone.decisions.types import Decision
from workzone.errors import BundleError, ConfigError
from workzone.files import read_json, sha256_json, write_json
from workzone.predictions import LABELS

Policy = Literal["abstain", "warn"]
POLICIES: tuple[Policy, ...] = ("abstain", "warn")
SCHEMA = "workzone-void-1"
REASON = "certificate void"


@dataclass(frozen=True, slots=True)
class VoidMark:
    """A void certificate.

    Attributes:
        bundle_sha256: whose certificate it is; a bundle that is made anew has another hash and is not concerned.
        time: when it was found, UTC, RFC 3339.
        reasons: sentences.
        evidence: figures.
        policy: ``abstain`` (answer nothing more) or ``warn`` (answer, and say so in every reason).
    """

    bundle_sha256: str
    time: str
    reasons: tuple[str, ...]
    evidence: tuple[Mapping[str, Any], ...]
    policy: Policy

    def to_dict(self) -> dict[str, Any]:
        """Plain values with a hash over them."""
        body = {
            "schema": SCHEMA,
            "bundle_sha256": self.bundle_sha256,
            "time": self.time,
            "reasons": list(self.reasons),
            "evidence": [dict(e) for e in self.evidence],
            "policy": self.policy,
        }
        return {**body, "sha256": sha256_json(body)}

    def honour(self, decision: Decision) -> Decision:
        """The answer to give instead of ``decision``."""
        if self.policy == "warn":
            return replace(decision, reason=f"{REASON}; {decision.reason}")
        return replace(decision, label="abstain", prediction_set=frozenset(LABELS), reason=REASON)


def mark_path(bundle: Path) -> Path:
    """Place of the mark: beside the bundle, since the set of files in it is sealed."""
    folder = bundle.resolve()
    return folder.with_name(f"{folder.name}.void.json")


def write_mark(
    path: Path,
    bundle_sha256: str,
    reasons: Sequence[str],
    evidence: Sequence[Mapping[str, Any]],
    policy: Policy = "abstain",
    *,
    now: datetime | None = None,
) -> VoidMark:
    """Write the mark, or return the one of the same bundle that is already there: the first finding counts.

    Raises:
        BundleError: a mark is there that cannot be read.
        ConfigError: unknown policy.
    """
    if policy not in POLICIES:
        raise ConfigError(f"unknown policy {policy!r} for a void certificate", fix=f"take {' or '.join(POLICIES)}")
    found = read_mark(path, bundle_sha256)
    if found is not None:
        return found
    time = (now or datetime.now(UTC)).isoformat(timespec="seconds")
    made = VoidMark(bundle_sha256, time, tuple(reasons), tuple(evidence), policy)
    write_json(path, made.to_dict())
    return made


def read_mark(path: Path, bundle_sha256: str) -> VoidMark | None:
    """The mark in this file if it concerns this bundle; None where there is no file or it concerns another bundle.

    Raises:
        BundleError: the file is there and cannot be read. A mark that is damaged must not pass for none.
    """
    try:
        stored = read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    try:
        made = VoidMark(
            str(stored["bundle_sha256"]),
            str(stored["time"]),
            tuple(map(str, stored["reasons"])),
            tuple(dict(e) for e in stored["evidence"]),
            stored["policy"],
        )
        intact = made.to_dict() == stored and made.policy in POLICIES and len(made.reasons) == len(made.evidence)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    if not intact:
        raise _damaged(path, "its hash or its policy is wrong")
    return made if made.bundle_sha256 == bundle_sha256 else None


def _damaged(path: Path, why: str) -> BundleError:
    fix = "restore it, or remove it only when a person has decided that the certificate holds"
    return BundleError(f"the mark of a void certificate cannot be read ({why})", where=str(path), fix=fix)
