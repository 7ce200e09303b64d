"""Choice of an augmentation policy by short trainings, on images of role train that none of them learns from."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from workzone.config.run import AugmentConfig, TrainConfig
from workzone.config.views import ViewSpec
from workzone.data.roles import SelectData, TrainData
from workzone.errors import DataError
from workzone.files import read_json, sha256_json, write_json
from workzone.metrics.classification import Confusion, mcc
from workzone.metrics.resampling import group_weights
from workzone.models.backbones import Backbone
from workzone.training.images import Loader

_RESAMPLES = 4000
_ERROR = 0.05
Counts = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Trial:
    """One short training: MCC on the held images and the log-odds of each of them."""

    policy: str
    seed: int
    mcc: float
    seconds: float
    log_odds: tuple[float, ...]
    key: str


@dataclass(frozen=True, slots=True)
class Choice:
    """What the trials say.

    Attributes:
        augment: the policy to train with.
        why: the reason in one sentence.
        gains: by policy, gain of MCC over the preset and its interval, corrected for the number of policies.
        trials: finished trials.
        left: trials that the time did not allow, as (policy, seed).
        held, groups: images and groups that judged.
    """

    augment: str
    why: str
    gains: dict[str, tuple[float, float, float]]
    trials: tuple[Trial, ...]
    left: tuple[tuple[str, int], ...]
    held: int
    groups: int


def search_policy(
    backbone: Backbone,
    train: TrainData,
    settings: TrainConfig,
    search: AugmentConfig,
    *,
    seed: int,
    folder: Path,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    workers: int = 0,
    layout: ViewSpec | None = None,
    load: Loader | None = None,
    report: Callable[[int, int], None] | None = None,
) -> Choice:
    """Compare ``search.policies`` with ``settings.augment``, which is kept unless one is better beyond chance.

    A policy is taken when the interval of its gain of MCC over the preset lies above 0: a paired bootstrap over groups
    at 95 % divided by the number of policies, mean over seeds. Every finished trial is a file of ``folder`` and is not
    run again; their seconds are added up over all attempts, and no trial starts once they exceed the budget. The preset
    is always tried.

    Raises:
        DataError: the groups of role train do not allow a held part with both classes.
    """
    from workzone.training.adapt import adapt_backbone

    learned, held = hold_back(train, search.held, seed)
    preset = settings.augment
    names = [preset, *(p for p in dict.fromkeys(search.policies) if p != preset)]
    planned = [(name, seed + i) for i in range(search.seeds) for name in names]
    trials: list[Trial] = []
    left: list[tuple[str, int]] = []
    for done, (name, own) in enumerate(planned):
        config = settings.model_copy(update={"augment": name, "epochs": search.epochs, "processes": 1, "nodes": 1})
        key = sha256_json(
            {
                "config": config.model_dump(mode="json"),
                "seed": own,
                "backbone": backbone.fingerprint(),
                "images": [learned.fingerprint, held.fingerprint],
                "layout": layout.model_dump(mode="json") if layout else None,
            }
        )
        file = folder / f"{name}-{own}.json"
        trial = _finished(file, key)
        if trial is None and trials and sum(t.seconds for t in trials) >= 60.0 * search.minutes:
            left.append((name, own))
            continue
        if trial is None:
            started = time.monotonic()
            # The key keeps a checkpoint of other settings from being taken up.
            work = folder / f"{name}-{own}-{key[:12]}"
            adapted = adapt_backbone(
                backbone, learned, held, config, seed=own, folder=work, device=device, workers=workers,
                load=load, layout=layout,
            )  # fmt: skip
            scores = tuple(float(z) for z in adapted.select_log_odds)
            mcc = adapted.metrics["val_select"]["mcc"]
            trial = Trial(name, own, mcc, time.monotonic() - started, scores, key)
            write_json(file, asdict(trial))
            shutil.rmtree(work)
        trials.append(trial)
        if report is not None:
            report(done + 1, len(planned))
    return choose(preset, trials, held, left=tuple(left), seed=seed)


def _finished(file: Path, key: str) -> Trial | None:
    if not file.is_file():
        return None
    stored: dict[str, Any] = read_json(file)
    trial = Trial(**{**stored, "log_odds": tuple(stored["log_odds"])})
    return trial if trial.key == key else None


def hold_back(train: TrainData, share: float, seed: int) -> tuple[TrainData, SelectData]:
    """Whole groups with about ``share`` of each class as images to judge on, and the others to learn from.

    Raises:
        DataError: one of the parts would have one class only.
    """
    names, inverse = np.unique(train.groups, return_inverse=True)
    classes = np.stack([1 - train.labels, train.labels], axis=1)
    counts = np.zeros((len(names), 2))
    np.add.at(counts, inverse, classes)
    wanted = np.maximum(1.0, share * counts.sum(axis=0))
    taken, chosen = np.zeros(2), np.zeros(len(names), dtype=bool)
    for group in np.random.default_rng([seed, 77]).permutation(len(names)):
        if (taken + counts[group] <= wanted + 0.5).all():
            taken += counts[group]
            chosen[group] = True
    rows = chosen[inverse]
    if not (taken > 0).all() or not (counts[~chosen].sum(axis=0) > 0).all():
        raise DataError(
            "role train cannot be divided by whole groups into two parts with both classes",
            where=f"{len(names)} groups",
            fix="set augment.search=false, or another augment.held",
        )
    kept = train.take(rows)
    # Judging trials is selection, so the held part has its type; it stays apart from the images of role val_select.
    held = SelectData(ids=kept.ids, labels=kept.labels, groups=kept.groups, paths=kept.paths, columns=kept.columns)
    return train.take(~rows), held


def choose(
    preset: str, trials: list[Trial], held: SelectData, *, left: tuple[tuple[str, int], ...] = (), seed: int = 0
) -> Choice:
    """Compare finished trials of the same seeds with those of ``preset``."""
    _, groups = np.unique(held.groups, return_inverse=True)
    n = int(groups.max()) + 1
    weights = group_weights(np.arange(n), _RESAMPLES, [seed, 78]).astype(np.float64)
    found = {(t.policy, t.seed): _mcc(weights, np.array(t.log_odds), held.labels, groups) for t in trials}
    policies = [p for p in dict.fromkeys(t.policy for t in trials) if p != preset]
    gains: dict[str, tuple[float, float, float]] = {}
    for policy in policies:
        seeds = [s for p, s in found if p == policy and (preset, s) in found]
        gain = np.mean([found[policy, s] - found[preset, s] for s in seeds], axis=0)
        tail = _ERROR / len(policies) / 2.0
        low, high = np.quantile(gain[1:], [tail, 1.0 - tail])
        gains[policy] = (float(gain[0]), float(low), float(high))
    better = {p: g for p, g in gains.items() if g[1] > 0.0}
    if better:
        best = max(better, key=lambda p: better[p][0])
        gain, low, high = better[best]
        why = f"MCC {gain:+.3f} [{low:+.3f}, {high:+.3f}] against {preset}, n={len(held)} in {n} groups"
    else:
        best, why = preset, f"no policy is better than {preset} beyond chance, n={len(held)} in {n} groups"
    return Choice(best, why, gains, tuple(trials), left, len(held), n)


def _mcc(weights: Counts, log_odds: Counts, labels: NDArray[np.int64], groups: NDArray[np.int64]) -> Counts:
    """MCC at log-odds 0 under each row of group ``weights`` (R, G); 0 where it is not defined."""
    said, truth = log_odds > 0.0, labels > 0
    cells = (said & truth, said & ~truth, ~said & truth, ~said & ~truth)
    return mcc(Confusion(*(weights @ np.bincount(groups, weights=c, minlength=weights.shape[1]) for c in cells)))
