"""Every method that trains, from the command line to a bundle: loss falls, no NaN, killed it goes on, it exports.

A row is one run on drawn scenes; together the rows hold every adapter, loss, optimiser, augmentation, self-supervised
method and option of a batch. A tiny transformer stands in for the backbones.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from helpers.tiny import tiny_words
from helpers.transformer import NAME, call, give_name, write_weights
from workzone.config.load import load_config
from workzone.config.pretraining import PretrainMethod
from workzone.config.run import AugmentConfig
from workzone.config.terms import LOSS_NAMES, parse_loss
from workzone.config.training import AugmentName, OptimizerName

SMALL = (
    "source.synthetic_images=60", "model.image_size=32", "train.epochs=3", "train.batch_size=8", "train.lr=0.01",
    "train.backbone_lr=0.002", "train.adapter.rank=4", "train.adapter.alpha=4", "train.warmup=0", "fuse.epochs=3",
    "fuse.batch_size=8", "export.golden=2", "evaluate.gallery=0", "evaluate.explained=0",
    "evaluate.robustness=0", "tracking.loggers=[csv]",
)  # fmt: skip
# The divergence of the evidential loss grows with the epochs; held still, a loss that falls means learning.
ADAPTED = {
    "lora": "method=lora adapter.init=zero optimizer=adamw loss=cross_entropy augment=none precision=fp32 | "
    "loss=cross_entropy optimizer=adamw class_balance=weights",
    "rslora": "method=lora adapter.init=zero adapter.rslora=true optimizer=sam loss=focal augment=light mixup=0.2 | "
    "loss=focal optimizer=sam mixup=0.2",
    "dora": "method=dora adapter.init=zero optimizer=asam loss=label_smoothing augment=standard cutmix=1 "
    "cutmix_pairs=any | loss=label_smoothing optimizer=asam class_balance=sampler",
    "pissa": "method=lora adapter.init=pissa_niter_4 optimizer=sophia loss=supcon+ce augment=streetvision | "
    "loss=supcon+ce optimizer=sophia curriculum=0.5",
    "pissa exact": "method=lora adapter.init=pissa optimizer=ademamix loss=ce+0.1*koleo augment=autoaugment | "
    "loss=ce+0.1*koleo optimizer=ademamix aggregator=logsumexp",
    "dora pissa": "method=dora adapter.init=pissa optimizer=schedule_free loss=evidential(anneal=1000) "
    "augment=trivialaugment | "
    "loss=evidential optimizer=schedule_free",
    "doran": "method=doran adapter.init=zero adapter.auxiliary=true optimizer=muon loss=gatekeeper(start=1) "
    "augment=randaugment_3 | loss=gatekeeper(start=1) optimizer=muon",
    "doran pissa": "method=doran adapter.init=pissa optimizer=adamw loss=lcron(items=batch) batch_size=20 "
    "augment=randaugment_5 ema=0.5 | loss=0.9*lcron+0.1*koleo optimizer=adamw",
    "explora": "method=explora adapter.init=zero adapter.open_blocks=1 optimizer=adamw loss=supcon+ce "
    "augment=randaugment_7 drop_path=0.1 checkpointing=true | loss=cascade_survival aggregator=view_attention",
    "full": "method=full augment=augmix_3 multiscale=true cutmix=1 | aggregator=attention",
    "full through tiles": "method=full augment=augmix_5 views=2 accumulate=2 precision=bf16 | aggregator=noisy_or",
    "full searched": "method=full augment=augmix_7 | aggregator=attention_mlp members=2 | augment.search=true "
    "augment.policies=[augmix_3] augment.epochs=1",
}
STEPS = 9
SSL = "start=weights epochs=3 batch_size=8 check_every=3 checkpoint_seconds=0.001 "
SSL += "ssl.local_crops=1 ssl.local_size=16 ssl.prototypes=8 ssl.queue=16 ssl.hidden=16 ssl.bottleneck=8"
PRETRAINED = {
    **{method: f"method={method} {SSL}" for method in ("byol", "swav", "dino", "hybrid")},
    "explora": f"method=dino trains=explora explora.rank=4 {SSL}",
    "distil": f"method=distil teacher={NAME} teacher_size=32 {SSL}",
}


def adapted_words(row: str) -> list[str]:
    """Words of a row: keys of train, of fuse, and whole words, divided by bars."""
    parts = [part.split() for part in ADAPTED[row].split("|")] + [[]]
    return [f"train.{w}" for w in parts[0]] + [f"fuse.{w}" for w in parts[1]] + parts[2]


def pretrained_words(row: str) -> list[str]:
    return [f"pretrain.{w}" for w in PRETRAINED[row].split()]


def test_the_rows_hold_every_method() -> None:
    base = ["data=synthetic", "out=x"]
    runs = [load_config([*base, *adapted_words(row)]) for row in ADAPTED]
    assert {r.train.method for r in runs} == {"lora", "dora", "doran", "explora", "full"}
    assert {r.train.adapter.init for r in runs if r.train.method != "full"} == {"zero", "pissa", "pissa_niter_4"}
    assert any(r.train.adapter.rslora for r in runs)
    assert any(r.train.adapter.auxiliary for r in runs)
    for section in ("train", "fuse"):
        own = [getattr(r, section) for r in runs]
        assert {o.optimizer for o in own} == set(get_args(OptimizerName)), section
        losses = {term.name for o in own for term in parse_loss(o.loss)}
        assert losses == set(LOSS_NAMES) - ({"cascade_survival"} if section == "train" else set()), section
    assert {r.train.augment for r in runs} == set(get_args(AugmentName))
    assert set(AugmentConfig().policies) <= {r.train.augment for r in runs}
    for key in ("mixup", "cutmix", "multiscale", "views", "ema", "drop_path", "checkpointing"):
        assert any(getattr(r.train, key) for r in runs), key
    assert {r.train.precision for r in runs} >= {"auto", "fp32", "bf16"}  # fp16 needs CUDA
    assert any(r.fuse.mixup for r in runs)
    assert any(r.fuse.curriculum for r in runs)
    assert {r.fuse.class_balance for r in runs} == {"none", "weights", "sampler"}
    assert any(r.augment.search for r in runs)
    methods = {load_config([*base, *pretrained_words(row)]).pretrain.method for row in PRETRAINED}
    assert methods == set(get_args(PretrainMethod)) - {"none"}


class Killed(BaseException):
    """Ends a training as a signal would: nothing catches it."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, weights: Path, tmp_path: Path, shared_folder: Path) -> Callable[..., Path]:
    """``workzone run`` in this process, where the tiny transformer has a name."""
    give_name(monkeypatch)
    base = tiny_words(tmp_path / "run", shared_folder / "cache-methods", *SMALL)
    base += [f"model.backbone={NAME}", f"model.weights={weights}"]

    def start(words: list[str], *more: str) -> Path:
        given = {w.partition("=")[0] for w in words}
        kept = [w for w in base if w.partition("=")[0] not in given]
        call(monkeypatch, ["run", *kept, *words, *more])
        return tmp_path / "run"

    return start


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, float]]:
    """(epoch, loss) of every step of every adaptation."""
    from workzone.training.module import ImageModule

    seen: list[tuple[int, float]] = []
    step = ImageModule.training_step

    def watched(self: Any, batch: Any, batch_idx: int) -> Any:
        loss = step(self, batch, batch_idx)
        seen.append((int(self.current_epoch), float(loss.detach())))
        return loss

    monkeypatch.setattr(ImageModule, "training_step", watched)
    return seen


