"""Synthetic street scenes: a seeded generator with known ground truth, several domains and hard negatives."""

from __future__ import annotations

from .dataset import COLUMNS, DEFAULT_SIZE, SyntheticImage, generate, write_dataset
from .domains import DOMAINS
from .render import render_scene
from .scene import sample_scene
from .spec import SceneObject, SceneSpec

__all__ = [
    "COLUMNS",
    "DEFAULT_SIZE",
    "DOMAINS",
    "SceneObject",
    "SceneSpec",
    "SyntheticImage",
    "generate",
    "render_scene",
    "sample_scene",
    "write_dataset",
]
