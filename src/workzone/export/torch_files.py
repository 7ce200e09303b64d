"""Files that torch itself opens: exported programs, compiled packages, and TorchScript for old readers."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from workzone.bundle.engines.base import Engine, FloatViews, Scores, closed
from workzone.bundle.engines.onnxruntime import masked_scores
from workzone.errors import BundleError, CheckFailedError
from workzone.export.onnx import backbone_example, frozen_copy, head_example, quiet
from workzone.files import atomic_path, read_json
from workzone.models.backbones import Backbone
from workzone.processors import processors


def write_torch_files(kind: str, names: tuple[str, str], backbone: Backbone, head: nn.Module, folder: Path) -> None:
    """Write backbone and head as ``kind``: torch (programs), aoti (compiled, minutes) or torchscript (deprecated).

    Raises:
        CheckFailedError: aoti without a C++ compiler.
        ValueError: unmerged adapters.
    """
    if kind == "aoti" and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))):
        raise CheckFailedError(
            "AOTInductor needs a C++ compiler and none was found", where="g++", fix="install g++, or set CXX"
        )
    parts = ((backbone, backbone_example(backbone)), (head, head_example(head)))
    for (module, (example, shapes)), name in zip(parts, names, strict=True):
        plain = frozen_copy(module)
        with quiet(), torch.no_grad(), atomic_path(folder / name) as partial:
            if kind == "torchscript":
                traced = torch.jit.trace(plain, example, check_trace=False)  # type: ignore[no-untyped-call]
                torch.jit.save(traced, str(partial))
                continue
            program = torch.export.export(plain, example, dynamic_shapes=shapes)
            # Both writers insist on the ending.
            work = partial.with_name(f"{partial.name}.pt2")
            if kind == "torch":
                torch.export.save(program, work)
            else:
                torch._inductor.aoti_compile_and_package(program, package_path=str(work))
            work.replace(partial)


class TorchFileEngine(Engine):
    """Runs a backbone and a head from files of torch on the CPU; opening them runs code from them."""

    name: ClassVar[str] = "torch"

    def __init__(
        self, backbone: Callable[..., Any], head: Callable[..., Any], shape: tuple[int, int], slots: int
    ) -> None:
        self._backbone: Callable[..., Any] | None = backbone
        self._head: Callable[..., Any] | None = head
        self.precision = "fp32"
        self.threads = slots
        self._slots = BoundedSemaphore(slots)
        self.image_size, self.embedding_dim = shape
        self.image_width = self.image_size

    @classmethod
    def open(cls, folder: Path, *, precision: str = "fp32", device: str = "cpu", threads: int = 0) -> Self:
        """Open the files that ``artefact.json`` in ``folder`` names; ``open_artefact`` checks their hashes before.

        Raises:
            BundleError: another precision or device.
        """
        if (precision, device) != ("fp32", "cpu"):
            raise BundleError("files of torch run in fp32 on the CPU", where=f"{precision}, {device}")
        content = read_json(folder / "artefact.json")
        backbone, head = sorted(content["files"])
        return cls.open_files(folder, (backbone, head), (content["image_size"], content["embedding_dim"]), threads)

    @classmethod
    def open_files(cls, folder: Path, names: tuple[str, str], shape: tuple[int, int], threads: int = 0) -> Self:
        """Open backbone and head by ``names``; ``shape`` is the side of a view and the length of an embedding."""
        threads = threads or processors()
        backbone, head = (_load(folder / name, threads) for name in names)
        return cls(backbone, head, shape, threads)

    def embed(self, pixels: NDArray[np.uint8]) -> FloatViews:
        """See ``Engine.embed``."""
        backbone = self._backbone
        if backbone is None:
            raise closed()
        # A compiled package does not look at shapes: it would read past the end of the array.
        self._require(pixels, np.uint8, (len(pixels), self.image_size, self.image_size, 3))
        return np.asarray(self._run(backbone, pixels).numpy(), dtype=np.float32)

    def aggregate(self, embeddings: FloatViews, boxes: FloatViews, mask: NDArray[np.bool_]) -> Scores:
        """See ``Engine.aggregate``."""
        head = self._head
        if head is None:
            raise closed()
        b, v = mask.shape
        self._require(embeddings, np.float32, (b, v, self.embedding_dim))
        self._require(boxes, np.float32, (b, v, 4))
        self._require(mask, np.bool_, (b, v))
        return masked_scores([part.numpy() for part in self._run(head, embeddings, boxes, mask)], mask)

    def close(self) -> None:
        """See ``Engine.close``."""
        self._backbone = self._head = None

    @staticmethod
    def _require(array: NDArray[Any], kind: Any, shape: tuple[int, ...]) -> None:
        if array.dtype != kind or array.shape != shape or not array.size:
            raise BundleError(
                f"torch cannot run the network: it takes {np.dtype(kind)} {shape}, not {array.dtype} {array.shape}"
            )

    def _run(self, module: Callable[..., Any], *arrays: NDArray[Any]) -> Any:
        try:
            with self._slots, torch.inference_mode():
                return module(*(torch.from_numpy(np.ascontiguousarray(a)) for a in arrays))
        except (RuntimeError, AssertionError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0][:300]
            raise BundleError(f"torch cannot run the network: {first}") from error


def _load(path: Path, threads: int) -> Callable[..., Any]:
    try:
        if path.suffix == ".ts":
            with quiet():
                loaded: Callable[..., Any] = torch.jit.load(str(path), "cpu").eval()  # type: ignore[no-untyped-call]
                return loaded
        if is_compiled(path):
            from torch._inductor.package.package import load_package

            return load_package(str(path), num_runners=threads)
        return torch.export.load(path).module()
    except (OSError, RuntimeError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise BundleError(f"torch cannot read the network: {error}", where=str(path)) from error


def is_compiled(path: Path) -> bool:
    """Whether a ``.pt2`` holds a shared library instead of a program."""
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith(".so") for name in archive.namelist())