def decides(folder: Path) -> None:
    """The bundle that the run made is whole, and decides."""
    from workzone.bundle import Detector
    from workzone.bundle.verify import verify_bundle

    assert [c for c in verify_bundle(folder / "bundle") if not c.passed] == []
    images = sorted((folder / "prepare" / "synthetic" / "images").glob("*.jpg"))[:2]
    found = [d.probability for _, d in Detector.load(folder / "bundle", threads=1).predict(images)]
    assert np.isfinite(found).all()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("row", ADAPTED)
def test_adaptation(
    row: str, run: Callable[..., Path], losses: list[tuple[int, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from workzone.training.module import ImageModule

    seen, words = losses, adapted_words(row)
    begin = ImageModule.on_train_epoch_start

    def killed(self: Any) -> None:
        if self.current_epoch == 2:
            raise Killed
        begin(self)

    if "augment.search=true" in words:
        run(words, "--to", "augment")
        seen.clear()
    with monkeypatch.context() as patch:
        patch.setattr(ImageModule, "on_train_epoch_start", killed)
        with pytest.raises(Killed):
            run(words, "--to", "train")
    assert {epoch for epoch, _ in seen} == {0, 1}
    before = len(seen)
    folder = run(words)
    assert seen[before][0] == 2, "the training began anew"
    values = np.array([loss for _, loss in seen])
    assert np.isfinite(values).all()
    first, last = (np.mean([loss for epoch, loss in seen if epoch == e]) for e in (0, 2))
    assert last < first, f"the loss went from {first:.4f} to {last:.4f}"
    metrics = json.loads((folder / "train" / "metrics.json").read_text())
    assert np.isfinite(list(metrics["adaptation"]["val_select"].values())).all()
    decides(folder)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("row", PRETRAINED)
def test_pretraining(
    row: str, run: Callable[..., Path], weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workzone.training.pretraining.guard import CollapseGuard

    words = pretrained_words(row)
    if row == "distil":
        words = [w for w in words if not w.startswith("pretrain.start")]
        words += ["pretrain.start=scratch", "model.weights=null", f"pretrain.teacher_weights={weights}"]
    look, steps = CollapseGuard.look, []

    def watched(self: Any, *args: Any) -> Any:
        steps.append(1)
        if len(steps) == 6:
            raise Killed
        return look(self, *args)

    # Looked at once a step; the first call is that of step 1, and a checkpoint follows every step.
    monkeypatch.setattr(CollapseGuard, "look", watched)
    with pytest.raises(Killed):
        run(words, "--to", "pretrain")
    folder = run(words)
    assert len(steps) == 6 + STEPS - 5, "the pretraining began anew"
    history = json.loads((folder / "pretrain" / "pretrain.json").read_text())["history"]
    values = [row["loss"] for row in history if "loss" in row]
    assert np.isfinite(values).all()
    assert values[-1] < values[0]
    decides(folder)
