"""Int8 on real weights and real streets; synthetic weights say nothing about outlier channels."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from workzone.bundle.engines import open_engine
from workzone.config.run import FuseConfig, ModelConfig
from workzone.export import export_backbone, export_head, quantise_onnx, to_openvino
from workzone.models.aggregators import Ensemble, create_aggregator
from workzone.models.backbones import create_backbone
from workzone.vision import Preprocessing, open_views

SHARED = Path(os.environ.get("WORKZONE_SHARED", Path(__file__).parents[3] / "shared"))
IMAGES = SHARED / "data" / "streets" / "images"
DINO = SHARED / "weights" / "dinov2_vits14.safetensors"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parity,
    pytest.mark.skipif(not IMAGES.is_dir(), reason="the street images are not on this machine"),
]


@pytest.mark.parametrize("name", ["efficientnet_lite0", "dinov2_vits14"])
def test_int8_stays_near_fp32(name, tmp_path):
    if name == "dinov2_vits14" and not DINO.is_file():
        pytest.skip("DINOv2 weights are not on this machine")
    backbone = create_backbone(ModelConfig(backbone=name, weights=str(DINO) if name == "dinov2_vits14" else None))
    head = Ensemble([create_aggregator(FuseConfig(hidden=8), backbone.embedding_dim)]).eval()
    export_backbone(backbone, tmp_path / "fp32")
    export_head(head, tmp_path / "fp32")
    files = sorted(IMAGES.iterdir())
    order = np.random.default_rng(0).permutation(len(files))
    views = np.stack([open_views(files[i], Preprocessing())[0][j % 10] for j, i in enumerate(order[:64])])
    calibration, held = views[:40], views[40:]
    quantise_onnx(tmp_path / "fp32", tmp_path / "onnxruntime", calibration)
    to_openvino(tmp_path / "fp32", tmp_path / "openvino", "int8", calibration)
    expected = open_engine("onnxruntime", tmp_path / "fp32", precision="fp32").embed(held)
    for engine in ("onnxruntime", "openvino"):
        got = open_engine(engine, tmp_path / engine, precision="int8").embed(held)
        cosine = (got * expected).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(expected, axis=1)
        assert cosine.mean() > 0.985, engine
        assert cosine.min() > 0.9, engine
