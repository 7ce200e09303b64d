"""Where the bundles of a server lie: in a folder, or where an alias of a registry leads now."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from workzone.errors import ConfigError
from workzone.registry.store import ALIASES, Registry
from workzone.serving.settings import ServeSettings

CHAMPION, CHALLENGER, SHADOW = "champion", "challenger", "shadow"


def registry_of(place: str) -> Registry:
    """The registry at a path or ``file://`` URL.

    Raises:
        ConfigError: another kind of address.
    """
    parts = urlsplit(place)
    if parts.scheme and parts.scheme != "file":
        fix = "give the folder that 'workzone registry' works in; what MLflow holds is a mirror of it"
        raise ConfigError(f"a registry is a folder, not {place[:80]!r}", where="--registry", fix=fix)
    return Registry(Path(unquote(parts.path)) if parts.scheme else Path(place))


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
