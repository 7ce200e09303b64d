"""Heads that attend, multiply or mix keep their scores in the exported engine, for any number of views."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers.networks import unsettled
from workzone.bundle.engines import open_engine
from workzone.config.run import FuseConfig
from workzone.export import export_backbone, export_head
from workzone.models.aggregators import Ensemble, create_aggregator

pytest.importorskip("onnxscript")
D = 32
ROWS = {
    "noisy_or": FuseConfig(aggregator="noisy_or", hidden=8),
    "attention_mlp": FuseConfig(aggregator="attention_mlp", hidden=8),
    "view_attention": FuseConfig(aggregator="view_attention", hidden=8),
    "view_attention_learned": FuseConfig(aggregator="view_attention", hidden=8, heads=2, spatial="learned"),
    "view_attention_flex": FuseConfig(aggregator="view_attention", hidden=8, backend="flex"),
    "view_attention_blind": FuseConfig(aggregator="view_attention", hidden=0, spatial="none"),
    "logsumexp_fixed": FuseConfig(sharpness=5.0, learn_sharpness=False, hidden=8),
    "mix": FuseConfig(aggregator="mix", hidden=8),
}


def head(config: FuseConfig) -> Ensemble:
    torch.manual_seed(0)
    return unsettled(
        [create_aggregator(config, D, member=i) for i in range(3 if config.aggregator == "mix" else 1)]
    )


def bag(b: int, v: int):
    rng = np.random.default_rng(v)
    low = rng.random((b, v, 2), dtype=np.float32) / 2
    boxes = np.concatenate([low, low + 0.4], axis=-1)
    boxes[:, 0] = (0, 0, 1, 1)
    mask = rng.random((b, v)) < 0.7
    mask[:, 0] = True
    return rng.normal(size=(b, v, D)).astype(np.float32) * 2, boxes, mask


@pytest.fixture(scope="module")
def backbone(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("backbone")
    return export_backbone(tiny(), folder).read_bytes()


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile.*")
@pytest.mark.parametrize("row", list(ROWS))
def test_exported_head_equals_torch(row, backbone, tmp_path):
    model = head(ROWS[row])
    (tmp_path / "backbone.onnx").write_bytes(backbone)
    export_head(model, tmp_path)
    engine = open_engine("onnxruntime", tmp_path, precision="fp32", threads=1)
    seen = []
    for b, v in ((1, 1), (3, 5), (2, 10), (4, 20)):
        x, boxes, mask = bag(b, v)
        got = engine.aggregate(x, boxes, mask)
        with torch.no_grad():
            score, views, weights = model(*(torch.from_numpy(a) for a in (x, boxes, mask)))
        np.testing.assert_allclose(got.log_odds, score.numpy(), atol=1e-4)
        np.testing.assert_allclose(got.weights, weights.numpy(), atol=1e-4)
        np.testing.assert_allclose(got.view_log_odds[mask], views.numpy()[mask], atol=1e-4)
        seen.extend(score.tolist())
    assert np.std(seen) > 0.05
