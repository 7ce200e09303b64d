"""Content hashes of what phases read and write; a file is read once a run, however many phases name it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from workzone.files import sha256_file, sha256_json

_Stamp = tuple[int, int, int, int]


class Hasher:
    """Hashes by content, remembered as long as size, times and inode of a file stay as they were."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[_Stamp, str]] = {}

    def file(self, path: Path) -> str:
        """SHA-256 of a file."""
        status = path.stat()
        # The change time cannot be set from outside, so a rewrite of equal length with an old date is seen.
        stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        known = self._known.get(path)
        if known is None or known[0] != stamp:
            known = self._known[path] = (stamp, sha256_file(path))
        return known[1]

    def tree(self, path: Path) -> dict[Path, str]:
        """Hash of a file, or of every file below a folder; dot files are no part of a result.

        Raises:
            FileNotFoundError: there is nothing at ``path``.
        """
        if not path.is_dir():
            return {path: self.file(path)}
        files = (p for p in path.rglob("*") if not p.name.startswith(".") and p.is_file())
        return {file: self.file(file) for file in sorted(files)}

    def one(self, path: Path) -> str:
        """One hash of a file or of the names and contents below a folder."""
        if not path.is_dir():
            return self.file(path)
        return sha256_json({str(file.relative_to(path)): h for file, h in self.tree(path).items()})

    def many(self, paths: Iterable[Path], root: Path) -> dict[str, str]:
        """Hash of every file at or below ``paths``, by its path relative to ``root``."""
        return {str(file.relative_to(root)): h for path in paths for file, h in self.tree(path).items()}
