"""What benchmarks/training.py trains: the late part of a backbone with its head, through tiles, for a stated time."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from workzone.config.run import AdapterConfig, ModelConfig
from workzone.config.views import ViewSpec
from workzone.files import atomic_path
from workzone.models.adapters import apply_adapter
from workzone.models.aggregators import Ensemble
from workzone.models.backbones import Backbone, create_backbone
from workzone.models.backbones.base import to_unit
from workzone.training.augmentation import augment
from workzone.training.augmentation.mixing import draw_side, rescale
from workzone.training.images import all_views
from workzone.training.optimisers import make_optimizer
from workzone.training.selection import select_scores

Array = NDArray[Any]
LITE, DINO = "efficientnet_lite0", "dinov2_vits14"
CUT = {LITE: 5, DINO: 8}
"""Blocks of each backbone that stay as they are: five of seven, eight of twelve."""
SIZE, CHECKS, K = 224, 4, 3


@dataclass(frozen=True)
class Way:
    """One way to train.

    Attributes:
        backbone: name in the registry.
        method: full trains what follows the frozen blocks; lora and dora put low-rank updates there.
        augment: preset or policy; None trains on kept activations, which cannot be augmented.
        multiscale: whether a step takes another scale.
        mixup: alpha of MixUp of activations between images.
        hard_weight: weight in the loss of negatives that are marked as hard.
        lr: peak rate of the backbone.
        tiles: tiles of an image in a step, beside the whole image.
        views: views that are looked at, None for all.
    """

    backbone: str = LITE
    method: Literal["full", "lora", "dora"] = "full"
    augment: str | None = None
    multiscale: bool = False
    mixup: float = 0.0
    hard_weight: float = 1.0
    lr: float = 5e-5
    head_lr: float = 1e-4
    batch: int = 16
    tiles: int = 3
    views: int | None = None


class Late(nn.Module):
    """A backbone in two parts: ``early`` is never trained, ``forward`` goes on from its activations."""

    def __init__(self, backbone: Backbone, cut: int) -> None:
        super().__init__()
        self.backbone, self.cut = backbone, cut

    @property
    def network(self) -> Any:
        """The network of timm."""
        return self.backbone.network

    @torch.no_grad()
    def early(self, images: Tensor) -> Tensor:
        """Activations after ``cut`` blocks of images (N, 3, S, S) in [0, 1]."""
        net, x = self.network, self.backbone.normalise(images)
        if self.backbone.spec.family == "conv":
            x = net.bn1(net.conv_stem(x.contiguous(memory_format=torch.channels_last)))
        else:
            x = net.norm_pre(net._pos_embed(net.patch_embed(x)))
        for block in net.blocks[: self.cut]:
            x = block(x)
        return cast(Tensor, x)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings (N, D) of activations."""
        net = self.network
        if self.backbone.spec.family == "conv":
            x = x.contiguous(memory_format=torch.channels_last)
        for block in net.blocks[self.cut :]:
            x = block(x)
        if self.backbone.spec.family == "conv":
            cells = net.bn2(net.conv_head(x)).flatten(2).transpose(1, 2)
            return self.backbone._pool(cells, cells)
        x = net.norm(x)
        return self.backbone._pool(x, x[:, self.backbone._prefix :])


def late_part(way: Way, weights: str | None, seed: int) -> Late:
    """The backbone of ``way`` with what it trains requiring gradients; the early part has none."""
    plain = create_backbone(ModelConfig(backbone=way.backbone, weights=weights))
    cut = CUT[way.backbone]
    if way.method == "full":
        ready = plain.requires_grad_(False)
        net = cast(Any, ready.network)
        for part in (*net.blocks[cut:], net.conv_head, net.bn2):
            part.requires_grad_(True)
    else:
        ready = apply_adapter(plain, AdapterConfig(rank=16, alpha=16, init="pissa_niter_4"), way.method, seed)
        cast(Any, ready.network).blocks[:cut].requires_grad_(False)
    if way.backbone == LITE:
        ready = ready.to(memory_format=torch.channels_last)
    found = Late(ready, cut).eval()
    probe = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = plain.features(plain.normalise(probe))
        gap = float((found(found.early(probe)) - whole).abs().max() / whole.abs().max())
    if gap > 1e-3:
        raise RuntimeError(f"the two parts of {way.backbone} differ from the whole by {gap:.1g}")
    return found


