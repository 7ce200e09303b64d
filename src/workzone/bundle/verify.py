"""``workzone verify``: recompute every hash, check that the certificate fits, and answer the golden cases again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from workzone.bundle import chain, schema
from workzone.bundle.runtime import Decider, Detector, read_parts, void_reasons
from workzone.bundle.slices import unknown_slices
from workzone.errors import WorkzoneError


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its name, whether it passed, and the reason or the evidence."""

    name: str
    passed: bool
    detail: str


def verify_bundle(folder: Path, *, device: str = "cpu") -> list[Check]:
    """Run all checks that can still be run after a failure; a bundle is good when every check passed.

    Args:
        folder: of the bundle.
        device: where the golden cases are answered, see ``Detector.load``.
    """
    try:
        if schema.is_cascade(folder):
            return _verify_cascade(folder, device)
        manifest = schema.read_manifest(folder)
    except WorkzoneError as error:
        return [Check("schema", False, str(error))]
    checks = [Check("schema", True, f"version {manifest.schema_version}, sealed, {len(manifest.files)} files listed")]
    problems = schema.check_files(folder, manifest)
    checks.append(Check("hashes", not problems, "; ".join(problems) or f"{len(manifest.files)} files unchanged"))
    try:
        parts = read_parts(folder)
    except WorkzoneError as error:
        return [*checks, Check("policy and certificate", False, str(error))]
    void = void_reasons(manifest, *parts)
    certificate = parts[3]
    checks.append(
        Check(
            "certificate",
            not void,
            "; ".join(void)
            or f"belongs to these files; {'certified' if certificate.certified else 'no certified promise'}",
        )
    )
    if problems or void:
        return checks  # the golden cases of a changed bundle prove nothing
    checks.append(_golden(folder, lambda: Detector.load(folder, device=device, check_hashes=False)))
    return checks


def _verify_cascade(folder: Path, device: str) -> list[Check]:
    """The checks of a cascade of several models, those of its members among them."""
    manifest = chain.read_chain(folder)
    checks = [Check("schema", True, f"version {manifest.schema_version}, sealed, {len(manifest.members)} members")]
    problems = chain.check_chain_files(folder, manifest)
    evidence = f"{len(manifest.files)} files and {len(manifest.members)} members unchanged"
    checks.append(Check("hashes", not problems, "; ".join(problems) or evidence))
    for number in range(1, len(manifest.members) + 1):
        member = verify_bundle(chain.member_folder(folder, number), device=device)
        bad = [f"{c.name}: {c.detail}" for c in member if not c.passed]
        evidence = f"{len(member)} checks passed"
        checks.append(Check(f"member {number}", not bad, "; ".join(bad) or evidence))
    if not all(check.passed for check in checks):
        return checks
    try:
        detector = chain.CascadeDetector.load(folder, device=device, check_hashes=False)
    except WorkzoneError as error:
        return [*checks, Check("certificate", False, str(error))]
    state = "certified" if detector.certificate.certified else "no certified promise"
    checks.append(Check("certificate", True, f"belongs to these files and members; {state}"))
    checks.append(_golden(folder, lambda: detector))
    return checks


def _golden(folder: Path, load: Callable[[], Decider]) -> Check:
    try:
        golden = schema.read_model(folder / schema.GOLDEN_CASES, schema.Golden)
        detector = load()
        unknown = unknown_slices(detector.calibrator)
        answers = [a for _, a in detector.predict((folder / c.image for c in golden.cases), columns=unknown)]
    except WorkzoneError as error:
        return Check("golden cases", False, str(error))
    worst = max(abs(a.log_odds - c.log_odds) for a, c in zip(answers, golden.cases, strict=True))
    wrong = [
        f"{c.image}: {a.label} (log-odds {a.log_odds:.4f}), expected {c.decision} ({c.log_odds:.4f})"
        for a, c in zip(answers, golden.cases, strict=True)
        if (golden.compare_decisions and a.label != c.decision) or abs(a.log_odds - c.log_odds) > golden.tolerance
    ]
    evidence = f"{len(golden.cases)} cases, largest difference of log-odds {worst:.2g} (tolerance {golden.tolerance:g})"
    return Check("golden cases", not wrong, "; ".join(wrong) or evidence)
