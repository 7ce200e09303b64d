"""Embeddings of a role's images, shared by the phases that look at pixels."""

from __future__ import annotations

import numpy as np

from workzone.bundle.embedding import ViewEmbeddings
from workzone.bundle.engines import Engine, open_engine
from workzone.data.roles import RoleData
from workzone.files import read_json
from workzone.pipeline.embedding import through_cache
from workzone.pipeline.phase import Context
from workzone.predictions import Predictions
from workzone.vision import Preprocessing


def read_preprocessing(context: Context) -> Preprocessing:
    """The preprocessing that phase train wrote."""
    return Preprocessing.model_validate(read_json(context.artifacts.preprocessing))


def open_variant(context: Context, variant: str) -> Engine:
    """Engine of an exported variant such as ``onnxruntime-fp32``."""
    name, _, precision = variant.partition("-")
    return open_engine(
        name, context.artifacts.engine(variant), precision=precision, threads=context.config.compute.threads
    )


def embed_role(context: Context, data: RoleData, engine: Engine, backbone_folder: str) -> ViewEmbeddings:
    """Embeddings of all images of ``data``; known ones come from the cache."""
    assert data.paths is not None
    return through_cache(
        f"embedding {data.role}, {engine.name}-{engine.precision}",
        data.paths.tolist(),
        data.columns["sha256"].tolist(),
        engine,
        read_preprocessing(context),
        context.artifacts.root / backbone_folder / engine.backbone_file,
        context.config,
        context.progress,
    )


def score_role(context: Context, data: RoleData, engine: Engine, variant: str) -> tuple[Predictions, ViewEmbeddings]:
    """Scores of one exported variant on a role, with the metadata of its images."""
    views = embed_role(context, data, engine, f"export/{variant}")
    scores = engine.aggregate(views.embeddings, views.boxes, views.mask)
    assert data.paths is not None
    columns = {**data.columns, "group": data.groups, "path": data.paths}
    predictions = Predictions(
        ids=data.ids,
        log_odds=scores.log_odds,
        labels=data.labels,
        view_log_odds=scores.view_log_odds,
        columns=columns,
    )
    return predictions, views


def one_view_log_odds(context: Context, views: ViewEmbeddings) -> np.ndarray:
    """Log-odds (N,) of the head that sees the global view only."""
    from workzone.bundle.engines.onnxruntime import OnnxRuntimeEngine

    head = OnnxRuntimeEngine.open_head(context.artifacts.one_view_head)
    return head(views.embeddings[:, :1], views.boxes[:, :1], views.mask[:, :1]).log_odds