def half(backbone: str) -> Any:
    """Bfloat16 for the transformer, which halves its time; float32 for the convolution."""
    return torch.autocast("cpu", torch.bfloat16, enabled=backbone == DINO)


def all_pixels(paths: list[str], folder: Path) -> Array:
    """Views (N, V, S, S, 3) uint8 of all images, made once."""
    read = all_views(SIZE, ViewSpec())
    return kept(folder / "views.npy", len(paths), lambda i: read(paths[i]), np.uint8)


def all_activations(pixels: Array, backbone: str, weights: str | None, folder: Path, views: int | None) -> Array:
    """Activations (N, V, ...) float16 after the frozen blocks of the first ``views`` views, made once."""
    part = Late(create_backbone(ModelConfig(backbone=backbone, weights=weights)), CUT[backbone]).eval()
    if backbone == LITE:
        part = part.to(memory_format=torch.channels_last)

    def look(i: int) -> Array:
        with half(backbone):
            return part.early(to_unit(torch.from_numpy(pixels[i, :views].copy()))).float().numpy().astype(np.float16)

    return kept(folder / f"{backbone}{views or ''}.npy", len(pixels), look, np.float16)


def kept(file: Path, count: int, make: Callable[[int], Array], dtype: Any) -> Array:
    """An array of ``count`` rows mapped from ``file``, which is written first if it is not there."""
    if not file.is_file():
        first = make(0)
        with atomic_path(file) as partial:
            out = np.lib.format.open_memmap(partial, mode="w+", dtype=dtype, shape=(count, *first.shape))
            for i in range(count):
                out[i] = make(i)
            out.flush()
            del out
    return cast(Array, np.load(file, mmap_mode="r", allow_pickle=False))


@dataclass
class Fold:
    """One fold: what it trains on, what stops it, and what its default head says of all images.

    Attributes:
        fit, stop, test: rows.
        head: the default head of this fold, on embeddings of the frozen backbone of the way.
        views: (N, V) log-odds of single views by that head.
        boxes: (V, 4).
        labels: (N,).
        hard: (N,) negatives marked as hard.
    """

    fit: Array
    stop: Array
    test: Array
    head: Ensemble
    views: Array
    boxes: Array
    labels: Array
    hard: Array


