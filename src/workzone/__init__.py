"""Roadwork decisions from street images: calibrated, certified, exported and verifiable.

``import workzone`` is light; ``workzone.Detector`` and the sub-packages load on first use.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workzone.bundle.runtime import Detector
    from workzone.predictions import Predictions

try:
    __version__ = version("workzone")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

_LAZY = {"Detector": "workzone.bundle.runtime", "Predictions": "workzone.predictions"}

__all__ = ["Detector", "Predictions", "__version__"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'workzone' has no attribute {name!r}")
