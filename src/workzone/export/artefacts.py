"""Networks in forms that a bundle never holds, because opening them runs what is in the file.

A ``.pt2`` of torch.export may hold pickles, a package of AOTInductor is a shared library, TorchScript is a program, and
a plan of TensorRT is machine code of one GPU. An artefact is a folder with such files and ``artefact.json``, which pins
them; it carries no certificate. It is opened only by a caller who names the hash of ``artefact.json`` that whoever made
the folder told.
"""

from __future__ import annotations

import contextlib
import hmac
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from workzone.bundle.engines import Engine, open_engine
from workzone.errors import BundleError, CheckFailedError, ConfigError
from workzone.export.parity import Comparison, compare
from workzone.files import read_json, require_new, sha256_file, write_json

Kind = Literal["torch", "aoti", "torchscript", "tensorrt"]
KINDS: tuple[str, ...] = get_args(Kind)
MANIFEST = "artefact.json"
FILES: Mapping[str, tuple[str, str]] = {
    "torch": ("backbone.pt2", "head.pt2"),
    "aoti": ("backbone.pt2", "head.pt2"),
    "torchscript": ("backbone.ts", "head.ts"),
    "tensorrt": ("backbone.plan", "head.onnx"),
}
NOTICES: Mapping[str, str] = {
    "torch": "torch.export.load unpickles what the file asks it to: open it only if you trust who made it",
    "aoti": "a shared library for the processor, the device and the version of torch it was compiled with",
    "torchscript": "deprecated by PyTorch in favour of torch.export: for old programs that read nothing else",
    "tensorrt": "a plan for one kind of GPU and one version of TensorRT: build it where it runs",
}
BATCHES = (1, 2, 5)
_MOST_BYTES = 1024 * 1024


def make_artefact(
    kind: Kind,
    folder: Path,
    onnx_folder: Path,
    *,
    backbone: Any = None,
    head: Any = None,
    precision: str = "fp32",
    tolerance: float = 2e-3,
    views: NDArray[np.uint8] | None = None,
) -> str:
    """Write an artefact to the new ``folder`` and compare it with onnxruntime-fp32; returns the hash to open it with.

    Args:
        kind: what to make.
        folder: must not exist or be empty.
        onnx_folder: ``backbone.onnx`` and ``head.onnx`` in fp32 of the same network.
        backbone: the network in torch; not needed for tensorrt.
        head: its head in torch; not needed for tensorrt.
        precision: fp32; with tensorrt also bf16 and fp16.
        tolerance: largest difference of log-odds for fp32.
        views: (N, S, S, 3) uint8 views to compare on; None draws noise.

    Raises:
        ConfigError: the folder holds something, or the kind has no such precision.
        MissingExtraError: a package is missing; CheckFailedError: no compiler, or the scores differ.
    """
    require_new(folder, "the folder for the artefact is not empty")
    if kind != "tensorrt" and precision != "fp32":
        raise ConfigError(f"{kind} is made in fp32 only", where=precision, fix="take --precision fp32")
    reference = open_engine("onnxruntime", onnx_folder, precision="fp32", threads=1)
    if reference.image_width != reference.image_size:
        raise ConfigError(
            f"{kind} is made for square views only",
            where=f"views of {reference.image_width} x {reference.image_size} pixels",
            fix="take the ONNX files or OpenVINO, or train with model.image_width=0",
        )
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if kind == "tensorrt":
            from workzone.export.tensorrt import build_plan

            build_plan(onnx_folder, folder, precision)
        else:
            from workzone.export.torch_files import write_torch_files

            write_torch_files(kind, FILES[kind], backbone, head, folder)
        shape = (reference.image_size, reference.embedding_dim)
        with contextlib.closing(_open(kind, folder, precision, shape, 1)) as engine:
            comparison = conform(reference, engine, views)
        if precision == "fp32":
            comparison.require(tolerance, where=str(folder))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    write_json(
        folder / MANIFEST,
        {
            "schema": 1,
            "kind": kind,
            "precision": precision,
            "files": {name: sha256_file(folder / name) for name in FILES[kind]},
            "image_size": reference.image_size,
            "embedding_dim": reference.embedding_dim,
            "made_on": {"machine": platform.machine(), "versions": _versions(kind)},
            "against": "onnxruntime-fp32",
            "comparison": comparison.to_dict(),
            "certificate": None,
            "notice": NOTICES[kind],
        },
    )
    return sha256_file(folder / MANIFEST)


