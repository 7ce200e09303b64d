"""Distillation after Proteus: a student reproduces class token, all tokens, and tokens of patches hidden from it.

Each of the three has a head of its own (layer norm, then linear), and no head of the teacher is used. The student sees
what the teacher saw, with colours moved; positions stay, so that the teacher's tokens can be computed once. Errors are
divided by the variance of the teacher's tokens, so that 1 is what a constant answer gets. A convolution takes part with
its feature map: the finer of the two grids is averaged to the coarser, and patches are hidden as grey squares.

Reference: Zhang, Ma, Bai, Wang, Fu 2025 (ICLR, arXiv 2407.10366).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workzone.config.pretraining import DistilConfig
from workzone.models.backbones import Backbone
from workzone.training.distillation.teacher import TeacherFeatures, regrid, tokens
from workzone.training.pretraining.images import cut, jitter
from workzone.training.pretraining.objective import Objective, StepResult, any_size

_SMALL = 0.1


class _Hidden(nn.Module):
    """What a student of patches sees instead of a hidden patch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(width))


class Distillation(Objective):
    """A student, three heads, and the stored tokens of the teacher.

    Args:
        student: what is trained; becomes part of this module.
        features: tokens of the teacher for every stored image.
        config: weights of the terms, and what is hidden.
        side: side of the student's views.
        seed: of the heads.
    """

    def __init__(
        self, student: Backbone, features: TeacherFeatures, config: DistilConfig, *, side: int, seed: int
    ) -> None:
        super().__init__()
        self.config = config
        self.features = features
        self.side = side
        self.student = any_size(student)
        means, variances = features.moments()
        width = int(student.network.num_features)  # type: ignore[arg-type]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.heads = nn.ModuleDict(
                {
                    name: nn.Sequential(nn.LayerNorm(width), nn.Linear(width, features.width))
                    for name in ("token", "feature", "patch")
                }
            )
        if student.spec.family != "conv":
            self.heads["hidden"] = _Hidden(width)
        with torch.no_grad():
            # Heads start near the constant answer, so that the student is not driven by their random output first.
            for name, mean in (("token", means[0]), ("feature", means[1]), ("patch", means[1])):
                last = self.heads[name][1]  # type: ignore[index]
                last.weight.mul_(_SMALL)
                last.bias.copy_(mean)
        self.register_buffer("scales", variances.clamp_min(1e-6), persistent=False)

    def parts(self) -> list[tuple[nn.Module, float]]:
        """See ``Objective.parts``."""
        return [(self.student, 1.0), (self.heads, 1.0)]

    def result(self) -> Backbone:
        """The student."""
        return self.student

    def step(self, rows: Sequence[int], images: Tensor, generator: torch.Generator, done: float) -> StepResult:
        """See ``Objective.step``."""
        views = torch.randint(0, self.features.views, (len(rows),), generator=generator)
        target = self.features.batch(rows, views.tolist()).to(images.device)
        boxes = self.features.boxes[torch.tensor(list(rows)), views]
        pixels = self.student.normalise(jitter(cut(images, boxes, self.side), generator))
        hidden = self._mask(len(rows), generator).to(images.device) if self.config.patch else None
        with self._hide(hidden):
            if hidden is not None and self.student.spec.family == "conv":
                pixels = pixels * (1.0 - _upsample(hidden, self.side))
            token, patches = tokens(self.student, pixels)
        patches = regrid(patches, self.features.grid).flatten(1, 2)
        values: dict[str, Tensor] = {}
        single, scales = target[:, 0], self.scales
        assert isinstance(scales, Tensor)
        if self.config.token:
            values["token"] = F.mse_loss(self.heads["token"](token).float(), single) / scales[0]
        if self.config.feature:
            own = self.heads["feature"](torch.cat([token.unsqueeze(1), patches], dim=1)).float()
            values["feature"] = F.mse_loss(own, target) / scales[1]
        if hidden is not None and bool(hidden.any()):
            chosen = hidden.flatten(1)
            own = self.heads["patch"](patches[chosen]).float()
            values["patch"] = F.mse_loss(own, target[:, 1:][chosen]) / scales[1]
        weights = {"token": self.config.token, "feature": self.config.feature, "patch": self.config.patch}
        loss = torch.stack([weights[name] * value for name, value in values.items()]).sum()
        # A batch without a hidden patch has no such term; its mean over an epoch would count it as 0.
        values.setdefault("patch", torch.zeros(())) if self.config.patch else None
        return StepResult(loss, values, token.detach().float())

    def _mask(self, count: int, generator: torch.Generator) -> Tensor:
        grid = self.features.grid
        cells = grid * grid
        order = torch.rand(count, cells, generator=generator).argsort(dim=1)
        chosen = order < round(self.config.mask_ratio * cells)
        taking = torch.rand(count, 1, generator=generator) < self.config.mask_images
        return (chosen & taking).view(count, grid, grid)

    @contextmanager
    def _hide(self, hidden: Tensor | None) -> Iterator[None]:
        if hidden is None or self.student.spec.family == "conv":
            yield
            return
        shown = self.heads["hidden"]
        assert isinstance(shown, _Hidden)

        def replace(module: nn.Module, inputs: tuple[Tensor, ...], patches: Tensor) -> Tensor:
            where = _upsample(hidden, patches.shape[1]).permute(0, 2, 3, 1).bool()
            return torch.where(where, shown.token.to(patches.dtype), patches)

        embed = self.student.network.patch_embed
        assert isinstance(embed, nn.Module)
        handle = embed.register_forward_hook(replace)
        try:
            yield
        finally:
            handle.remove()


def _upsample(hidden: Tensor, side: int) -> Tensor:
    return F.interpolate(hidden.unsqueeze(1).float(), size=(side, side), mode="nearest")
