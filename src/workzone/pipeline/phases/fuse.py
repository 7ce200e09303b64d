"""Phase fuse: train the aggregator over the views of an image; backbone frozen, features cached."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from workzone.bundle.engines.onnxruntime import OnnxRuntimeEngine
from workzone.config.run import FuseConfig
from workzone.data.roles import RoleData, SelectData, TrainData
from workzone.errors import DataError
from workzone.files import write_json
from workzone.pipeline.phase import Context, PhaseSpec
from workzone.pipeline.phases.embedding import embed_role
from workzone.pipeline.phases.train import to_features, track_heads

if TYPE_CHECKING:
    from workzone.training.features import Features


def _run(context: Context) -> None:
    from workzone.models.storage import save_head
    from workzone.training.fuse import fit_aggregator

    config, artifacts = context.config, context.artifacts
    engine = OnnxRuntimeEngine.open(artifacts.backbone_onnx, threads=config.compute.threads, head=False)
    train, select = context.open(TrainData), context.open(SelectData)
    features = [to_features(embed_role(context, data, engine, "train/onnx"), data) for data in (train, select)]
    if config.fuse.hard_negative_weight != 1.0:
        marked = train.columns.get("hard_negative")
        features[0] = features[0].with_hard_negatives(marked, config.fuse.hard_negative_weight)
    features[0] = mixed(features[0], train, config.fuse)
    views = features[0].embeddings.shape[1]
    with context.progress.bar(f"training {config.fuse.aggregator} over {views} views") as advance:
        fit = fit_aggregator(features[0], features[1], config.fuse, seed=config.seed, progress=advance)
    save_head(fit.head, artifacts.fuse, name="fusion")
    write_json(artifacts.fuse_metrics, fit.metrics())
    track_heads(context, fit)
    shown = ", ".join(f"{k} {v:.3f}" for k, v in fit.scores.items())
    context.progress.message(f"  on val_select ({len(select)} images, {select.n_positive} roadwork): {shown}")


def mixed(features: Features, data: RoleData, config: FuseConfig) -> Features:
    """``features`` with the weights and data sets that ``config.mixture`` and ``config.dann`` ask for.

    Raises:
        DataError: the manifest does not hold them.
    """
    from workzone.training.datasets import usable_weights

    if config.mixture != "none":
        draw, weigh = (usable_weights(data, name, "fuse.mixture") for name in ("sample_weight", "loss_weight"))
        before = 1.0 if features.weights is None else features.weights
        features = replace(features, draw=draw, weights=(before * weigh).astype(np.float32))
    if config.mixture == "adaptive" or config.dann:
        named = data.columns.get("domain_set", data.columns.get("source"))
        if named is None:
            raise DataError("the images have no column domain_set or source", where="fuse.mixture or fuse.dann")
        features = replace(features, sets=np.unique(named, return_inverse=True)[1].astype(np.int64))
    return features


SPEC = PhaseSpec(
    name="fuse",
    version=1,
    config=("seed", "fuse"),
    inputs=lambda a, c: [a.manifest, a.splits, a.backbone_onnx / "backbone.onnx", a.preprocessing],
    outputs=lambda a, c: [*a.head_files(a.fuse, "fusion"), a.fuse_metrics],
    roles=(TrainData.role, SelectData.role),
    run=_run,
)
