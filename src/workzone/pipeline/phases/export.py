"""Phase export: the trained network as engines, and how close each is to the network in torch."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workzone.data.roles import RoleData, SelectData, TrainData
from workzone.errors import ConfigError
from workzone.files import atomic_path, sha256_bytes, sha256_file, write_json
from workzone.pipeline.backbone_cache import open_cache
from workzone.pipeline.phase import Context, PhaseSpec, Progress
from workzone.pipeline.phases.embedding import open_variant, read_preprocessing
from workzone.pipeline.phases.train import stores_backbone
from workzone.pipeline.variants import ENGINE_KEYS, variants
from workzone.vision import Preprocessing, decode, load_views

if TYPE_CHECKING:
    from workzone.models.aggregators import Ensemble

_GOLDEN_SIDE = 1024


def _run(context: Context) -> None:
    from workzone.export.onnx import export_head
    from workzone.models.storage import load_head

    config, artifacts = context.config, context.artifacts
    train, select = context.open(TrainData), context.open(SelectData)
    head, probe = load_head(artifacts.fuse, name="fusion"), load_head(artifacts.train, name="probe")
    one_view = artifacts.one_view_head.parent
    _fresh(one_view)
    export_head(probe, one_view)
    wanted = variants(config)
    views = None
    if any(v.endswith("int8") for v in wanted):
        pre, count = read_preprocessing(context), config.export.int8_images
        views = range_views(train, pre, count=count, seed=config.seed, progress=context.progress)
    base = artifacts.engine("onnxruntime-fp32")
    _fresh(base)
    shutil.copyfile(artifacts.backbone_onnx / "backbone.onnx", base / "backbone.onnx")
    export_head(head, base)
    for variant in wanted:
        if variant != "onnxruntime-fp32":
            context.progress.message(f"  making {variant}")
            _make(context, variant, base, artifacts.engine(variant), views)
    if "onnxruntime-fp32" not in wanted:
        wanted = [*wanted, "onnxruntime-fp32"]
    golden = _golden_images(context, select)
    write_json(artifacts.parity, _parity(context, golden, wanted, head))


def _fresh(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _make(context: Context, variant: str, base: Path, target: Path, views: NDArray[np.uint8] | None) -> None:
    """Convert the network; a backbone that was converted before comes from the cache, since int8 takes minutes."""
    name, _, precision = variant.partition("-")
    used = views if precision == "int8" else None
    decides = {
        "variant": variant,
        "backbone": sha256_file(base / "backbone.onnx"),
        "views": sha256_bytes(used.tobytes()) if used is not None else None,
    }
    cache = open_cache(context.config, decides, ("onnx", "onnxruntime", "openvino", "nncf"))
    _fresh(target)
    known = cache.copy_to(target)
    if known and name == "openvino":
        from workzone.export.openvino import head_to_openvino

        head_to_openvino(base, target)
    elif known:
        shutil.copyfile(base / "head.onnx", target / "head.onnx")
    else:
        convert(base, target, name, precision, used)
        cache.store(target)


def convert(base: Path, target: Path, engine: str, precision: str, views: NDArray[np.uint8] | None) -> None:
    """Make the network in ``target`` from that of onnxruntime-fp32 in ``base``; ``views`` set the ranges of int8.

    Raises:
        ConfigError: the engine does not have this precision.
    """
    if engine == "openvino":
        from workzone.export.openvino import to_openvino

        to_openvino(base, target, "int8" if precision == "int8" else "fp32", views)
    elif precision == "int8":
        from workzone.export.quantise import quantise_onnx

        assert views is not None
        quantise_onnx(base, target, views)
    else:
        raise ConfigError(f"{engine} has no {precision}", where="--precision", fix="see docs/how-to/variants.md")


def range_views(
    images: RoleData, pre: Preprocessing, *, count: int, seed: int, progress: Progress
) -> NDArray[np.uint8]:
    """Views of ``count`` images, drawn evenly over them: they set the ranges of int8."""
    assert images.paths is not None
    count = min(count, len(images))
    chosen = np.linspace(0, len(images) - 1, count).round().astype(int)
    rng = np.random.default_rng(seed)
    kept = []

    def fail(index: int, error: Exception) -> None:
        raise error

    paths = [Path(p) for p in images.paths[chosen].tolist()]
    with progress.bar("views for the ranges of int8") as advance:
        for done, pixels, _ in load_views(paths, pre, workers=2, on_error=fail):
            # The whole picture and two tiles of each image: tiles look different from whole pictures.
            tiles = rng.choice(np.arange(1, len(pixels)), size=min(2, len(pixels) - 1), replace=False)
            kept.append(pixels[[0, *tiles.tolist()]])
            advance(done + 1, count)
    return np.concatenate(kept)


def _golden_images(context: Context, select: SelectData) -> list[Path]:
    """Store images of val_select, half of them roadwork; twice as many as asked, as bundles drop borderline ones."""
    assert select.paths is not None
    folder = context.artifacts.golden
    _fresh(folder)
    want = context.config.export.golden
    chosen: list[int] = []
    for label in (1, 0):
        rows = np.flatnonzero(select.labels == label)
        chosen += np.unique(rows[np.linspace(0, len(rows) - 1, min(want, len(rows))).round().astype(int)]).tolist()
    stored = []
    for i, row in enumerate(chosen):
        image = decode(Path(str(select.paths[row])), max_pixels=context.config.compute.max_pixels)
        image.thumbnail((_GOLDEN_SIDE, _GOLDEN_SIDE))
        target = folder / f"{i:02d}.png"
        with atomic_path(target) as partial:
            image.save(partial, format="PNG", optimize=True)
        stored.append(target)
    return stored


def _parity(context: Context, golden: list[Path], wanted: list[str], head: Ensemble) -> dict[str, Any]:
    """Log-odds of each golden image by torch and by each engine; an fp32 engine beyond the tolerance stops the run."""
    import torch

    from workzone.bundle.engines.base import VIEWS_PER_PASS
    from workzone.bundle.parallel import embed_views
    from workzone.export.parity import compare
    from workzone.models.backbones import create_backbone, load_backbone

    config, artifacts = context.config, context.artifacts
    stored = stores_backbone(config)
    backbone = (load_backbone(artifacts.adapted) if stored else create_backbone(config.model)).eval()
    pre = read_preprocessing(context)
    result: dict[str, list[float]] = {name: [] for name in ("torch", *wanted)}
    views: dict[str, list[list[float]]] = {name: [] for name in ("torch", *wanted)}
    embeddings: dict[str, list[NDArray[np.float32]]] = {name: [] for name in ("torch", *wanted)}
    engines = {v: open_variant(context, v) for v in wanted}

    def fail(index: int, error: Exception) -> None:
        raise error

    with context.progress.bar("comparing engines with torch") as advance, torch.inference_mode():
        for done, pixels, boxes in load_views(golden, pre, workers=2, on_error=fail):
            mask = np.ones((1, len(pixels)), dtype=np.bool_)
            embedded = torch.cat([backbone(part) for part in torch.from_numpy(pixels).split(VIEWS_PER_PASS)])  # type: ignore[no-untyped-call]
            out = head(embedded[None], torch.from_numpy(boxes[None]), torch.from_numpy(mask))
            result["torch"].append(float(out[0][0]))
            views["torch"].append(out[1][0].tolist())
            embeddings["torch"].append(embedded.numpy())
            for name, engine in engines.items():
                own = embed_views(engine, pixels)
                scores = engine.aggregate(own[None], boxes[None], mask)
                embeddings[name].append(own)
                result[name].append(float(scores.log_odds[0]))
                views[name].append(scores.view_log_odds[0].tolist())
            advance(done + 1, len(golden))
    arrays = {
        name: {
            "log_odds": np.array(result[name]),
            "view_log_odds": np.concatenate([np.array(row) for row in views[name]]),
            "embeddings": np.concatenate(embeddings[name]),
        }
        for name in result
    }
    summary = {}
    for name in wanted:
        comparison = compare(arrays["torch"], arrays[name])
        outputs = comparison.outputs
        tolerance = config.export.tolerance if name.endswith("fp32") else None
        summary[name] = {
            "max_difference": outputs["log_odds"].largest,
            "mean_difference": outputs["log_odds"].mean,
            "max_difference_of_a_view": outputs["view_log_odds"].largest,
            "least_cosine_of_embeddings": outputs["embeddings"].cosine_least,
            "tolerance": tolerance,
        }
        context.progress.message(f"  {name}: log-odds differ from torch by at most {outputs['log_odds'].largest:.2g}")
        if tolerance is not None:
            comparison.require(tolerance, where=str(artifacts.engine(name)))
    return {"images": [p.name for p in golden], "log_odds": result, "view_log_odds": views, "engines": summary}


SPEC = PhaseSpec(
    name="export",
    version=2,
    config=("seed", *ENGINE_KEYS, "export.int8_images", "export.golden", "export.tolerance", "model", "train.method"),
    inputs=lambda a, c: [
        a.manifest,
        a.splits,
        a.preprocessing,
        a.backbone_onnx / "backbone.onnx",
        *a.head_files(a.train, "probe"),
        *a.head_files(a.fuse, "fusion"),
        *([a.adapted] if stores_backbone(c) else []),
    ],
    outputs=lambda a, c: [
        a.parity,
        a.one_view_head,
        a.golden,
        *(a.engine(v) for v in dict.fromkeys([*variants(c), "onnxruntime-fp32"])),
    ],
    roles=(TrainData.role, SelectData.role),
    run=_run,
)
