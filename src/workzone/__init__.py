"""Roadwork decisions from street images: calibrated, certified, exported and verifiable.

``import workzone`` is light; ``workzone.Detector`` and the sub-packages load on first use.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workzone.bundle.runtime import Detector
    from workzone.predictions import Predictions

# ONNX Runtime from 1.29 on reports its use to its makers, hashes of networks among it, unless it is told not to before
# it is imported, and keeps a name of the machine in the folder of the user. OpenVINO and NNCF do the same by a package
# that they can do without, and no setting of a process stops them.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if it were not installed

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
