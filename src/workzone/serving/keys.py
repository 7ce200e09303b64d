"""API keys: one a line, named, plain or as SHA-256; compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from workzone.errors import ConfigError, unreadable

_HASH = re.compile(r"sha256:([0-9a-f]{64})")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MIN_KEY = 16
_MAX_FILE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ApiKeys:
    """Hash of each key and the name under which its requests are logged."""

    hashes: Mapping[str, bytes]

    @classmethod
    def load(cls, path: Path) -> ApiKeys:
        """Read lines ``NAME KEY`` or ``NAME sha256:HEX``; blank lines and those that start with # are skipped.

        Raises:
            ConfigError: no key, a malformed line, a short key, or a name given twice.
        """
        try:
            if path.stat().st_size > _MAX_FILE:
                raise ConfigError("the file of API keys is larger than 1 MiB", where=str(path), fix="give one a line")
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            fix = "give a text file with lines NAME KEY"
            raise unreadable(ConfigError, "the file of API keys", path, error, fix=fix) from error
        hashes: dict[str, bytes] = {}
        for number, line in enumerate(lines, start=1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            where = f"{path}, line {number}"
            name, _, key = line.strip().partition(" ")
            key = key.strip()
            if not _NAME.fullmatch(name) or not key or name in hashes:
                raise ConfigError(
                    "this line is no API key", where=where, fix="write NAME KEY or NAME sha256:HEX, each name once"
                )
            stored = _HASH.fullmatch(key)
            if stored is None and len(key) < _MIN_KEY:
                raise ConfigError(
                    f"an API key needs at least {_MIN_KEY} characters", where=where, fix="take 'openssl rand -hex 32'"
                )
            hashes[name] = bytes.fromhex(stored[1]) if stored else hashlib.sha256(key.encode()).digest()
        if not hashes:
            raise ConfigError("the file holds no API key", where=str(path), fix="write one a line: NAME KEY")
        return cls(hashes)

    def name_of(self, key: str) -> str | None:
        """Name of ``key``; None where nobody has it. Every key is compared, so the time tells nothing."""
        given, found = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest(), None
        for name, stored in self.hashes.items():
            if hmac.compare_digest(given, stored):
                found = name
        return found


def key_in(headers: Mapping[str, str]) -> str | None:
    """The key that a request brings (``Authorization: Bearer KEY`` or ``X-API-Key: KEY``); lower-case header names."""
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and value.strip():
        return value.strip()
    return headers.get("x-api-key") or None
