"""The Lightning module: a backbone with a head, trained on views."""

from __future__ import annotations

from typing import Any, cast

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workzone.config.models import TrainConfig
from workzone.models.backbones import Backbone
from workzone.models.backbones.base import to_unit
from workzone.models.heads import ProbeHead
from workzone.training.augmentation import augment
from workzone.training.optim import make_optimizer, make_schedule
from workzone.training.selection import select_scores

# A difference of NLL decides between epochs of equal MCC and never outweighs one image.
_TIE = 1e-4
MONITOR = "val_score"


class ImageModule(L.LightningModule):  # type: ignore[misc]
    """Binary classification of global views.

    Every random draw depends on the seed and the step alone, not on what was drawn before, so that a resumed run
    repeats an uninterrupted one.

    Args:
        backbone: with whatever of it is to be trained requiring gradients.
        head: from embedding to log-odds.
        config: learning rates, augmentation, schedule.
        seed: seed of augmentation and dropout.
        pos_weight: weight of a roadwork image in the loss.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: ProbeHead,
        config: TrainConfig,
        *,
        seed: int = 0,
        pos_weight: float | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.config = config
        self.seed = seed
        self.pos_weight = pos_weight
        self.trace: list[tuple[int, float]] = []
        self._scores: list[Tensor] = []
        self._labels: list[Tensor] = []

    def forward(self, pixels: Tensor) -> Tensor:
        """Log-odds (N,) of views (N, S, S, 3) uint8."""
        return cast(Tensor, self.head(self.backbone(pixels)))

    def on_train_epoch_start(self) -> None:
        """Keep the statistics of batch norms: small batches of one city would spoil those of the pretraining."""
        for module in self.backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed dropout and stochastic depth by the position in the run."""
        torch.manual_seed(self._draw_seed(batch_idx))

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of one batch."""
        pixels, labels, _ = batch
        generator = torch.Generator().manual_seed(self._draw_seed(batch_idx) + 1)
        images = augment(to_unit(pixels), self.config.augment, generator)
        scores = self.head(self.backbone.features(self.backbone.normalise(images)))
        weight = None if self.pos_weight is None else torch.tensor(self.pos_weight, device=scores.device)
        loss = F.binary_cross_entropy_with_logits(scores.float(), labels, pos_weight=weight)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(labels))
        self.trace.append((self.current_epoch * 1_000_000 + batch_idx, float(loss.detach())))
        return loss

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
        if self.trainer.world_size > 1:
            gathered = self.all_gather((scores.to(self.device), labels.to(self.device)))
            scores, labels = (cast(Tensor, part).flatten().cpu() for part in gathered)
        figures = select_scores(scores.numpy(), labels.numpy().astype("int64"))
        self.log_dict({f"val_{name}": value for name, value in figures.items()})
        self.log(MONITOR, figures["mcc"] - _TIE * min(figures["nll"], 9.0), prog_bar=True)

    def configure_optimizers(self) -> Any:
        """AdamW with a rate of its own for the backbone, cosine per update."""
        parts: list[tuple[nn.Module, float]] = [(self.head, self.config.lr)]
        if any(p.requires_grad for p in self.backbone.parameters()):
            parts.append((self.backbone, self.config.backbone_lr))
        optimizer = make_optimizer(parts, weight_decay=self.config.weight_decay)
        schedule = make_schedule(
            optimizer,
            total=int(self.trainer.estimated_stepping_batches),
            warmup=self.config.warmup,
            min_lr=self.config.min_lr,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _draw_seed(self, batch_idx: int) -> int:
        epoch = int(self.current_epoch)
        return (self.seed * 1_000_003 + epoch * 100_003 + batch_idx * 2) % (2**31 - 2)
