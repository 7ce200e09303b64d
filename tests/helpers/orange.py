"""A bundle whose network answers by the amount of orange in a view, made without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from workzone.bundle import Detector, schema
from workzone.bundle.chain import bound_parts
from workzone.bundle.chain_write import ChainParts, write_chain
from workzone.bundle.write import BundleParts, write_bundle
from workzone.calibration.identity import IdentityCalibrator
from workzone.config.views import ViewSpec
from workzone.data.roles import CalibData
from workzone.decisions import Certificate
from workzone.decisions.cascade import Band, Model, Plan, Point
from workzone.decisions.policies.argmax import ArgmaxPolicy
from workzone.decisions.policies.cascade import CascadePolicy
from workzone.files import sha256_file, sha256_json
from workzone.vision import Preprocessing

SIDE = 32


def orange_scene(
    size: tuple[int, int] = (160, 96), square: tuple[int, int, int, int] | None = (100, 50, 120, 70)
) -> Image.Image:
    """Grey noise, with an orange square at x0, y0, x1, y1 where one is given."""
    noise = np.random.default_rng(0).integers(90, 130, (size[1], size[0], 1), dtype=np.uint8)
    image = Image.fromarray(np.repeat(noise, 3, axis=2))
    if square is not None:
        image.paste((255, 120, 0), square)
    return image


def orange_bundle(target: Path, *, gain: float = 200.0, bias: float = -2.0, views: ViewSpec | None = None) -> Path:
    """Write the bundle; a view's log-odds are ``bias`` plus ``gain`` times its mean orange, pooled by softmax weights.

    ``gain`` 0 makes a network that always says the same.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    engine = target.parent / f"{target.name}-engine"
    engine.mkdir(parents=True)

    def constant(name: str, value: object, kind: type = np.float32) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(value, dtype=kind), name)

    def save(name: str, nodes: list, inputs: list, outputs: list, constants: list) -> None:
        graph = helper.make_graph(nodes, name, inputs, outputs, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        onnx.checker.check_model(model)
        onnx.save(model, engine / f"{name}.onnx")

    value = helper.make_tensor_value_info
    save(
        "backbone",
        [
            helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
            # Red minus blue, where it is more than what resampling leaves in grey.
            helper.make_node("MatMul", ["floats", "channels"], ["orange"]),
            helper.make_node("Sub", ["orange", "least"], ["above"]),
            helper.make_node("Relu", ["above"], ["kept"]),
            helper.make_node("ReduceMean", ["kept", "axes"], ["embeddings"], keepdims=0),
        ],
        [value("pixels", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
        [value("embeddings", TensorProto.FLOAT, ["N", 1])],
        [
            constant("channels", np.array([[1], [0], [-1]]) / 255),
            constant("least", 0.3),
            constant("axes", [1, 2], np.int64),
        ],
    )
    save(
        "head",
        [
            helper.make_node("Mul", ["embeddings", "gain"], ["scaled"]),
            helper.make_node("Add", ["scaled", "bias"], ["scores"]),
            helper.make_node("Squeeze", ["scores", "last"], ["view_log_odds"]),
            helper.make_node("Softmax", ["view_log_odds"], ["weights"], axis=1),
            helper.make_node("Mul", ["weights", "view_log_odds"], ["parts"]),
            helper.make_node("ReduceSum", ["parts", "views"], ["log_odds"], keepdims=0),
        ],
        [value("embeddings", TensorProto.FLOAT, ["B", "V", 1])],
        [
            value("log_odds", TensorProto.FLOAT, ["B"]),
            value("view_log_odds", TensorProto.FLOAT, ["B", "V"]),
            value("weights", TensorProto.FLOAT, ["B", "V"]),
        ],
        [
            constant("gain", gain),
            constant("bias", bias),
            constant("last", [2], np.int64),
            constant("views", [1], np.int64),
        ],
    )
    pre = Preprocessing(image_size=SIDE, views=views or ViewSpec(rows=2, cols=2)).model_dump(mode="json")
    calibrator, policy = IdentityCalibrator().to_dict(), ArgmaxPolicy().to_dict()
    files = {f"{schema.ENGINE}/{p.name}": sha256_file(p) for p in engine.iterdir()}
    certificate = _certificate(
        engine="onnxruntime-fp32",
        engine_sha256=schema.hash_engine("onnxruntime", "fp32", files),
        preprocessing_sha256=sha256_json(pre),
        calibrator_sha256=sha256_json(calibrator),
        policy_sha256=sha256_json(policy),
    )
    golden = target.parent / f"{target.name}-golden.png"
    orange_scene().save(golden)
    parts = BundleParts(
        name="orange",
        engine=engine,
        engine_name="onnxruntime",
        precision="fp32",
        backbone="orange",
        embedding_dim=1,
        preprocessing=pre,
        calibrator=calibrator,
        policy=policy,
        certificate=certificate.to_dict(),
        parity={},
        metrics={},
        card="# Orange\n",
        golden_images=[golden],
        compare_decisions=True,
        tolerance=1e-3,
        lineage={},
    )
    return write_bundle(parts, target)


def orange_chain(target: Path, *, mean: bool, gains: tuple[float, float] = (60.0, 200.0)) -> Path:
    """Write a cascade of two such bundles: one and two views of the first, then all five of the second."""
    target.mkdir(parents=True)
    members = [orange_bundle(target / f"orange-{i}", gain=gain) for i, gain in enumerate(gains, start=1)]
    none = IdentityCalibrator()
    points = (Point((Band(), Band()), 1.0, 0.1), Point((Band(0.2, 0.9), Band(0.2, 0.9)), 0.4, 0.1))
    models = (Model(5, 2, 1.0), Model(5, 5, 4.0))
    plan = Plan((0, 4, 0, 1, 2, 3, 4), (1, 2, 7), (none, none), points, models, mean)
    labels = np.arange(400) % 2
    p = np.where(labels == 1, 0.9, 0.05)
    z = np.log(p / (1 - p))
    policy = CascadePolicy(plan=plan, budget=0.4).fit(
        CalibData.from_arrays(labels, z), p, {"stage_1": z, "stage_2": z}
    )
    certificate = _certificate(
        guarantees=policy.guarantees,
        calibrator_sha256=sha256_json(none.to_dict()),
        policy_sha256=sha256_json(policy.to_dict()),
        **bound_parts([Detector.load(m) for m in members]),
    )
    golden = target / "golden.png"
    orange_scene().save(golden)
    parts = ChainParts(
        name="oranges",
        members=members,
        calibrator=none.to_dict(),
        policy=policy.to_dict(),
        certificate=certificate.to_dict(),
        metrics={},
        card="# Oranges\n",
        golden_images=[golden],
        compare_decisions=True,
        tolerance=1e-3,
        lineage={},
    )
    return write_chain(parts, target / "bundle")


def _certificate(**values: Any) -> Certificate:
    empty = {
        "guarantees": (),
        "split_sha256": "0" * 64,
        "calibration_images_sha256": "0" * 64,
        "certification_images_sha256": "0" * 64,
        "n_calibration": 0,
        "n_certification": 0,
        "n_certification_groups": 0,
        "prevalence": 0.0,
        "created": "2026-01-01T00:00:00Z",
    }
    return Certificate(**{**empty, **values})