def train_cell(
    way: Way, fold: Fold, pixels: Array, acts: Array, *, weights: str | None, seconds: float, seed: int
) -> tuple[Array, dict[str, Any]]:
    """Train for ``seconds`` of CPU time from the fold's default head.

    Returns:
        log-odds (T,) of the test images by all views, and what was done.
    """
    torch.manual_seed(seed)
    part, head = late_part(way, weights, seed), copy.deepcopy(fold.head)
    head.requires_grad_(True)
    optimizer = make_optimizer([(head, way.head_lr), (part, way.lr)], weight_decay=0.05)
    peaks = [g["lr"] for g in optimizer.param_groups]
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    trained = [p for p in [*part.parameters(), *head.parameters()] if p.requires_grad]
    best, history, due, steps, order = (math.inf, _state(part, head)), [], 0, 0, np.empty(0, np.int64)
    start = time.process_time()
    while True:
        done = min(1.0, (time.process_time() - start) / seconds)
        if done >= due / CHECKS:
            said = score(part, head, way.backbone, acts, fold.stop, fold.boxes)
            found = select_scores(said, fold.labels[fold.stop])
            history.append({"done": done, "step": steps, **found})
            if found["nll"] < best[0]:
                best = found["nll"], _state(part, head)
            due += 1
            if done >= 1.0:
                break
            continue
        if len(order) < way.batch:
            order = rng.permutation(fold.fit)
        rows, order = order[: way.batch], order[way.batch :]
        rate = min(1.0, done / 0.15 + 0.02) * 0.5 * (1 + math.cos(math.pi * done))
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * rate
        head.train()
        loss = _loss(way, fold, part, head, pixels, acts, rows, rng, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        steps += 1
    _restore(part, head, best[1])
    report = {"steps": steps, "images": steps * way.batch, "seconds": time.process_time() - start, "checks": history}
    return score(part, head, way.backbone, acts, fold.test, fold.boxes), report


def _loss(
    way: Way,
    fold: Fold,
    part: Late,
    head: Ensemble,
    pixels: Array,
    acts: Array,
    rows: Array,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> Tensor:
    """Loss of a batch on the whole image and tiles drawn by what the frozen head says of them."""
    tiles = fold.views[rows][:, 1:] + rng.gumbel(size=(len(rows), fold.views.shape[1] - 1))
    chosen = np.concatenate([np.zeros((len(rows), 1), np.int64), 1 + np.argsort(-tiles)[:, : way.tiles]], axis=1)
    labels = torch.from_numpy(fold.labels[rows].astype(np.float32))
    if way.augment is None:
        x = torch.from_numpy(acts[rows[:, None], chosen].astype(np.float32)).flatten(0, 1)
    else:
        images = augment(to_unit(torch.from_numpy(pixels[rows[:, None], chosen]).flatten(0, 1)), way.augment, generator)
        if way.multiscale:
            images = rescale(images, draw_side(SIZE, part.backbone.patch, generator))
        with half(way.backbone):
            x = part.early(images)
    if way.mixup:
        share, other = float(rng.beta(way.mixup, way.mixup)), torch.from_numpy(rng.permutation(len(rows)))
        views = x.unflatten(0, chosen.shape)
        x = (share * views + (1 - share) * views[other]).flatten(0, 1)
        labels = share * labels + (1 - share) * labels[other]
    with half(way.backbone):
        embeddings = part(x)
    embeddings = embeddings.float().unflatten(0, chosen.shape)
    log_odds = head(embeddings, torch.from_numpy(fold.boxes[chosen]), torch.ones(chosen.shape, dtype=torch.bool))[0]
    weight = torch.from_numpy(np.where(fold.hard[rows], way.hard_weight, 1.0).astype(np.float32))
    return F.binary_cross_entropy_with_logits(log_odds, labels, weight=weight)


@torch.no_grad()
def embeddings_of(part: Late, backbone: str, acts: Array, rows: Array) -> Array:
    """Embeddings (B, V, D) of all views of ``rows``."""
    found = []
    for row in rows:
        with half(backbone):
            found.append(part.eval()(torch.from_numpy(acts[row].astype(np.float32))).float().numpy())
    return np.stack(found)


@torch.no_grad()
def score(part: Late, head: Ensemble, backbone: str, acts: Array, rows: Array, boxes: Array) -> Array:
    """Log-odds (B,) of ``rows`` by all their views."""
    found = embeddings_of(part, backbone, acts, rows)
    shown = torch.from_numpy(np.broadcast_to(boxes, (*found.shape[:2], 4)).copy())
    out = head.eval()(torch.from_numpy(found), shown, torch.ones(found.shape[:2], dtype=torch.bool))[0]
    return cast(Array, out.numpy().astype(np.float64))


def _state(part: Late, head: Ensemble) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    names = {n for n, p in part.named_parameters() if p.requires_grad}
    own = {n: v.detach().clone() for n, v in part.state_dict().items() if n in names}
    return own, copy.deepcopy(head.state_dict())


def _restore(part: Late, head: Ensemble, state: tuple[dict[str, Tensor], dict[str, Tensor]]) -> None:
    part.load_state_dict(state[0], strict=False)
    head.load_state_dict(state[1])
