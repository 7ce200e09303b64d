"""Artefacts outside bundles: they agree with onnxruntime, are pinned by hash, and why no bundle holds them."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from workzone.bundle.engines import ENGINES, open_engine
from workzone.errors import BundleError, CheckFailedError, ConfigError, MissingExtraError
from workzone.export import export_backbone, export_head
from workzone.export.artefacts import conform, make_artefact, open_artefact
from workzone.export.tensorrt import TensorRtEngine, build_plan, cast_first
from workzone.models.aggregators import Ensemble, build_aggregator

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
TOLERANCE = 2e-3
SLOW = pytest.param("aoti", marks=[pytest.mark.slow, pytest.mark.timeout(600)])


@pytest.fixture(scope="module")
def network(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fp32")
    torch.manual_seed(0)
    backbone = tiny()
    head = Ensemble([build_aggregator("attention", {"dim": 32, "hidden": 8, "dropout": 0.0}) for _ in range(2)]).eval()
    for parameter in head.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.3)
    export_backbone(backbone, folder)
    export_head(head, folder)
    return backbone, head, folder


@pytest.fixture(scope="module")
def made(network, tmp_path_factory):
    """Artefacts by kind, each made once: folder and hash."""
    known: dict[str, tuple[Path, str]] = {}

    def make(kind: str) -> tuple[Path, str]:
        if kind not in known:
            if kind == "aoti" and shutil.which("g++") is None:
                pytest.skip("there is no C++ compiler")
            backbone, head, folder = network
            target = tmp_path_factory.mktemp(kind) / "out"
            known[kind] = target, make_artefact(kind, target, folder, backbone=backbone, head=head)
        return known[kind]

    return make


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["torch", "torchscript", SLOW])
def test_artefact_gives_the_scores_of_onnxruntime(kind, made, network):
    folder, digest = made(kind)
    reference = open_engine("onnxruntime", network[2], precision="fp32", threads=1)
    engine = open_artefact(folder, sha256=digest, threads=2)
    pixels = np.random.default_rng(3).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    for n in range(1, 6):
        np.testing.assert_allclose(engine.embed(pixels[:n]), reference.embed(pixels[:n]), atol=1e-4)
    conform(reference, engine, pixels).require(TOLERANCE, where=kind)
    stated = json.loads((folder / "artefact.json").read_text())
    assert stated["certificate"] is None
    assert stated["comparison"]["outputs"]["log_odds"]["largest"] <= TOLERANCE
    with pytest.raises(BundleError, match="cannot run"):
        engine.embed(pixels[:, :16])
    with pytest.raises(BundleError, match="cannot run"):
        engine.embed(pixels.astype(np.float32))
    whole = engine.embed(pixels)[None]
    with pytest.raises(BundleError, match="cannot run"):
        engine.aggregate(whole[..., :-1], np.zeros((1, 5, 4), np.float32), np.ones((1, 5), np.bool_))
    engine.close()
    engine.close()
    with pytest.raises(BundleError, match="closed"):
        engine.embed(pixels)


@pytest.mark.parametrize("kind", ["torch", "torchscript"])
def test_changed_artefact_is_refused(kind, made, tmp_path):
    folder, digest = made(kind)
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    with pytest.raises(BundleError, match="hash that was asked for"):
        open_artefact(copy, sha256="0" * 64)
    file = next(p for p in sorted(copy.iterdir()) if p.name.startswith("backbone"))
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(BundleError, match="was changed"):
        open_artefact(copy, sha256=digest)
    file.unlink()
    with pytest.raises(BundleError, match="missing"):
        open_artefact(copy, sha256=digest)
    (copy / "artefact.json").unlink()
    with pytest.raises(BundleError, match="no artefact"):
        open_artefact(copy, sha256=digest)


class Runs:
    """Asks the reader of a pickle to call something."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_loading_a_program_of_torch_can_run_code(made, tmp_path):
    """The reason why a bundle holds no ``.pt2``; should this fail one day, the decision can be made anew."""
    folder, _ = made("torch")
    proof, forged = tmp_path / "proof", tmp_path / "forged.pt2"
    buffer = io.BytesIO()
    torch.save(Runs(proof), buffer)
    with zipfile.ZipFile(folder / "head.pt2") as source, zipfile.ZipFile(forged, "w") as target:
        for entry in source.namelist():
            content = source.read(entry)
            if entry.endswith("weights_config.json") and b'"config"' in content:
                config = json.loads(content)
                for value in config["config"].values():
                    value["use_pickle"] = True
                content = json.dumps(config).encode()
            elif "/weights/" in entry and not entry.endswith(".json"):
                content = buffer.getvalue()
            target.writestr(entry, content)
    assert not proof.exists()
    # What the loader says afterwards does not matter.
    with contextlib.suppress(Exception):
        torch.export.load(forged)
    assert proof.exists()
    assert "torch" not in ENGINES


def test_what_cannot_be_made_is_said(network, tmp_path, monkeypatch):
    backbone, head, folder = network
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    with pytest.raises(ConfigError, match="not empty"):
        make_artefact("torch", tmp_path / "full", folder, backbone=backbone, head=head)
    with pytest.raises(ConfigError, match="fp32 only"):
        make_artefact("torch", tmp_path / "new", folder, backbone=backbone, head=head, precision="bf16")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(CheckFailedError, match="compiler"):
        make_artefact("aoti", tmp_path / "new", folder, backbone=backbone, head=head)
    assert not (tmp_path / "new").exists()


def test_another_network_is_refused_and_leaves_nothing(network, tiny, tmp_path):
    _, head, folder = network
    with pytest.raises(CheckFailedError, match="tolerance"):
        make_artefact("torch", tmp_path / "new", folder, backbone=tiny(seed=5), head=head)
    assert not (tmp_path / "new").exists()


def test_tensorrt_graph_casts_first_and_keeps_its_embeddings(network, tmp_path):
    folder = network[2]
    model = onnx.load(folder / "backbone.onnx")
    (tmp_path / "backbone.onnx").write_bytes(cast_first(model))
    changed = onnx.load(tmp_path / "backbone.onnx")
    onnx.checker.check_model(changed)
    assert [n.op_type for n in changed.graph.node if "pixels" in n.input] == ["Cast"]
    assert cast_first(changed) == (tmp_path / "backbone.onnx").read_bytes()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    got = open_engine("onnxruntime", tmp_path, precision="fp32", head=False).embed(pixels)
    expected = open_engine("onnxruntime", folder, precision="fp32", head=False).embed(pixels)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    with pytest.raises(CheckFailedError, match="does not cast"):
        cast_first(onnx.load(folder / "head.onnx"))


def test_tensorrt_says_what_it_needs(network, tmp_path):
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        for call in (lambda: build_plan(network[2], tmp_path), lambda: TensorRtEngine.open(tmp_path)):
            with pytest.raises(MissingExtraError, match="pip install tensorrt"):
                call()
    with pytest.raises(BundleError, match="GPU of NVIDIA"):
        TensorRtEngine.open(tmp_path, device="cpu")
