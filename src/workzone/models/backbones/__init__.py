"""Backbones by name; a member is one row of ``BACKBONES``."""

from workzone.models.backbones.base import Backbone, fingerprint_tensors
from workzone.models.backbones.create import create_backbone, load_backbone, save_backbone, scratch_backbone
from workzone.models.backbones.joint import JointBackbone
from workzone.models.backbones.registry import BACKBONES, BackboneSpec

__all__ = [
    "BACKBONES",
    "Backbone",
    "BackboneSpec",
    "JointBackbone",
    "create_backbone",
    "fingerprint_tensors",
    "load_backbone",
    "save_backbone",
    "scratch_backbone",
]
