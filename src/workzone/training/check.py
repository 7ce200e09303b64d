"""Settings that cannot train, refused before the first image is read for it: the key, the reason and what to do."""

from __future__ import annotations

from workzone.config import RunConfig
from workzone.config.terms import parse_loss
from workzone.errors import ConfigError
from workzone.models.adapters.lora import METHODS
from workzone.models.backbones.create import find_spec
from workzone.models.backbones.joint import SEPARATOR
from workzone.training.losses import Need, create_loss, require
from workzone.training.optimisers import check_training
from workzone.training.trainer import pick_device, pick_precision

_FEWEST = {"supcon": 3, "koleo": 2, "lcron": 2}
"""Images of one step below which a loss is 0 whatever the network says."""
_HIDDEN_SCORERS = ("topk_mean", "logsumexp", "noisy_or", "mix")
_ANY_WIDTH = 8


def check_settings(config: RunConfig) -> None:
    """Refuse what pretraining, adaptation or heads would refuse later, or would train to nothing.

    What needs the images or the weights is checked where these are opened.

    Raises:
        ConfigError: naming the key, the reason and the remedy.
    """
    _backbone(config)
    _losses(config)
    _optimisers(config)
    _batches(config)


def _backbone(config: RunConfig) -> None:
    train, pretrain = config.train, config.pretrain
    names = config.model.backbone.split(SEPARATOR)
    specs = {name: find_spec(name) for name in names}
    if len(names) > 1 and pretrain.method != "none":
        raise ConfigError(
            f"pretrain.method={pretrain.method} trains one backbone, and model.backbone joins {len(names)}",
            where="pretrain.method",
            fix="set pretrain.method=none, or name one backbone",
        )
    wanted = [("train.method", train.method, train.adapter.init)] if train.method in METHODS else []
    if pretrain.method != "none" and pretrain.trains == "explora":
        wanted.append(("pretrain.trains", pretrain.trains, "zero"))
    for key, value, init in wanted:
        for name, spec in specs.items():
            if spec.family == "conv":
                pissa = ", nor has PiSSA a matrix to divide" if init != "zero" else ""
                raise ConfigError(
                    f"backbone {name} is made of convolutions, on which {value} has no linear layer to adapt{pissa}",
                    where=f"{key}={value}",
                    fix="take full or frozen, or a ViT such as model.backbone=dinov2_vits14",
                )
    if train.adapter.auxiliary and train.method != "doran":
        raise ConfigError(
            f"auxiliary networks belong to DoRAN, and train.method is {train.method}",
            where="train.adapter.auxiliary",
            fix="set train.method=doran, or train.adapter.auxiliary=false",
        )


def _losses(config: RunConfig) -> None:
    train, fuse, views = config.train, config.fuse, config.views
    mixes = train.method != "frozen" and bool(train.mixup or (train.cutmix and train.cutmix_pairs == "any"))
    # The head that looks once is trained by the same loss, after a backbone that was adapted by it.
    given: set[Need] = {"groups"} if train.method == "frozen" else set()
    given |= {"embeddings"} if train.hidden else set()
    _loss("train", train.loss, given, mixes)
    one_view = views.layout == "global" and not views.flip and len(views.scales) == 1
    given = {"groups"} if one_view else {"groups", "stages"}
    given |= {"embeddings"} if fuse.hidden or fuse.aggregator not in _HIDDEN_SCORERS else set()
    _loss("fuse", fuse.loss, given, bool(fuse.mixup))


def _loss(section: str, text: str, given: set[Need], mixes: bool) -> None:
    key = f"{section}.loss"
    require(create_loss(text, dim=_ANY_WIDTH, where=key), given, soft_labels=mixes, where=key)


def _optimisers(config: RunConfig) -> None:
    train, fuse = config.train, config.fuse
    if train.method != "frozen":
        check_training(train, pick_precision(train.precision, pick_device(config.compute.device)))
    flat = {
        "train": train.optimizer == "muon" and not train.hidden,
        "fuse": fuse.optimizer == "muon" and not fuse.hidden and fuse.aggregator in _HIDDEN_SCORERS,
    }
    for section, wrong in flat.items():
        if wrong:
            raise ConfigError(
                "Muon turns hidden matrices, and a linear head has none: its one layer is a vector",
                where=f"{section}.optimizer=muon",
                fix=f"set {section}.hidden above 0, or {section}.optimizer=adamw",
            )


def _batches(config: RunConfig) -> None:
    train, fuse = config.train, config.fuse
    for section, text, size in (("train", train.loss, train.batch_size), ("fuse", fuse.loss, fuse.batch_size)):
        for term in parse_loss(text):
            least = _FEWEST.get(term.name, 1)
            if size < least:
                raise ConfigError(
                    f"{term.name} compares the images of one step, and with {size} of them it is always 0",
                    where=f"{section}.batch_size={size}",
                    fix=f"set {section}.batch_size={least} or more (accumulation does not help), or drop {term.name}",
                )
    for key, on, size in (
        ("train.mixup", train.mixup > 0 and train.method != "frozen", train.batch_size),
        ("train.cutmix", train.cutmix > 0 and train.method != "frozen", train.batch_size),
        ("fuse.mixup", fuse.mixup > 0, fuse.batch_size),
    ):
        if on and size < 2:
            raise ConfigError(
                "an image can only be mixed with another of its step, and there is one",
                where=key,
                fix=f"set {key.partition('.')[0]}.batch_size=2 or more, or {key}=0",
            )
