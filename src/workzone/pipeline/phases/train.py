"""Phase train: adapt the backbone, write it as the network that embeds from here on, train the one-view head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workzone.bundle.embedding import ViewEmbeddings
from workzone.bundle.engines.onnxruntime import OnnxRuntimeEngine
from workzone.data.roles import RoleData, SelectData, TrainData
from workzone.files import write_json
from workzone.pipeline.phase import Context, PhaseSpec
from workzone.pipeline.phases.embedding import embed_role
from workzone.pipeline.tracking import track
from workzone.vision import Preprocessing

if TYPE_CHECKING:
    from workzone.training.features import Features
    from workzone.training.fuse import HeadFit


def _run(context: Context) -> None:
    from workzone.export.onnx import export_backbone
    from workzone.models.backbones import create_backbone
    from workzone.models.storage import save_head
    from workzone.training.probe import fit_probe

    config, artifacts = context.config, context.artifacts
    train, select = context.open(TrainData), context.open(SelectData)
    settings = config.train
    backbone = create_backbone(config.model, drop_path=settings.drop_path, checkpointing=settings.checkpointing)
    pre = Preprocessing(image_size=backbone.image_size, views=config.views)
    curve: dict[str, object] = {}
    if settings.method != "frozen":
        from workzone.training.adapt import adapt_backbone

        context.progress.message(f"  adapting {config.model.backbone} ({settings.method})")
        adapted = adapt_backbone(
            backbone,
            train,
            select,
            settings,
            folder=artifacts.train,
            seed=config.seed,
            device=config.compute.device,
            workers=config.compute.workers,
            tracking=config.tracking,
        )
        backbone, curve = adapted.backbone, adapted.metrics
    write_json(artifacts.preprocessing, pre.model_dump(mode="json"))
    context.progress.message("  writing the backbone as ONNX")
    export_backbone(backbone, artifacts.backbone_onnx)
    if settings.method != "frozen":
        from workzone.models.backbones import save_backbone

        save_backbone(backbone, artifacts.adapted)
    engine = OnnxRuntimeEngine.open(artifacts.backbone_onnx, threads=config.compute.threads, head=False)
    features = {data.role: _features(context, data, engine) for data in (train, select)}
    with context.progress.bar("training the head of one view") as advance:
        fit = fit_probe(features[train.role], features[select.role], settings, seed=config.seed, progress=advance)
    save_head(fit.head, artifacts.train, name="probe")
    track_heads(context, fit)
    write_json(artifacts.train_metrics, {"adaptation": curve, "probe": fit.metrics(), "licence": backbone.licence})


def track_heads(context: Context, fit: HeadFit) -> None:
    """Curve of each member and the figures of the ensemble, to the loggers of the run."""
    curves = {f"member{i}": member.history for i, member in enumerate(fit.members)}
    track(context.config, context.artifacts.tracking, context.spec.name, curves=curves, figures=fit.scores)


def _features(context: Context, data: RoleData, engine: OnnxRuntimeEngine) -> Features:
    views = embed_role(context, data, engine, "train/onnx")
    return to_features(views, data)


def to_features(views: ViewEmbeddings, data: RoleData) -> Features:
    """Embeddings and labels of one role, as the heads train on them."""
    from workzone.training.features import Features

    return Features(views.embeddings, views.boxes, views.mask, data.labels, data.role)


SPEC = PhaseSpec(
    name="train",
    version=1,
    config=("seed", "views", "model", "train"),
    inputs=lambda a, c: [a.manifest, a.splits],
    outputs=lambda a, c: [
        a.backbone_onnx,
        a.preprocessing,
        *a.head_files(a.train, "probe"),
        a.train_metrics,
        *([a.adapted] if c.train.method != "frozen" else []),
    ],
    roles=(TrainData.role, SelectData.role),
    run=_run,
)
