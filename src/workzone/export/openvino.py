"""OpenVINO files from ONNX files, in fp32 or int8; bf16 is a way to run the files of fp32."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from workzone.errors import ConfigError, needs_extra
from workzone.export.onnx import HEAD_FILE
from workzone.export.quantise import check_views, default_settings, excluded_nodes, is_transformer, require_folder
from workzone.files import write_atomic

_LAYER = re.compile(r'<layer id="(\d+)" name="([^"]*)" type="([^"]*)"')
_NOTES = re.compile(r"\t<rt_info>\s*<info name=.*?\n\t</rt_info>\n", re.DOTALL)


def to_openvino(
    onnx_folder: Path,
    out_folder: Path,
    precision: Literal["fp32", "int8"],
    calibration_views: NDArray[np.uint8] | None = None,
) -> Path:
    """Write ``backbone.xml``, ``head.xml`` and their ``.bin`` to ``out_folder``; returns ``backbone.xml``.

    Weights are kept in fp32; int8 quantises the backbone with nncf and leaves the head in float.

    Args:
        onnx_folder: holds ``backbone.onnx`` and ``head.onnx`` in fp32.
        out_folder: another folder.
        precision: of the backbone.
        calibration_views: (N, S, S, 3) uint8 views of training images, for int8.

    Raises:
        ArtifactError: a file is missing.
        ConfigError: int8 without views.
        MissingExtraError: openvino or nncf is not installed.
    """
    with needs_extra("openvino", "openvino", feature="export to OpenVINO"):
        import openvino as ov
    source = require_folder(onnx_folder, out_folder)
    core = ov.Core()
    backbone = core.read_model(str(source))
    if precision == "int8":
        if calibration_views is None:
            raise ConfigError(
                "int8 needs views to set its ranges", where="export.precision", fix="pass calibration views"
            )
        check_views(calibration_views)
        backbone = _quantise(backbone, source, calibration_views)
    _save(backbone, out_folder / "backbone.xml")
    head_to_openvino(onnx_folder, out_folder)
    return out_folder / "backbone.xml"


def head_to_openvino(onnx_folder: Path, out_folder: Path) -> None:
    """Write ``head.xml`` and its ``.bin`` alone, for a backbone that was converted before."""
    import openvino as ov

    _save(ov.Core().read_model(str(onnx_folder / HEAD_FILE)), out_folder / "head.xml")


def _quantise(model: Any, source: Path, views: NDArray[np.uint8]) -> Any:
    with needs_extra("nncf", "train", feature="int8 for OpenVINO"):
        import nncf
        import onnx
    graph = onnx.load(str(source)).graph
    excluded = {n.name for n in excluded_nodes(graph, default_settings(graph).exclude)}
    # One ONNX node becomes several operations, named after it with a suffix behind a slash.
    names = [operation.get_friendly_name() for operation in model.get_ops()]
    kept = [name for name in names if name.split("/")[0] in excluded]
    steps = [{"pixels": np.ascontiguousarray(views[i : i + 1])} for i in range(len(views))]
    with _quiet():
        return nncf.quantize(
            model,
            nncf.Dataset(steps),
            model_type=nncf.ModelType.TRANSFORMER if is_transformer(graph) else None,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(steps),
            ignored_scope=nncf.IgnoredScope(names=sorted(kept), validate=False) if kept else None,
        )


def _save(model: Any, target: Path) -> None:
    """Write ``.bin`` before ``.xml``, each atomically: an ``.xml`` never lies there without its weights."""
    import openvino as ov

    with tempfile.TemporaryDirectory(prefix="workzone-openvino-") as scratch:
        file = Path(scratch) / target.name
        ov.save_model(model, str(file), compress_to_fp16=False)
        write_atomic(target.with_suffix(".bin"), file.with_suffix(".bin").read_bytes())
        write_atomic(target, stable_names(file.read_text(encoding="utf-8")))


def stable_names(xml: str) -> str:
    """``xml`` with layers named by type and position and without notes of the tools.

    OpenVINO numbers the layers it makes by a counter of the process and writes its version and settings, so the same
    network would get another hash in the next run. Names of tensors, which engines use, are left.
    """
    xml = _NOTES.sub("", xml)
    return _LAYER.sub(lambda m: f'<layer id="{m[1]}" name="{m[3]}_{m[1]}" type="{m[3]}"', xml)


@contextlib.contextmanager
def _quiet() -> Any:
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
