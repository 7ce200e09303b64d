"""Engines by name; a member is one class that follows ``Engine``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from workzone.bundle.engines.base import Engine, Scores
from workzone.bundle.engines.onnxruntime import OnnxRuntimeEngine
from workzone.bundle.engines.openvino import OpenVinoEngine
from workzone.errors import BundleError

ENGINES: Mapping[str, type[OnnxRuntimeEngine] | type[OpenVinoEngine]] = {
    OnnxRuntimeEngine.name: OnnxRuntimeEngine,
    OpenVinoEngine.name: OpenVinoEngine,
}

__all__ = ["ENGINES", "Engine", "Scores", "network_files", "open_engine"]


def open_engine(
    name: str, folder: Path, *, precision: str, device: str = "cpu", threads: int = 0, head: bool = True
) -> Engine:
    """Open engine ``name`` on the network in ``folder``; raises BundleError for an unknown name or precision."""
    member = _member(name)
    if precision not in member.precisions:
        raise BundleError(
            f"engine {name} has no precision {precision!r}", fix=f"it knows: {', '.join(member.precisions)}"
        )
    return member.open(folder, precision=precision, device=device, threads=threads, head=head)


def network_files(name: str) -> tuple[str, ...]:
    """Names of all files that a network of engine ``name`` consists of; raises BundleError for an unknown name."""
    return _member(name).network_files


def _member(name: str) -> type[OnnxRuntimeEngine] | type[OpenVinoEngine]:
    if name not in ENGINES:
        raise BundleError(f"unknown engine {name!r}", fix=f"this version knows: {', '.join(ENGINES)}")
    return ENGINES[name]
