"""The bundle: schema, writing, verifying, and the runtime that decides without torch."""

from __future__ import annotations

from workzone.bundle.chain import CascadeDetector, open_bundle
from workzone.bundle.runtime import Detector
from workzone.bundle.verify import Check, verify_bundle

__all__ = ["CascadeDetector", "Check", "Detector", "open_bundle", "verify_bundle"]
