"""Static int8 quantisation of an exported backbone for ONNX Runtime."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from workzone.errors import ArtifactError, DataError, needs_extra
from workzone.export.onnx import BACKBONE_FILE, HEAD_FILE, clean
from workzone.files import write_atomic

Calibration = Literal["minmax", "percentile", "entropy"]


@dataclass(frozen=True, slots=True)
class QuantSettings:
    """How a backbone is quantised.

    Attributes:
        calibration: how activation ranges are set.
        percentile: for ``percentile``, in per cent.
        exclude: nodes whose name or whose weight's name contains one of these stay in float.
        operators: kinds of nodes that are quantised.
        products: whether products of two activations (queries with keys, attention with values) are quantised too.
        batch: views in one calibration step.
    """

    calibration: Calibration = "minmax"
    percentile: float = 99.99
    exclude: tuple[str, ...] = ()
    operators: tuple[str, ...] = ("MatMul", "Gemm", "Conv")
    products: bool = True
    batch: int = 8


# Cosine of embeddings to fp32 on 80 views of real streets (48 others set the ranges), EfficientNet-Lite0: 0.82 with
# convolutions alone, 0.983 once the clips that follow them bound their ranges, 0.997 with stem and first two stages in
# float, at no cost in time.
CONVOLUTIONAL = QuantSettings(
    exclude=("conv_stem", "blocks.0.", "blocks.1."), operators=("MatMul", "Gemm", "Conv", "Clip", "Relu")
)
# DINOv2-S on the same views: 0.985 with all products, 0.996 with weights alone and also faster; percentile ranges clip
# the outlier channels that the network lives by (0.91).
TRANSFORMER = QuantSettings(exclude=("patch_embed",), products=False)


def quantise_onnx(
    fp32_folder: Path,
    out_folder: Path,
    calibration_views: NDArray[np.uint8],
    *,
    settings: QuantSettings | None = None,
) -> Path:
    """Write an int8 ``backbone.onnx`` and a copy of ``head.onnx`` to ``out_folder``; returns the backbone.

    Weights become int8 per output channel, activations uint8 (the form that VNNI multiplies), in MatMul, Gemm and Conv
    only; norms, softmax, activations and the head stay in float.

    Args:
        fp32_folder: holds ``backbone.onnx`` and ``head.onnx``.
        out_folder: another folder.
        calibration_views: (N, S, S, 3) views of training images.
        settings: None takes what ``default_settings`` chooses for the network.

    Raises:
        ArtifactError: a file is missing.
        DataError: no views, or of another type.
        MissingExtraError: onnx is not installed.
    """
    with needs_extra("onnx", "train", feature="int8 quantisation"):
        import onnx
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process
    source = require_folder(fp32_folder, out_folder)
    check_views(calibration_views)
    graph = onnx.load(str(source)).graph
    chosen = settings or default_settings(graph)
    with tempfile.TemporaryDirectory(prefix="workzone-int8-") as scratch, _quiet():
        prepared, raw = Path(scratch) / "prepared.onnx", Path(scratch) / "int8.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(raw),
            _Views(calibration_views, chosen.batch),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            calibrate_method=_method(chosen.calibration),
            op_types_to_quantize=list(chosen.operators),
            nodes_to_exclude=_in_float(onnx.load(str(prepared)).graph, chosen),
            extra_options={"CalibPercentile": chosen.percentile, "CalibTensorRangeSymmetric": False},
        )
        content = clean(onnx.load(str(raw)))
    write_atomic(out_folder / BACKBONE_FILE, content)
    write_atomic(out_folder / HEAD_FILE, (fp32_folder / HEAD_FILE).read_bytes())
    return out_folder / BACKBONE_FILE


def is_transformer(graph: Any) -> bool:
    """Whether an ONNX graph holds attention, by its softmax."""
    return any(node.op_type == "Softmax" for node in graph.node)


def default_settings(graph: Any) -> QuantSettings:
    """Settings for a transformer or a convolutional network."""
    return TRANSFORMER if is_transformer(graph) else CONVOLUTIONAL


def excluded_nodes(graph: Any, words: Sequence[str]) -> list[Any]:
    """Nodes whose name or one of whose inputs' names contains one of ``words``."""
    return [n for n in graph.node if any(w in text for w in words for text in (n.name, *n.input))]


def require_folder(source: Path, target: Path) -> Path:
    """Backbone file of ``source``; raises ArtifactError when files are missing or source and target are one."""
    for name in (BACKBONE_FILE, HEAD_FILE):
        if not (source / name).is_file():
            raise ArtifactError("an exported network is missing", where=str(source / name), fix="run the phase export")
    if source.resolve() == target.resolve():
        raise ValueError("source and target folder must differ")
    return source / BACKBONE_FILE


def check_views(views: NDArray[np.uint8]) -> None:
    """Raise DataError unless ``views`` are uint8 (N, S, S, 3) with N > 0."""
    if views.dtype != np.uint8 or views.ndim != 4 or views.shape[-1] != 3 or not len(views):
        raise DataError(
            f"calibration views must be uint8 (N, S, S, 3), not {views.dtype} {views.shape}",
            fix="pass views of training images",
        )


def _in_float(graph: Any, settings: QuantSettings) -> list[str]:
    names = [n.name for n in excluded_nodes(graph, settings.exclude)]
    if not settings.products:
        weights = {t.name for t in graph.initializer}
        names += [n.name for n in graph.node if n.op_type == "MatMul" and not weights & set(n.input)]
    return names


class _Views:
    """Calibration data in the form onnxruntime asks for."""

    def __init__(self, views: NDArray[np.uint8], batch: int) -> None:
        # Whole batches only: the histogram calibrators stack the outputs of all steps.
        size = min(batch, len(views))
        self._steps = [views[i : i + size] for i in range(0, len(views) - size + 1, size)]
        self._next = 0

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        if self._next >= len(self._steps):
            return None
        self._next += 1
        return {"pixels": np.ascontiguousarray(self._steps[self._next - 1])}

    def rewind(self) -> None:
        self._next = 0

    def set_range(self, start_index: int, end_index: int) -> None:
        self._steps, self._next = self._steps[start_index:end_index], 0

    def __len__(self) -> int:
        return len(self._steps)


def _method(name: Calibration) -> Any:
    from onnxruntime.quantization import CalibrationMethod

    return {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }[name]


@contextlib.contextmanager
def _quiet() -> Any:
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)
