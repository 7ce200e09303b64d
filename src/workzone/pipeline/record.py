"""The run manifest ``run.json``: what each phase read, wrote and opened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from workzone.errors import ArtifactError
from workzone.files import read_json, write_json
from workzone.pipeline.hashing import Hasher

_ENTRY = {"key": str, "parts": dict, "outputs": dict}
_PARTS = {"config": dict, "inputs": dict, "code": str}


class Record:
    """The run manifest in memory; written whole after every change."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path = path
        self.content = content

    @classmethod
    def load(cls, path: Path) -> Record:
        """Read the manifest, or begin one.

        Raises:
            ArtifactError: it cannot be read or is of another version.
        """
        if not path.exists():
            return cls(path, {"version": 1, "phases": {}, "roles_opened": {}})
        try:
            content = read_json(path)
            _check(content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ArtifactError(
                f"the run manifest cannot be read: {error}",
                where=str(path),
                fix="restore it, or delete it to run every phase again",
            ) from error
        return cls(path, content)

    def entry(self, phase: str) -> dict[str, Any] | None:
        """What is known of a finished phase."""
        found: dict[str, Any] | None = self.content["phases"].get(phase)
        return found

    def finish(self, phase: str, entry: dict[str, Any]) -> None:
        """Store a finished phase."""
        self.content["phases"][phase] = entry
        write_json(self.path, self.content)

    def opened(self, role: str) -> None:
        """Count the opening of a split role at once: a phase that is killed later has seen the images all the same."""
        counts = self.content["roles_opened"]
        counts[role] = counts.get(role, 0) + 1
        write_json(self.path, self.content)

    def remove_stale(self, phase: str, outputs: dict[str, str], root: Path, hasher: Hasher) -> None:
        """Delete what the phase wrote before and does not write now, such as an engine no longer asked for.

        Files that were changed since are not the phase's any more and stay.
        """
        entry = self.entry(phase) or {"outputs": {}}
        for name, digest in entry["outputs"].items():
            path = root / name
            if name in outputs or not path.is_file() or hasher.file(path) != digest:
                continue
            path.unlink()
            for folder in path.parents:
                if folder == root or any(folder.iterdir()):
                    break
                folder.rmdir()


def _check(content: Any) -> None:
    if content["version"] != 1:
        raise ValueError(f"version {content['version']!r} is unknown")
    if not all(isinstance(n, int) for n in content["roles_opened"].values()):
        raise ValueError("roles_opened must hold counts")
    for name, entry in content["phases"].items():
        fits = all(isinstance(entry[k], kind) for k, kind in _ENTRY.items())
        if not fits or not all(isinstance(entry["parts"][k], kind) for k, kind in _PARTS.items()):
            raise ValueError(f"the entry of phase {name} is malformed")
        for output in entry["outputs"]:
            if Path(output).is_absolute() or ".." in Path(output).parts:
                raise ValueError(f"phase {name} names an output outside the run folder")
