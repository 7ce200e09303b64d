"""OpenVINO on Intel and AMD CPUs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from workzone.bundle.engines.base import HEAD_OUTPUTS, Engine, FloatViews, Scores, check_signature, closed
from workzone.bundle.engines.onnxruntime import masked_scores
from workzone.errors import BundleError, needs_extra
from workzone.processors import processors

_MAX_XML = 256 * 1024 * 1024
_OPERATOR = re.compile(r"<layer\b[^>]*>")
_STANDARD = re.compile(r'\sversion="opset\d{1,3}"')


class OpenVinoEngine(Engine):
    """Runs ``backbone.xml`` and ``head.xml``; the precision is always stated.

    Left to itself OpenVINO computes in bf16 where the CPU has it. In bf16 the files are those of fp32 and the backbone
    is computed in bf16, the head in fp32. A CPU without bf16 instructions is refused: there OpenVINO imitates bf16
    slowly or takes fp32 without a word, so the scores would not be those of the certificate.
    """

    name: ClassVar[str] = "openvino"
    backbone_file: ClassVar[str] = "backbone.xml"
    head_file: ClassVar[str] = "head.xml"
    network_files: ClassVar[tuple[str, ...]] = ("backbone.bin", backbone_file, "head.bin", head_file)
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "bf16", "int8")

    def __init__(self, backbone: Any, head: Any | None, precision: str, threads: int) -> None:
        # A request must not be used by two threads at once.
        self._backbones: SimpleQueue[Any] | None = _requests(backbone, threads)
        self._heads = None if head is None else _requests(head, threads)
        self._head_inputs = set() if head is None else {n for port in head.inputs for n in port.get_names()}
        self.threads = threads
        self.precision = precision
        self.embedding_dim = int(backbone.output(0).get_partial_shape()[1].get_length())
        shape = backbone.input(0).get_partial_shape()
        self.image_size, self.image_width = shape[1].get_length(), shape[2].get_length()

    @classmethod
    def open(
        cls, folder: Path, *, precision: str = "fp32", device: str = "cpu", threads: int = 0, head: bool = True
    ) -> Self:
        """See ``Engine.open``; ``head=False`` opens the backbone alone."""
        if device != "cpu":
            raise BundleError("the openvino engine runs on the CPU only", fix="use device cpu")
        with needs_extra("openvino", "openvino", feature="the openvino engine"):
            import openvino as ov
        threads = threads or processors()
        settings: dict[str, Any] = {
            "NUM_STREAMS": threads,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,
        }
        core = ov.Core()
        if precision == "bf16":
            require_bf16(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))

        def compiled(path: Path, *, head: bool) -> Any:
            for needed in (path, path.with_suffix(".bin")):
                if not needed.is_file():
                    raise BundleError("a network file is missing", where=str(needed), fix="export the run again")
            _refuse_unsafe_xml(path)
            hint = "bf16" if precision == "bf16" and not head else "f32"
            try:
                network = core.compile_model(
                    core.read_model(str(path)), "CPU", {**settings, "INFERENCE_PRECISION_HINT": hint}
                )
            except RuntimeError as error:
                raise BundleError(f"openvino cannot read the network: {_cause(error)}", where=str(path)) from error
            check_signature(path, _shapes(network.inputs), _shapes(network.outputs), head=head)
            return network

        head_network = compiled(folder / cls.head_file, head=True) if head else None
        engine = cls(compiled(folder / cls.backbone_file, head=False), head_network, precision, threads)
        engine._run_once()
        return engine

    def _run_once(self) -> None:
        # The binding sets up its statics in the first inference, without letting go of the interpreter lock in the
        # right order: two threads that begin together can wait for each other for ever. One thread begins alone.
        self.embed(np.zeros((1, self.image_size, self.image_width, 3), dtype=np.uint8))
        if self._heads is not None:
            views = np.zeros((1, 1, self.embedding_dim), dtype=np.float32)
            self.aggregate(views, np.zeros((1, 1, 4), dtype=np.float32), np.ones((1, 1), dtype=np.bool_))

    def embed(self, pixels: NDArray[np.uint8]) -> FloatViews:
        """See ``Engine.embed``."""
        requests = self._backbones
        if requests is None:
            raise closed()
        (out,) = _run(requests, ["embeddings"], {"pixels": np.ascontiguousarray(pixels)})
        return np.asarray(out, dtype=np.float32)

    def aggregate(self, embeddings: FloatViews, boxes: FloatViews, mask: NDArray[np.bool_]) -> Scores:
        """See ``Engine.aggregate``."""
        heads = self._heads
        if heads is None:
            raise closed() if self._backbones is None else BundleError("this engine was opened without its head")
        feeds = {"embeddings": embeddings, "boxes": boxes, "mask": mask}
        used = {name: value for name, value in feeds.items() if name in self._head_inputs}
        return masked_scores(_run(heads, HEAD_OUTPUTS, used), mask)

    def close(self) -> None:
        """See ``Engine.close``."""
        self._backbones = self._heads = None


def require_bf16(capabilities: Sequence[str]) -> None:
    """Raise BundleError unless ``capabilities`` of the CPU, as OpenVINO names them, hold native bf16."""
    if "BF16" not in capabilities:
        raise BundleError(
            "this CPU has no bf16 instructions (AVX512_BF16 or AMX)",
            where=f"it has: {', '.join(capabilities)}",
            fix="use the bundle of openvino-fp32 or openvino-int8 here",
        )


def _requests(network: Any, count: int) -> SimpleQueue[Any]:
    requests: SimpleQueue[Any] = SimpleQueue()
    for _ in range(count):
        requests.put(network.create_infer_request())
    return requests


def _run(requests: SimpleQueue[Any], outputs: Sequence[str], feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    request = requests.get()
    try:
        result = request.infer(feeds, share_inputs=True)
        # The next call writes into the same memory.
        return [np.array(result[name]) for name in outputs]
    except RuntimeError as error:
        raise BundleError(f"openvino cannot run the network: {_cause(error)}") from error
    finally:
        requests.put(request)


def _shapes(ports: Any) -> dict[str, list[int | None]]:
    return {
        min(port.get_names(), default=""): [
            int(d.get_length()) if d.is_static else None for d in port.get_partial_shape()
        ]
        for port in ports
    }


def _cause(error: RuntimeError) -> str:
    """What went wrong, without the stack of source lines that openvino puts before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1][:300]


def _refuse_unsafe_xml(path: Path) -> None:
    """Raise BundleError unless the network uses operators of the standard sets only and defines no XML entities."""
    try:
        if path.stat().st_size > _MAX_XML:
            raise BundleError(f"{path.name} is larger than {_MAX_XML} bytes", where=str(path))
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path.name} cannot be read: {error}", where=str(path)) from error
    if "<!" in text:
        raise BundleError(f"{path.name} holds XML declarations that no exported network has", where=str(path))
    for layer in _OPERATOR.finditer(text):
        if not _STANDARD.search(layer[0]):
            raise BundleError(
                f"{path.name} uses an operator that is not a standard one: {layer[0][:120]}",
                where=str(path),
                fix="export the network again without extensions",
            )
