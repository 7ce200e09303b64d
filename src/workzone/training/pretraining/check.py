"""What features are worth so far: nearest neighbours and a linear model on labelled training images, by group folds."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from workzone.calibration.folds import group_folds
from workzone.metrics.bootstrap import bootstrap
from workzone.models.backbones import Backbone
from workzone.training.pretraining.images import StoredImages, cut

_NEIGHBOURS = 10
_TEMPERATURE = 0.07
_RESAMPLES = 200
_RIDGE = 1e-2
_BATCH = 32


@torch.no_grad()
def embed(
    backbone: Backbone, images: StoredImages, rows: NDArray[np.integer], side: int, device: str = "cpu"
) -> Tensor:
    """Embeddings (N, D) of whole images in evaluation mode; the mode of ``backbone`` is put back."""
    was = backbone.training
    backbone.eval()
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    parts = []
    for start in range(0, len(rows), _BATCH):
        batch = images.batch(rows[start : start + _BATCH]).to(device)
        pixels = cut(batch, whole.expand(len(batch), 4), side)
        parts.append(backbone.features(backbone.normalise(pixels)).float().cpu())
    backbone.train(was)
    return torch.cat(parts)


def check_features(
    embeddings: Tensor, labels: NDArray[np.integer], groups: NDArray[Any], *, folds: int, seed: int
) -> dict[str, Any]:
    """AUROC of out-of-fold scores by 10 nearest neighbours and by a ridge regression, with 95 % intervals over groups.

    Images of a group are in one fold, so that neighbours are never of the same place or drive.
    """
    fold = group_folds(labels.astype(np.int64), groups, folds, np.random.default_rng([seed, 11]))
    target = torch.from_numpy(labels.astype(np.float32))
    scores = {"knn": torch.zeros(len(labels)), "linear": torch.zeros(len(labels))}
    for k in range(folds):
        held = torch.from_numpy(fold == k)
        if not bool(held.any()) or bool(held.all()):
            continue
        scores["knn"][held] = _knn(embeddings[~held], target[~held], embeddings[held])
        scores["linear"][held] = _ridge(embeddings[~held], target[~held], embeddings[held])
    row: dict[str, Any] = {"n": len(labels), "groups": len(np.unique(groups))}
    for name, value in scores.items():
        given = value.clamp(0.0, 1.0).numpy() if name == "knn" else torch.sigmoid(value).numpy()
        found = bootstrap(["auroc"], labels, given, groups=groups, n_resamples=_RESAMPLES, seed=seed, workers=1)[
            "auroc"
        ]
        row[name] = {"auroc": float(found.value), "low": float(found.low), "high": float(found.high)}
    return row


def _knn(known: Tensor, labels: Tensor, asked: Tensor) -> Tensor:
    alike = F.normalize(asked, dim=-1) @ F.normalize(known, dim=-1).T
    near, rows = alike.topk(min(_NEIGHBOURS, alike.shape[1]), dim=1)
    weight = (near / _TEMPERATURE).softmax(dim=1)
    score: Tensor = (weight * labels[rows]).sum(dim=1)
    return score


def _ridge(known: Tensor, labels: Tensor, asked: Tensor) -> Tensor:
    mean, std = known.mean(dim=0), known.std(dim=0).clamp_min(1e-6)
    x, new = ((known - mean) / std).double(), ((asked - mean) / std).double()
    penalty = _RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    y = (labels - labels.mean()).double()
    found: Tensor = new @ torch.linalg.solve(x.T @ x + penalty, x.T @ y)
    return found.float()
