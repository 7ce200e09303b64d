"""OpenVINO files from ONNX files, in fp32 or int8."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from workzone.errors import ConfigError, MissingExtraError
from workzone.export.onnx import BACKBONE_FILE, HEAD_FILE
from workzone.export.quantise import check_views, is_transformer, require_folder
from workzone.files import write_atomic


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
    try:
        import openvino as ov
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino", feature="export to OpenVINO") from error
    source = require_folder(onnx_folder, out_folder)
    core = ov.Core()
    backbone = core.read_model(str(source))
    if precision == "int8":
        if calibration_views is None:
            raise ConfigError("int8 needs views to set its ranges", where="export.precision", fix="pass calibration views")
        check_views(calibration_views)
        backbone = _quantise(backbone, calibration_views, transformer=_has_softmax(source))
    _save(backbone, out_folder / "backbone.xml")
    _save(core.read_model(str(onnx_folder / HEAD_FILE)), out_folder / "head.xml")
    return out_folder / "backbone.xml"


def _has_softmax(path: Path) -> bool:
    import onnx

    return is_transformer(onnx.load(str(path)).graph)


def _quantise(model: Any, views: NDArray[np.uint8], *, transformer: bool, batch: int = 1) -> Any:
    try:
        import nncf
    except ImportError as error:
        raise MissingExtraError("nncf", "train", feature="int8 for OpenVINO") from error
    steps = [{"pixels": np.ascontiguousarray(views[i : i + batch])} for i in range(0, len(views) - batch + 1, batch)]
    with _quiet():
        return nncf.quantize(
            model,
            nncf.Dataset(steps),
            model_type=nncf.ModelType.TRANSFORMER if transformer else None,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(steps),
        )


def _save(model: Any, target: Path) -> None:
    """Write ``.bin`` before ``.xml``, each atomically: an ``.xml`` never lies there without its weights."""
    import openvino as ov

    # Notes of the tools: versions and settings, which would tie the bytes to the machine.
    for key in list(model.get_rt_info()):
        if key in ("conversion_parameters", "nncf", "Runtime_version", "version", "framework"):
            model.get_rt_info().pop(key, None) if hasattr(model.get_rt_info(), "pop") else None
    with tempfile.TemporaryDirectory(prefix="workzone-openvino-") as scratch:
        file = Path(scratch) / target.name
        ov.save_model(model, str(file), compress_to_fp16=False)
        write_atomic(target.with_suffix(".bin"), file.with_suffix(".bin").read_bytes())
        write_atomic(target, file.read_bytes())


@contextlib.contextmanager
def _quiet() -> Any:
    import io

    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
