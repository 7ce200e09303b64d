"""BYOL, SwAV and DINO, alone or together, over one multi-crop batch with one momentum teacher.

No published method combines the three. Each term is divided by its value at chance (log K, log K, 2), so that weights
mean the same for all; BYOL compares the two large crops, DINO and SwAV predict from every crop, and the KoLeo term
spreads the features of the first large crop.

References: Grill et al. 2020 (arXiv 2006.07733); Caron et al. 2020 (arXiv 2006.09882); Caron et al. 2021
(arXiv 2104.14294); Oquab et al. 2023 (arXiv 2304.07193).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workzone.config.pretraining import PretrainConfig
from workzone.models.backbones import Backbone
from workzone.training.pretraining import terms
from workzone.training.pretraining.heads import DinoHead, SwavHead, byol_head
from workzone.training.pretraining.images import cut, draw_boxes, jitter
from workzone.training.pretraining.objective import Objective, StepResult, any_size, grow

_LARGE = 2
_CENTRE = 0.9
_SWAV_TEMPERATURE = 0.1
_LOCAL = 3 / 7


class SelfSupervised(Objective):
    """One student, one moving average of it as teacher, and a head for each term.

    Args:
        backbone: what is trained, with whatever of it is to learn requiring gradients; becomes part of this module.
        config: method, crops, heads, weights.
        seed: of the heads.
    """

    def __init__(self, backbone: Backbone, config: PretrainConfig, *, seed: int) -> None:
        super().__init__()
        ssl = config.ssl
        self.config = ssl
        self.weights = _weights(config)
        self.large = config.image_size or backbone.image_size
        self.small = grow(ssl.local_size or round(self.large * _LOCAL), backbone.patch)
        self.student = any_size(backbone)
        width = backbone.embedding_dim
        heads: dict[str, nn.Module] = {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if "byol" in self.weights:
                heads["byol"] = byol_head(width, ssl.hidden, ssl.bottleneck)
                self.predictor = byol_head(ssl.bottleneck, ssl.hidden, ssl.bottleneck)
            if "dino" in self.weights:
                heads["dino"] = DinoHead(width, ssl.hidden, ssl.bottleneck, ssl.prototypes)
                self.register_buffer("centre", torch.zeros(ssl.prototypes))
            if "swav" in self.weights:
                self.swav = SwavHead(width, ssl.hidden, ssl.bottleneck, ssl.prototypes)
                self.register_buffer("queue", torch.zeros(_LARGE, ssl.queue, ssl.bottleneck))
                self.register_buffer("queued", torch.zeros((), dtype=torch.int64))
        self.heads = nn.ModuleDict(heads)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.teacher_heads = copy.deepcopy(self.heads).requires_grad_(False)

    def train(self, mode: bool = True) -> SelfSupervised:
        """The teacher sees no stochastic depth and keeps the student's running statistics."""
        super().train(mode)
        self.teacher.eval()
        return self

    def parts(self) -> list[tuple[nn.Module, float]]:
        """See ``Objective.parts``."""
        found: list[nn.Module] = [self.student, *self.heads.values()]
        found += [m for name in ("predictor", "swav") if (m := getattr(self, name, None)) is not None]
        return [(m, 1.0) for m in found]

    def result(self) -> Backbone:
        """The moving average, or the student where the configuration says so."""
        return self.teacher if self.config.keep == "teacher" else self.student

    def step(self, rows: Sequence[int], images: Tensor, generator: torch.Generator, done: float) -> StepResult:
        """See ``Objective.step``."""
        count = len(images)
        large = torch.cat([self._crop(images, self.config.global_scale, 1.0, self.large, generator) for _ in range(2)])
        embedded = [self.student.features(self.student.normalise(large))]
        if self.config.local_crops:
            top = min(self.config.global_scale, 1.0)
            small = [
                self._crop(images, self.config.local_scale, top, self.small, generator)
                for _ in range(self.config.local_crops)
            ]
            embedded.append(self.student.features(self.student.normalise(torch.cat(small))))
        everything = torch.cat(embedded)
        with torch.no_grad():
            taught = self.teacher.features(self.teacher.normalise(large))
        signs: dict[str, float] = {}
        values: dict[str, Tensor] = {}
        if "byol" in self.weights:
            values["byol"] = self._byol(embedded[0], taught)
        if "dino" in self.weights:
            values["dino"] = self._dino(everything, taught, count, done, signs)
        if "swav" in self.weights:
            values["swav"] = self._swav(everything, count, signs)
        if "koleo" in self.weights:
            values["koleo"] = terms.koleo_term(embedded[0][:count])
        loss = torch.stack([self.weights[name] * value for name, value in values.items()]).sum()
        return StepResult(loss, values, embedded[0][:count].detach().float(), signs)

    def after_update(self, done: float) -> None:
        """Move the teacher; its momentum rises from the start value to 1 along a cosine."""
        if "swav" in self.weights:
            self.swav.renormalise()
        keep = 1.0 - (1.0 - self.config.momentum) * (math.cos(math.pi * done) + 1.0) / 2.0
        with torch.no_grad():
            for moving, own in ((self.teacher, self.student), (self.teacher_heads, self.heads)):
                for target, source in zip(moving.parameters(), own.parameters(), strict=True):
                    if source.requires_grad:
                        target.lerp_(source, 1.0 - keep)
            for kept, fresh in zip(self.teacher.buffers(), self.student.buffers(), strict=True):
                kept.copy_(fresh)

    def temperature(self, done: float) -> float:
        """Temperature of the teacher: linear up to a third of the training."""
        first, last = self.config.teacher_temperature, self.config.last_teacher_temperature
        return first + (last - first) * min(1.0, 3.0 * done)

    def _crop(self, images: Tensor, low: float, high: float, side: int, generator: torch.Generator) -> Tensor:
        boxes = draw_boxes(len(images), min(low, high), max(low, high), generator)
        mirror = torch.rand(len(images), generator=generator) < 0.5
        return jitter(cut(images, boxes, side, mirror), generator)

    def _byol(self, embedded: Tensor, taught: Tensor) -> Tensor:
        predictions = self.predictor(self.heads["byol"](embedded)).chunk(_LARGE)
        with torch.no_grad():
            targets = self.teacher_heads["byol"](taught).chunk(_LARGE)
        return terms.byol_term(predictions, targets) / 2.0

    def _dino(self, everything: Tensor, taught: Tensor, count: int, done: float, signs: dict[str, float]) -> Tensor:
        temperature = self.temperature(done)
        centre = cast(Tensor, self.centre)
        students = self.heads["dino"](everything).split(count)
        with torch.no_grad():
            logits = self.teacher_heads["dino"](taught).float()
        value = terms.dino_term(
            students, logits.split(count), centre, student=self.config.student_temperature, teacher=temperature
        )
        _watch(F.softmax((logits - centre) / temperature, dim=-1), signs)
        mean = terms.total(logits.mean(dim=0)) / terms.processes()
        centre.mul_(_CENTRE).add_(mean, alpha=1.0 - _CENTRE)
        return value / math.log(self.config.prototypes)

    def _swav(self, everything: Tensor, count: int, signs: dict[str, float]) -> Tensor:
        features = self.swav.project(everything)
        scores = torch.split(self.swav.scores(features), count)
        queue, queued = cast(Tensor, self.queue), cast(Tensor, self.queued)
        size = queue.shape[1]
        full = 0 < size <= int(queued)
        earlier = [self.swav.scores(queue[i]).detach() if full else None for i in range(_LARGE)]
        value = terms.swav_term(scores, earlier, _LARGE, _SWAV_TEMPERATURE)
        if size:
            fresh = features.detach()[: _LARGE * count].view(_LARGE, count, -1)[:, :size]
            queue.copy_(torch.cat([fresh, queue], dim=1)[:, :size])
            queued.add_(count)
        if "dino" not in self.weights:
            seen = torch.cat(scores[:_LARGE]).detach().float()
            _watch(F.softmax(seen / _SWAV_TEMPERATURE, dim=-1), signs, sample=False)
        return value / math.log(self.config.prototypes)


def _watch(probabilities: Tensor, signs: dict[str, float], *, sample: bool = True) -> None:
    if sample:
        signs["output_entropy"] = float(terms.entropy(probabilities).mean())
    signs["marginal_entropy"] = float(terms.entropy(probabilities.mean(dim=0, keepdim=True)))


def _weights(config: PretrainConfig) -> dict[str, float]:
    ssl = config.ssl
    if config.method == "hybrid":
        found = {"byol": ssl.byol, "dino": ssl.dino, "swav": ssl.swav}
    else:
        found = {config.method: 1.0}
    return {name: w for name, w in {**found, "koleo": ssl.koleo}.items() if w}
