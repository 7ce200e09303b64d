"""Phase train: adapt the backbone, write it as the network that embeds from here on, train the one-view head."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from workzone.bundle.embedding import ViewEmbeddings
from workzone.bundle.engines.onnxruntime import OnnxRuntimeEngine
from workzone.config import RunConfig
from workzone.config.run import TrainConfig
from workzone.data.roles import RoleData, SelectData, TrainData
from workzone.files import read_json, write_json
from workzone.pipeline.backbone_cache import write_backbone
from workzone.pipeline.phase import Context, PhaseSpec
from workzone.pipeline.phases.embedding import embed_role
from workzone.pipeline.tracking import track
from workzone.vision import Preprocessing

if TYPE_CHECKING:
    from workzone.models.backbones import Backbone
    from workzone.training.features import Features
    from workzone.training.fuse import HeadFit


def _run(context: Context) -> None:
    from workzone.models.backbones import create_backbone, load_backbone
    from workzone.models.storage import save_head
    from workzone.training.check import check_settings
    from workzone.training.datasets import check_names
    from workzone.training.probe import fit_probe

    config, artifacts = context.config, context.artifacts
    check_settings(config)
    train, select = context.open(TrainData), context.open(SelectData)
    settings = config.train
    check_names(train, settings)
    if config.pretrain.method == "none":
        backbone = create_backbone(config.model, drop_path=settings.drop_path, checkpointing=settings.checkpointing)
    else:
        backbone = load_backbone(artifacts.pretrain, drop_path=settings.drop_path, checkpointing=settings.checkpointing)
    pre = Preprocessing(image_size=backbone.image_size, image_width=backbone.image_width, views=config.views)
    curve: dict[str, object] = {}
    if settings.method != "frozen":
        if config.augment.search:
            settings = settings.model_copy(update={"augment": read_json(artifacts.augmentation)["augment"]})
        context.progress.message(f"  adapting {config.model.backbone} ({settings.method})")
        backbone, curve = _adapt(context, backbone, train, select, settings)
    write_json(artifacts.preprocessing, pre.model_dump(mode="json"))
    context.progress.message("  writing the backbone as ONNX")
    if stores_backbone(config):
        from workzone.export.onnx import export_backbone
        from workzone.models.backbones import save_backbone

        export_backbone(backbone, artifacts.backbone_onnx)
        save_backbone(backbone, artifacts.adapted)
    else:
        write_backbone(backbone, artifacts.backbone_onnx, config)
    engine = OnnxRuntimeEngine.open(artifacts.backbone_onnx, threads=config.compute.threads, head=False)
    features = {data.role: _features(context, data, engine) for data in (train, select)}
    features[train.role] = _weighed(features[train.role], train, settings)
    with context.progress.bar("training the head of one view") as advance:
        fit = fit_probe(features[train.role], features[select.role], settings, seed=config.seed, progress=advance)
    save_head(fit.head, artifacts.train, name="probe")
    track_heads(context, fit)
    write_json(artifacts.train_metrics, {"adaptation": curve, "probe": fit.metrics(), "licence": backbone.licence})


def _weighed(features: Features, data: TrainData, settings: TrainConfig) -> Features:
    """``features`` with the weights of the manifest, where ``train.mixture`` says so."""
    from workzone.training.datasets import data_sets

    if settings.mixture == "none":
        return features
    known = data_sets(data, settings)
    assert known.draw is not None
    assert known.weights is not None
    return replace(features, draw=known.draw.numpy(), weights=known.weights.numpy())


def _adapt(
    context: Context, backbone: Backbone, train: TrainData, select: SelectData, settings: TrainConfig
) -> tuple[Backbone, dict[str, object]]:
    from workzone.training.adapt import adapt_backbone
    from workzone.training.distributed import adapt_distributed, launch_command

    config, folder = context.config, context.artifacts.train
    layout = config.views if settings.views else None
    device, workers = config.compute.device, config.compute.workers
    if settings.processes * settings.nodes == 1:
        adapted = adapt_backbone(
            backbone, train, select, settings, folder=folder, seed=config.seed, device=device, workers=workers,
            tracking=config.tracking, layout=layout,
        )  # fmt: skip
        return adapted.backbone, adapted.metrics
    if settings.nodes > 1 and settings.launcher != "ray":
        command = " ".join(launch_command(settings, folder / "job"))
        context.progress.message(f"  waiting for {settings.nodes - 1} more machines to run: {command}")
    return adapt_distributed(
        backbone, train, select, settings, folder=folder, seed=config.seed, device=device, workers=workers,
        tracking=config.tracking, layout=layout,
    )  # fmt: skip


def stores_backbone(config: RunConfig) -> bool:
    """Whether the backbone of the run is another than the one that was given."""
    return config.train.method != "frozen" or config.pretrain.method != "none"


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

    groups = np.unique(data.groups, return_inverse=True)[1].astype(np.int64)
    return Features(views.embeddings, views.boxes, views.mask, data.labels, data.role, groups=groups)


SPEC = PhaseSpec(
    name="train",
    version=1,
    config=("seed", "views", "model", "train"),
    inputs=lambda a, c: [
        a.manifest,
        a.splits,
        *(a.pretrained if c.pretrain.method != "none" else []),
        *([a.augmentation] if c.augment.search else []),
    ],
    outputs=lambda a, c: [
        a.backbone_onnx,
        a.preprocessing,
        *a.head_files(a.train, "probe"),
        a.train_metrics,
        *([a.adapted] if stores_backbone(c) else []),
    ],
    roles=(TrainData.role, SelectData.role),
    run=_run,
)
