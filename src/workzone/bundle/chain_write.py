"""Put a cascade of several bundles together: copy the members, answer the golden cases, pin every byte."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from workzone.bundle import schema
from workzone.bundle.chain import CHAIN_VERSION, CascadeDetector, ChainManifest, member_folder
from workzone.bundle.runtime import Detector
from workzone.bundle.write import Parts, common_values, file_entries, write_common, write_folder, write_golden
from workzone.files import write_atomic


@dataclass(frozen=True, slots=True)
class ChainParts(Parts):
    """Everything a cascade of several bundles is made of.

    Attributes:
        members: folders of the bundles, the cheapest first.
    """

    members: Sequence[Path]


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
    names = write_common(parts, work)
    values = common_values(parts) | {
        "schema_version": CHAIN_VERSION,
        "kind": schema.CASCADE,
        "members": [
            {
                "name": m.manifest.name,
                "sha256": m.manifest.sha256,
                "backbone": m.manifest.engine.backbone,
                "engine": f"{m.manifest.engine.name}-{m.manifest.engine.precision}",
            }
            for m in opened
        ],
    }
    unsealed = {**values, "files": {}, "sha256": ""}
    manifest = schema.validated(work / schema.MANIFEST, unsealed, ChainManifest)
    detector = CascadeDetector.assemble(work, manifest, tuple(opened))
    write_golden(parts, work, names, detector.predict(work / name for name in names))
    own = {name: entry for name, entry in file_entries(work).items() if not name.startswith("members/")}
    write_atomic(work / schema.MANIFEST, schema.seal({**values, "files": own}))
