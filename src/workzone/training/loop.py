"""The one loop that trains heads on cached features.

Lightning costs about a second to start and a millisecond a step; a head trains in less than that. What decides the
result (optimiser, schedule, loss, selection figures) is shared with the image-level trainer.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from workzone.config.run import FuseConfig, TrainConfig
from workzone.errors import DataError
from workzone.models.aggregators import Aggregator
from workzone.models.standardise import Standardise
from workzone.training.exits import make_exits
from workzone.training.features import Features
from workzone.training.losses import Loss, Need, create_loss, require
from workzone.training.losses.hidden import score_layer
from workzone.training.mixture import adapt, first_shares, make_adversary
from workzone.training.objective import bag_loss
from workzone.training.optimisers import backward, find_method, make_optimizer, make_schedule
from workzone.training.products import ProductPrecision, products
from workzone.training.sampling import class_weights, easiest, epoch_rows, pace
from workzone.training.selection import select_scores
from workzone.training.weighted import draw_rows

log = logging.getLogger(__name__)

Metric = Literal["nll", "auroc", "mcc"]
Row = dict[str, float]
_SHARED = ("epochs", "batch_size", "lr", "weight_decay", "patience", "loss", "optimizer")


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """How a head is trained; see ``FuseConfig`` for the meaning of the keys.

    Attributes:
        metric: figure on the selection images that picks the epoch. NLL is the default: AUROC and MCC move in steps of
            one image and are blind to a score that drifts. Over six group-aware splits of real streets (about 120
            to 160 selection images) the epochs picked by NLL, AUROC and MCC had a test NLL of 0.193, 0.216 and
            0.223 and a test MCC of 0.80 (deviation 0.035), 0.80 (0.046) and 0.78 (0.10).
        min_delta: gain that counts as better for the patience.
        pos_weight: weight of a roadwork image in the loss; None for 1, so that scores keep the prevalence.
        mixup: alpha of MixUp between the embeddings of two images, 0 for none.
        instance_weight: weight of the labels of single views, where ``Features`` has any.
        loss: text of ``create_loss``.
        optimizer: member of ``OPTIMISERS``.
        class_balance: let both classes count the same, by weights in the loss or by drawing.
        curriculum: share of the epochs that go from easy images to all.
        adapt_every: epochs after which the shares of data sets follow their losses, 0 for never.
        dann: weight of the domain-adversarial term, 0 for none.
        stages: views seen by each early stage of a cascade, empty for the whole picture alone.
        exit_loss: text of the loss of the early stages' own scores, None for none.
        exit_weight: its weight.
        precision: of the factors of matrix products in training steps, see ``products``.
        where: section of the configuration, for messages.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    patience: int
    view_dropout: float = 0.0
    warmup: float = 0.1
    min_lr: float = 1e-6
    clip: float = 1.0
    min_delta: float = 1e-4
    metric: Metric = "nll"
    pos_weight: float | None = None
    mixup: float = 0.0
    instance_weight: float = 0.0
    loss: str = "cross_entropy"
    optimizer: str = "adamw"
    class_balance: Literal["none", "weights", "sampler"] = "none"
    curriculum: float = 0.0
    adapt_every: int = 0
    dann: float = 0.0
    stages: tuple[int, ...] = ()
    exit_loss: str | None = None
    exit_weight: float = 1.0
    precision: ProductPrecision = "fp32"
    where: str = "fuse"

    @classmethod
    def of(cls, config: FuseConfig | TrainConfig, **more: Any) -> LoopSettings:
        """The keys that mean the same in both sections, and ``more``; others of one name, such as ``mixup``, do not."""
        return cls(**{name: getattr(config, name) for name in _SHARED}, **more)


@dataclass(slots=True)
class Fit:
    """What a training did: one row per epoch, and the epoch whose weights were kept."""

    best_epoch: int = -1
    best: Row = field(default_factory=dict)
    history: list[Row] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TensorFeatures:
    """``Features`` as tensors on one device, standardised once instead of at every step."""

    embeddings: Tensor
    boxes: Tensor
    mask: Tensor
    labels: Tensor
    weights: Tensor | None = None
    instances: Tensor | None = None
    groups: Tensor | None = None
    difficulty: Tensor | None = None
    draw: Tensor | None = None
    sets: Tensor | None = None

    @classmethod
    def of(cls, data: Features, standardise: Standardise, device: torch.device) -> TensorFeatures:
        """Copy ``data`` to ``device``; embeddings of missing views become 0."""
        mask = torch.from_numpy(data.mask.copy())
        embeddings = standardise(torch.from_numpy(data.embeddings.astype("float32", copy=False)))
        if not bool(mask.all()):
            embeddings = torch.where(mask.unsqueeze(-1), embeddings, 0.0)
        boxes = torch.from_numpy(data.boxes.astype("float32"))
        labels = torch.from_numpy(data.labels.astype("float32"))
        weights, instances = (
            None if part is None else torch.from_numpy(part.astype("float32")).to(device)
            for part in (data.weights, data.instances)
        )
        groups = None if data.groups is None else torch.from_numpy(data.groups.astype("int64")).to(device)
        known = embeddings.to(device), boxes.to(device), mask.to(device), labels.to(device)
        draw = None if data.draw is None else torch.from_numpy(data.draw.astype("float64"))
        sets = None if data.sets is None else torch.from_numpy(data.sets.astype("int64")).to(device)
        return cls(*known, weights=weights, instances=instances, groups=groups, draw=draw, sets=sets)


