"""Terms of the self-supervised losses on the outputs of heads, computed in float32, over all processes of a group."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F


def processes() -> int:
    """Processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def total(value: Tensor) -> Tensor:
    """Sum of ``value`` over all processes; ``value`` itself when there is one."""
    if processes() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def byol_term(predictions: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Mean of ``2 - 2 cos`` between the prediction of one large crop and the target of the other (arXiv 2006.07733)."""
    pairs = [(p, t) for i, p in enumerate(predictions) for j, t in enumerate(targets) if i != j]
    return torch.stack(
        [2 - 2 * F.cosine_similarity(p.float(), t.detach().float(), dim=-1).mean() for p, t in pairs]
    ).mean()


def dino_term(
    students: Sequence[Tensor], teachers: Sequence[Tensor], centre: Tensor, *, student: float, teacher: float
) -> Tensor:
    """Mean cross-entropy between the teacher on each large crop and the student on every other crop (arXiv 2104.14294).

    Args:
        students: logits (B, K) of all crops, the large ones first.
        teachers: logits (B, K) of the large crops.
        centre: (K,) running mean of the teacher's logits.
        student: temperature.
        teacher: temperature, below the student's.
    """
    wanted = [F.softmax((t.detach().float() - centre) / teacher, dim=-1) for t in teachers]
    given = [F.log_softmax(s.float() / student, dim=-1) for s in students]
    parts = [-(w * g).sum(-1).mean() for i, w in enumerate(wanted) for j, g in enumerate(given) if i != j]
    return torch.stack(parts).mean()


@torch.no_grad()
def sinkhorn(scores: Tensor, *, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Codes (B, K) that give every prototype the same share of the features (Cuturi 2013; arXiv 2006.09882).

    Rows sum to 1; column sums come out equal over the features of all processes together.
    """
    # Shifting all scores by one number changes nothing and keeps the exponential finite.
    top = scores.float().max()
    if processes() > 1:
        dist.all_reduce(top, dist.ReduceOp.MAX)
    q = ((scores.float() - top) / epsilon).exp()
    count = total(torch.tensor(float(len(q)), device=q.device))
    for _ in range(iterations):
        q = q / total(q.sum(dim=0)).clamp_min(1e-30) / q.shape[1]
        q = q / q.sum(dim=1, keepdim=True).clamp_min(1e-30) / count
    return q * count


def swav_term(
    scores: Sequence[Tensor], earlier: Sequence[Tensor | None], large: int, temperature: float = 0.1
) -> Tensor:
    """Mean cross-entropy between the codes of each large crop and the predictions from every other crop.

    Args:
        scores: (B, K) of all crops, the large ones first.
        earlier: scores (Q, K) of queued features of each large crop, which join in making its codes.
        large: number of large crops.
        temperature: of the predictions.
    """
    parts = []
    for i in range(large):
        own, queued = scores[i].detach(), earlier[i]
        codes = sinkhorn(own if queued is None else torch.cat([own, queued]))[: len(own)]
        for j, given in enumerate(scores):
            if i != j:
                parts.append(-(codes * F.log_softmax(given.float() / temperature, dim=-1)).sum(-1).mean())
    return torch.stack(parts).mean()


def koleo_term(features: Tensor, epsilon: float = 1e-8) -> Tensor:
    """Mean negative logarithm of the distance to the nearest neighbour in the batch (arXiv 1806.03198)."""
    x = F.normalize(features.float(), dim=-1, eps=epsilon)
    with torch.no_grad():
        near = (x @ x.T).fill_diagonal_(-1).argmax(dim=1)
    return -(F.pairwise_distance(x, x[near], eps=epsilon) + epsilon).log().mean()


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy of the rows of ``probabilities`` (N, K) as a share of log K."""
    return (
        -(probabilities * probabilities.clamp_min(1e-12).log()).sum(-1)
        / torch.tensor(float(probabilities.shape[-1])).log()
    )
