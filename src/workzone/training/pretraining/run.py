"""From a pool of images to a pretrained backbone."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from workzone.config.pretraining import PretrainConfig
from workzone.config.run import AdapterConfig, ModelConfig
from workzone.errors import ConfigError
from workzone.files import sha256_json
from workzone.models.adapters import apply_adapter, merge, trainable_parameters
from workzone.models.backbones import Backbone, create_backbone, scratch_backbone
from workzone.training.pretraining.check import check_features, embed
from workzone.training.pretraining.images import StoredImages, store_images
from workzone.training.pretraining.loop import Advance, run_loop
from workzone.training.pretraining.objective import Objective, grow
from workzone.training.pretraining.pool import Pool
from workzone.training.pretraining.selfsupervised import SelfSupervised
from workzone.training.trainer import pick_device
from workzone.vision.decode import MAX_PIXELS

_ROOM = 1.5
_LEAST_CHECKED = 20


class Report(Protocol):
    """Where progress is shown."""

    def message(self, text: str) -> None:
        """One line."""

    def bar(self, text: str) -> AbstractContextManager[Advance]:
        """A bar for a loop."""


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A pretrained backbone.

    Attributes:
        backbone: plain, adapters merged, in evaluation mode.
        metrics: curve, images, time.
    """

    backbone: Backbone
    metrics: dict[str, Any]


def pretrain_backbone(
    model: ModelConfig,
    config: PretrainConfig,
    pool: Pool,
    *,
    seed: int,
    folder: Path,
    cache: Path,
    report: Report,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    workers: int = 1,
    max_pixels: int = MAX_PIXELS,
) -> Pretrained:
    """Train the backbone of ``model`` on ``pool`` by ``config.method``, taking up a checkpoint in ``folder``.

    Raises:
        ConfigError: sizes that the patch does not divide, or a backbone that cannot carry adapters.
        WeightsError: weights of student or teacher are missing.
        CollapseError: the features collapsed.
        DataError: an image cannot be read.
    """
    start = (
        scratch_backbone(model, seed=seed, drop_path=config.drop_path)
        if config.start == "scratch"
        else create_backbone(model, drop_path=config.drop_path)
    )
    side = config.image_size or start.image_size
    _check_sizes(start, config, side)
    place = pick_device(device)
    teacher = _teacher(config, side, start) if config.method == "distil" else None
    room = config.method != "distil" or config.distil.views > 1
    stored_side = max(round(_ROOM * side) if room else side, teacher.image_size if teacher else 0)
    with report.bar("decoding images") as advance:
        images = store_images(
            pool.frame["path"].to_list(),
            pool.frame["sha256"].to_list(),
            stored_side,
            cache,
            workers=workers,
            max_pixels=max_pixels,
            progress=advance,
        )
    learner = _unfrozen(start, config, seed)
    objective = _objective(learner, teacher, images, config, side=side, seed=seed, cache=cache, report=report, on=place)
    key = sha256_json(
        {
            "config": config.model_dump(mode="json", exclude={"checkpoint_seconds", "patience"}),
            "model": model.model_dump(mode="json"),
            "start": start.fingerprint(),
            "teacher": teacher.fingerprint() if teacher else None,
            "images": list(images.sha256),
            "seed": seed,
        }
    )
    frame = pool.frame.with_row_index("row").filter(pool.frame["label"].is_not_null())
    rows, labels = frame["row"].to_numpy().astype(np.int64), frame["label"].to_numpy().astype(np.int64)
    groups = np.array(frame["group"].fill_null("").to_list(), dtype=np.str_)

    def check(now: Objective) -> dict[str, Any]:
        features = embed(now.result(), images, rows, side, place)
        return check_features(features, labels, groups, folds=config.folds, seed=seed)

    possible = min(int((labels == k).sum()) for k in (0, 1)) * 2 >= _LEAST_CHECKED
    with report.bar(f"pretraining ({config.method})") as advance:
        outcome = run_loop(
            objective,
            images,
            config,
            seed=seed,
            folder=folder / "checkpoints",
            key=key,
            check=check if possible else None,
            device=place,
            progress=advance,
        )
    objective.to("cpu")
    final = objective.result()
    plain = merge(final) if config.trains == "explora" else final
    start.network.load_state_dict(plain.network.state_dict())
    metrics: dict[str, Any] = {
        "method": config.method,
        "trains": config.trains,
        "start": config.start,
        "backbone": model.backbone,
        "images": {"n": len(images), **pool.counts},
        "image_size": side,
        "trainable_parameters": trainable_parameters(learner),
        "history": outcome.history,
        "licence": start.licence,
        "seconds_per_image": round(outcome.seconds / max(1, outcome.images), 6),
    }
    if teacher is not None:
        metrics["teacher"] = {
            "backbone": config.teacher,
            "image_size": teacher.image_size,
            "fingerprint": teacher.fingerprint(),
            "licence": teacher.licence,
        }
    return Pretrained(start.eval(), metrics)


def _unfrozen(start: Backbone, config: PretrainConfig, seed: int) -> Backbone:
    if config.trains == "full":
        learner = copy.deepcopy(start)
        for parameter in learner.parameters():
            parameter.requires_grad_(True)
        return learner
    settings = config.explora
    adapter = AdapterConfig(
        rank=settings.rank, alpha=settings.alpha, dropout=0.0, init="zero", open_blocks=settings.open_blocks
    )
    return apply_adapter(start, adapter, "explora", seed)


def _objective(
    learner: Backbone,
    teacher: Backbone | None,
    images: StoredImages,
    config: PretrainConfig,
    *,
    side: int,
    seed: int,
    cache: Path,
    report: Report,
    on: str,
) -> Objective:
    if teacher is None:
        return SelfSupervised(learner, config, seed=seed)
    from workzone.training.distillation import Distillation, teacher_features

    grid = min(-(-side // learner.patch), teacher.image_size // teacher.patch)
    with report.bar(f"looking through {config.teacher}") as advance:
        features = teacher_features(
            teacher,
            images,
            side=teacher.image_size,
            grid=grid,
            views=config.distil.views,
            seed=seed,
            folder=cache,
            device=on,
            progress=advance,
        )
    return Distillation(learner, features, config.distil, side=side, seed=seed)


def _teacher(config: PretrainConfig, side: int, student: Backbone) -> Backbone:
    from workzone.models.backbones.create import find_spec

    assert config.teacher is not None
    spec = find_spec(config.teacher, where="pretrain.teacher")
    size = config.teacher_size
    if not size:
        same_grid = student.spec.family != "conv" and spec.family != "conv"
        size = side // student.patch * spec.patch if same_grid else grow(side, spec.patch)
    return create_backbone(
        ModelConfig(backbone=config.teacher, weights=config.teacher_weights, image_size=max(size, 32))
    )


def _check_sizes(backbone: Backbone, config: PretrainConfig, side: int) -> None:
    small = config.ssl.local_size or backbone.patch
    for key, value in (("pretrain.image_size", side), ("pretrain.ssl.local_size", small)):
        if value % backbone.patch:
            raise ConfigError(
                f"{value} is not a multiple of {backbone.patch}, the patch size of {backbone.name}",
                where=key,
                fix=f"take {grow(value, backbone.patch)}",
            )