def gain(metric: Metric, scores: Row) -> float:
    """``scores[metric]`` turned so that larger is better."""
    return -scores["nll"] if metric == "nll" else scores[metric]


def train_head(
    model: Aggregator,
    train: TensorFeatures,
    select: TensorFeatures,
    settings: LoopSettings,
    *,
    seed: int,
    on_epoch: Callable[[int, Aggregator], None] | None = None,
) -> Fit:
    """Train ``model`` in place and leave it with the weights of its best epoch, in evaluation mode.

    The same seed gives the same weights on the same machine; torch's global generator is left as it was.
    """
    fit, stale, best_gain, state = Fit(), 0, -float("inf"), copy.deepcopy(model.state_dict())
    train = balanced(train, settings)
    shift = prior_shift(train, settings)
    loss = head_loss(model, train, settings)
    exits = make_exits(settings, train.mask.shape[1], loss)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adversary = make_adversary(model, train, settings)
    trained = [model, loss] if adversary is None else [model, loss, adversary.term]
    shares = first_shares(train, settings)
    admitted = [admit(train, settings, epoch) for epoch in range(settings.epochs)]
    total_steps = sum(-(-(len(train.labels) if a is None else len(a)) // settings.batch_size) for a in admitted)
    method = find_method(settings.optimizer, where=f"{settings.where}.optimizer")
    optimizer = make_optimizer(
        [(part, settings.lr) for part in trained],
        weight_decay=settings.weight_decay,
        name=settings.optimizer,
        total=total_steps,
        warmup=settings.warmup,
    )
    schedule = make_schedule(
        optimizer, total=total_steps, warmup=settings.warmup, min_lr=settings.min_lr, scheduled=method.scheduled
    )
    parameters = [p for part in trained for p in part.parameters() if p.requires_grad]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for epoch in range(settings.epochs):
            model.train()
            method.set_mode(optimizer, training=True)
            total = 0.0
            if train.draw is not None:
                order = draw_rows(train.draw, len(train.labels))
            else:
                order = epoch_rows(
                    train.labels,
                    admitted[epoch],
                    groups=train.groups if "groups" in loss.needs else None,
                    balanced=settings.class_balance == "sampler",
                )
            for rows in torch.split(order.to(train.labels.device), settings.batch_size):

                def closure(rows: Tensor = rows, epoch: int = epoch, data: TensorFeatures = train) -> Tensor:
                    mask = hide_views(data.mask[rows], settings.view_dropout)
                    value = bag_loss(
                        model, data, rows, mask, settings, loss=loss, epoch=epoch, adversary=adversary, exits=exits
                    )
                    optimizer.zero_grad(set_to_none=True)
                    backward(value, create_graph=method.wants_graph(optimizer))
                    if settings.clip:
                        torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
                    return value.detach()

                with products(settings.precision, rows.device):
                    total += float(optimizer.step(closure)) * len(rows)  # type: ignore[arg-type]
                schedule.step()
            method.set_mode(optimizer, training=False)
            scores = evaluate([model], select, shift=shift)
            fit.history.append({"epoch": float(epoch), "train_loss": total / len(order)} | scores)
            if shares is not None and (epoch + 1) % settings.adapt_every == 0:
                train, shares = adapt(train, shares, score([model], train))
                shift = prior_shift(train, settings)
            if shares is not None:
                fit.history[-1] |= {f"share_{k}": float(s) for k, s in enumerate(shares)}
            if on_epoch is not None:
                on_epoch(epoch, model)
            now = gain(settings.metric, scores)
            if now > best_gain:
                stale = 0 if now > best_gain + settings.min_delta else stale + 1
                best_gain, fit.best_epoch, fit.best = now, epoch, scores
                state = copy.deepcopy(model.state_dict())
            else:
                stale += 1
            if admitted[epoch] is not None:
                stale = 0  # patience is for trainings that have seen every image
            if stale >= settings.patience:
                break
    model.load_state_dict(state)
    model.eval()
    log.debug("head trained: %d epochs, best %d, %s", len(fit.history), fit.best_epoch, fit.best)
    return fit


def head_loss(model: Aggregator, train: TensorFeatures, settings: LoopSettings) -> Loss:
    """The loss of ``settings``, checked against what ``model`` and ``train`` can give it.

    Raises:
        ConfigError: it needs an embedding, drives or stages that are not there, or cannot take mixed labels.
        DataError: it ranks within drives, and no drive has images of both labels.
    """
    where = f"{settings.where}.loss"
    layer = score_layer(model)
    loss = create_loss(
        settings.loss, dim=None if layer is None else layer.in_features, pos_weight=settings.pos_weight, where=where
    ).to(train.labels.device)
    given: set[Need] = {"embeddings"} if layer is not None else set()
    given |= {"groups"} if train.groups is not None else set()
    given |= {"stages"} if train.mask.shape[1] > 1 else set()
    require(loss, given, soft_labels=bool(settings.mixup), where=where)
    if train.groups is not None and "groups" in loss.needs:
        positive = set(train.groups[train.labels > 0.5].tolist())
        if not positive & set(train.groups[train.labels < 0.5].tolist()):
            raise DataError(
                "no drive of the training images has both labels, so there is nothing to rank",
                where=where,
                fix="name the drive in the column group, or rank within batches by lcron(items=batch)",
            )
    return loss


def admit(train: TensorFeatures, settings: LoopSettings, epoch: int) -> Tensor | None:
    """Rows that ``epoch`` of a curriculum may show, None for all."""
    if train.difficulty is None or (share := pace(epoch, settings.epochs, settings.curriculum)) >= 1.0:
        return None
    return easiest(train.difficulty, train.labels, share)


def image_difficulty(
    model: Aggregator, train: TensorFeatures, select: TensorFeatures, settings: LoopSettings, seed: int
) -> Tensor:
    """Cross-entropy (N,) of each training image by ``model`` after a training without a curriculum."""
    train_head(model, train, select, replace(settings, curriculum=0.0), seed=seed)
    return F.binary_cross_entropy_with_logits(score([model], train), train.labels, reduction="none")


def hide_views(mask: Tensor, share: float) -> Tensor:
    """Hide a random ``share`` of the views after the first."""
    if not share or mask.shape[1] == 1:
        return mask
    kept = torch.rand(mask.shape, device=mask.device) >= share
    kept[:, 0] = True
    return mask & kept


@torch.no_grad()
def score(models: Sequence[Aggregator], data: TensorFeatures, *, batch_size: int = 1024) -> Tensor:
    """Mean log-odds (B,) of ``models`` in evaluation mode."""
    parts = []
    for rows in torch.split(torch.arange(len(data.labels), device=data.labels.device), batch_size):
        batch = data.embeddings[rows], data.boxes[rows], data.mask[rows]
        parts.append(torch.stack([model.eval().combine(*batch)[0] for model in models]).mean(dim=0))
    return torch.cat(parts)


def balanced(data: TensorFeatures, settings: LoopSettings) -> TensorFeatures:
    """``data`` with the weights of its classes on top of its own, where the settings say so."""
    if settings.class_balance != "weights":
        return data
    weights = class_weights(data.labels)
    return replace(data, weights=weights if data.weights is None else weights * data.weights)


def prior_shift(train: TensorFeatures, settings: LoopSettings) -> float:
    """How far drawing and weights move the log-odds of the share of roadwork that scores stand for; 0 without them.

    Selection images are neither drawn nor weighed. Without the shift taken out of the scores, their NLL would call the
    first epoch the best, since it knows least of the prior that the training teaches.
    """
    rate = torch.ones(len(train.labels), dtype=torch.float64)
    if train.draw is not None:
        rate *= train.draw.cpu().double()
    elif settings.class_balance == "sampler":
        rate *= class_weights(train.labels).cpu().double()
    if train.weights is not None:
        rate *= train.weights.cpu().double()
    positive = (train.labels > 0.5).cpu()
    sums = [float(rate[part].sum()) for part in (positive, ~positive)]
    counts = [int(part.sum()) for part in (positive, ~positive)]
    if min(sums) <= 0 or min(counts) == 0:
        return 0.0
    weight = 1.0 if settings.pos_weight is None else settings.pos_weight
    return math.log(weight * sums[0] / sums[1]) - math.log(counts[0] / counts[1])


def evaluate(models: Sequence[Aggregator], data: TensorFeatures, *, shift: float = 0.0) -> Row:
    """Selection figures of the mean of ``models`` on ``data``, their scores less ``shift``."""
    scores = score(models, data) - shift
    return select_scores(scores.cpu().numpy(), data.labels.cpu().numpy().astype("int64"))
