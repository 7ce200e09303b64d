"""ONNX files of a backbone and of a head: the same weights give the same bytes."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from workzone.errors import MissingExtraError
from workzone.files import write_atomic
from workzone.models.backbones import Backbone

BACKBONE_FILE = "backbone.onnx"
HEAD_FILE = "head.onnx"
VERSION = 1
"""Raised where the files of the same weights become others; part of the key of stored backbones."""
_BATCH = 4096
_VIEWS = 256


def export_backbone(backbone: Backbone, folder: Path) -> Path:
    """Write ``backbone.onnx``: ``pixels`` uint8 (N, S, W, 3) to ``embeddings`` float32 (N, D), any N.

    Normalisation is part of the graph.

    Raises:
        ValueError: the backbone carries adapters that were not merged.
        MissingExtraError: onnx or onnxscript is not installed.
    """
    example, shapes = backbone_example(backbone)
    content = _export(backbone, example, shapes, list(shapes), ["embeddings"])
    return _write(folder / BACKBONE_FILE, content)


def export_head(head: nn.Module, folder: Path) -> Path:
    """Write ``head.onnx``: ``embeddings`` (B, V, D), ``boxes`` (B, V, 4) and ``mask`` (B, V) bool to ``log_odds`` (B),
    ``view_log_odds`` (B, V) and ``weights`` (B, V), any B and V.

    Raises:
        MissingExtraError: onnx or onnxscript is not installed.
    """
    example, shapes = head_example(head)
    content = _export(head, example, shapes, list(shapes), ["log_odds", "view_log_odds", "weights"])
    return _write(folder / HEAD_FILE, content)


def backbone_example(backbone: Backbone) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """Views to trace a backbone with, and which of their sizes may vary; raises ValueError for unmerged adapters."""
    if any("lora_" in name for name, _ in backbone.named_parameters()):
        raise ValueError("merge the adapters before the export")
    pixels = torch.zeros(2, backbone.image_size, backbone.image_width, 3, dtype=torch.uint8)
    return (pixels,), {"pixels": {0: torch.export.Dim("n", min=1, max=_BATCH)}}


def head_example(head: nn.Module) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """Embeddings, boxes and mask to trace a head with, and which of their sizes may vary."""
    dim = int(head.dim)  # type: ignore[arg-type]
    example = (torch.zeros(2, 3, dim), torch.zeros(2, 3, 4), torch.ones(2, 3, dtype=torch.bool))
    b, v = torch.export.Dim("b", min=1, max=_BATCH), torch.export.Dim("v", min=1, max=_VIEWS)
    return example, {name: {0: b, 1: v} for name in ("embeddings", "boxes", "mask")}


def frozen_copy(module: nn.Module) -> nn.Module:
    """A copy on the CPU, in evaluation mode, without gradients."""
    plain = copy.deepcopy(module).to("cpu").eval()
    for parameter in plain.parameters():
        parameter.requires_grad_(False)
    return plain


def _export(
    module: nn.Module,
    example: tuple[Tensor, ...],
    shapes: Mapping[str, Any],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> bytes:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error.name or "onnx", "train", feature="export to ONNX") from error
    plain = frozen_copy(module)
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            plain,
            example,
            dynamo=True,
            dynamic_shapes=dict(shapes),
            input_names=list(inputs),
            output_names=list(outputs),
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    return clean(program.model_proto)


def clean(model: Any) -> bytes:
    """Serialised ``model`` without what differs between runs and machines: source paths, comments, tool versions."""

    def strip(graph: Any) -> None:
        del graph.metadata_props[:]
        graph.doc_string = ""
        for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
            part.doc_string = ""
            del part.metadata_props[:]
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    strip(attribute.g)

    strip(model.graph)
    model.graph.name = "workzone"
    for function in model.functions:
        function.doc_string = ""
        del function.metadata_props[:]
        for node in function.node:
            node.doc_string = ""
            del node.metadata_props[:]
    del model.metadata_props[:]
    model.doc_string = ""
    model.producer_name, model.producer_version = "workzone", ""
    return bytes(model.SerializeToString(deterministic=True))


def _write(target: Path, content: bytes) -> Path:
    write_atomic(target, content)
    return target


@contextlib.contextmanager
def quiet() -> Any:
    """Keep the exporter's progress lines and its warnings about its own internals off the screen."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
