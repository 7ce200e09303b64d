"""Figures with intervals, slices and the report of a detector on labelled images.

The entry point is ``workzone.evaluation.evaluate.evaluate``; the names below load on first use, so that the package
costs nothing to those who do not evaluate.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workzone.evaluation.inputs import Evaluated, OneView
    from workzone.evaluation.report.terminal import summary_table
    from workzone.evaluation.summary import Summary

__all__ = ["Evaluated", "OneView", "Summary", "summary_table"]

_HOMES = {"Evaluated": "inputs", "OneView": "inputs", "Summary": "summary", "summary_table": "tables"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
