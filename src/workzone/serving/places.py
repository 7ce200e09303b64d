"""Where the bundles of a server lie: in a folder, or where an alias of a registry leads now."""

from __future__ import annotations

from pathlib import Path

from workzone.registry.address import registry_of
from workzone.registry.store import ALIASES
from workzone.serving.settings import ServeSettings

CHAMPION, CHALLENGER, SHADOW = "champion", "challenger", "shadow"


def place_of(settings: ServeSettings, role: str) -> Path | None:
    """Folder of a role now; None where nobody has it: it was not asked for, or the registry has no such alias.

    Raises:
        ConfigError: the registry knows no such version, or has no champion.
        CheckFailedError: the log of the registry was changed.
    """
    name = str(settings.bundle) if role == CHAMPION else getattr(settings, role)
    if name is None:
        return None
    if settings.registry is None:
        return Path(name)
    registry = registry_of(settings.registry)
    if role != CHAMPION and name in ALIASES and name not in registry.state().aliases:
        return None
    return registry.folder(name)
