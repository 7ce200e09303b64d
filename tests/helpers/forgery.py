"""What an attacker would do: change a bundle and seal it again, as far as no secret is needed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workzone.bundle import schema, verify_bundle
from workzone.files import sha256_file


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change ``bundle.json`` and seal it again."""
    path = folder / schema.MANIFEST
    values = json.loads(path.read_text())
    del values["sha256"]
    change(values)
    path.write_text(schema.seal(values))


def reseal(folder: Path) -> None:
    """Make every hash of ``bundle.json`` fit the files that lie there now."""

    def update(values: dict[str, Any]) -> None:
        files = [p for p in folder.rglob("*") if p.is_file() and p.name != schema.MANIFEST]
        values["files"] = {
            p.relative_to(folder).as_posix(): {"sha256": sha256_file(p), "size": p.stat().st_size} for p in files
        }

    edit_manifest(folder, update)


def edit_json(path: Path, change: Callable[[Any], Any]) -> None:
    """Change a JSON file; ``change`` edits in place or returns a new value."""
    value = json.loads(path.read_text())
    changed = change(value)
    path.write_text(json.dumps(value if changed is None else changed))


def failures(folder: Path) -> dict[str, str]:
    """Checks that failed, with their reasons."""
    return {c.name: c.detail for c in verify_bundle(folder) if not c.passed}
