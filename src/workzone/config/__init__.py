"""Typed configuration: models, presets, overrides and their documentation."""

from workzone.config.run import RunConfig

__all__ = ["RunConfig"]
