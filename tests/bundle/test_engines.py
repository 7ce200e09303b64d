from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.forgery import failures, reseal
from workzone.bundle import Detector
from workzone.bundle.engines import Engine, network_files, open_engine
from workzone.bundle.engines.onnx_scan import refuse_unsafe_onnx
from workzone.bundle.engines.openvino import OpenVinoEngine, require_bf16
from workzone.errors import BundleError
from workzone.vision import Preprocessing, open_views

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


def test_precision_that_an_engine_has_not(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"no precision 'bf16'.*fp32, int8"):
        open_engine("onnxruntime", tiny_bundle / "engine", precision="bf16")
    with pytest.raises(BundleError, match="no precision 'fp64'"):
        open_engine("openvino", tiny_bundle / "engine", precision="fp64")


def test_bf16_needs_a_cpu_that_has_it() -> None:
    require_bf16(["FP32", "INT8", "BF16"])
    with pytest.raises(BundleError, match=r"no bf16 instructions.*openvino-fp32"):
        require_bf16(["FP32", "INT8", "BIN"])


TOLERANCES = {
    "onnxruntime-fp32": (0.0, 0.0),
    "openvino-fp32": (1e-3, 2e-3),
    "openvino-bf16": (0.08, 0.25),
    "onnxruntime-int8": (0.25, 0.25),
    "openvino-int8": (0.25, 0.25),
}
"""By variant: difference of embeddings by their norm, and of log-odds (``export.tolerance``, ``int8_tolerance``)."""


@pytest.fixture(scope="session")
def engine_folders(tiny_bundle: Path, openvino_engine: Path, images: list[Path], tmp_path_factory) -> dict[str, Path]:
    """Networks of every engine and precision, from the bundle of onnxruntime-fp32."""
    pytest.importorskip("nncf")
    from workzone.export.openvino import to_openvino
    from workzone.export.quantise import quantise_onnx

    base, folder = tiny_bundle / "engine", tmp_path_factory.mktemp("engines")
    ranges = views_of(tiny_bundle, images[:6])
    quantise_onnx(base, folder / "onnxruntime-int8", ranges)
    to_openvino(base, folder / "openvino-int8", "int8", ranges)
    made = {name: folder / name for name in ("onnxruntime-int8", "openvino-int8")}
    return {"onnxruntime-fp32": base, "openvino-fp32": openvino_engine, "openvino-bf16": openvino_engine} | made


def views_of(bundle: Path, paths: list[Path]) -> Any:
    """All views (N, S, S, 3) of some pictures."""
    spec = Preprocessing.model_validate_json((bundle / "preprocessing.json").read_text())
    return np.concatenate([open_views(path, spec)[0] for path in paths])


@pytest.fixture(params=list(TOLERANCES))
def variant(request: pytest.FixtureRequest, engine_folders: dict[str, Path]) -> tuple[str, Engine]:
    """Each engine and precision, opened with two threads."""
    name, _, precision = request.param.partition("-")
    if precision == "bf16":
        import openvino as ov

        if "BF16" not in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            with pytest.raises(BundleError, match="no bf16 instructions"):
                open_engine(name, engine_folders[request.param], precision=precision)
            pytest.skip("this CPU has no bf16")
    return request.param, open_engine(name, engine_folders[request.param], precision=precision, threads=2)


