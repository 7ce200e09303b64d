"""Which exported engines a run has: the one of the bundle first, then the further ones."""

from __future__ import annotations

from typing import Any

from workzone.config import RunConfig

ENGINE_KEYS = ("export.engine", "export.precision", "export.also")
"""The keys that decide which engines there are."""


def main_variant(config: RunConfig) -> str:
    """Engine and precision of ``bundle/``."""
    return f"{config.export.engine}-{config.export.precision}"


def variants(config: RunConfig) -> list[str]:
    """All variants, without repeats, the main one first."""
    return list(dict.fromkeys([main_variant(config), *config.export.also]))


def with_variant(config: RunConfig, variant: str) -> dict[str, Any]:
    """Values of ``config`` with ``variant`` among its engines; to be validated, since the name may be wrong."""
    values = config.model_dump(mode="json")
    values["export"]["also"] = [v for v in variants(config) if v != main_variant(config)]
    if variant not in variants(config):
        values["export"]["also"].append(variant)
    return values