def open_artefact(folder: Path, *, sha256: str, threads: int = 0) -> Engine:
    """Open an artefact whose ``artefact.json`` has the hash ``sha256``; this runs code from its files.

    Raises:
        BundleError: another hash, a changed or missing file, or a network this engine cannot read.
        MissingExtraError: torch or tensorrt is not installed.
    """
    path = folder / MANIFEST
    if not path.is_file() or path.stat().st_size > _MOST_BYTES:
        raise BundleError("there is no artefact here", where=str(folder), fix="give the folder of artefact.json")
    if not hmac.compare_digest(sha256_file(path), sha256):
        raise BundleError(
            "artefact.json has not the hash that was asked for", where=str(path), fix="take the original artefact"
        )
    content = read_json(path)
    kind = content["kind"]
    if kind not in FILES or set(content["files"]) != set(FILES[kind]):
        raise BundleError("artefact.json names files of no known kind", where=str(path))
    for name in FILES[kind]:
        file = folder / name
        if file.is_symlink() or not file.is_file() or sha256_file(file) != content["files"][name]:
            raise BundleError(f"{name} is missing or was changed", where=str(file), fix="export it again")
    return _open(kind, folder, content["precision"], (content["image_size"], content["embedding_dim"]), threads)


def conform(reference: Engine, other: Engine, views: NDArray[np.uint8] | None = None) -> Comparison:
    """Compare two engines of one network over passes of 1, 2 and 5 views and images with fewer views than others.

    Raises:
        CheckFailedError: they are of different networks.
    """
    rng = np.random.default_rng(0)
    side = reference.image_size
    if views is None:
        views = rng.integers(0, 256, (sum(BATCHES), side, side, 3), dtype=np.uint8)
    if (other.image_size, other.embedding_dim) != (side, reference.embedding_dim):
        raise CheckFailedError("the engines are of different networks")
    results = []
    for engine in (reference, other):
        rows: dict[str, list[NDArray[Any]]] = {"log_odds": [], "view_log_odds": [], "embeddings": []}
        start = 0
        for count in BATCHES:
            pixels = views[np.arange(start, start + count) % len(views)]
            start += count
            embeddings = engine.embed(pixels)
            boxes = np.tile(np.array([0.0, 0.0, 1.0, 1.0], dtype=np.float32), (2, count, 1))
            mask = np.ones((2, count), dtype=np.bool_)
            mask[1, 1:] = False
            scores = engine.aggregate(np.stack([embeddings, embeddings]), boxes, mask)
            rows["log_odds"].append(scores.log_odds)
            rows["view_log_odds"].append(scores.view_log_odds.ravel())
            rows["embeddings"].append(embeddings)
        results.append({name: np.concatenate(parts) for name, parts in rows.items()})
    return compare(*results)


def _open(kind: str, folder: Path, precision: str, shape: tuple[int, int], threads: int) -> Engine:
    if kind == "tensorrt":
        from workzone.export.tensorrt import TensorRtEngine

        return TensorRtEngine.open(folder, precision=precision, device="cuda", threads=threads)
    from workzone.export.torch_files import TorchFileEngine

    return TorchFileEngine.open_files(folder, FILES[kind], shape, threads)


def _versions(kind: str) -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in (("tensorrt",) if kind == "tensorrt" else ("torch",))}
