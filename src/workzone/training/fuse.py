"""Phase fuse: an ensemble of aggregators on cached features."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from workzone.config.run import FuseConfig
from workzone.models.aggregators import Aggregator, Ensemble, create_aggregator
from workzone.models.aggregators.view_attention import flex_error
from workzone.models.standardise import Standardise
from workzone.predictions import FloatArray
from workzone.training.features import Features, require_roles
from workzone.training.instance import guess_instances
from workzone.training.loop import (
    Fit,
    LoopSettings,
    Metric,
    TensorFeatures,
    balanced,
    evaluate,
    gain,
    image_difficulty,
    prior_shift,
    train_head,
)

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class HeadFit:
    """A trained head with the figures of its selection.

    Attributes:
        head: the ensemble, in evaluation mode.
        scores: selection figures of the ensemble on the selection images.
        members: one ``Fit`` per member.
        rounds: selection figures of each round of training on guessed tiles, with the number of tiles it called
            roadwork and the one that was kept; empty without such rounds.
    """

    head: Ensemble
    scores: dict[str, float]
    members: tuple[Fit, ...]
    rounds: tuple[dict[str, float], ...] = ()

    def metrics(self) -> dict[str, Any]:
        """The figures as JSON values."""
        shown: dict[str, Any] = {
            "val_select": self.scores,
            "members": [
                {"best_epoch": m.best_epoch, "epochs": len(m.history), "val_select": m.best} for m in self.members
            ],
        }
        return shown | ({"rounds": list(self.rounds)} if self.rounds else {})


def fit_aggregator(
    train: Features,
    select: Features,
    config: FuseConfig,
    *,
    seed: int,
    metric: Metric = "nll",
    pos_weight: float | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    options: dict[str, Any] | None = None,
) -> HeadFit:
    """Train ``config.members`` aggregators from different seeds; the result is their mean.

    With ``config.refine_rounds`` the training is repeated with labels of single tiles that the round before guessed on
    the training images; the round that is best on the selection images is kept.

    Args:
        train: features of role train.
        select: features of role val_select; they pick each member's epoch.
        config: aggregator and its training.
        seed: seed of the first member; the others follow from it.
        metric: figure that picks the epoch.
        pos_weight: weight of roadwork images in the loss, None for 1.
        device: where to train.
        progress: called with members done and members in all.
        options: further arguments of the aggregator's constructor.

    Raises:
        LeakageError: features of another role.
        DataError: one class only, no images.
    """
    require_roles(train, select, user="fit_aggregator")
    settings = LoopSettings.of(
        config,
        metric=metric,
        pos_weight=pos_weight,
        view_dropout=config.view_dropout,
        mixup=config.mixup,
        instance_weight=config.instance_weight,
        class_balance=config.class_balance,
        curriculum=config.curriculum,
        adapt_every=config.mixture_every if config.mixture == "adaptive" else 0,
        dann=config.dann,
        stages=config.stages,
        exit_loss=config.exit_loss,
        exit_weight=config.exit_weight,
        precision=config.precision,
    )
    if config.backend == "flex" and config.aggregator == "view_attention" and torch.device(device).type != "cuda":
        raise flex_error(device)
    rounds = 1 + config.refine_rounds

    def fit(data: Features, done: int) -> HeadFit:
        turn = itertools.count()

        def make() -> Aggregator:
            return create_aggregator(config, train.dim, member=next(turn), **(options or {}))

        def report(count: int, members: int) -> None:
            if progress is not None:
                progress(done * members + count, rounds * members)

        return fit_members(
            data, select, make, settings, seed=seed, members=config.members, device=device, progress=report
        )

    best = now = fit(train, 0)
    rows, kept = [now.scores | {"tiles": 0.0}], 0
    for done in range(1, rounds):
        guessed = guess_instances(train, score_views(now.head, train, device=device))
        now = fit(replace(train, instances=guessed), done)
        rows.append(now.scores | {"tiles": float((guessed == 1).sum())})
        if gain(metric, now.scores) > gain(metric, best.scores):
            best, kept = now, done
    if rounds == 1:
        return best
    return replace(best, rounds=tuple(row | {"kept": float(i == kept)} for i, row in enumerate(rows)))


def fit_members(
    train: Features,
    select: Features,
    make: Callable[[], Aggregator],
    settings: LoopSettings,
    *,
    seed: int,
    members: int,
    device: str,
    progress: Progress | None = None,
) -> HeadFit:
    """Train ``members`` models that ``make`` builds, each from its own seed, and average them."""
    where = torch.device(device)
    standardise = Standardise(train.dim)
    # Most layouts have the same views of every image: picking the known ones would copy all embeddings.
    known = train.embeddings.reshape(-1, train.dim) if train.mask.all() else train.embeddings[train.mask]
    standardise.fit(torch.from_numpy(known))
    del known
    data, held = TensorFeatures.of(train, standardise, where), TensorFeatures.of(select, standardise, where)
    models: list[Aggregator] = []
    fits: list[Fit] = []
    seeds = np.random.SeedSequence(seed).generate_state(members).tolist()
    for done, member_seed in enumerate(seeds):
        with torch.random.fork_rng():
            torch.manual_seed(member_seed)
            model = make().to(where)
        model.standardise.load_state_dict(standardise.state_dict())
        model.set_prior(train.prevalence, views=max(1, round(float(train.mask.sum(axis=1).mean()))))
        if settings.curriculum and data.difficulty is None:
            data = replace(data, difficulty=image_difficulty(copy.deepcopy(model), data, held, settings, member_seed))
        fits.append(train_head(model, data, held, settings, seed=member_seed))
        models.append(model)
        if progress is not None:
            progress(done + 1, members)
    head = Ensemble(models).eval()
    shift = prior_shift(balanced(data, settings), settings)
    return HeadFit(head, evaluate(models, held, shift=shift), tuple(fits))


def score_features(head: Ensemble, data: Features, *, device: str = "cpu", batch_size: int = 1024) -> FloatArray:
    """Log-odds (B,) of ``head`` on ``data``, of any role."""
    return _outputs(head, data, device, batch_size)[0]


def score_views(head: Ensemble, data: Features, *, device: str = "cpu", batch_size: int = 1024) -> FloatArray:
    """Log-odds (B, V) of the views of ``data`` by ``head``, strongly negative where there is no view."""
    return _outputs(head, data, device, batch_size)[1]


@torch.no_grad()
def _outputs(head: Ensemble, data: Features, device: str, batch_size: int) -> tuple[FloatArray, FloatArray]:
    where = torch.device(device)
    head = head.to(where).eval()
    parts = []
    for start in range(0, len(data), batch_size):
        rows = slice(start, start + batch_size)
        mask = torch.from_numpy(data.mask[rows].copy()).to(where)
        embeddings = torch.from_numpy(data.embeddings[rows].astype("float32")).to(where)
        embeddings = torch.where(mask.unsqueeze(-1), embeddings, 0.0)
        parts.append(head(embeddings, torch.from_numpy(data.boxes[rows].astype("float32")).to(where), mask)[:2])
    scores, views = (torch.cat(part).cpu().numpy().astype(np.float64) for part in zip(*parts, strict=True))
    return scores, views
