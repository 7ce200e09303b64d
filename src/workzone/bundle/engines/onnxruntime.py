"""ONNX Runtime: the engine of the light core."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from workzone.bundle.engines.base import HEAD_OUTPUTS, Engine, FloatViews, Scores, check_signature, closed
from workzone.bundle.engines.onnx_scan import refuse_unsafe_onnx
from workzone.errors import BundleError
from workzone.processors import processors

_VIEWS_ON_GPU = 32


class OnnxRuntimeEngine(Engine):
    """Runs ``backbone.onnx`` and ``head.onnx`` on the CPU, or on CUDA where the installed onnxruntime offers it."""

    name: ClassVar[str] = "onnxruntime"
    backbone_file: ClassVar[str] = "backbone.onnx"
    head_file: ClassVar[str] = "head.onnx"
    network_files: ClassVar[tuple[str, ...]] = (backbone_file, head_file)
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "int8")

    def __init__(self, backbone: Any, head: Any | None, precision: str, threads: int) -> None:
        self._backbone: Any | None = backbone
        self._head = head
        self.precision = precision
        self.threads = threads
        self._slots = BoundedSemaphore(threads)
        if backbone.get_providers()[0] != "CPUExecutionProvider":
            self.views_per_pass = _VIEWS_ON_GPU
        self.embedding_dim = int(backbone.get_outputs()[0].shape[1])
        self.image_size, self.image_width = (int(side) for side in backbone.get_inputs()[0].shape[1:3])

    @classmethod
    def open(
        cls, folder: Path, *, precision: str = "fp32", device: str = "cpu", threads: int = 0, head: bool = True
    ) -> Self:
        """See ``Engine.open``; ``head=False`` opens the backbone alone."""
        backbone = _session(folder / cls.backbone_file, device, head=False)
        head_session = _session(folder / cls.head_file, device, head=True) if head else None
        return cls(backbone, head_session, precision, threads or processors())

    @classmethod
    def open_head(cls, path: Path) -> Callable[[FloatViews, FloatViews, NDArray[np.bool_]], Scores]:
        """A head alone, as a function of embeddings, boxes and mask (see ``Engine.aggregate``)."""
        session = _session(path, "cpu", head=True)
        return lambda embeddings, boxes, mask: _run_head(session, embeddings, boxes, mask)

    def embed(self, pixels: NDArray[np.uint8]) -> FloatViews:
        """See ``Engine.embed``."""
        backbone = self._backbone
        if backbone is None:
            raise closed()
        with self._slots:
            (out,) = _run(backbone, ["embeddings"], {"pixels": np.ascontiguousarray(pixels)})
        return np.asarray(out, dtype=np.float32)

    def aggregate(self, embeddings: FloatViews, boxes: FloatViews, mask: NDArray[np.bool_]) -> Scores:
        """See ``Engine.aggregate``."""
        head = self._head
        if head is None:
            raise closed() if self._backbone is None else BundleError("this engine was opened without its head")
        return _run_head(head, embeddings, boxes, mask)

    def close(self) -> None:
        """See ``Engine.close``."""
        self._backbone = self._head = None


def _run_head(session: Any, embeddings: FloatViews, boxes: FloatViews, mask: NDArray[np.bool_]) -> Scores:
    # The exporter drops inputs that a head does not use.
    feeds = {"embeddings": embeddings, "boxes": boxes, "mask": mask}
    wanted = {i.name for i in session.get_inputs()}
    return masked_scores(_run(session, HEAD_OUTPUTS, {k: v for k, v in feeds.items() if k in wanted}), mask)


def _run(session: Any, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
    try:
        result: Sequence[NDArray[Any]] = session.run(list(outputs), dict(feeds))
    except Exception as error:  # onnxruntime raises its own unrelated classes
        raise BundleError(f"onnxruntime cannot run the network: {_first_line(error)}") from error
    return result


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def masked_scores(outputs: Sequence[NDArray[Any]], mask: NDArray[np.bool_]) -> Scores:
    """Scores in float64 of the outputs of a head, with NaN and 0 where a view does not exist."""
    log_odds, views, weights = outputs
    return Scores(
        log_odds=np.asarray(log_odds, dtype=np.float64),
        view_log_odds=np.where(mask, np.asarray(views, dtype=np.float64), np.nan),
        weights=np.where(mask, np.asarray(weights, dtype=np.float64), 0.0),
    )


def _session(path: Path, device: str, *, head: bool) -> Any:
    import onnxruntime as ort

    if not path.is_file():
        raise BundleError("a network file is missing", where=str(path), fix="export the run again")
    refuse_unsafe_onnx(path)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # A pass runs on the thread that asks for it; passes side by side use the cores better than one pass on all of them.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    available = ort.get_available_providers()
    if device == "cuda" and "CUDAExecutionProvider" not in available:
        raise BundleError(
            "this installation of onnxruntime has no CUDA provider",
            where=f"providers: {', '.join(available)}",
            fix="install onnxruntime-gpu or use device cpu",
        )
    # Without TF32, which rounds to ten bits: a certificate of fp32 speaks of fp32.
    cuda = ("CUDAExecutionProvider", {"use_tf32": "0"})
    provider = cuda if device == "cuda" else "CPUExecutionProvider"
    try:
        session = ort.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # onnxruntime raises its own unrelated classes
        raise BundleError(f"onnxruntime cannot read the network: {_first_line(error)}", where=str(path)) from error
    if device == "cuda" and session.get_providers()[0] != "CUDAExecutionProvider":
        # It goes on with the CPU where the driver or a library of CUDA is missing.
        raise BundleError(
            "onnxruntime could not start its CUDA provider, and would use the CPU",
            where=str(path),
            fix="check driver, CUDA and cuDNN with nvidia-smi and the notes of onnxruntime-gpu, or use device cpu",
        )
    inputs = {i.name: i.shape for i in session.get_inputs()}
    check_signature(path, inputs, {o.name: o.shape for o in session.get_outputs()}, head=head)
    return session
