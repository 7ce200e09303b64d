"""The Lightning module: a backbone with a head, trained on views."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, cast

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from workzone.config.run import TrainConfig
from workzone.models.backbones import Backbone
from workzone.models.backbones.base import to_unit
from workzone.models.heads import ProbeHead
from workzone.training.augmentation import augment
from workzone.training.augmentation.mixing import MIXED, any_side, draw_side, mix, rescale
from workzone.training.datasets import DataSets, rows_by_augmentation
from workzone.training.distributed import shard
from workzone.training.losses import LossInput, create_loss, require
from workzone.training.optimisers import backward, check_training, find_method, make_optimizer, make_schedule
from workzone.training.selection import select_scores
from workzone.training.views import draw_views, pool_views, top_views

# A difference of NLL decides between epochs of equal MCC and never outweighs one image.
_TIE = 1e-4
MONITOR = "val_score"


class ImageModule(L.LightningModule):  # type: ignore[misc]
    """Binary classification of images by their whole view, or by several views with a pooled score.

    Every random draw depends on the seed and the step alone, not on what was drawn before, so that a resumed run
    repeats an uninterrupted one.

    Args:
        backbone: with whatever of it is to be trained requiring gradients.
        head: from embedding to log-odds.
        config: learning rates, augmentation, schedule.
        seed: seed of augmentation and dropout.
        pos_weight: weight of a roadwork image in the loss.
        sets: weights, data sets and their augmentation, by the row of an image.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: ProbeHead,
        config: TrainConfig,
        *,
        seed: int = 0,
        pos_weight: float | None = None,
        sets: DataSets | None = None,
    ) -> None:
        super().__init__()
        self.sets = sets or DataSets()
        self.backbone = backbone
        self.head = head
        self.config = config
        self.seed = seed
        self.loss = create_loss(config.loss, dim=backbone.embedding_dim, pos_weight=pos_weight, where="train.loss")
        mixes = bool(config.mixup or (config.cutmix and config.cutmix_pairs == "any"))
        require(self.loss, {"embeddings"}, soft_labels=mixes, where="train.loss")
        self.method = find_method(config.optimizer, where="train.optimizer")
        self.trace: list[tuple[int, float]] = []
        self._scores: list[Tensor] = []
        self._labels: list[Tensor] = []
        self.select_log_odds = np.empty(0)
        self._sharded = False

    def configure_model(self) -> None:
        """Share the weights among processes where the strategy asks for it, the largest repeated blocks one by one."""
        if self.device_mesh is not None and not self._sharded:
            shard(self.backbone, self.head, mesh=self.device_mesh["data_parallel"], precision=self.config.precision)
            self._sharded = True

    def forward(self, pixels: Tensor) -> Tensor:
        """Log-odds (N,) of views (N, S, S, 3) uint8, or of images with V views each (N, V, S, S, 3)."""
        if pixels.ndim == 4:
            return cast(Tensor, self.head(self.backbone(pixels)))
        # One view of all images at a time: memory stays that of a batch of images.
        scores = torch.stack([self.head(self.backbone(pixels[:, v])) for v in range(pixels.shape[1])], dim=1)
        return pool_views(scores, self.config.view_pool, self.config.view_k)

    def on_train_epoch_start(self) -> None:
        """Keep the statistics of batch norms: small batches of one city would spoil those of the pretraining."""
        for module in self.backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Go back to where gradients are taken; seed dropout and stochastic depth by the position in the run."""
        self._set_mode(training=True)
        torch.manual_seed(self._draw_seed(batch_idx))

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of one batch."""
        pixels, labels, rows = batch
        weights = None if self.sets.weights is None else self.sets.weights[rows.cpu()].to(labels)
        own_sets = None if self.sets.sets is None else self.sets.sets[rows.cpu()]
        generator = torch.Generator().manual_seed(self._draw_seed(batch_idx) + 1)
        if pixels.ndim == 5:
            pixels = draw_views(pixels, self.config.views, generator)
        images = self._augment(to_unit(pixels.flatten(0, -4)), own_sets, generator)
        images = images.reshape(*pixels.shape[:-3], *images.shape[1:])
        if self.current_epoch < MIXED * self.config.epochs:
            chosen = {"mixup": self.config.mixup, "cutmix": self.config.cutmix}
            across = own_sets if self.sets.across else None
            any_pair = self.config.cutmix_pairs == "any"
            images, labels = mix(images, labels, generator, **chosen, any_pair=any_pair, sets=across)
        own = self.backbone.image_size
        side = draw_side(own, self.backbone.patch, generator) if self.config.multiscale else own
        # The fused kernels of attention have no second derivative.
        math = sdpa_kernel(SDPBackend.MATH) if self._wants_graph() else nullcontext()
        with math, any_side(self.backbone, side, own):
            scores, embeddings = self._score(_rescale(images, side))
        known = LossInput(scores.float(), labels, embeddings.float(), weights=weights, epoch=self.current_epoch)
        loss: Tensor = self.loss(known)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(labels))
        position = self.current_epoch * 1_000_000 + batch_idx
        # A method of two passes comes here twice; the first loss is that of the weights themselves.
        if not self.trace or self.trace[-1][0] != position:
            shared = self.trainer.strategy.reduce(loss.detach(), reduce_op="mean")
            self.trace.append((position, float(cast(Tensor, shared))))
        return loss

    def _augment(self, images: Tensor, sets: Tensor | None, generator: torch.Generator) -> Tensor:
        """Changed copies of images (N, 3, S, S), of which each data set takes its own augmentation where it has one."""
        if sets is None or not self.sets.augment:
            return augment(images, self.config.augment, generator)
        out = images.clone()
        for name, rows in rows_by_augmentation(sets.repeat_interleave(len(images) // len(sets)), self.sets.augment):
            own = rows.to(images.device)
            out[own] = augment(images[own], name, generator)
        return out

    def _score(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Log-odds (B,) and embeddings (B, D) of images (B, 3, S, S), or of their views (B, V, 3, S, S)."""
        if images.ndim == 4:
            embeddings = self.backbone.features(self.backbone.normalise(images))
            return self.head(embeddings), embeddings
        how, k = self.config.view_pool, self.config.view_k
        if how == "topk_mean" and k < images.shape[1]:
            images = top_views(images, self._glance(images), k)
        parts = self.backbone.features(self.backbone.normalise(images.flatten(0, 1)))
        scores = self.head(parts).view(images.shape[:2])
        return pool_views(scores, how, k), parts.view(*images.shape[:2], -1).mean(dim=1)

    @torch.no_grad()
    def _glance(self, images: Tensor) -> Tensor:
        """Scores (B, V) that choose the views to learn from; nothing is kept for a gradient."""
        training = {m: m.training for m in self.modules()}
        self.eval()
        normal = self.backbone.normalise(images)
        columns = [self.head(self.backbone.features(normal[:, v])) for v in range(images.shape[1])]
        for module, was in training.items():
            module.training = was
        return torch.stack(columns, dim=1)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Gradients, differentiable where the optimiser measures curvature at this update."""
        backward(loss, create_graph=self._wants_graph())

    def on_fit_start(self) -> None:
        """Refuse settings that the optimiser cannot be trained with."""
        check_training(self.config, str(self.trainer.precision))

    def on_validation_model_eval(self) -> None:
        """Also move the weights to where they are evaluated; checkpoints follow before the next training step."""
        super().on_validation_model_eval()
        self._set_mode(training=False)

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        """Collect the scores of one batch."""
        pixels, labels, _ = batch
        self._scores.append(self(pixels).float().cpu())
        self._labels.append(labels.cpu())

    def on_validation_epoch_end(self) -> None:
        """Log the selection figures; ``val_score`` is MCC with NLL as tie-break."""
        scores, labels = torch.cat(self._scores), torch.cat(self._labels)
        self._scores.clear()
        self._labels.clear()
        # Each process has seen all images, so that no figure depends on how many processes there are.
        self.select_log_odds = scores.numpy().astype("float64")
        figures = select_scores(scores.numpy(), labels.numpy().astype("int64"))
        self.log_dict({f"val_{name}": value for name, value in figures.items()})
        self.log(MONITOR, figures["mcc"] - _TIE * min(figures["nll"], 9.0), prog_bar=True)

    def configure_optimizers(self) -> Any:
        """The optimiser, with a rate of its own for the backbone, and its schedule per update."""
        parts: list[tuple[nn.Module, float]] = [(self.head, self.config.lr)]
        if any(p.requires_grad for p in self.backbone.parameters()):
            parts.append((self.backbone, self.config.backbone_lr))
        parts.append((self.loss, self.config.lr))
        total = int(self.trainer.estimated_stepping_batches)
        optimizer = make_optimizer(
            parts,
            weight_decay=self.config.weight_decay,
            name=self.method.name,
            total=total,
            warmup=self.config.warmup,
            fused=not self.config.clip or "mixed" not in str(self.trainer.precision),
        )
        schedule = make_schedule(
            optimizer,
            total=total,
            warmup=self.config.warmup,
            min_lr=self.config.min_lr,
            scheduled=self.method.scheduled,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _wants_graph(self) -> bool:
        return bool(self.method.graph_every) and self.method.wants_graph(self.optimizers(use_pl_optimizer=False))

    def _set_mode(self, *, training: bool) -> None:
        # Validation of stored weights outside a training has no optimiser that could move them.
        if self.trainer.state.fn == "fit":
            self.method.set_mode(self.optimizers(use_pl_optimizer=False), training=training)

    def _draw_seed(self, batch_idx: int) -> int:
        epoch = int(self.current_epoch)
        own = int(self.global_rank) * 15_485_863
        return (self.seed * 1_000_003 + epoch * 100_003 + batch_idx * 2 + own) % (2**31 - 2)


def _rescale(images: Tensor, side: int) -> Tensor:
    """Images (..., 3, S, S) at another side."""
    return rescale(images.flatten(0, -4), side).reshape(*images.shape[:-2], side, side)
