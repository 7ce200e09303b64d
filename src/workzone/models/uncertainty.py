"""Stochastic passes, ensemble members and evidence of trained heads, as ``workzone.decisions.uncertainty`` reads them.

``from_samples(sigmoid(sample_log_odds(...)))`` and ``from_samples(sigmoid(member_log_odds(...)))`` give the measures of
Monte-Carlo dropout and of an ensemble, ``from_evidence(evidence_alpha(...))`` those of an evidential head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workzone.errors import ConfigError
from workzone.models.aggregators import Aggregator, Ensemble
from workzone.models.heads import FeatureDropout
from workzone.predictions import FloatArray

_DROPOUT = (nn.Dropout, FeatureDropout)
_BATCH = 1024


@torch.no_grad()
def sample_log_odds(
    head: Aggregator | Ensemble, embeddings: Tensor, boxes: Tensor, mask: Tensor, samples: int, seed: int
) -> FloatArray:
    """Log-odds (S, N) of ``samples`` passes with dropout on, and everything else in evaluation mode.

    Monte-Carlo dropout (Gal, Ghahramani 2016, arXiv 1506.02142) over the head alone; the embeddings stay as they are.
    The same arguments give the same numbers. The modes of ``head`` and torch's random state are left as they were.

    Args:
        head: trained head.
        embeddings: (N, V, D), see ``Aggregator.forward``.
        boxes: (N, V, 4).
        mask: (N, V).
        samples: passes S >= 2.
        seed: seed of the dropout masks.

    Raises:
        ConfigError: the head has no dropout, so that every pass would be the same.
        ValueError: fewer than two samples.
    """
    if samples < 2:
        raise ValueError(f"at least 2 samples are needed, got {samples}")
    devices = [embeddings.device] if embeddings.device.type == "cuda" else []
    out = np.empty((samples, len(embeddings)))
    with _dropout_on(head), torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        for sample in out:
            sample[:] = _scores(head, embeddings, boxes, mask)
    return out


@torch.no_grad()
def member_log_odds(head: Ensemble, embeddings: Tensor, boxes: Tensor, mask: Tensor) -> FloatArray:
    """Log-odds (M, N) of each member of a trained ensemble, in evaluation mode; shapes as in ``sample_log_odds``.

    Raises:
        ConfigError: there is one member only, which cannot disagree.
    """
    if len(head.members) < 2:
        raise ConfigError("an ensemble of one head has no disagreement", where="fuse.members", fix="use fuse.members=5")
    head.eval()
    return np.stack([_scores(member, embeddings, boxes, mask) for member in head.members])


def evidence_alpha(logits: Tensor) -> FloatArray:
    """Dirichlet parameters (N, K) of the logits (N, K) of an evidential head: softplus(logits) + 1."""
    return (F.softplus(logits.detach().double()) + 1.0).cpu().numpy()


@contextmanager
def _dropout_on(head: nn.Module) -> Iterator[None]:
    before = {module: module.training for module in head.modules()}
    head.eval()
    live = [m for m in head.modules() if isinstance(m, _DROPOUT) and m.p > 0.0]
    try:
        if not live:
            raise ConfigError(
                "the head was built without dropout, so every pass gives the same score",
                where="fuse.dropout",
                fix="train a head with dropout above 0, or use the members of an ensemble",
            )
        for layer in live:
            layer.train()
        yield
    finally:
        for module, training in before.items():
            module.training = training


def _scores(head: nn.Module, embeddings: Tensor, boxes: Tensor, mask: Tensor) -> FloatArray:
    parts = []
    for start in range(0, len(embeddings), _BATCH):
        rows = slice(start, start + _BATCH)
        # Anything may stand where there is no view, NaN included.
        known = torch.where(mask[rows].unsqueeze(-1), embeddings[rows], 0.0)
        parts.append(head(known, boxes[rows], mask[rows])[0])
    return torch.cat(parts).double().cpu().numpy()
