"""The loop that every way of pretraining shares: seeded by position, watched, and resumed after a kill."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist

from workzone.config.pretraining import PretrainConfig
from workzone.errors import ArtifactError
from workzone.files import atomic_path
from workzone.training.optimisers import make_optimizer, make_schedule
from workzone.training.pretraining.guard import CollapseError, CollapseGuard
from workzone.training.pretraining.images import StoredImages
from workzone.training.pretraining.objective import Objective
from workzone.training.pretraining.terms import processes, total

LAST = "last.ckpt"
# Targets sharpen late in a training from random weights.
_GRACE = 0.25
_LOWER = "take a lower pretrain.lr"
Advance = Callable[[int, int], None]
Check = Callable[[Objective], dict[str, Any]]


@dataclass(slots=True)
class Outcome:
    """What a training did.

    Attributes:
        history: one row per epoch: means of loss, terms and signs, and now and then the check of the features.
        trace: loss of each step as (step, loss), of the whole training, whatever was resumed.
        seconds: spent in steps, over all processes that took part one after the other.
        images: images seen in that time, by this process.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    trace: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0
    images: int = 0


def run_loop(
    objective: Objective,
    images: StoredImages,
    config: PretrainConfig,
    *,
    seed: int,
    folder: Path,
    key: str,
    check: Check | None = None,
    device: str = "cpu",
    progress: Advance | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Outcome:
    """Train ``objective`` in place on ``images`` and return the curve.

    Every draw depends on the seed and the step alone, so that a run taken up from ``folder/last.ckpt`` repeats an
    uninterrupted one. With several processes of torch.distributed each takes its share of every batch, gradients are
    averaged, and the first writes the checkpoints.

    Args:
        objective: networks and loss.
        images: what is learned from.
        config: length, batch, rates, patience.
        seed: of the order, the crops, and stochastic depth.
        folder: receives the checkpoint.
        key: hash of all that decides the result; a checkpoint of another key is not taken up.
        check: measures the features before the first epoch, every ``check_every`` epochs, and at the end.
        device: where to train.
        progress: called with (steps done, steps in all).
        on_step: called after each step with the steps done.

    Raises:
        CollapseError: the features no longer tell images apart.
        ArtifactError: the checkpoint cannot be read.
    """
    rank, world = (dist.get_rank(), processes()) if processes() > 1 else (0, 1)
    batch = min(config.batch_size, max(2, len(images) // world))
    per_epoch = max(1, len(images) // (batch * world))
    steps = per_epoch * config.epochs
    objective.to(device)
    _same_start(objective, world)
    optimizer = make_optimizer(
        [(m, config.lr * f) for m, f in objective.parts()], weight_decay=config.weight_decay, total=steps
    )
    schedule = make_schedule(optimizer, total=steps, warmup=config.warmup, min_lr=config.min_lr)
    guard = CollapseGuard(config.patience, grace=max(config.patience, round(_GRACE * steps)))
    outcome, sums, begin = Outcome(), {}, 0
    trained = [p for m, _ in objective.parts() for p in m.parameters() if p.requires_grad]
    stored = _load(folder / LAST, key)
    if stored is not None:
        objective.load_state_dict(stored["objective"])
        optimizer.load_state_dict(stored["optimizer"])
        schedule.load_state_dict(stored["schedule"])
        guard.restore(stored["guard"])
        outcome = Outcome(stored["history"], [(int(s), float(v)) for s, v in stored["trace"]], *stored["timing"])
        sums, begin = dict(stored["sums"]), int(stored["step"])
    elif check is not None:
        outcome.history.append({"epoch": 0, "check": check(objective)})

    def save(step: int) -> None:
        if rank == 0:
            state = {
                "key": key,
                "step": step,
                "objective": objective.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "guard": guard.state(),
                "history": outcome.history,
                "trace": outcome.trace,
                "timing": [outcome.seconds, outcome.images],
                "sums": sums,
            }
            with atomic_path(folder / LAST) as partial:
                torch.save(state, partial)

    saved = time.monotonic()
    for step in range(begin, steps):
        epoch, index = divmod(step, per_epoch)
        order = np.random.default_rng([seed, epoch]).permutation(len(images))
        rows = order[: per_epoch * batch * world].reshape(per_epoch, world, batch)[index, rank]
        clock = time.monotonic()
        objective.train()
        draw = (seed * 1_000_003 + step * world + rank) % (2**31 - 2)
        torch.manual_seed(draw)
        generator = torch.Generator().manual_seed(draw + 1)
        found = objective.step(rows.tolist(), images.batch(rows).to(device), generator, step / steps)
        loss = float(found.loss.detach())
        if not math.isfinite(loss):
            raise CollapseError("the loss is not finite", where=f"phase pretrain, step {step + 1}", fix=_LOWER)
        optimizer.zero_grad(set_to_none=True)
        found.loss.backward()  # type: ignore[no-untyped-call]
        _average(trained, world)
        if config.clip:
            nn.utils.clip_grad_norm_(trained, config.clip)
        optimizer.step()
        schedule.step()
        objective.after_update((step + 1) / steps)
        signs = guard.look(found.embeddings, found.signs)
        outcome.trace.append((step, loss))
        row = {"loss": loss, **{k: float(v.detach()) for k, v in found.terms.items()}, **signs}
        sums = {k: sums.get(k, 0.0) + v for k, v in row.items()}
        outcome.seconds += time.monotonic() - clock
        outcome.images += len(rows)
        if index + 1 == per_epoch:
            done = epoch + 1
            means: dict[str, Any] = {"epoch": done, **{k: v / per_epoch for k, v in sums.items()}}
            if check is not None and (done % config.check_every == 0 or done == config.epochs):
                means["check"] = check(objective)
            outcome.history.append(means)
            sums = {}
        if index + 1 == per_epoch or time.monotonic() - saved > config.checkpoint_seconds:
            save(step + 1)
            saved = time.monotonic()
        if progress is not None:
            progress(step + 1, steps)
        if on_step is not None:
            on_step(step + 1)
        if not math.isfinite(loss):
            raise ArtifactError(
                "the loss is no longer finite", where=f"step {step + 1}", fix="take a lower pretrain.lr"
            )
    return outcome


def _load(path: Path, key: str) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many classes for a file that is no checkpoint
        raise ArtifactError(
            f"the checkpoint cannot be read: {error}", where=str(path), fix="delete it to begin again"
        ) from error
    return state if state.get("key") == key else None


def _average(parameters: Sequence[Tensor], world: int) -> None:
    if world > 1:
        for p in parameters:
            if p.grad is not None:
                p.grad = total(p.grad) / world


def _same_start(objective: nn.Module, world: int) -> None:
    if world > 1:
        for tensor in objective.state_dict().values():
            dist.broadcast(tensor, 0)
