"""TensorRT: plans built from ONNX on the GPU they are for, and the engine that runs them.

Written against the Python API of TensorRT 10 and 11 (builder, ONNX parser, named tensors, ``execute_async_v3``) and not
tested: no machine of this project has a GPU of NVIDIA. What can be checked without one, the graph it is given, is.
"""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from workzone.bundle.engines.base import Engine, FloatViews, Scores, closed
from workzone.bundle.engines.onnxruntime import OnnxRuntimeEngine
from workzone.errors import BundleError, CheckFailedError, ConfigError, MissingExtraError
from workzone.export.onnx import BACKBONE_FILE, HEAD_FILE
from workzone.files import write_atomic

PLAN_FILE = "backbone.plan"
VIEWS = (1, 16, 64)
"""Fewest, usual and most views of a pass."""
_WORKSPACE = 2 << 30


def cast_first(model: Any) -> bytes:
    """``model`` (ONNX) with a cast to float of its pixels before all else: TensorRT reads uint8 only so.

    The cast that the exporter wrote further down is left; from float to float it does nothing.

    Raises:
        CheckFailedError: the graph has no input ``pixels``, or casts it to something else than float.
    """
    import onnx

    graph = model.graph
    users = [node for node in graph.node if "pixels" in node.input]
    casts = [node for node in graph.node if node.op_type == "Cast"]
    if not users or not casts or any(a.i != onnx.TensorProto.FLOAT for a in casts[0].attribute if a.name == "to"):
        raise CheckFailedError(
            "the graph does not cast its pixels to float",
            where=BACKBONE_FILE,
            fix="export the run again with this version",
        )
    if [node.op_type for node in users] != ["Cast"]:
        for node in users:
            node.input[:] = ["pixels_float" if name == "pixels" else name for name in node.input]
        first = onnx.helper.make_node("Cast", ["pixels"], ["pixels_float"], to=onnx.TensorProto.FLOAT)
        graph.node.insert(0, first)
        # Stated types between the two casts are no longer true; readers infer them.
        del graph.value_info[:]
    return bytes(model.SerializeToString(deterministic=True))


def build_plan(onnx_folder: Path, folder: Path, precision: str = "fp32") -> Path:
    """Write ``backbone.plan`` for the GPU of this machine, and the head as ONNX, which runs on the CPU.

    Raises:
        MissingExtraError: tensorrt is not installed.
        ConfigError: a precision that the installed version cannot be asked for.
        CheckFailedError: TensorRT refuses the network.
    """
    trt = _tensorrt()
    import onnx

    reduced = {"fp32": None, "bf16": "BF16", "fp16": "FP16"}
    if precision not in reduced:
        raise ConfigError(f"TensorRT plans have no precision {precision!r}", fix="take fp32, bf16 or fp16")
    flag = reduced[precision]
    if flag is not None and not hasattr(trt.BuilderFlag, flag):
        raise ConfigError(
            f"TensorRT {trt.__version__} takes {precision} from the types of the ONNX file only",
            where=precision,
            fix="take fp32, or TensorRT 10",
        )
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    strong = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is not None or strong is None else 1 << int(strong))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(cast_first(onnx.load(str(onnx_folder / BACKBONE_FILE)))):
        reasons = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise CheckFailedError(f"TensorRT cannot read the network: {reasons[:300]}", where=str(onnx_folder))
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE)
    if flag is not None:
        config.set_flag(getattr(trt.BuilderFlag, flag))
    else:
        # TF32 keeps ten bits of the mantissa, which is not fp32.
        config.clear_flag(trt.BuilderFlag.TF32)
    side = int(network.get_input(0).shape[1])
    profile = builder.create_optimization_profile()
    profile.set_shape("pixels", *((count, side, side, 3) for count in VIEWS))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise CheckFailedError("TensorRT could not build a plan", where=str(onnx_folder), fix="read its messages above")
    write_atomic(folder / PLAN_FILE, bytes(plan))
    shutil.copyfile(onnx_folder / HEAD_FILE, folder / HEAD_FILE)
    return folder / PLAN_FILE


