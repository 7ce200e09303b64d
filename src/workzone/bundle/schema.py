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
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workzone.bundle.engines import network_files
from workzone.bundle.strict_json import parse
from workzone.errors import BundleError, unreadable
from workzone.files import canonical_json, sha256_bytes, sha256_file, sha256_json

SCHEMA_VERSION = 1
MANIFEST = "bundle.json"
RULE = "rule.json"
"""What a calibrator and a policy without a network have in its place."""
PREPROCESSING = "preprocessing.json"
CALIBRATOR = "calibrator.json"
POLICY = "policy.json"
CERTIFICATE = "certificate.json"
PARITY = "parity.json"
METRICS = "metrics.json"
CARD = "MODEL_CARD.md"
CASCADE = "cascade"
ENGINE = "engine"
GOLDEN = "golden"
GOLDEN_CASES = "golden/cases.json"

REQUIRED = (PREPROCESSING, CALIBRATOR, POLICY, CERTIFICATE, PARITY, METRICS, CARD, GOLDEN_CASES)
TOP_LEVEL = frozenset({MANIFEST, ENGINE, *(name.partition("/")[0] for name in REQUIRED)})
"""Names of what lies directly in the folder."""
MAX_MANIFEST_BYTES = 1024 * 1024
MAX_JSON_BYTES = 16 * 1024 * 1024
MAX_FILES = 1000
MAX_TOLERANCE = 10.0
"""Golden cases that may be further off than this in log-odds would prove nothing."""
GOLDEN_FILE = re.compile(r"golden/[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MAX_NAMED = 20

M = TypeVar("M", bound=BaseModel)


class Strict(BaseModel):
    """Frozen, unknown keys and values of another type refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class FileEntry(Strict):
    """One file of the bundle."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class EngineEntry(Strict):
    """The exported network."""

    name: Literal["onnxruntime", "openvino"]
    precision: Literal["fp32", "bf16", "int8"]
    backbone: str
    embedding_dim: int = Field(ge=1)


class GoldenCase(Strict):
    """One image and the answer the bundle gave when it was made."""

    image: str = Field(pattern=r"^golden/[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    log_odds: float
    probability: float = Field(ge=0, le=1)
    decision: Literal["roadwork", "no_roadwork", "abstain"]


class Golden(Strict):
    """All golden cases and how far the log-odds may be off on another processor."""

    tolerance: float = Field(gt=0, le=MAX_TOLERANCE)
    compare_decisions: bool = Field(
        default=True, description="false where every case lies so near a threshold that another processor may differ"
    )
    cases: tuple[GoldenCase, ...] = Field(min_length=1, max_length=MAX_FILES)


class BundleManifest(Strict):
    """Content of ``bundle.json``."""

    schema_version: Literal[1]
    name: str
    created: str
    workzone_version: str
    engine: EngineEntry
    files: dict[str, FileEntry] = Field(max_length=MAX_FILES)
    lineage: dict[str, Any]
    sha256: str = Field(description="hash of this object without this key")


def seal(values: dict[str, Any]) -> str:
    """Text of ``bundle.json`` for ``values``, with the hash of itself added."""
    return canonical_json({**values, "sha256": sha256_json(values)})


def read_json_bounded(path: Path, *, limit: int = MAX_JSON_BYTES) -> Any:
    """Read a JSON file of a bundle.

    Raises:
        BundleError: missing, no regular file, too large, not UTF-8, not JSON, or JSON with more than one meaning.
    """
    return _parsed(path, _read_bounded(path, limit))


def read_model(path: Path, model: type[M]) -> M:
    """Read a JSON file of a bundle as ``model``; numbers are not taken from strings, nor strings from numbers.

    Raises:
        BundleError: with the reason and the key.
    """
    return validated(path, read_json_bounded(path), model)


def validated(path: Path, value: Any, model: type[M]) -> M:
    """``value``, read from ``path``, as ``model``; raises BundleError with the key that is wrong."""
    try:
        return model.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(p) for p in first["loc"])[:200]
        raise BundleError(f"{path.name} is malformed at {key!r}: {first['msg']}", where=str(path)) from error


_ORIGINAL = "take the original bundle"


def _read_bounded(path: Path, limit: int) -> bytes:
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise BundleError(f"{path.name} is not a regular file", where=str(path), fix=_ORIGINAL)
        with path.open("rb") as stream:
            content = stream.read(limit + 1)
    except FileNotFoundError as error:
        fix = _ORIGINAL
        if path.name == MANIFEST and not any((path.parent / part).exists() for part in (CERTIFICATE, POLICY)):
            inner = path.parent / "bundle"
            fix = f"give {inner}" if (inner / MANIFEST).is_file() else "give the folder that holds bundle.json"
        raise BundleError(f"{path.name} is missing", where=str(path), fix=fix) from error
    except (OSError, ValueError) as error:
        raise unreadable(BundleError, path.name, path, error, fix=_ORIGINAL) from error
    if len(content) > limit:
        raise BundleError(f"{path.name} is larger than {limit} bytes", where=str(path), fix=_ORIGINAL)
    return content


def _parsed(path: Path, content: bytes) -> Any:
    try:
        return parse(content.decode("utf-8"))
    except ValueError as error:  # also what is not UTF-8
        raise unreadable(BundleError, path.name, path, error, fix=_ORIGINAL) from error


def read_manifest(folder: Path) -> BundleManifest:
    """Read and check ``bundle.json``: schema version, shape, canonical text and its own hash.

    Raises:
        BundleError: with the reason.
    """
    raw, content = _read_raw(folder)
    path = folder / MANIFEST
    if raw.get("kind") == CASCADE:
        raise BundleError(
            "this is a cascade of several models, where a bundle of one model is read",
            where=str(path),
            fix="give one of its members (members/1 and so on), or use a command that takes it: predict, score, serve, "
            "explain, evaluate, verify, monitor, registry",
        )
    manifest = unsealed(path, raw, content, BundleManifest, SCHEMA_VERSION)
    _check_names(manifest, path)
    return manifest


def is_cascade(folder: Path) -> bool:
    """Whether ``bundle.json`` in ``folder`` calls itself a cascade of several models; raises BundleError as above."""
    return _read_raw(folder)[0].get("kind") == CASCADE


def read_sealed(folder: Path, model: type[M], version: int) -> M:
    """``bundle.json`` of another shape, checked as ``read_manifest`` does it but for the names of files."""
    return unsealed(folder / MANIFEST, *_read_raw(folder), model, version)


def _read_raw(folder: Path) -> tuple[dict[str, Any], bytes]:
    path = folder / MANIFEST
    if not folder.is_dir():
        raise BundleError("there is no bundle here", where=str(folder), fix="give the folder that holds bundle.json")
    content = _read_bounded(path, MAX_MANIFEST_BYTES)
    raw = _parsed(path, content)
    if not isinstance(raw, dict):
        raise BundleError("bundle.json is not an object", where=str(path))
    return raw, content


def unsealed(path: Path, raw: dict[str, Any], content: bytes, model: type[M], version: int) -> M:
    """``raw``, read from ``content``, as ``model``; raises BundleError for another version or changed content."""
    found = raw.get("schema_version")
    if type(found) is not int or found != version:
        raise BundleError(
            f"unknown bundle schema version {str(found)[:40]!r}; this version of workzone reads {version}",
            where=str(path),
            fix="use the workzone version that made the bundle, or export again",
        )
    manifest = validated(path, raw, model)
    body = canonical_json({k: v for k, v in raw.items() if k != "sha256"}).encode()
    if sha256_bytes(body) != raw["sha256"] or content != canonical_json(raw).encode():
        raise BundleError(
            "bundle.json was changed after it was sealed", where=str(path), fix="take the original bundle"
        )
    return manifest


def _check_names(manifest: BundleManifest, path: Path) -> None:
    network = {f"{ENGINE}/{name}" for name in network_files(manifest.engine.name)}
    needed = {*REQUIRED, *network}
    for name in manifest.files:
        if name not in needed and not GOLDEN_FILE.fullmatch(name):
            extra = (
                "a bundle holds exactly one policy, policy.json" if "policy" in name else "the set of files is closed"
            )
            raise BundleError(f"{name[:200]!r} has no place in this bundle: {extra}", where=str(path))
    missing = [name for name in sorted(needed) if name not in manifest.files]
    if missing:
        raise BundleError(f"the bundle lacks {missing[0]}", where=str(path))


def check_files(folder: Path, manifest: BundleManifest) -> list[str]:
    """Compare every file with its hash; returns one sentence per difference."""
    return check_listed(folder, manifest.files)


def check_listed(folder: Path, files: Mapping[str, FileEntry], apart: Sequence[str] = ()) -> list[str]:
    """Compare ``files`` with their hashes and name others; the folders ``apart`` are checked elsewhere."""
    return changed_files(folder, files) + _unlisted(folder, {*files, MANIFEST}, apart)


def changed_files(folder: Path, files: Mapping[str, FileEntry], *, record: str = MANIFEST) -> list[str]:
    """One sentence per file in ``files`` that is missing or differs from what ``record`` says of it."""
    problems = []
    for name, entry in files.items():
        path = folder / name
        try:
            if path.is_symlink() or (path.parent != folder and path.parent.is_symlink()):
                problems.append(f"{name} is a link, not a file")
            elif not path.is_file():
                problems.append(f"{name} is missing")
            elif path.stat().st_size != entry.size or sha256_file(path) != entry.sha256:
                problems.append(f"{name} was changed: its hash is not the one in {record}")
        except OSError as error:
            problems.append(f"{name} cannot be read: {error.strerror or error}")
    return problems


def _unlisted(folder: Path, listed: set[str], apart: Sequence[str]) -> list[str]:
    problems = []
    try:
        for path in folder.rglob("*"):
            name = path.relative_to(folder).as_posix()
            if name in listed or (name in (ENGINE, GOLDEN) and path.is_dir()):
                continue
            if any(f"{name}/".startswith(f"{other}/") for other in apart):
                continue
            kind = (
                "a second policy: a bundle holds exactly one" if "policy" in name else "it is not listed in bundle.json"
            )
            problems.append(f"{name} does not belong to the bundle ({kind})")
            if len(problems) >= _MAX_NAMED:
                break
    except OSError as error:
        problems.append(f"the folder cannot be listed: {error.strerror or error}")
    return sorted(problems)


def engine_sha256(manifest: BundleManifest) -> str:
    """One hash over the files of the engine, its name and its precision; certificates are bound to it."""
    files = {n: e.sha256 for n, e in manifest.files.items() if n.startswith(f"{ENGINE}/")}
    return hash_engine(manifest.engine.name, manifest.engine.precision, files)


def hash_engine(name: str, precision: str, files: Mapping[str, str]) -> str:
    """See ``engine_sha256``; ``files`` maps ``engine/FILE`` to its hash."""
    return sha256_json({"engine": name, "precision": precision, "files": files})