@pytest.mark.parity
def test_conformance(variant: tuple[str, Engine], tiny_bundle: Path, images: list[Path]) -> None:
    """Every engine: any batch, from two threads at once, near the reference, closed as often as one likes."""
    name, engine = variant
    assert engine.threads == 2
    assert engine.precision == name.partition("-")[2]
    reference = open_engine("onnxruntime", tiny_bundle / "engine", precision="fp32", threads=1)
    pixels = views_of(tiny_bundle, images[6:8])
    expected = reference.embed(pixels)
    assert (engine.image_size, engine.embedding_dim) == (reference.image_size, expected.shape[1])
    bound, log_odds_bound = TOLERANCES[name]
    for n in range(1, 6):
        got = engine.embed(pixels[:n])
        assert got.shape == (n, engine.embedding_dim)
        assert got.dtype == np.float32
        assert np.linalg.norm(got - expected[:n]) <= bound * np.linalg.norm(expected[:n])
    if not name.endswith("fp32"):
        assert np.abs(engine.embed(pixels) - expected).max() > 1e-4, "it did not compute in its own precision"
    first = engine.embed(pixels)
    kept = first.copy()
    with ThreadPoolExecutor(2) as pool:
        again = list(pool.map(engine.embed, [pixels] * 6))
    engine.embed(255 - pixels)
    assert (first == kept).all(), "a later pass wrote into an earlier result"
    for one in again:
        np.testing.assert_allclose(one, first, atol=1e-5)
    rng = np.random.default_rng(0)
    boxes, mask = rng.random((2, 5, 4), dtype=np.float32), np.array([[True] * 4 + [False], [True] * 5])
    got_scores = engine.aggregate(first.reshape(2, 5, -1), boxes, mask)
    wanted = reference.aggregate(expected.reshape(2, 5, -1), boxes, mask)
    assert np.abs(got_scores.log_odds - wanted.log_odds).max() <= log_odds_bound
    assert np.isnan(got_scores.view_log_odds[0, 4])
    assert got_scores.weights[0, 4] == 0
    engine.close()
    engine.close()
    for call in (lambda: engine.embed(pixels), lambda: engine.aggregate(first.reshape(2, 5, -1), boxes, mask)):
        with pytest.raises(BundleError, match="closed"):
            call()


@pytest.mark.parity
def test_decisions_on_golden_cases(variant: tuple[str, Engine], tiny_bundle: Path) -> None:
    """What the bundle answered when it was made, from the scores of each engine, away from thresholds."""
    name, engine = variant
    detector = dataclasses.replace(Detector.load(tiny_bundle, threads=1), engine=engine)
    golden = json.loads((tiny_bundle / "golden" / "cases.json").read_text())["cases"]
    answers = dict(detector.predict([tiny_bundle / case["image"] for case in golden]))
    for case, answer in zip(golden, answers.values(), strict=True):
        assert abs(answer.log_odds - case["log_odds"]) <= max(TOLERANCES[name][1], 1e-4)
        if name.endswith("fp32"):
            assert answer.label == case["decision"]


def test_changed_network_is_refused_by_every_engine(engine_folders: dict[str, Path], tmp_path: Path) -> None:
    for name, folder in engine_folders.items():
        engine, _, precision = name.partition("-")
        copy = Path(shutil.copytree(folder, tmp_path / name))
        for file in network_files(engine):
            whole = (copy / file).read_bytes()
            (copy / file).write_bytes(whole[: len(whole) // 2])
            with pytest.raises(BundleError):
                open_engine(engine, copy, precision=precision, threads=1)
            (copy / file).write_bytes(whole)


def test_cuda_that_cannot_be_is_told(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime as ort

    offered = ort.get_available_providers()
    if "CUDAExecutionProvider" in offered:
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(BundleError, match="no CUDA provider"):
        Detector.load(tiny_bundle, device="cuda")
    # A build with CUDA on a machine without its driver offers the provider and then goes on with the CPU.
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", *offered])
    with pytest.raises(BundleError, match="would use the CPU"), pytest.warns(UserWarning, match="CUDA"):
        Detector.load(tiny_bundle, device="cuda")


@pytest.mark.parametrize("words", [["predict"], ["verify"], ["serve"], ["score", "--out"]])
def test_commands_ask_for_the_device(words: list[str], tiny_bundle: Path, call: Any, tmp_path: Path) -> None:
    import onnxruntime as ort

    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    bundle = ["--bundle", tiny_bundle] if words[0] in ("predict", "score") else [tiny_bundle]
    pictures = [tiny_bundle / "golden"] if words[0] in ("predict", "score") else []
    where = [tmp_path / "out"] if "--out" in words else []
    answer = call(*words, *where, *pictures, *bundle, "--device", "cuda")
    assert answer.code == 3, answer
    assert "no CUDA provider" in answer.out + answer.err
    assert "Traceback" not in answer.err
    assert not (tmp_path / "out").exists()
