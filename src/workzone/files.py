"""Atomic writes, hashes and canonical JSON: the only way this project puts bytes on disk."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workzone.errors import ConfigError

PARTIAL = r"\..*-[0-9a-f]{8}\.partial(\.[^.]*)?"
"""Pattern of the names that ``atomic_path`` gives to files that are not finished."""
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".mpo"})
"""Suffixes of what is taken for an image in a folder; a file that is named is opened whatever its suffix."""
_CHUNK = 1 << 20


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target`` that replaces it when the block succeeds and vanishes when it fails.

    Raises:
        ConfigError: ``target`` is a folder or a device, which must not be replaced by a file.
    """
    if target.exists() and not target.is_file():
        raise ConfigError("the output is no regular file", where=str(target), fix="give the path of a file")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.stem}-{secrets.token_hex(4)}.partial{target.suffix}")
    # Exclusive, and with the permissions that the user's mask leaves.
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield partial
        with partial.open("rb+") as stream:
            os.fsync(stream.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def write_atomic(target: Path, content: bytes | str) -> None:
    """Write ``content`` so that ``target`` holds either its old or its whole new content, whatever happens."""
    with atomic_path(target) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def require_new(folder: Path, problem: str) -> None:
    """Raise ConfigError, which says ``problem``, unless ``folder`` does not exist or is empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(problem, where=str(folder), fix="name a new folder")


def canonical_json(value: Any) -> str:
    """Return the one text form of ``value``: sorted keys, two-space indent, no NaN, trailing newline."""
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(target: Path, value: Any) -> None:
    """Write ``value`` as canonical JSON, atomically."""
    write_atomic(target, canonical_json(value))


def read_json(path: Path) -> Any:
    """Read a JSON file; raises ``json.JSONDecodeError`` or ``OSError`` unchanged for the caller to explain."""
    text = path.read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise json.JSONDecodeError("it is nested too deeply", text, 0) from error


def sha256_file(path: Path) -> str:
    """SHA-256 of a file as 64 hex digits, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_bytes(content: bytes) -> str:
    """SHA-256 of ``content`` as 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


def sha256_json(value: Any) -> str:
    """SHA-256 of the canonical JSON form of ``value``."""
    return sha256_bytes(canonical_json(value).encode())


def shown(path: os.PathLike[str]) -> str:
    """``path`` as text that can be written anywhere; bytes that are no UTF-8 appear as escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
