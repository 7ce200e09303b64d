"""Losses, optimisers, class balance and curriculum in the training of heads and of backbones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.patches import Killed, draw, lightning_killer, role
from workzone.config.run import AdapterConfig, FuseConfig, TrainConfig
from workzone.config.terms import LOSS_NAMES
from workzone.data.roles import Role, SelectData, TrainData
from workzone.errors import ConfigError, DataError
from workzone.training import loop
from workzone.training.adapt import adapt_backbone
from workzone.training.features import Features
from workzone.training.fuse import fit_aggregator, score_features
from workzone.training.losses.hidden import Hidden
from workzone.training.optimisers import OPTIMISERS
from workzone.training.probe import fit_probe
from workzone.training.sampling import class_weights, easiest, epoch_rows, pace
from workzone.training.selection import select_scores

V, D = 4, 8
FAST = {"epochs": 2, "batch_size": 16, "members": 1, "hidden": 8, "lr": 1e-2, "dropout": 0.0}
ALONE = [n for n in LOSS_NAMES if n not in ("supcon", "koleo", "gatekeeper")]


def features(n: int, seed: int, role: Role = Role.TRAIN, *, rate: float = 0.5, known: bool = True) -> Features:
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < rate).astype(np.int64)
    x = rng.normal(size=(n, V, D)).astype(np.float32)
    x[labels == 1, :, :2] += 2.0
    boxes = np.tile(np.array([0, 0, 1, 1], dtype=np.float32), (n, V, 1))
    groups = np.arange(n) // 8 if known else None
    return Features(x, boxes, np.ones((n, V), dtype=bool), labels, role, groups=groups)


def fit(**options):
    return fit_aggregator(
        features(96, 0), features(48, 1, Role.VAL_SELECT), FuseConfig(**(FAST | options)), seed=0, metric="auroc"
    )


@pytest.mark.parametrize("loss", [*ALONE, "gatekeeper(start=0)", "supcon+ce", "ce+0.1*koleo", "0.9*lcron+0.1*koleo"])
def test_every_loss_trains_a_head(loss):
    done = fit(loss=loss, epochs=8)
    figures = select_scores(score_features(done.head, features(200, 2, Role.VAL_TEST)), features(200, 2).labels)
    assert figures["auroc"] > 0.9
    default = score_features(fit(epochs=8).head, features(20, 3))
    assert np.array_equal(score_features(done.head, features(20, 3)), default) == (loss == "cross_entropy")


@pytest.mark.parametrize("optimizer", list(OPTIMISERS))
def test_every_optimiser_trains_a_head(optimizer):
    done, again = fit(optimizer=optimizer), fit(optimizer=optimizer)
    losses = [row["train_loss"] for row in done.members[0].history]
    assert losses[1] < losses[0]
    test = features(200, 2, Role.VAL_TEST)
    assert select_scores(score_features(done.head, test), test.labels)["auroc"] > 0.8
    np.testing.assert_array_equal(score_features(done.head, test), score_features(again.head, test))


def test_schedule_free_keeps_the_weights_it_selected_by(monkeypatch):
    made, modes, make, evaluate = [], [], loop.make_optimizer, loop.evaluate
    monkeypatch.setattr(loop, "make_optimizer", lambda *a, **k: made.append(make(*a, **k)) or made[-1])
    monkeypatch.setattr(
        loop, "evaluate", lambda *a, **k: modes.append(made[-1].param_groups[0]["train_mode"]) or evaluate(*a, **k)
    )
    done = fit(optimizer="schedule_free", epochs=3)
    held = features(48, 1, Role.VAL_SELECT)
    again = select_scores(score_features(done.head, held), held.labels)
    assert again == pytest.approx(done.members[0].best)
    assert modes == [False] * 3, "an epoch is judged by the average"


@pytest.mark.parametrize("aggregator", ["attention", "topk_mean", "noisy_or", "view_attention"])
def test_embedding_losses_reach_the_scorer_of_each_aggregator(aggregator):
    plain, with_koleo = (
        score_features(fit(aggregator=aggregator, heads=2, k=2, loss=loss).head, features(20, 3))
        for loss in ("ce", "ce+0.5*koleo")
    )
    assert np.abs(plain - with_koleo).max() > 1e-4


def test_hidden_units_are_pooled_as_the_score_is():
    from workzone.models.aggregators import create_aggregator

    torch.manual_seed(0)
    model = create_aggregator(FuseConfig(aggregator="attention", hidden=8), D).eval()
    x, boxes, mask = torch.randn(3, V, D), torch.zeros(3, V, 4), torch.ones(3, V, dtype=torch.bool)
    with Hidden(model) as hidden:
        log_odds, _, weights = model.combine(x, boxes, mask)
    pooled = hidden.pooled(weights)
    assert pooled.shape == (3, 8)
    torch.testing.assert_close(model.classifier(pooled).squeeze(1), log_odds)


def test_what_a_phase_cannot_give_is_refused():
    train, select = features(96, 0), features(48, 1, Role.VAL_SELECT)
    for options in ({"hidden": 0}, {"aggregator": "attention_mlp"}):
        with pytest.raises(ConfigError, match="hidden layer"):
            fit(loss="supcon+ce", **options)
    with pytest.raises(ConfigError, match="mixed labels"):
        fit(loss="supcon+ce", mixup=0.2)
    with pytest.raises(ConfigError, match=r"stages.*train.loss"):
        fit_probe(train, select, TrainConfig(loss="cascade_survival"), seed=0)
    unknown = replace(train, groups=None)
    with pytest.raises(ConfigError, match="drive of each image"):
        fit_aggregator(unknown, select, FuseConfig(loss="lcron", **FAST), seed=0)
    pure = replace(train, groups=train.labels)
    with pytest.raises(DataError, match="nothing to rank"):
        fit_aggregator(pure, select, FuseConfig(loss="lcron", **FAST), seed=0)
    with pytest.raises(ConfigError, match="cross_entropy only"):
        fit_aggregator(train, select, FuseConfig(loss="focal", **FAST), seed=0, pos_weight=2.0)
    with pytest.raises(ConfigError, match="no hidden matrix"):
        fit(optimizer="muon", hidden=0)


# Batches


def test_weights_of_classes_are_computed():
    weights = class_weights(torch.tensor([0.0] * 9 + [1.0] * 6))
    torch.testing.assert_close(weights[[0, 9]], torch.tensor([15 / 18, 15 / 12]))
    assert weights.mean().item() == pytest.approx(1.0)


@pytest.mark.parametrize("balance", ["weights", "sampler"])
def test_class_balance_moves_the_score_to_even_odds(balance):
    def mean_score(class_balance: str) -> float:
        train, select = features(600, 0, rate=0.1), features(100, 1, Role.VAL_SELECT, rate=0.5)
        config = FuseConfig(**(FAST | {"epochs": 20, "hidden": 0, "lr": 5e-2}), class_balance=class_balance)
        noise = replace(train, embeddings=np.random.default_rng(9).normal(size=(600, V, D)).astype(np.float32))
        return float(score_features(fit_aggregator(noise, select, config, seed=0).head, noise).mean())

    assert mean_score("none") < -1.5
    assert abs(mean_score(balance)) < 0.7


def test_rows_of_an_epoch():
    torch.manual_seed(0)
    labels = torch.tensor([1.0] * 10 + [0.0] * 90)
    assert sorted(epoch_rows(labels).tolist()) == list(range(100))
    drawn = labels[epoch_rows(labels.repeat(20), balanced=True) % 100].mean().item()
    assert drawn == pytest.approx(0.5, abs=0.05)
    admitted = torch.arange(30)
    assert sorted(epoch_rows(labels, admitted).tolist()) == list(range(30))
    groups = torch.arange(100) % 7
    runs = groups[epoch_rows(labels, groups=groups)]
    assert int((runs[1:] != runs[:-1]).sum()) == 6, "images of a group follow each other"
    assert runs[[0, -1]].tolist() != [0, 6]


def test_curriculum_goes_from_easy_to_all():
    assert [pace(e, 10, 0.5) for e in range(7)] == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0])
    assert pace(0, 10, 0.0) == 1.0
    labels = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, 1.0])
    hard = torch.tensor([0.4, 0.1, 0.3, 0.2, 9.0, 8.0])
    assert easiest(hard, labels, 0.5).tolist() == [1, 3, 5]
    assert easiest(hard, labels, 1.0).tolist() == [0, 1, 2, 3, 4, 5]
    plain, eased = fit(epochs=4), fit(epochs=4, curriculum=0.5)
    impatient = fit(epochs=12, patience=1, curriculum=0.75)
    assert len(impatient.members[0].history) >= 10, "it does not stop before every image was shown"
    x = features(20, 3)
    assert not np.array_equal(score_features(plain.head, x), score_features(eased.head, x))


# Images


def adapt(tiny, folder, callbacks=(), **changes):
    settings = {"method": "full", "epochs": 2, "batch_size": 8, "lr": 1e-3, "backbone_lr": 1e-3, "hidden": 8}
    data = role(TrainData, 24, 0), role(SelectData, 8, 1000)
    cfg = TrainConfig(adapter=AdapterConfig(rank=4, alpha=4), **(settings | changes))
    return adapt_backbone(tiny(), *data, cfg, seed=5, folder=folder, load=draw, callbacks=callbacks)


@pytest.mark.parametrize("optimizer", ["sam", "sophia", "schedule_free", "muon", "ademamix"])
def test_a_killed_adaptation_goes_on_with_every_kind_of_optimiser(tiny, tmp_path, optimizer):
    options = {"optimizer": optimizer, "loss": "ce+0.1*koleo"}
    whole = adapt(tiny, tmp_path / "whole", **options)
    with pytest.raises(Killed):
        adapt(tiny, tmp_path / "killed", callbacks=[lightning_killer(1, 1)], **options)
    resumed = adapt(tiny, tmp_path / "killed", **options)
    expected = dict(whole.trace)
    assert len(whole.trace) == 6
    assert [p for p, _ in resumed.trace] == sorted(expected)[3:]
    assert all(loss == expected[p] for p, loss in resumed.trace)
    assert resumed.backbone.fingerprint() == whole.backbone.fingerprint()
    assert resumed.metrics == whole.metrics


def test_schedule_free_validates_and_stores_the_average(tiny, tmp_path):
    import lightning as L

    modes = []

    class Modes(L.Callback):
        def on_validation_batch_start(self, trainer, *_):
            if trainer.state.fn == "fit":
                modes.append(trainer.optimizers[0].param_groups[0]["train_mode"])

        def on_train_batch_end(self, trainer, *_):
            modes.append(trainer.optimizers[0].param_groups[0]["train_mode"])

    adapt(tiny, tmp_path, callbacks=[Modes()], optimizer="schedule_free")
    assert modes == [True, True, True, False] * 2
    best = next((tmp_path / "checkpoints").glob("best-*.ckpt"))
    state = torch.load(best, weights_only=True)
    assert not state["optimizer_states"][0]["param_groups"][0]["train_mode"], "what is stored is what was validated"


def test_an_adaptation_refuses_what_it_cannot_do(tiny, tmp_path):
    with pytest.raises(ConfigError, match=r"drive of each image.*train\.loss"):
        adapt(tiny, tmp_path, loss="lcron")
    with pytest.raises(ConfigError, match=r"train\.accumulate"):
        adapt(tiny, tmp_path, optimizer="sam", accumulate=2)
