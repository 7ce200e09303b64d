"""What a bundle must pass before it may serve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workzone.bundle import schema
from workzone.bundle.chain import ChainManifest, member_folder, read_bundle
from workzone.bundle.verify import verify_bundle
from workzone.decisions.certificate import Certificate, Guarantee
from workzone.errors import BundleError, WorkzoneError
from workzone.monitoring.void import mark_path, read_mark

COMPARED: Mapping[tuple[str, str], bool] = {
    ("argmax", "auroc"): True,
    ("argmax", "average_precision"): True,
    ("argmax", "brier"): False,
    ("policy", "coverage"): True,
    ("policy", "fnr"): False,
    ("policy", "risk"): False,
}
"""Figures of a bundle that are compared, by system and name, and whether higher is better."""


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate: passed, failed, or (None) not judged, with the reason or the evidence."""

    name: str
    passed: bool | None
    detail: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return asdict(self)


def judge(candidate: Path, champion: Path | None, limits: Mapping[str, float] | None = None) -> list[Gate]:
    """All gates for ``candidate`` against the bundle that serves now; none may have failed.

    Args:
        candidate: folder of the bundle.
        champion: folder of the bundle that serves, None where none does.
        limits: largest promised limit by risk, for example ``{"false_negative_rate": 0.05}``.
    """
    failed = [c for c in verify_bundle(candidate) if not c.passed]
    gates = [Gate("verify", not failed, "; ".join(f"{c.name}: {c.detail}" for c in failed) or "every check passed")]
    if failed:
        return gates  # nothing that a broken bundle says counts
    return [
        *gates,
        not_void(candidate),
        _guarded("certificate", lambda: certificate_gate(candidate, champion, limits or {})),
        _guarded("promises on the test images", lambda: promises_gate(candidate)),
        _guarded("figures", lambda: figures_gate(candidate, champion)),
        _guarded("parity", lambda: parity_gate(candidate)),
    ]


def _guarded(name: str, work: Any) -> Gate:
    try:
        made: Gate = work()
    except (WorkzoneError, KeyError, TypeError, ValueError) as error:
        return Gate(name, False, f"cannot be judged: {type(error).__name__}: {error}")
    return made


def not_void(folder: Path) -> Gate:
    """Whether no monitor has found the certificate void."""
    try:
        mark = read_mark(mark_path(folder), read_bundle(folder).sha256)
    except BundleError as error:
        return Gate("not void", False, error.what)
    return Gate("not void", mark is None, "; ".join(mark.reasons) if mark else "no mark of a void certificate")


def certificate_of(folder: Path) -> Certificate:
    """The certificate of a bundle; raises BundleError."""
    return Certificate.from_dict(schema.read_json_bounded(folder / schema.CERTIFICATE))


def certificate_gate(candidate: Path, champion: Path | None, limits: Mapping[str, float]) -> Gate:
    """Every promise of the champion is kept at its limit or a lower one, and every limit asked for is promised."""
    ours = [g for g in certificate_of(candidate).guarantees if g.status == "certified"]
    theirs = [] if champion is None else [g for g in certificate_of(champion).guarantees if g.status == "certified"]
    wrong = [f"the champion promises {_words(g)}, this bundle does not" for g in theirs if not _covered(g, ours)]
    for risk, limit in limits.items():
        if not any(g.risk == risk and g.alpha <= limit for g in ours):
            wrong.append(f"{risk} at most {limit:g} was asked for and is not promised")
    kept = "; ".join(_words(g) for g in ours) or "nothing is promised, nor by the champion"
    return Gate("certificate", not wrong, "; ".join(wrong) or kept)


def _covered(asked: Guarantee, offered: list[Guarantee]) -> bool:
    return any(
        g.risk == asked.risk
        and g.unit == asked.unit
        and g.kind == asked.kind
        and g.alpha <= asked.alpha
        and g.delta <= asked.delta
        for g in offered
    )


