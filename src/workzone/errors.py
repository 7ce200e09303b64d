"""The exceptions a user can meet.

Each carries what happened, where, and what to do; the command line prints them as one paragraph and exits with
``exit_code`` (2: wrong usage, configuration or input; 3: a check failed).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


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


@contextmanager
def needs_extra(package: str, extra: str, *, feature: str) -> Iterator[None]:
    """Raise MissingExtraError where an import inside the block fails."""
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(package, extra, feature=feature) from error
