"""Put a bundle together: copy the parts, answer the golden cases, pin every byte, and rename into place."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workzone import __version__
from workzone.bundle import schema
from workzone.bundle.runtime import Detector, read_parts, void_reasons
from workzone.bundle.verify import verify_bundle
from workzone.errors import BundleError
from workzone.files import sha256_file, write_atomic, write_json


@dataclass(frozen=True, slots=True)
class BundleParts:
    """Everything a bundle is made of.

    Attributes:
        engine: folder of the exported network.
        golden_images: images that become golden cases.
        tolerance: largest difference of log-odds that ``verify`` accepts.
    """

    name: str
    engine: Path
    engine_name: str
    precision: str
    backbone: str
    embedding_dim: int
    preprocessing: Mapping[str, Any]
    calibrator: Mapping[str, Any]
    policy: Mapping[str, Any]
    certificate: Mapping[str, Any]
    parity: Mapping[str, Any]
    metrics: Mapping[str, Any]
    card: str
    golden_images: Sequence[Path]
    tolerance: float
    lineage: Mapping[str, Any]


def write_bundle(parts: BundleParts, target: Path) -> Path:
    """Write the bundle to ``target``, replacing an older one only when the new one is whole and verified.

    Raises:
        BundleError: the parts do not fit together, or the new bundle does not verify.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", suffix=".partial", dir=target.parent))
    try:
        _fill(parts, work)
        failed = [check for check in verify_bundle(work) if not check.passed]
        if failed:
            raise BundleError(f"the new bundle fails its check '{failed[0].name}': {failed[0].detail}", where=str(target))
        work.chmod(0o755)
        if target.exists():
            old = target.with_name(f".{target.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            target.rename(old)
            work.rename(target)
            shutil.rmtree(old)
        else:
            work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _fill(parts: BundleParts, work: Path) -> None:
    (work / schema.ENGINE).mkdir()
    for file in sorted(p for p in parts.engine.iterdir() if p.is_file()):
        shutil.copyfile(file, work / schema.ENGINE / file.name)
    write_json(work / schema.PREPROCESSING, dict(parts.preprocessing))
    write_json(work / schema.CALIBRATOR, dict(parts.calibrator))
    write_json(work / schema.POLICY, dict(parts.policy))
    write_json(work / schema.CERTIFICATE, dict(parts.certificate))
    write_json(work / schema.PARITY, dict(parts.parity))
    write_json(work / schema.METRICS, dict(parts.metrics))
    write_atomic(work / schema.CARD, parts.card)
    (work / schema.GOLDEN).mkdir()
    names = []
    for i, image in enumerate(parts.golden_images):
        name = f"{schema.GOLDEN}/{i:02d}{image.suffix.lower()}"
        shutil.copyfile(image, work / name)
        names.append(name)
    values: dict[str, Any] = {
        "schema_version": schema.SCHEMA_VERSION,
        "name": parts.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "workzone_version": __version__,
        "engine": {
            "name": parts.engine_name,
            "precision": parts.precision,
            "backbone": parts.backbone,
            "embedding_dim": parts.embedding_dim,
        },
        "lineage": dict(parts.lineage),
    }
    cases = _golden_cases(parts, work, names, values)
    write_json(work / schema.GOLDEN_CASES, cases)
    write_atomic(work / schema.MANIFEST, schema.seal({**values, "files": _entries(work)}))


def _entries(work: Path) -> dict[str, dict[str, Any]]:
    files = sorted(p for p in work.rglob("*") if p.is_file() and p.name != schema.MANIFEST)
    return {p.relative_to(work).as_posix(): {"sha256": sha256_file(p), "size": p.stat().st_size} for p in files}


def _golden_cases(parts: BundleParts, work: Path, names: Sequence[str], values: dict[str, Any]) -> dict[str, Any]:
    from workzone.bundle.engines import open_engine

    entries = {n: schema.FileEntry(**e) for n, e in _entries(work).items()}
    manifest = schema.BundleManifest.model_validate({**values, "files": entries, "sha256": ""})
    pre, calibrator, policy, certificate = read_parts(work)
    if void := void_reasons(manifest, pre, calibrator, policy, certificate):
        raise BundleError(f"the certificate does not fit the parts: {'; '.join(void)}")
    engine = open_engine(parts.engine_name, work / schema.ENGINE, precision=parts.precision)
    detector = Detector(work, manifest, pre, engine, calibrator, policy, certificate)
    cases = [
        {"image": name, "log_odds": a.log_odds, "probability": a.probability, "decision": a.label}
        for name, (_, a) in zip(names, detector.predict(work / name for name in names), strict=True)
    ]
    return {"tolerance": parts.tolerance, "cases": cases}