def _words(g: Guarantee) -> str:
    return f"{g.risk} by {g.unit} at most {g.alpha:g} (delta {g.delta:g}, {g.kind})"


def promises_gate(candidate: Path) -> Gate:
    """No promise is contradicted by the bundle's own test images: the lower end of its interval is below the limit."""
    found = schema.read_json_bounded(candidate / schema.METRICS).get("promises", [])
    told = [p for p in found if p.get("status") == "certified" and p.get("measured")]
    wrong = [
        f"{p['risk']} measured {p['measured']['text']}, promised at most {p['alpha']:g}"
        for p in told
        if p["measured"]["low"] is not None and p["measured"]["low"] > p["alpha"]
    ]
    if not told:
        return Gate("promises on the test images", None, "the bundle holds no measured promise")
    return Gate("promises on the test images", not wrong, "; ".join(wrong) or f"{len(told)} not contradicted")


def images_key(folder: Path) -> str | None:
    """What tells the test images of a bundle: manifest and split together; None where its lineage lacks them."""
    lineage = read_bundle(folder).lineage
    # The runs of a cascade share images and split, or it would not have been made.
    one = lineage["members"][0] if isinstance(lineage.get("members"), list) and lineage["members"] else lineage
    parts = [one.get("manifest_sha256"), one.get("split_sha256")]
    return ":".join(map(str, parts)) if all(parts) else None


def figures_gate(candidate: Path, champion: Path | None) -> Gate:
    """On the same test images no figure lies beyond the worse end of the champion's interval.

    That is a guard against a clear loss, no proof of being as good; ``workzone compare`` uses that the images are the
    same, which two intervals do not.
    """
    if champion is None:
        return Gate("figures", None, "no champion to compare with")
    key = images_key(candidate)
    if key is None or key != images_key(champion):
        return Gate("figures", None, "not compared: the two bundles were tested on different images")
    new, old = (schema.read_json_bounded(f / schema.METRICS)["systems"] for f in (candidate, champion))
    wrong: list[str] = []
    fine: list[str] = []
    for (system, name), higher in COMPARED.items():
        a, b = (s.get(system, {}).get("natural", {}).get(name) for s in (new, old))
        if a is None or b is None or a["value"] is None or b["low"] is None or b["high"] is None:
            continue
        worse = a["value"] < b["low"] if higher else a["value"] > b["high"]
        (wrong if worse else fine).append(f"{name} {a['text']}, champion {b['text']}")
    if not wrong and not fine:
        return Gate("figures", False, "the two bundles have no figure in common")
    return Gate("figures", not wrong, "; ".join(wrong or fine))


def parity_gate(candidate: Path) -> Gate:
    """The exported engine decided like the trained network; at fp32 its log-odds also lie within the tolerance.

    Of a cascade each member is judged, with the name of its place.
    """
    manifest = read_bundle(candidate)
    if isinstance(manifest, ChainManifest):
        found = {n: parity_gate(member_folder(candidate, n)) for n in range(1, len(manifest.members) + 1)}
        said = "; ".join(f"member {n}: {gate.detail}" for n, gate in found.items())
        return Gate("parity", all(gate.passed for gate in found.values()), said)
    parity = schema.read_json_bounded(candidate / schema.PARITY)
    largest, tolerance, equal = parity["max_difference"], parity["tolerance"], parity["decisions_equal"]
    differ = sorted(name for name, same in equal.items() if not same)
    # The tolerance of int8 is about other processors, not about the network before it was quantised.
    far = manifest.engine.precision == "fp32" and largest > tolerance
    judged = "" if manifest.engine.precision == "fp32" else " (judged for fp32 only)"
    detail = f"largest difference {largest:.2g}, tolerance {tolerance:g}{judged}, decisions "
    detail += f"differ from {', '.join(differ)}" if differ else f"equal to {', '.join(sorted(equal))}"
    return Gate("parity", bool(equal) and not differ and not far, detail)
