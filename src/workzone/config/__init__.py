"""Typed configuration: models, presets, overrides and their documentation."""

from workzone.config.models import RunConfig

__all__ = ["RunConfig"]
