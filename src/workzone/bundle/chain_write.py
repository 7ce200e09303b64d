"""Put a cascade of several bundles together: copy the members, answer the golden cases, pin every byte."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workzone import __version__
from workzone.bundle import schema
from workzone.bundle.chain import CHAIN_VERSION, CascadeDetector, ChainManifest, member_folder
from workzone.bundle.runtime import Detector
from workzone.bundle.write import file_entries, write_folder
from workzone.files import write_atomic, write_json


@dataclass(frozen=True, slots=True)
class ChainParts:
    """Everything a cascade of several bundles is made of, see ``BundleParts``.

    Attributes:
        members: folders of the bundles, the cheapest first.
    """

    name: str
    members: Sequence[Path]
    calibrator: Mapping[str, Any]
    policy: Mapping[str, Any]
    certificate: Mapping[str, Any]
    metrics: Mapping[str, Any]
    card: str
    golden_images: Sequence[Path]
    compare_decisions: bool
    tolerance: float
    lineage: Mapping[str, Any]


def write_chain(parts: ChainParts, target: Path) -> Path:
    """Write the cascade to ``target``, as ``write_bundle`` does it.

    Raises:
        BundleError: a member is not good, the parts do not fit together, or ``target`` holds something else.
    """
    return write_folder(lambda work: _fill(parts, work), target)


def _fill(parts: ChainParts, work: Path) -> None:
    opened = []
    for number, source in enumerate(parts.members, start=1):
        shutil.copytree(source, member_folder(work, number), symlinks=True)
        opened.append(Detector.load(member_folder(work, number)))
    files = {
        schema.CALIBRATOR: parts.calibrator,
        schema.POLICY: parts.policy,
        schema.CERTIFICATE: parts.certificate,
        schema.METRICS: parts.metrics,
    }
    for name, value in files.items():
        write_json(work / name, dict(value))
    write_atomic(work / schema.CARD, parts.card)
    (work / schema.GOLDEN).mkdir()
    images = []
    for i, image in enumerate(parts.golden_images):
        images.append(f"{schema.GOLDEN}/{i:02d}{image.suffix.lower()}")
        shutil.copyfile(image, work / images[-1])
    values: dict[str, Any] = {
        "schema_version": CHAIN_VERSION,
        "kind": schema.CASCADE,
        "name": parts.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "workzone_version": __version__,
        "members": [
            {
                "name": m.manifest.name,
                "sha256": m.manifest.sha256,
                "backbone": m.manifest.engine.backbone,
                "engine": f"{m.manifest.engine.name}-{m.manifest.engine.precision}",
            }
            for m in opened
        ],
        "lineage": dict(parts.lineage),
    }
    unsealed = {**values, "files": {}, "sha256": ""}
    manifest = schema.validated(work / schema.MANIFEST, unsealed, ChainManifest)
    detector = CascadeDetector.assemble(work, manifest, tuple(opened))
    answers = [a for _, a in detector.predict(work / name for name in images)]
    cases = [
        {"image": name, "log_odds": a.log_odds, "probability": a.probability, "decision": a.label}
        for name, a in zip(images, answers, strict=True)
    ]
    golden = {"tolerance": parts.tolerance, "compare_decisions": parts.compare_decisions, "cases": cases}
    write_json(work / schema.GOLDEN_CASES, golden)
    own = {name: entry for name, entry in file_entries(work).items() if not name.startswith("members/")}
    write_atomic(work / schema.MANIFEST, schema.seal({**values, "files": own}))
