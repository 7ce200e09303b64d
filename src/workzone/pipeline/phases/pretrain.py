"""Phase pretrain: let the backbone learn from the images of role train without their labels, before it is trained."""

from __future__ import annotations

from pathlib import Path

from workzone.config import RunConfig
from workzone.data.roles import TrainData
from workzone.errors import DataError
from workzone.files import atomic_path, write_json
from workzone.pipeline.artifacts import Artifacts
from workzone.pipeline.phase import Context, PhaseSpec
from workzone.pipeline.reading import listing_hash, workers
from workzone.pipeline.tracking import track


def _run(context: Context) -> None:
    from workzone.bundle.embedding import default_cache_folder
    from workzone.data.manifest import Manifest
    from workzone.data.splits import Splits
    from workzone.models.backbones import save_backbone
    from workzone.training.check import check_settings
    from workzone.training.pretraining.pool import gather
    from workzone.training.pretraining.run import pretrain_backbone

    config, artifacts, settings = context.config, context.artifacts, context.config.pretrain
    check_settings(config)
    context.open(TrainData)
    manifest, splits = Manifest.load(artifacts.manifest), Splits.load(artifacts.splits)
    with context.progress.bar("reading images without labels") as advance:
        pool = gather(
            manifest,
            splits,
            unlabelled=settings.unlabelled,
            limit=settings.max_unlabelled,
            seed=config.seed,
            workers=workers(config),
            progress=advance,
        )
    told = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in pool.counts.items() if count)
    context.progress.message(f"  {pool.frame.height} images: {told}")
    done = pretrain_backbone(
        config.model,
        settings,
        pool,
        seed=config.seed,
        folder=artifacts.pretrain,
        cache=config.cache.folder or default_cache_folder(),
        report=context.progress,
        device=config.compute.device,
        workers=workers(config),
        max_pixels=config.compute.max_pixels,
    )
    save_backbone(done.backbone, artifacts.pretrain)
    with atomic_path(artifacts.pool) as partial:
        pool.frame.drop("path").write_parquet(partial)
    write_json(artifacts.pretrain_metrics, done.metrics)
    checks = [row["check"] for row in done.metrics["history"] if "check" in row]
    curve = [{k: v for k, v in row.items() if isinstance(v, int | float)} for row in done.metrics["history"]]
    figures = {f"{name}_auroc": checks[-1][name]["auroc"] for name in ("knn", "linear")} if checks else {}
    track(config, artifacts.tracking, context.spec.name, curves={"pretrain": curve}, figures=figures)
    if len(checks) > 1:
        for name, title in (("knn", "neighbours"), ("linear", "linear model")):
            told = " -> ".join(_text(c[name]) for c in (checks[0], checks[-1]))
            context.progress.message(f"  AUROC by {title}, role train by group folds, n={checks[0]['n']}: {told}")


def _text(found: dict[str, float]) -> str:
    return f"{found['auroc']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def outside(config: RunConfig) -> str:
    """Hash of names, sizes and times of the further images; raises DataError where their place does not exist."""
    place = config.pretrain.unlabelled
    if place is None:
        return "none"
    if not place.exists():
        raise DataError("there is no such folder or table", where=str(place), fix="check pretrain.unlabelled")
    from workzone.data.sources.unlabelled import UnlabelledSource

    return listing_hash(UnlabelledSource().read(place))


def _inputs(artifacts: Artifacts, config: RunConfig) -> list[Path]:
    teacher = config.pretrain.teacher_weights
    files = [Path(teacher)] if config.pretrain.method == "distil" and teacher not in (None, "hub") else []
    return [artifacts.manifest, artifacts.splits, *files]


SPEC = PhaseSpec(
    name="pretrain",
    version=1,
    config=("seed", "model", "pretrain"),
    inputs=_inputs,
    outputs=lambda a, c: [*a.pretrained, a.pretrain_metrics, a.pool],
    roles=(TrainData.role,),
    run=_run,
    outside=outside,
    wanted=lambda c: c.pretrain.method != "none",
)
