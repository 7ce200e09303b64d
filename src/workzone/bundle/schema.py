"""What a bundle is on disk: one folder, a closed set of files, and ``bundle.json`` that pins every byte of them.

    bundle.json            this schema: versions, engine, hashes, lineage, and a hash of itself
    preprocessing.json     from image file to views
    engine/                the exported network
    calibrator.json        log-odds to probability
    policy.json            the one rule that decides
    certificate.json       what is promised and for which of these files
    parity.json            how close the engine is to the trained network
    metrics.json           figures on the test role, with intervals
    golden/                images with the answers this bundle must give
    MODEL_CARD.md          for people
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workzone.errors import BundleError
from workzone.files import canonical_json, sha256_file, sha256_json

SCHEMA_VERSION = 1
MANIFEST = "bundle.json"
PREPROCESSING = "preprocessing.json"
CALIBRATOR = "calibrator.json"
POLICY = "policy.json"
CERTIFICATE = "certificate.json"
PARITY = "parity.json"
METRICS = "metrics.json"
CARD = "MODEL_CARD.md"
ENGINE = "engine"
GOLDEN = "golden"
GOLDEN_CASES = "golden/cases.json"

REQUIRED = (PREPROCESSING, CALIBRATOR, POLICY, CERTIFICATE, PARITY, METRICS, CARD, GOLDEN_CASES)
_MAX_JSON = 16 * 1024 * 1024
_MAX_FILES = 1000


class Strict(BaseModel):
    """Frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FileEntry(Strict):
    """One file of the bundle."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class EngineEntry(Strict):
    """The exported network."""

    name: Literal["onnxruntime", "openvino"]
    precision: Literal["fp32", "int8"]
    backbone: str
    embedding_dim: int = Field(ge=1)


class GoldenCase(Strict):
    """One image and the answer the bundle gave when it was made."""

    image: str = Field(pattern=r"^golden/[A-Za-z0-9._-]+$")
    log_odds: float
    probability: float
    decision: Literal["roadwork", "no_roadwork", "abstain"]


class Golden(Strict):
    """All golden cases and how far the log-odds may be off on another processor."""

    tolerance: float = Field(gt=0)
    cases: tuple[GoldenCase, ...] = Field(min_length=1)


class BundleManifest(Strict):
    """Content of ``bundle.json``."""

    schema_version: Literal[1]
    name: str
    created: str
    workzone_version: str
    engine: EngineEntry
    files: dict[str, FileEntry]
    lineage: dict[str, Any]
    sha256: str = Field(description="hash of this object without this key")


def seal(values: dict[str, Any]) -> str:
    """Text of ``bundle.json`` for ``values``, with the hash of itself added."""
    return canonical_json({**values, "sha256": sha256_json(values)})


def read_json_bounded(path: Path) -> Any:
    """Read a JSON file of a bundle, refusing absurd sizes.

    Raises:
        BundleError: missing, too large, not UTF-8 or not JSON.
    """
    try:
        if path.stat().st_size > _MAX_JSON:
            raise BundleError(f"{path.name} is larger than {_MAX_JSON} bytes", where=str(path))
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise BundleError(f"{path.name} cannot be read: {error}", where=str(path)) from error


def read_manifest(folder: Path) -> BundleManifest:
    """Read and check ``bundle.json``: schema version, shape, canonical text and its own hash.

    Raises:
        BundleError: with the reason.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise BundleError("there is no bundle here", where=str(folder), fix="give the folder that holds bundle.json")
    raw = read_json_bounded(path)
    if not isinstance(raw, dict):
        raise BundleError("bundle.json is not an object", where=str(path))
    found = raw.get("schema_version")
    if found != SCHEMA_VERSION or isinstance(found, bool):
        raise BundleError(
            f"unknown bundle schema version {found!r}; this version of workzone reads {SCHEMA_VERSION}",
            where=str(path),
            fix="use the workzone version that made the bundle, or export again",
        )
    try:
        manifest = BundleManifest.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(p) for p in first["loc"])
        raise BundleError(f"bundle.json is malformed at {key!r}: {first['msg']}", where=str(path)) from error
    body = {k: v for k, v in raw.items() if k != "sha256"}
    if sha256_json(body) != manifest.sha256 or path.read_text(encoding="utf-8") != canonical_json(raw):
        raise BundleError("bundle.json was changed after it was sealed", where=str(path), fix="take the original bundle")
    _check_names(manifest, path)
    return manifest


def _check_names(manifest: BundleManifest, path: Path) -> None:
    if len(manifest.files) > _MAX_FILES:
        raise BundleError(f"the bundle lists more than {_MAX_FILES} files", where=str(path))
    for name in manifest.files:
        parts = PurePosixPath(name).parts
        inside = not name.startswith("/") and ".." not in parts and "\\" not in name
        known = name in REQUIRED or (len(parts) == 2 and parts[0] in (ENGINE, GOLDEN))
        if not inside or not known:
            extra = "a bundle holds exactly one policy, policy.json" if "policy" in name else "the set of files is closed"
            raise BundleError(f"{name!r} has no place in a bundle: {extra}", where=str(path))
    missing = [name for name in REQUIRED if name not in manifest.files]
    if missing:
        raise BundleError(f"the bundle lacks {missing[0]}", where=str(path))


def check_files(folder: Path, manifest: BundleManifest) -> list[str]:
    """Compare every file with its hash; returns one sentence per difference."""
    problems = []
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file() or path.is_symlink():
            problems.append(f"{name} is missing")
        elif path.stat().st_size != entry.size or sha256_file(path) != entry.sha256:
            problems.append(f"{name} was changed: its hash is not the one in bundle.json")
    listed = {*manifest.files, MANIFEST}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_dir() and name not in listed:
            kind = "a second policy: a bundle holds exactly one" if "policy" in name else "it is not listed in bundle.json"
            problems.append(f"{name} does not belong to the bundle ({kind})")
    return problems


def engine_sha256(manifest: BundleManifest) -> str:
    """One hash over the files of the engine, its name and its precision; certificates are bound to it."""
    files = {n: e.sha256 for n, e in manifest.files.items() if n.startswith(f"{ENGINE}/")}
    return hash_engine(manifest.engine.name, manifest.engine.precision, files)


def hash_engine(name: str, precision: str, files: dict[str, str]) -> str:
    """See ``engine_sha256``; ``files`` maps ``engine/FILE`` to its hash."""
    return sha256_json({"engine": name, "precision": precision, "files": files})
