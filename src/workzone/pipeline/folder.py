"""The folder of a run: made, locked, swept after a kill, and taken away again when nothing came of it."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from workzone.errors import ArtifactError, ConfigError, RunLockedError
from workzone.files import PARTIAL
from workzone.pipeline.artifacts import Artifacts

_FULL = (errno.ENOSPC, errno.EDQUOT)
_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
_held: set[TextIO] = set()


@contextmanager
def run_folder(artifacts: Artifacts) -> Iterator[None]:
    """Make and lock the folder of a run for as long as the block lasts.

    A folder that was made here and in which no phase was finished is removed when the block raises, so that a
    wrong command leaves nothing behind.

    Raises:
        ConfigError: the folder cannot be written, or holds files that no run made.
        RunLockedError: another process works in it.
    """
    root = artifacts.root
    made = not root.exists()
    try:
        root.mkdir(parents=True, exist_ok=True)
        _refuse_foreign(artifacts)
        stream = artifacts.lock.open("a+", encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"the run folder cannot be written: {error.strerror or error}",
            where=str(root),
            fix="choose another folder with out=DIR",
        ) from error
    with stream:
        _lock(stream.fileno(), artifacts.lock)
        _held.add(stream)
        try:
            stream.truncate(0)
            now = datetime.now(UTC).isoformat(timespec="seconds")
            stream.write(f"process {os.getpid()} on {platform.node()} since {now}")
            stream.flush()
            sweep(artifacts)
            yield  # the lock goes with the process, however it ends
        except BaseException:
            if made:
                _remove_if_empty(artifacts)
            raise
        finally:
            _held.discard(stream)


def _let_go() -> None:
    for stream in _held:
        stream.close()
    _held.clear()


# A forked child shares the lock: processes that load images outlive a killed run by seconds, and would hold its folder.
os.register_at_fork(after_in_child=_let_go)


def _lock(handle: int, path: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _HELD:
            raise ConfigError(
                f"the run folder cannot be locked: {error.strerror}",
                where=str(path.parent),
                fix="choose a folder on a disk that knows file locks with out=DIR",
            ) from error
        owner = path.read_text(encoding="utf-8").strip() or "another process"
        raise RunLockedError(
            f"another run is working in this folder ({owner})",
            where=str(path.parent),
            fix="wait for it, stop it, or use another out=DIR",
        ) from error


def _refuse_foreign(artifacts: Artifacts) -> None:
    """Phases replace what lies in their folders, so these must not be somebody else's."""
    if artifacts.lock.exists() or artifacts.record.exists():
        return
    for path in (artifacts.config, *artifacts.folders):
        if path.exists():
            raise ConfigError(
                f"the folder is not that of a run, and its {path.name!r} would be overwritten",
                where=str(artifacts.root),
                fix="choose an empty or a new folder with out=DIR",
            )


def _remove_if_empty(artifacts: Artifacts) -> None:
    """Remove the folder when nothing is in it but the lock, the configuration and empty folders."""
    own = {artifacts.lock, artifacts.config}
    below = sorted(artifacts.root.rglob("*"), reverse=True)
    if any(p not in own and not p.is_dir() for p in below):
        return
    with suppress(OSError):  # what cannot be removed is as good as kept
        for path in below:
            path.rmdir() if path.is_dir() else path.unlink()
        artifacts.root.rmdir()


def sweep(artifacts: Artifacts) -> None:
    """Remove what a killed process left half-written: the names of atomic writes, in the folders of phases only."""
    places = [artifacts.root.glob(".*"), *(folder.rglob(".*") for folder in artifacts.folders)]
    for path in (p for found in places for p in found):
        if re.fullmatch(PARTIAL, path.name) and path.is_file() and not path.is_symlink():
            path.unlink(missing_ok=True)


@contextmanager
def full_disk_explained(artifacts: Artifacts) -> Iterator[None]:
    """Turn the failure of any library for want of space into one paragraph.

    Raises:
        ArtifactError: the disk is full.
    """
    try:
        yield
    except Exception as error:
        if not _is_full(error):
            raise
        raise ArtifactError(
            "the disk is full; finished phases are kept",
            where=str(artifacts.root),
            fix="free space for the run folder, the feature cache and temporary files, and run the same command again",
        ) from error


def _is_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        # Libraries with a core of their own pass on the text alone.
        if os.strerror(errno.ENOSPC).lower() in str(error).lower():
            return True
        error = error.__cause__ or error.__context__
    return False