class TensorRtEngine(Engine):
    """Runs ``backbone.plan`` on the GPU it was built for, and ``head.onnx`` on the CPU; torch holds the memory."""

    name: ClassVar[str] = "tensorrt"
    backbone_file: ClassVar[str] = PLAN_FILE
    head_file: ClassVar[str] = HEAD_FILE
    network_files: ClassVar[tuple[str, ...]] = (PLAN_FILE, HEAD_FILE)
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "bf16", "fp16")
    views_per_pass = VIEWS[1]

    def __init__(self, plan: Any, head: Any, precision: str) -> None:
        self._plan: Any | None = plan
        self._context: Any | None = plan.create_execution_context()
        self._head = head
        self._lock = Lock()
        self.precision = precision
        # One context takes one pass at a time.
        self.threads = 1
        self.image_size, self.image_width = (int(side) for side in tuple(plan.get_tensor_shape("pixels"))[1:3])
        self.embedding_dim = int(plan.get_tensor_shape("embeddings")[1])
        self._most = int(plan.get_tensor_profile_shape("pixels", 0)[2][0])

    @classmethod
    def open(cls, folder: Path, *, precision: str = "fp32", device: str = "cuda", threads: int = 0) -> Self:
        """See ``Engine.open``; ``threads`` has no meaning on a GPU."""
        if device != "cuda":
            raise BundleError("a plan of TensorRT runs on a GPU of NVIDIA only", fix="use device cuda")
        trt = _tensorrt()
        path = folder / PLAN_FILE
        if not path.is_file():
            raise BundleError("a network file is missing", where=str(path), fix="export it again")
        plan = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(path.read_bytes())
        if plan is None:
            raise BundleError(
                "TensorRT cannot read the plan", where=str(path), fix="build it on this GPU with this version"
            )
        names = {plan.get_tensor_name(i) for i in range(plan.num_io_tensors)}
        if names != {"pixels", "embeddings"}:
            raise BundleError(f"{PLAN_FILE} is not a backbone of workzone ({sorted(names)})", where=str(path))
        return cls(plan, OnnxRuntimeEngine.open_head(folder / HEAD_FILE), precision)

    def embed(self, pixels: NDArray[np.uint8]) -> FloatViews:
        """See ``Engine.embed``."""
        import torch

        parts = [pixels[i : i + self._most] for i in range(0, len(pixels), self._most)]
        rows = []
        with self._lock:
            context = self._context
            if context is None:
                raise closed()
            for part in parts:
                given = torch.from_numpy(np.ascontiguousarray(part)).cuda()
                out = torch.empty((len(part), self.embedding_dim), dtype=torch.float32, device="cuda")
                if given.dtype != torch.uint8 or not context.set_input_shape("pixels", tuple(given.shape)):
                    raise BundleError(f"the plan takes no views of {given.dtype} {tuple(given.shape)}")
                context.set_tensor_address("pixels", given.data_ptr())
                context.set_tensor_address("embeddings", out.data_ptr())
                stream = torch.cuda.current_stream()
                if not context.execute_async_v3(stream.cuda_stream):
                    raise BundleError("TensorRT cannot run the network")
                stream.synchronize()
                rows.append(out.cpu().numpy())
        return np.concatenate(rows)

    def aggregate(self, embeddings: FloatViews, boxes: FloatViews, mask: NDArray[np.bool_]) -> Scores:
        """See ``Engine.aggregate``."""
        if self._head is None:
            raise closed()
        scores: Scores = self._head(embeddings, boxes, mask)
        return scores

    def close(self) -> None:
        """See ``Engine.close``."""
        with self._lock:
            self._context = self._plan = self._head = None


def _tensorrt() -> Any:
    try:
        return importlib.import_module("tensorrt")
    except ImportError as error:
        missing = MissingExtraError("tensorrt", "train", feature="TensorRT")
        missing.fix = "on the machine with the GPU: pip install tensorrt"
        raise missing from error
