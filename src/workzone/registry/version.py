"""Semantic versions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering

from workzone.errors import ConfigError

_FORM = re.compile(r"(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?")


@total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """MAJOR.MINOR.PATCH with an optional pre-release, ordered as semver.org 2.0.0 says."""

    major: int
    minor: int
    patch: int
    pre: str = ""

    @classmethod
    def parse(cls, text: str) -> Version:
        """The version that ``text`` names.

        Raises:
            ConfigError: it is no semantic version.
        """
        found = _FORM.fullmatch(text)
        parts = (found[4] or "").split(".") if found else []
        if found is None or any(p.isdecimal() and len(p) > 1 and p[0] == "0" for p in parts):
            fix = "write MAJOR.MINOR.PATCH, for example 1.4.0 or 1.4.0-rc.1"
            raise ConfigError(f"{text[:60]!r} is no semantic version", fix=fix)
        return cls(int(found[1]), int(found[2]), int(found[3]), found[4] or "")

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}" + (f"-{self.pre}" if self.pre else "")

    def next(self) -> Version:
        """The next minor version; the release itself after a pre-release."""
        if self.pre:
            return Version(self.major, self.minor, self.patch)
        return Version(self.major, self.minor + 1, 0)

    def _key(self) -> tuple[object, ...]:
        # Numbers sort before words, and a release after all of its pre-releases.
        parts = tuple((0, int(p), "") if p.isdecimal() else (1, 0, p) for p in self.pre.split("."))
        return (self.major, self.minor, self.patch, not self.pre, parts if self.pre else ())

    def __lt__(self, other: Version) -> bool:
        return self._key() < other._key()
