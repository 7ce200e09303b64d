from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forgery import failures, reseal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workzone.bundle import Detector
from workzone.bundle.engines import network_files, open_engine
from workzone.bundle.engines.onnx_scan import refuse_unsafe_onnx
from workzone.bundle.engines.openvino import OpenVinoEngine
from workzone.errors import BundleError

onnx = pytest.importorskip("onnx")


def _external(tensor: Any, location: str) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    for key, value in (("location", location), ("offset", "0"), ("length", "4")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


def in_initializer(model: Any, location: str) -> None:
    _external(model.graph.initializer[0], location)


def in_constant(model: Any, location: str) -> None:
    node = onnx.helper.make_node(
        "Constant", [], ["hidden"], value=onnx.numpy_helper.from_array(np.zeros(1, np.float32))
    )
    _external(node.attribute[0].t, location)
    model.graph.node.append(node)


def in_subgraph(model: Any, location: str) -> None:
    inner = onnx.helper.make_graph([], "inner", [], [])
    inner.initializer.append(onnx.numpy_helper.from_array(np.zeros(1, np.float32), "hidden"))
    _external(inner.initializer[0], location)
    model.graph.node.append(onnx.helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner))


def in_function(model: Any, location: str) -> None:
    node = onnx.helper.make_node(
        "Constant", [], ["hidden"], value=onnx.numpy_helper.from_array(np.zeros(1, np.float32))
    )
    _external(node.attribute[0].t, location)
    imports = [onnx.helper.make_opsetid("", 20)]
    model.functions.append(onnx.helper.make_function("local", "f", [], ["hidden"], [node], imports))


def without_location_flag(model: Any, location: str) -> None:
    _external(model.graph.initializer[0], location)
    model.graph.initializer[0].data_location = 0


@pytest.mark.parametrize("location", ["../policy.json", "/etc/passwd", "weights.bin", "policy.json"])
@pytest.mark.parametrize("where", [in_initializer, in_constant, in_subgraph, in_function, without_location_flag])
def test_weights_in_another_file_are_refused(copy: Path, where: Callable[[Any, str], None], location: str) -> None:
    path = copy / "engine" / "head.onnx"
    model = onnx.load(path)
    where(model, location)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="weights from another file"):
        open_engine("onnxruntime", copy / "engine", precision="fp32")
    reseal(copy)
    assert failures(copy)


@pytest.mark.parametrize("domain", ["com.example", "com.microsoft", "ai.onnx.contrib", "é"])
def test_operator_of_another_library_is_refused(copy: Path, domain: str) -> None:
    path = copy / "engine" / "backbone.onnx"
    model = onnx.load(path)
    model.graph.node[0].domain = domain
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="not a standard one"):
        open_engine("onnxruntime", copy / "engine", precision="fp32")


def test_operator_hidden_in_a_second_graph_field(copy: Path) -> None:
    """A protocol buffer may bring one message in several pieces, which readers merge."""
    path = copy / "engine" / "backbone.onnx"
    piece = onnx.ModelProto()
    piece.graph.node.append(onnx.helper.make_node("Run", [], ["x"], domain="com.example"))
    path.write_bytes(path.read_bytes() + piece.SerializeToString())
    with pytest.raises(BundleError, match="not a standard one"):
        refuse_unsafe_onnx(path)


def test_settings_for_the_runtime_are_refused(copy: Path) -> None:
    path = copy / "engine" / "backbone.onnx"
    model = onnx.load(path)
    entry = model.metadata_props.add()
    entry.key, entry.value = "ort_config", "{}"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="settings for the runtime"):
        refuse_unsafe_onnx(path)


@pytest.mark.parametrize(
    "content", [b"", b"\x00", b"GIF89a", b"\x08", b"\xff" * 40, b"\x3a\x7f", b"<html>", b"\x08\x08"]
)
def test_file_that_is_no_network(copy: Path, content: bytes) -> None:
    (copy / "engine" / "backbone.onnx").write_bytes(content)
    with pytest.raises(BundleError, match="not an ONNX file"):
        open_engine("onnxruntime", copy / "engine", precision="fp32")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**9), st.binary(min_size=1, max_size=12))
def test_damaged_network_is_a_bundle_error(tiny_bundle: Path, tmp_path: Path, at: int, piece: bytes) -> None:
    content = (tiny_bundle / "engine" / "head.onnx").read_bytes()
    at %= len(content)
    path = tmp_path / "head.onnx"
    path.write_bytes(content[:at] + piece + content[at + len(piece) :])
    try:
        refuse_unsafe_onnx(path)
    except BundleError:
        return


