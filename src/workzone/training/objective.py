"""What a head on cached features is trained by: labels of images, and of single views where there are any."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from workzone.models.aggregators import Aggregator
from workzone.training.losses import Loss, LossInput
from workzone.training.losses.cross_entropy import CrossEntropy
from workzone.training.losses.hidden import Hidden

if TYPE_CHECKING:
    from workzone.training.exits import Exits
    from workzone.training.loop import LoopSettings, TensorFeatures
    from workzone.training.mixture import Adversary


def bag_loss(
    model: Aggregator,
    data: TensorFeatures,
    rows: Tensor,
    mask: Tensor,
    settings: LoopSettings,
    *,
    loss: Loss | None = None,
    epoch: int = 0,
    adversary: Adversary | None = None,
    exits: Exits | None = None,
) -> Tensor:
    """Loss of the images ``rows``, plus the cross-entropy of the views that carry a label.

    Args:
        mask: (B, V) views that are shown at this step.
        loss: loss of the images, None for cross-entropy.
        epoch: epochs done before.
        adversary: term that hides the data set from the hidden units, None for none.
        exits: early stages of a cascade, None for the whole picture alone and no loss of its own.
    """
    embeddings, boxes, labels = data.embeddings[rows], data.boxes[rows], data.labels[rows]
    weights = None if data.weights is None else data.weights[rows]
    if settings.mixup:
        partner = torch.randperm(len(rows), device=rows.device)
        share = mixup_shares(settings.mixup, data.mask[rows], boxes, partner)
        embeddings = mix(embeddings, partner, share)
        labels = mix(labels, partner, share)
        weights = None if weights is None else mix(weights, partner, share)
        # A view of a partner exists where the image's own does, so one mask serves both.
    loss = CrossEntropy() if loss is None else loss
    watched = Hidden(model) if "embeddings" in loss.needs or adversary is not None else None
    with watched or nullcontext():
        log_odds, views, shares = model.combine(embeddings, boxes, mask)
    early = [views[:, 0]] if exits is None else exits.log_odds(model, embeddings, boxes, mask)
    batch = LossInput(
        log_odds,
        labels,
        embeddings=None if watched is None or "embeddings" not in loss.needs else watched.pooled(shares),
        weights=weights,
        groups=None if data.groups is None else data.groups[rows],
        # The cheap stages of a cascade see the whole image and a few tiles, the last one all views.
        stage_logits=torch.stack([*early, log_odds], dim=1) if views.shape[1] > 1 else None,
        epoch=epoch,
    )
    value: Tensor = loss(batch)
    if exits is not None:
        value = value + exits.value(early, batch)
    if adversary is not None and watched is not None:
        value = value + adversary(watched.pooled(shares), rows, epoch / settings.epochs)
    if data.instances is None or not settings.instance_weight:
        return value
    instances = data.instances[rows]
    if settings.mixup:
        instances = mix(instances, partner, share)
    return value + settings.instance_weight * instance_loss(views, instances, mask)


def instance_loss(view_log_odds: Tensor, instances: Tensor, mask: Tensor) -> Tensor:
    """Binary cross-entropy of views (B, V) that exist and whose label is no NaN; 0 if there are none.

    Positive and negative views weigh the same in all: a negative image gives many, a positive one gives one.
    """
    known = mask & ~torch.isnan(instances)
    target = torch.where(known, instances, 0.0)
    each = F.binary_cross_entropy_with_logits(torch.where(known, view_log_odds, 0.0), target, reduction="none")
    total = each.new_zeros(())
    for share in (target, 1.0 - target):
        weight = share * known
        total = total + (each * weight).sum() / weight.sum().clamp_min(1.0) / 2.0
    return total


def mixup_shares(alpha: float, mask: Tensor, boxes: Tensor, partner: Tensor) -> Tensor:
    """Share (B,) of each image in its mix, at least one half; 1 where the partner has other views.

    Drawn from Beta(alpha, alpha). Embeddings of views are mixed by position, as in manifold MixUp (Verma et al. 2019,
    arXiv 1806.05236), so both images must have the same views.
    """
    concentration = torch.tensor(alpha)
    share = torch.distributions.Beta(concentration, concentration).sample((len(partner),)).to(boxes)
    share = torch.maximum(share, 1.0 - share)
    same_views = (mask == mask[partner]).all(dim=1)
    same_boxes = ((boxes - boxes[partner]).abs().amax(dim=-1) < 1e-3).logical_or(~mask).all(dim=1)
    return torch.where(same_views & same_boxes, share, 1.0)


def mix(values: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    """``share`` of ``values`` (B, ...) and the rest of their partners'; a share of 1 leaves a value as it is."""
    weight = share.reshape(-1, *[1] * (values.ndim - 1))
    return torch.where(weight < 1.0, weight * values + (1.0 - weight) * values[partner], values)
