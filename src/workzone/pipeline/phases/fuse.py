"""Phase fuse: train the aggregator over the views of an image; backbone frozen, features cached."""

from __future__ import annotations

from workzone.bundle.engines.onnxruntime import OnnxRuntimeEngine
from workzone.data.roles import SelectData, TrainData
from workzone.files import write_json
from workzone.pipeline.phase import Context, PhaseSpec
from workzone.pipeline.phases.embedding import embed_role
from workzone.pipeline.phases.train import to_features, track_heads


def _run(context: Context) -> None:
    from workzone.models.storage import save_head
    from workzone.training.fuse import fit_aggregator

    config, artifacts = context.config, context.artifacts
    engine = OnnxRuntimeEngine.open(artifacts.backbone_onnx, threads=config.compute.threads, head=False)
    train, select = context.open(TrainData), context.open(SelectData)
    features = [to_features(embed_role(context, data, engine, "train/onnx"), data) for data in (train, select)]
    views = features[0].embeddings.shape[1]
    with context.progress.bar(f"training {config.fuse.aggregator} over {views} views") as advance:
        fit = fit_aggregator(features[0], features[1], config.fuse, seed=config.seed, progress=advance)
    save_head(fit.head, artifacts.fuse, name="fusion")
    write_json(artifacts.fuse_metrics, fit.metrics())
    track_heads(context, fit)
    shown = ", ".join(f"{k} {v:.3f}" for k, v in fit.scores.items())
    context.progress.message(f"  on val_select ({len(select)} images, {select.n_positive} roadwork): {shown}")


SPEC = PhaseSpec(
    name="fuse",
    version=1,
    config=("seed", "fuse"),
    inputs=lambda a, c: [a.manifest, a.splits, a.backbone_onnx / "backbone.onnx", a.preprocessing],
    outputs=lambda a, c: [*a.head_files(a.fuse, "fusion"), a.fuse_metrics],
    roles=(TrainData.role, SelectData.role),
    run=_run,
)