@pytest.mark.parametrize("swap", [("backbone.onnx", "head.onnx"), ("head.onnx", "backbone.onnx")])
def test_network_with_other_inputs(copy: Path, swap: tuple[str, str]) -> None:
    shutil.copyfile(copy / "engine" / swap[0], copy / "engine" / swap[1])
    with pytest.raises(BundleError, match=r"is not a (head|backbone) of workzone"):
        open_engine("onnxruntime", copy / "engine", precision="fp32")


def test_network_for_views_of_another_size(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workzone.bundle.engines.onnxruntime import OnnxRuntimeEngine

    opened = OnnxRuntimeEngine.open(copy / "engine")
    opened.image_size = 96
    monkeypatch.setattr(OnnxRuntimeEngine, "open", classmethod(lambda cls, *a, **k: opened))
    with pytest.raises(BundleError, match="views of side 64, but its network has 96"):
        Detector.load(copy)


def test_unknown_engine_and_device(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match="unknown engine"):
        open_engine("tensorrt", tiny_bundle / "engine", precision="fp32")
    with pytest.raises(BundleError, match="no CUDA provider"):
        open_engine("onnxruntime", tiny_bundle / "engine", precision="fp32", device="cuda")
    with pytest.raises(BundleError, match="missing"):
        open_engine("onnxruntime", tiny_bundle, precision="fp32")
    with pytest.raises(BundleError, match="without its head"):
        open_engine("onnxruntime", tiny_bundle / "engine", precision="fp32", head=False).aggregate(
            np.zeros((1, 1, 4), np.float32), np.zeros((1, 1, 4), np.float32), np.ones((1, 1), np.bool_)
        )


def test_wrong_shape_is_a_bundle_error(detector: Detector) -> None:
    with pytest.raises(BundleError, match="cannot run the network"):
        detector.engine.embed(np.zeros((1, 32, 32, 3), np.uint8))


@pytest.fixture(scope="session")
def openvino_engine(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("openvino")
    from workzone.export.openvino import to_openvino

    return to_openvino(tiny_bundle / "engine", tmp_path_factory.mktemp("openvino"), "fp32").parent


def test_openvino_writes_the_files_it_states(openvino_engine: Path) -> None:
    assert sorted(p.name for p in openvino_engine.iterdir()) == sorted(network_files("openvino"))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('version="opset1"', 'version="extension"', "not a standard one"),
        ('version="opset1"', "", "not a standard one"),
        ('<?xml version="1.0"?>', '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>', "XML"),
        ("<layers>", "<layer", "cannot read|not a standard"),
        ('names="pixels"', 'names="other"', "is not a backbone"),
    ],
)
def test_openvino_file_that_is_refused(openvino_engine: Path, tmp_path: Path, old: str, new: str, reason: str) -> None:
    folder = Path(shutil.copytree(openvino_engine, tmp_path / "engine"))
    path = folder / "backbone.xml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(BundleError, match=reason):
        OpenVinoEngine.open(folder)


def test_openvino_without_weights(openvino_engine: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(openvino_engine, tmp_path / "engine"))
    (folder / "head.bin").write_bytes(b"")
    with pytest.raises(BundleError):
        OpenVinoEngine.open(folder)
    (folder / "head.bin").unlink()
    with pytest.raises(BundleError, match="missing"):
        OpenVinoEngine.open(folder)


@pytest.mark.parity
def test_engines_agree_and_keep_their_results(tiny_bundle: Path, openvino_engine: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    boxes, mask = rng.random((1, 5, 4), dtype=np.float32), np.array([[True, True, True, True, False]])
    results = []
    for name, folder in (("onnxruntime", tiny_bundle / "engine"), ("openvino", openvino_engine)):
        engine = open_engine(name, folder, precision="fp32", threads=2)
        assert engine.threads == 2
        first = engine.embed(pixels)
        kept = first.copy()
        engine.embed(255 - pixels)
        assert (first == kept).all()
        results.append((first, engine.aggregate(first[None], boxes, mask)))
    (a, s), (b, t) = results
    assert np.abs(a - b).max() < 1e-3
    assert np.abs(s.log_odds - t.log_odds).max() < 2e-3
    assert np.isnan(s.view_log_odds[0, 4])
    assert np.isnan(t.view_log_odds[0, 4])
    assert s.weights[0, 4] == t.weights[0, 4] == 0
