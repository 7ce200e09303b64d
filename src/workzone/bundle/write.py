"""Put a bundle together: copy the parts, answer the golden cases, pin every byte, and rename into place."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workzone import __version__
from workzone.bundle import schema
from workzone.bundle.engines import network_files, open_engine
from workzone.bundle.runtime import Decider, read_parts, require_fit, void_reasons
from workzone.bundle.slices import unknown_slices
from workzone.bundle.verify import verify_bundle
from workzone.decisions import Decision
from workzone.errors import BundleError
from workzone.files import sha256_file, write_atomic, write_json


@dataclass(frozen=True, slots=True)
class Parts:
    """What every kind of bundle is made of.

    Attributes:
        golden_images: images that become golden cases.
        compare_decisions: whether their decisions hold on any processor, or only their log-odds within the tolerance.
        tolerance: largest difference of log-odds that ``verify`` accepts.
    """

    name: str
    calibrator: Mapping[str, Any]
    policy: Mapping[str, Any]
    certificate: Mapping[str, Any]
    metrics: Mapping[str, Any]
    card: str
    golden_images: Sequence[Path]
    compare_decisions: bool
    tolerance: float
    lineage: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BundleParts(Parts):
    """Everything a bundle is made of.

    Attributes:
        engine: folder of the exported network.
    """

    engine: Path
    engine_name: str
    precision: str
    backbone: str
    embedding_dim: int
    preprocessing: Mapping[str, Any]
    parity: Mapping[str, Any]


def write_bundle(parts: BundleParts, target: Path) -> Path:
    """Write the bundle to ``target``, replacing an older one only when the new one is whole and verified.

    A bundle whose replacement was killed between its two renames is put back by the next call.

    Raises:
        BundleError: the parts do not fit together, the new bundle does not verify, or ``target`` holds something else.
    """
    return write_folder(lambda work: _fill(parts, work), target)


def write_folder(fill: Callable[[Path], None], target: Path) -> Path:
    """``write_bundle`` for whatever bundle ``fill`` puts into an empty folder."""

    def filled(work: Path) -> None:
        fill(work)
        failed = [check for check in verify_bundle(work) if not check.passed]
        if failed:
            raise BundleError(
                f"the new bundle fails its check '{failed[0].name}': {failed[0].detail}", where=str(target)
            )

    return replace_folder(filled, target, _require_replaceable)


def replace_folder(fill: Callable[[Path], None], target: Path, require: Callable[[Path], None]) -> Path:
    """Put what ``fill`` writes into an empty folder in the place of ``target`` once it is whole.

    ``require`` raises where ``target`` holds something that must not be deleted. An older folder whose replacement was
    killed between the two renames is put back first.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    old = target.with_name(f".{target.name}.old")
    if old.exists() and not target.exists():
        old.rename(target)
    require(target)
    _sweep(target)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-{os.getpid()}-", suffix=".partial", dir=target.parent))
    try:
        fill(work)
        _flush(work)
        work.chmod(0o755)
        _replace(work, target, old)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _require_replaceable(target: Path) -> None:
    """Refuse to delete what is not a bundle."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise BundleError("the target is not a folder", where=str(target), fix="name a new folder")
    present = {p.name for p in target.iterdir()} if target.is_dir() else set()
    if schema.MANIFEST not in present and not present <= schema.TOP_LEVEL:
        raise BundleError(
            "the target holds files that are no bundle", where=str(target), fix="name a new or empty folder"
        )


def _sweep(target: Path) -> None:
    """Remove what killed writers left beside ``target``."""
    for left in target.parent.glob(f".{target.name}-*-*.partial"):
        writer = left.name.removeprefix(f".{target.name}-").partition("-")[0]
        if writer.isdecimal() and not _alive(int(writer)):
            shutil.rmtree(left, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _flush(work: Path) -> None:
    """Force the files to disk before the rename, or a power cut could leave the name without the content."""
    for path in [p for p in work.rglob("*") if p.is_file()]:
        with path.open("rb") as stream:
            os.fsync(stream.fileno())


def _replace(work: Path, target: Path, old: Path) -> None:
    if not target.exists():
        work.rename(target)
        return
    shutil.rmtree(old, ignore_errors=True)
    target.rename(old)
    try:
        work.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _fill(parts: BundleParts, work: Path) -> None:
    (work / schema.ENGINE).mkdir()
    for name in network_files(parts.engine_name):
        if not (parts.engine / name).is_file():
            raise BundleError("a network file is missing", where=str(parts.engine / name), fix="export the run again")
        shutil.copyfile(parts.engine / name, work / schema.ENGINE / name)
    write_json(work / schema.PREPROCESSING, dict(parts.preprocessing))
    write_json(work / schema.PARITY, dict(parts.parity))
    names = write_common(parts, work)
    values = common_values(parts) | {
        "schema_version": schema.SCHEMA_VERSION,
        "engine": {
            "name": parts.engine_name,
            "precision": parts.precision,
            "backbone": parts.backbone,
            "embedding_dim": parts.embedding_dim,
        },
    }
    write_golden(parts, work, names, _golden_answers(parts, work, names, values))
    write_atomic(work / schema.MANIFEST, schema.seal({**values, "files": file_entries(work)}))


def write_common(parts: Parts, work: Path) -> list[str]:
    """Write what every kind of bundle holds, and copy its golden images; their names in the bundle."""
    write_json(work / schema.CALIBRATOR, dict(parts.calibrator))
    write_json(work / schema.POLICY, dict(parts.policy))
    write_json(work / schema.CERTIFICATE, dict(parts.certificate))
    write_json(work / schema.METRICS, dict(parts.metrics))
    write_atomic(work / schema.CARD, parts.card)
    (work / schema.GOLDEN).mkdir()
    names = []
    for i, image in enumerate(parts.golden_images):
        names.append(f"{schema.GOLDEN}/{i:02d}{image.suffix.lower()}")
        shutil.copyfile(image, work / names[-1])
    return names


def common_values(parts: Parts) -> dict[str, Any]:
    """What ``bundle.json`` of every kind says of its making."""
    return {
        "name": parts.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "workzone_version": __version__,
        "lineage": dict(parts.lineage),
    }


def write_golden(
    parts: Parts, work: Path, names: Sequence[str], answers: Iterator[tuple[int, Decision]]
) -> None:
    """Write the golden cases: the ``answers`` to the golden images ``names``."""
    cases = [
        {"image": name, "log_odds": a.log_odds, "probability": a.probability, "decision": a.label}
        for name, (_, a) in zip(names, answers, strict=True)
    ]
    golden = {"tolerance": parts.tolerance, "compare_decisions": parts.compare_decisions, "cases": cases}
    write_json(work / schema.GOLDEN_CASES, golden)


def file_entries(work: Path) -> dict[str, dict[str, Any]]:
    """Hash and size of every file in ``work`` but ``bundle.json``."""
    files = sorted(p for p in work.rglob("*") if p.is_file() and p.name != schema.MANIFEST)
    return {p.relative_to(work).as_posix(): {"sha256": sha256_file(p), "size": p.stat().st_size} for p in files}


def _golden_answers(
    parts: BundleParts, work: Path, names: Sequence[str], values: dict[str, Any]
) -> Iterator[tuple[int, Decision]]:
    manifest = schema.validated(
        work / schema.MANIFEST, {**values, "files": file_entries(work), "sha256": ""}, schema.BundleManifest
    )
    pre, calibrator, policy, certificate = read_parts(work)
    if void := void_reasons(manifest, pre, calibrator, policy, certificate):
        raise BundleError(f"the certificate does not fit the parts: {'; '.join(void)}")
    engine = open_engine(parts.engine_name, work / schema.ENGINE, precision=parts.precision)
    require_fit(engine, manifest, pre, work)
    detector = Decider(work, pre, engine, calibrator, policy, certificate)
    return detector.predict((work / name for name in names), columns=unknown_slices(calibrator))
