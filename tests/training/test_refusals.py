"""What cannot train is refused before it starts: each row names the key that is wrong and what to do about it."""

from __future__ import annotations

import pytest

from workzone.config.load import load_config
from workzone.errors import ConfigError
from workzone.training.check import check_settings

BASE = ["data=synthetic", "out=x", "compute.device=cpu"]
VIT = "model.backbone=vit_t16"

ROWS = [
    # adapters
    ("train.method=lora", "train.method=lora", "take full or frozen"),
    ("train.method=dora", "nor has PiSSA a matrix", "dinov2_vits14"),
    ("train.method=doran train.adapter.init=zero", "on which doran has no linear layer", "dinov2_vits14"),
    ("train.method=explora", "train.method=explora", "take full or frozen"),
    ("pretrain.method=dino pretrain.trains=explora", "pretrain.trains=explora", "take full"),
    (f"{VIT} train.method=doran train.adapter.auxiliary=true", "train.adapter", "init=zero"),
    (
        f"{VIT} train.method=lora train.adapter.auxiliary=true train.adapter.init=zero",
        "train.adapter.auxiliary",
        "train.method=doran",
    ),
    ("model.backbone=efficientnet_lite0+dinov2_vits14 train.method=full", "train.method=full", "train.method=frozen"),
    ("model.backbone=efficientnet_lite0+dinov2_vits14 pretrain.method=dino", "pretrain.method", "name one backbone"),
    ("model.backbone=resnet50", "model.backbone", "take one of"),
    # optimisers
    ("train.optimizer=muon train.hidden=0", "train.optimizer=muon", "train.hidden above 0"),
    ("fuse.optimizer=muon fuse.hidden=0", "fuse.optimizer=muon", "fuse.hidden above 0"),
    ("train.method=full train.optimizer=sam train.accumulate=2", "train.accumulate", "take its default"),
    ("train.method=full train.optimizer=schedule_free train.ema=0.9", "train.ema", "take its default"),
    ("train.method=full train.optimizer=sophia train.compile=true", "train.compile", "take its default"),
    ("train.method=full train.precision=fp16", "train.precision", "take auto, fp32 or bf16"),
    ("train.strategy=fsdp2 train.ema=0.9", "train", "use ema=0"),
    # temperatures and collapse
    (
        "pretrain.method=dino pretrain.ssl.student_temperature=0.05",
        "must stay below the student's",
        "nothing sharpens the targets",
    ),
    ("pretrain.method=dino pretrain.ssl.teacher_temperature=0.1", "must stay below", "nothing sharpens"),
    ("pretrain.method=swav pretrain.ssl.queue=0 pretrain.ssl.prototypes=512", "512 prototypes", "fewer ssl.prototypes"),
    ("pretrain.method=hybrid pretrain.ssl.byol=0 pretrain.ssl.swav=0 pretrain.ssl.dino=0", "pretrain", "all 0"),
    ("pretrain.method=distil", "pretrain", "set pretrain.teacher"),
    ("pretrain.trains=explora pretrain.start=scratch", "pretrain", "take start=weights"),
    ("pretrain.method=byol pretrain.batch_size=1", "pretrain.batch_size", "greater than or equal to 2"),
    ("fuse.loss=supcon(temperature=0)+ce", "fuse.loss", "temperature must be above 0"),
    # losses
    ("train.loss=hinge", "train.loss", "take one of"),
    ("fuse.loss=focal(beta=1)", "fuse.loss", "it has gamma, alpha"),
    ("fuse.loss=focal(alpha=1.5)", "fuse.loss", "between 0 and 1"),
    ("fuse.loss=supcon+koleo", "fuse.loss", "write supcon+koleo+cross_entropy"),
    ("fuse.loss=0*ce+supcon", "fuse.loss", "must be a number above 0"),
    ("fuse.loss=ce+ce", "fuse.loss", "names a loss twice"),
    ("train.loss=cascade_survival", "train.loss", "give it to fuse.loss"),
    ("train.method=full train.loss=lcron", "train.loss", "lcron(items=batch)"),
    ("views.layout=global fuse.loss=cascade_survival", "fuse.loss", "views.layout=grid"),
    ("train.loss=supcon+ce train.hidden=0", "train.loss", "train.hidden above 0"),
    ("fuse.loss=evidential fuse.hidden=0", "fuse.loss", "fuse.hidden above 0"),
    # batches
    ("fuse.loss=evidential fuse.mixup=0.2", "fuse.loss", "leave MixUp off"),
    ("fuse.loss=gatekeeper fuse.mixup=0.2", "fuse.loss", "leave MixUp off"),
    ("train.method=full train.loss=supcon+ce train.mixup=0.2", "train.loss", "leave MixUp off"),
    ("train.method=full train.loss=evidential train.cutmix=1 train.cutmix_pairs=any", "train.loss", "MixUp off"),
    ("train.loss=supcon+ce train.batch_size=1", "train.batch_size=1", "train.batch_size=3 or more"),
    ("fuse.loss=supcon+ce fuse.batch_size=2", "fuse.batch_size=2", "drop supcon"),
    ("fuse.loss=ce+0.1*koleo fuse.batch_size=1", "fuse.batch_size=1", "2 or more"),
    ("train.method=full train.mixup=0.2 train.batch_size=1", "train.mixup", "train.batch_size=2"),
    ("fuse.mixup=0.2 fuse.batch_size=1", "fuse.mixup", "fuse.mixup=0"),
    ("train.method=full train.views=4 train.cutmix=1", "train", "cutmix=0"),
    ("fuse.mixture=manifest fuse.curriculum=0.5", "fuse", "curriculum=0"),
    ("fuse.dann=0.1 fuse.mixup=0.2", "fuse", "use mixup=0"),
    ("augment.search=true", "augment.search", "another train.method"),
    ("train.method=full train.nodes=2", "train", "rendezvous=HOST:PORT"),
    ("train.method=full train.views=60", "train.views=60", "enough rows and columns"),
]


@pytest.mark.parametrize(("words", "key", "remedy"), ROWS, ids=[row[0] for row in ROWS])
def test_is_refused_with_its_key_and_a_remedy(words: str, key: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_settings(load_config([*BASE, *words.split()]))
    said = str(error.value)
    assert key in said
    assert remedy in said


@pytest.mark.parametrize(
    "words",
    [
        "",
        f"{VIT} train.method=lora",
        f"{VIT} train.method=doran train.adapter.auxiliary=true train.adapter.init=zero",
        "train.method=full train.optimizer=muon",
        "fuse.optimizer=muon fuse.hidden=0 fuse.aggregator=view_attention",
        "pretrain.method=dino pretrain.ssl.student_temperature=0.2",
        "fuse.loss=0.9*lcron+0.1*koleo",
        "fuse.loss=cascade_survival",
        "train.loss=lcron(items=batch)",
        "train.method=full train.loss=focal train.mixup=0.2",
        "train.loss=supcon+ce train.batch_size=3",
        "train.mixup=0.2 train.batch_size=1",
    ],
)
def test_what_can_train_is_let_through(words: str) -> None:
    check_settings(load_config([*BASE, *words.split()]))
