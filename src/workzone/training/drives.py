"""Training of the attention over the frames of a drive: torch here, numpy in ``workzone.decisions.attention``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from workzone.decisions.attention import EVIDENCE_SCALE, EvidenceAttention, TrainedAttention
from workzone.decisions.pooling import MAX_EVIDENCE
from workzone.errors import ConfigError, DataError
from workzone.predictions import FloatArray

_SPREAD = 1e-6
_PAIRS = 1_000_000


@dataclass(frozen=True, slots=True)
class DriveFrames:
    """The sampled frames of one drive.

    Attributes:
        name: of the drive.
        seconds: (N,) times, not falling.
        log_odds: (N,) calibrated log-odds of single frames.
        labels: (N,) 1, 0, or -1 where a frame has none; such frames are attended to, and are no part of the loss.
        embeddings: (N, D) of the whole view.
    """

    name: str
    seconds: FloatArray
    log_odds: FloatArray
    labels: NDArray[np.int64]
    embeddings: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class AttentionSettings:
    """How the attention is trained.

    Attributes:
        components: directions of the embeddings that frames are compared by; 0 for log-odds and times alone.
        heads: ways to attend.
        width: of queries and keys.
        steps: most steps; how many are taken is chosen by group folds, and 0 leaves the single frame as it is.
        checks: numbers of steps that are compared, evenly spaced, besides 0.
        folds: group folds of that choice.
        lr: learning rate of AdamW.
        weight_decay: pulls the pool towards the score of the frame alone.
    """

    components: int = 4
    heads: int = 2
    width: int = 4
    steps: int = 200
    checks: int = 8
    folds: int = 4
    lr: float = 0.02
    weight_decay: float = 0.05

    def __post_init__(self) -> None:
        least = min(self.heads, self.width, self.steps, self.checks)
        if self.components < 0 or least < 1 or self.folds < 2 or self.lr <= 0 or self.weight_decay < 0:
            raise ConfigError(
                "an attention over frames needs heads, width, steps and checks of 1 or more, 2 folds or more and a "
                "positive learning rate",
                where="training of a pool",
            )


@dataclass(frozen=True, slots=True)
class AttentionFit:
    """A trained pool.

    Attributes:
        pool: the pool.
        steps: steps it was trained for; 0 is the single frame.
        curve: mean loss over held-out drives by number of steps.
        trace: loss on the training drives by step.
    """

    pool: TrainedAttention
    steps: int
    curve: dict[int, float]
    trace: tuple[float, ...]


class Pack(NamedTuple):
    """Drives (D) of up to N frames: tokens (D, N, W), the rest (D, N)."""

    tokens: Tensor
    log_odds: Tensor
    seconds: Tensor
    labels: Tensor
    there: Tensor


class FrameAttention(torch.nn.Module):
    """The arithmetic of ``TrainedAttention`` with gradients; at the start it returns the scores it is given."""

    def __init__(self, width: int, settings: AttentionSettings, seed: int) -> None:
        super().__init__()
        drawn = torch.Generator().manual_seed(seed)
        shape = (settings.heads, width, settings.width)
        spread = 1.0 / np.sqrt(width)
        self.query = torch.nn.Parameter(torch.randn(shape, generator=drawn) * spread)
        self.key = torch.nn.Parameter(torch.randn(shape, generator=drawn) * spread)
        # Heads begin with reaches from about two seconds to half a minute.
        reach = torch.logspace(np.log10(2.0), np.log10(30.0), settings.heads)
        self.raw_decay = torch.nn.Parameter(torch.log(torch.expm1(1.0 / reach)))
        self.gain = torch.nn.Parameter(torch.zeros(settings.heads))
        self.mean = torch.nn.Parameter(torch.zeros(settings.heads, width))
        self.bias = torch.nn.Parameter(torch.zeros(1))

    @property
    def decay(self) -> Tensor:
        """Per second, (H,)."""
        return F.softplus(self.raw_decay)

    def forward(self, tokens: Tensor, log_odds: Tensor, seconds: Tensor, there: Tensor | None = None) -> Tensor:
        """Pooled log-odds (..., N) from tokens (..., N, W), log-odds (..., N) and seconds (..., N) of drives.

        ``there`` (..., N) is False where a drive has no more frames; nothing attends to these.
        """
        asked = torch.einsum("...nw,hwk->...hnk", tokens, self.query) / self.query.shape[2] ** 0.5
        offered = torch.einsum("...nw,hwk->...hnk", tokens, self.key)
        apart = (seconds[..., :, None] - seconds[..., None, :]).abs().unsqueeze(-3)
        alike = asked @ offered.transpose(-1, -2) - self.decay[:, None, None] * apart
        if there is not None:
            alike = alike.masked_fill(~there[..., None, None, :], -torch.inf)
        value = self.gain[:, None] * log_odds.unsqueeze(-2) + torch.einsum("...nw,hw->...hn", tokens, self.mean)
        pooled = (alike.softmax(dim=-1) @ value.unsqueeze(-1)).squeeze(-1)
        own = self.gain[:, None] * log_odds.unsqueeze(-2)
        scores: Tensor = log_odds + self.bias + (pooled - own).sum(dim=-2)
        return scores


def fit_attention(
    drives: Sequence[DriveFrames], settings: AttentionSettings | None = None, *, seed: int = 0
) -> AttentionFit:
    """Train attention over the frames of ``drives``; the number of steps is chosen on drives that are held out in turn.

    Where the lowest held-out loss is not below that of the single frames by more than one standard error over drives,
    they are left as they are (0 steps).

    Args:
        drives: labelled drives; frames without a label take part in the attention.
        settings: how it is trained.
        seed: of the start and of the folds.

    Raises:
        DataError: fewer than two drives with labels, or one class only.
    """
    plan = settings or AttentionSettings()
    require_drives(drives)
    sums: dict[int, list[float]] = {}
    held = _folds(drives, plan.folds, seed)
    for fold in range(int(held.max()) + 1):
        inside = [d for d, f in zip(drives, held, strict=True) if f != fold]
        outside = [d for d, f in zip(drives, held, strict=True) if f == fold]
        for steps, losses in _train(inside, plan, seed, plan.steps, outside)[2].items():
            sums.setdefault(steps, []).extend(losses)
    frames = sum(int((d.labels >= 0).sum()) for d in drives)
    curve = {steps: float(np.sum(losses)) / frames for steps, losses in sorted(sums.items())}
    best = _steps(curve, sums)
    pool, trace, _ = _train(drives, plan, seed, best, ())
    return AttentionFit(pool, best, curve, tuple(trace))


def _steps(curve: dict[int, float], sums: dict[int, list[float]]) -> int:
    """Number of steps with the lowest loss, 0 unless it is lower than without by more than one standard error."""
    best = min(curve, key=lambda steps: (curve[steps], steps))
    saved = np.subtract(sums[0], sums[best])
    return best if saved.sum() > np.sqrt(len(saved)) * saved.std(ddof=1) else 0


def out_of_fold(
    drives: Sequence[DriveFrames], settings: AttentionSettings | None = None, *, folds: int = 0, seed: int = 0
) -> list[FloatArray]:
    """Pooled log-odds of the frames of each drive from a pool that was trained on the drives of other folds.

    Args:
        drives: labelled drives.
        settings: how each pool is trained.
        folds: folds of whole drives; 0 leaves out one drive at a time.
        seed: of the training and of the folds.

    Raises:
        DataError: too few drives, or one class only without the drives of a fold.
    """
    require_drives(drives)
    held = np.arange(len(drives)) if not folds else _folds(drives, folds, seed)
    out: list[FloatArray] = [np.zeros(0)] * len(drives)
    for fold in np.unique(held):
        pool = fit_attention([d for d, f in zip(drives, held, strict=True) if f != fold], settings, seed=seed).pool
        for i in np.flatnonzero(held == fold).tolist():
            out[i] = pool(drives[i].log_odds, drives[i].seconds, drives[i].embeddings)
    return out


def require_drives(drives: Sequence[DriveFrames]) -> None:
    """Raise DataError unless two drives or more have labels, of both classes together."""
    known = [d for d in drives if (d.labels >= 0).any()]
    classes = np.unique(np.concatenate([d.labels[d.labels >= 0] for d in known])) if known else np.zeros(0)
    if len(known) < 2 or len(classes) < 2:
        what = f"{len(known)} drives have labels" if len(known) < 2 else "all labelled frames are of one class"
        raise DataError(
            f"{what}, so nothing can be learned about another drive",
            where="attention over frames",
            fix="label frames of several drives, with and without roadwork",
        )


def _folds(drives: Sequence[DriveFrames], folds: int, seed: int) -> NDArray[np.int64]:
    """Fold of each drive; drives that hold frames without roadwork are spread first, as they are rare."""
    negatives = np.array([(d.labels == 0).sum() for d in drives])
    order = np.random.default_rng([seed, 31]).permutation(len(drives))
    order = order[np.argsort(-negatives[order], kind="stable")]
    fold = np.empty(len(drives), dtype=np.int64)
    fold[order] = np.arange(len(drives)) % min(folds, len(drives))
    return fold


def _train(
    drives: Sequence[DriveFrames],
    plan: AttentionSettings,
    seed: int,
    steps: int,
    held: Sequence[DriveFrames],
) -> tuple[TrainedAttention, list[float], dict[int, list[float]]]:
    """Pool after ``steps`` steps, loss at each, and the summed loss of every held-out drive at each check."""
    kind = TrainedAttention if plan.components else EvidenceAttention
    centre, basis = _directions(drives, plan.components)
    model = FrameAttention(basis.shape[1] + 1, plan, seed)
    data, outside = _packs(drives, centre, basis), _packs(held, centre, basis)
    optimiser = torch.optim.AdamW(model.parameters(), lr=plan.lr, weight_decay=plan.weight_decay)
    checks = {0, *np.linspace(0, steps, plan.checks + 1).round().astype(int).tolist()}
    labelled = sum(int((d.labels >= 0).sum()) for d in drives)
    trace, found = [], {}
    for step in range(steps + 1):
        if held and step in checks:
            with torch.no_grad():
                found[step] = [x for pack in outside for x in _losses(model, pack).sum(dim=1).tolist()]
        if step == steps:
            break
        loss = torch.stack([_losses(model, pack).sum() for pack in data]).sum() / labelled
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        trace.append(float(loss.detach()))
    names = ("query", "key", "decay", "gain", "mean", "bias")
    numbers = {n: getattr(model, n).detach().double().numpy() for n in names}
    return kind(centre=centre, basis=basis, **numbers), trace, found


def _directions(drives: Sequence[DriveFrames], components: int) -> tuple[FloatArray, FloatArray]:
    """Mean (D,) and the leading ``components`` directions (D, C) of all frames, scaled to unit spread."""
    e = np.concatenate([d.embeddings for d in drives]).astype(np.float64)
    if not components:
        return np.zeros(0), np.zeros((0, 0))
    centre = e.mean(axis=0)
    _, spread, directions = np.linalg.svd(e - centre, full_matrices=False)
    basis = np.zeros((e.shape[1], components))
    for c in range(min(components, len(spread))):
        unit = spread[c] / np.sqrt(len(e))
        if unit > _SPREAD:
            basis[:, c] = directions[c] / unit
    return centre, basis


def _packs(drives: Sequence[DriveFrames], centre: FloatArray, basis: FloatArray) -> list[Pack]:
    """Drives of like length side by side, padded; long ones in packs of their own, as attention takes N x N numbers."""
    packs: list[list[DriveFrames]] = []
    for drive in sorted(drives, key=lambda d: len(d.seconds)):
        if packs and (len(packs[-1]) + 1) * len(drive.seconds) ** 2 <= _PAIRS:
            packs[-1].append(drive)
        else:
            packs.append([drive])
    return [_pack(pack, centre, basis) for pack in packs]


def _pack(drives: Sequence[DriveFrames], centre: FloatArray, basis: FloatArray) -> Pack:
    longest = max(len(d.seconds) for d in drives)
    shape = (len(drives), longest)
    tokens = np.zeros((*shape, basis.shape[1] + 1), dtype=np.float32)
    s, t = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    labels, there = np.full(shape, -1.0, dtype=np.float32), np.zeros(shape, dtype=np.bool_)
    for i, d in enumerate(drives):
        n = len(d.seconds)
        s[i, :n] = np.clip(d.log_odds, -MAX_EVIDENCE, MAX_EVIDENCE)
        tokens[i, :n, -1] = s[i, :n] / EVIDENCE_SCALE
        if basis.shape[1]:
            tokens[i, :n, :-1] = (d.embeddings - centre) @ basis
        # Times since the start of the drive: the float32 of a whole day would be too coarse.
        t[i, :n], labels[i, :n], there[i, :n] = d.seconds - d.seconds[0], d.labels, True
    return Pack(*(torch.from_numpy(part) for part in (tokens, s, t, labels, there)))


def _losses(model: FrameAttention, pack: Pack) -> Tensor:
    """Cross-entropy (D, N), 0 where a frame has no label."""
    scores = model(pack.tokens, pack.log_odds, pack.seconds, pack.there)
    known = pack.labels >= 0
    target = torch.where(known, pack.labels, 0.0)
    return F.binary_cross_entropy_with_logits(scores, target, reduction="none") * known
