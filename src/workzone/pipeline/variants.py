"""Which exported engines a run has: the one of the bundle first, then the further ones."""

from __future__ import annotations

from workzone.config import RunConfig

ENGINE_KEYS = ("export.engine", "export.precision", "export.also")
"""The keys that decide which engines there are."""


def main_variant(config: RunConfig) -> str:
    """Engine and precision of ``bundle/``."""
    return f"{config.export.engine}-{config.export.precision}"


def variants(config: RunConfig) -> list[str]:
    """All variants, without repeats, the main one first."""
    return list(dict.fromkeys([main_variant(config), *config.export.also]))
