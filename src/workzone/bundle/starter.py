"""The small bundle that comes with the package, for a first look."""

from __future__ import annotations

from pathlib import Path

STARTER = Path(__file__).resolve().parent.parent / "starter"
"""Its folder; absent in a checkout where it was not made."""
SENTENCE = (
    "No bundle was named: this is the starter bundle of the package, made for a first look. "
    "Train your own with 'workzone run' before you rely on answers."
)


def starter_bundle() -> Path | None:
    """Folder of the starter bundle, None where the package was built without it."""
    return STARTER if (STARTER / "bundle.json").is_file() else None
