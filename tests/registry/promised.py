"""What the tests of the registry share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Make = Callable[..., Path]


def promise(alpha: float, status: str = "certified") -> dict[str, Any]:
    """A guarantee as certificates store it."""
    return {
        "risk": "false_negative_rate", "status": status, "alpha": alpha, "delta": 0.05, "kind": "confidence",
        "method": "Clopper-Pearson", "unit": "image", "n": 300, "errors": 0, "bound": 0.009, "needed": None,
        "needed_without_errors": None, "tightest": None, "reason": "",
    }  # fmt: skip
