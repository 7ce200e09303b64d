"""Phase fuse: an ensemble of aggregators on cached features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from workzone.config.models import FuseConfig
from workzone.models.aggregators import Aggregator, Ensemble, create_aggregator
from workzone.models.standardise import Standardise
from workzone.predictions import FloatArray
from workzone.training.features import Features, require_roles
from workzone.training.loop import Fit, LoopSettings, Metric, TensorFeatures, evaluate, train_head

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class HeadFit:
    """A trained head with the figures of its selection.

    Attributes:
        head: the ensemble, in evaluation mode.
        scores: selection figures of the ensemble on the selection images.
        members: one ``Fit`` per member.
    """

    head: Ensemble
    scores: dict[str, float]
    members: tuple[Fit, ...]

    def metrics(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return {
            "val_select": self.scores,
            "members": [
                {"best_epoch": m.best_epoch, "epochs": len(m.history), "val_select": m.best} for m in self.members
            ],
        }


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
    settings = LoopSettings(
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        weight_decay=config.weight_decay,
        patience=config.patience,
        view_dropout=config.view_dropout,
        metric=metric,
        pos_weight=pos_weight,
    )

    def make() -> Aggregator:
        return create_aggregator(config, train.dim, **(options or {}))

    return fit_members(
        train, select, make, settings, seed=seed, members=config.members, device=device, progress=progress
    )


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
    known = torch.from_numpy(train.embeddings[train.mask])
    standardise = Standardise(train.dim)
    standardise.fit(known)
    data, held = TensorFeatures.of(train, standardise, where), TensorFeatures.of(select, standardise, where)
    models: list[Aggregator] = []
    fits: list[Fit] = []
    seeds = np.random.SeedSequence(seed).generate_state(members).tolist()
    for done, member_seed in enumerate(seeds):
        with torch.random.fork_rng():
            torch.manual_seed(member_seed)
            model = make().to(where)
        model.standardise.load_state_dict(standardise.state_dict())
        model.set_prior(train.prevalence)
        fits.append(train_head(model, data, held, settings, seed=member_seed))
        models.append(model)
        if progress is not None:
            progress(done + 1, members)
    head = Ensemble(models).eval()
    return HeadFit(head, evaluate(models, held), tuple(fits))


def balanced_pos_weight(labels: NDArray[np.int64]) -> float:
    """Negatives per positive: the ``pos_weight`` under which both classes weigh the same."""
    positives = int(labels.sum())
    if not 0 < positives < len(labels):
        raise ValueError("both classes must occur")
    return (len(labels) - positives) / positives


@torch.no_grad()
def score_features(head: Ensemble, data: Features, *, device: str = "cpu", batch_size: int = 1024) -> FloatArray:
    """Log-odds (B,) of ``head`` on ``data``, of any role."""
    where = torch.device(device)
    head = head.to(where).eval()
    parts = []
    for start in range(0, len(data), batch_size):
        rows = slice(start, start + batch_size)
        mask = torch.from_numpy(data.mask[rows].copy()).to(where)
        embeddings = torch.from_numpy(data.embeddings[rows].astype("float32")).to(where)
        embeddings = torch.where(mask.unsqueeze(-1), embeddings, 0.0)
        parts.append(head(embeddings, torch.from_numpy(data.boxes[rows].astype("float32")).to(where), mask)[0])
    return torch.cat(parts).cpu().numpy().astype(np.float64)
