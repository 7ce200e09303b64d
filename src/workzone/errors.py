"""The exceptions a user can meet.

Each carries what happened, where, and what to do; the command line prints them as one paragraph and exits with
``exit_code`` (2: wrong usage, configuration or input; 3: a check failed).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar


class WorkzoneError(Exception):
    """Base of all errors meant for a user.

    Args:
        what: one sentence that says what is wrong.
        where: the file, row, key or phase concerned.
        fix: one sentence that says what to do.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.what = what
        self.where = where
        self.fix = fix
        super().__init__(str(self))

    def __str__(self) -> str:
        parts = [self.what.rstrip(".") + "."]
        if self.where:
            parts.append(f"Where: {self.where.rstrip('.')}.")
        if self.fix:
            parts.append(f"What to do: {self.fix.rstrip('.')}.")
        return " ".join(parts)


class ConfigError(WorkzoneError):
    """The configuration is wrong: unknown key, wrong type, value out of range."""


class DataError(WorkzoneError):
    """The data cannot be used: missing files, one class only, nothing to read."""


class ManifestError(DataError):
    """A manifest breaks its contract; the message names rows and columns."""


class LeakageError(WorkzoneError):
    """A phase or method was handed a split role it must not see."""

    exit_code = 3


class ArtifactError(WorkzoneError):
    """A file that a phase needs is missing or corrupt; the message names the phase that makes it."""


class RunLockedError(WorkzoneError):
    """Another process is working in the same run folder."""


class WeightsError(WorkzoneError):
    """Model weights are missing or do not fit the model; random weights are never used instead."""


class ImageError(WorkzoneError):
    """One image cannot be decoded safely; ``reason`` is a short code such as ``truncated``."""

    def __init__(self, reason: str, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.reason = reason
        super().__init__(what, where=where, fix=fix)


class BundleError(WorkzoneError):
    """A bundle cannot be loaded: missing file, unknown schema, hash mismatch, void certificate."""

    exit_code = 3


class CheckFailedError(WorkzoneError):
    """A check (audit, verify, parity) ran and failed."""

    exit_code = 3


class MissingExtraError(WorkzoneError):
    """A feature needs packages that the installed extras do not bring."""

    def __init__(self, package: str, extra: str, *, feature: str) -> None:
        super().__init__(
            f"{feature} needs the package '{package}', which is not installed",
            fix=f"install it with: pip install 'workzone[{extra}]'",
        )


Kind = TypeVar("Kind", bound=WorkzoneError)


def unreadable(kind: type[Kind], name: str, path: Path | str, error: Exception, *, fix: str | None = None) -> Kind:
    """The error of a file of the user that cannot be read, in place of the words of the library that met it.

    Args:
        kind: class of the error.
        name: what the file is, such as ``the table``.
        path: the file.
        error: what was met.
        fix: what to do where the content is at fault.
    """
    file = Path(path)
    if isinstance(error, PermissionError):
        why, todo = "permission was denied", "check its permissions"
    elif isinstance(error, FileNotFoundError) or not file.exists():
        why, todo = "there is no such file", "check the path"
    elif file.is_dir():
        why, todo = "it is a folder", "give a file"
    else:
        why, todo = _fault(file, error), fix or "give a whole file of its kind; this one is damaged or of another kind"
    return kind(f"{name} cannot be read: {why}", where=str(path), fix=todo)


def _fault(file: Path, error: Exception) -> str:
    if file.stat().st_size == 0:
        return "it is empty"
    if isinstance(error, UnicodeError):
        return "it is not UTF-8 text"
    if isinstance(error, json.JSONDecodeError):
        return f"it is no JSON from line {error.lineno}, column {error.colno} on"
    lines = (error.strerror or str(error) if isinstance(error, OSError) else str(error)).splitlines()
    return lines[0] if lines else type(error).__name__


@contextmanager
def needs_extra(package: str, extra: str, *, feature: str) -> Iterator[None]:
    """Raise MissingExtraError where an import inside the block fails."""
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(package, extra, feature=feature) from error
