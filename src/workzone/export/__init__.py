"""From a trained network to the files an engine opens, and how near they are to it."""

from workzone.export.onnx import export_backbone, export_head
from workzone.export.openvino import to_openvino
from workzone.export.parity import Comparison, compare
from workzone.export.quantise import quantise_onnx

__all__ = [
    "Comparison",
    "compare",
    "export_backbone",
    "export_head",
    "quantise_onnx",
    "to_openvino",
]
