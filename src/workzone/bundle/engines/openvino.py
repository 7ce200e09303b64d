"""OpenVINO on Intel and AMD CPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from workzone.bundle.engines.base import Engine, FloatViews, Scores
from workzone.bundle.engines.onnxruntime import masked_scores
from workzone.errors import BundleError, MissingExtraError


class OpenVinoEngine(Engine):
    """Runs ``backbone.xml`` and ``head.xml``; fp32 is forced, since the default is bf16 where the CPU has it."""

    name: ClassVar[str] = "openvino"
    backbone_file: ClassVar[str] = "backbone.xml"
    head_file: ClassVar[str] = "head.xml"

    def __init__(self, backbone: Any, head: Any | None, precision: str) -> None:
        self._backbone = backbone
        self._head = head
        self.precision = precision
        self.embedding_dim = int(backbone.output(0).get_partial_shape()[1].get_length())

    @classmethod
    def open(
        cls, folder: Path, *, precision: str = "fp32", device: str = "cpu", threads: int = 0, head: bool = True
    ) -> Self:
        """See ``Engine.open``; ``head=False`` opens the backbone alone."""
        if device != "cpu":
            raise BundleError("the openvino engine runs on the CPU only", fix="use device cpu")
        try:
            import openvino as ov
        except ImportError as error:
            raise MissingExtraError("openvino", "openvino", feature="the openvino engine") from error
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        core = ov.Core()

        def compiled(path: Path) -> Any:
            if not path.is_file():
                raise BundleError("a network file is missing", where=str(path), fix="export the run again")
            try:
                return core.compile_model(core.read_model(str(path)), "CPU", settings)
            except RuntimeError as error:
                raise BundleError(f"openvino cannot read the network: {error}", where=str(path)) from error

        return cls(compiled(folder / cls.backbone_file), compiled(folder / cls.head_file) if head else None, precision)

    def embed(self, pixels: NDArray[np.uint8]) -> FloatViews:
        """See ``Engine.embed``."""
        return np.array(self._backbone({"pixels": np.ascontiguousarray(pixels)})["embeddings"], dtype=np.float32)

    def aggregate(self, embeddings: FloatViews, boxes: FloatViews, mask: NDArray[np.bool_]) -> Scores:
        """See ``Engine.aggregate``."""
        if self._head is None:
            raise BundleError("this engine was opened without its head")
        feeds = {"embeddings": embeddings, "boxes": boxes, "mask": mask}
        wanted = {name for port in self._head.inputs for name in port.get_names()}
        out = self._head({k: v for k, v in feeds.items() if k in wanted})
        return masked_scores(np.array(out["log_odds"]), np.array(out["view_log_odds"]), np.array(out["weights"]), mask)
