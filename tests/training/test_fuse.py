from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from workzone.config.run import FuseConfig, TrainConfig
from workzone.data.roles import Role
from workzone.errors import DataError, LeakageError
from workzone.models.storage import load_head, save_head
from workzone.training.features import Features
from workzone.training.fuse import fit_aggregator, score_features
from workzone.training.probe import fit_probe
from workzone.training.selection import select_scores

V, D = 6, 16
FAST = {"epochs": 25, "batch_size": 32, "members": 2, "hidden": 16, "lr": 5e-3, "patience": 25}


def planted(n: int, seed: int, role: Role, *, shuffled: bool = False, in_global: bool = False) -> Features:
    """An image is positive when one of its views (the global one if asked) carries a fixed direction."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    x = rng.normal(size=(n, V, D)).astype(np.float32)
    where = np.zeros(n, dtype=int) if in_global else rng.integers(0, V, n)
    x[np.flatnonzero(labels), where[labels == 1], :3] += 3.0
    mask = np.ones((n, V), dtype=bool)
    boxes = np.tile(np.array([0, 0, 1, 1], dtype=np.float32), (n, V, 1))
    if shuffled:
        labels = rng.permutation(labels)
    return Features(x, boxes, mask, labels, role)


@pytest.mark.parametrize("aggregator", ["logsumexp", "topk_mean", "attention"])
def test_learns_a_planted_problem(aggregator):
    config = FuseConfig(aggregator=aggregator, k=1, **FAST)
    fit = fit_aggregator(planted(400, 0, Role.TRAIN), planted(150, 1, Role.VAL_SELECT), config, seed=0)
    test = planted(300, 2, Role.VAL_TEST)
    figures = select_scores(score_features(fit.head, test), test.labels)
    assert figures["auroc"] > 0.95
    assert figures["nll"] < 0.4
    assert fit.metrics()["val_select"]["auroc"] > 0.95


def test_cannot_learn_shuffled_labels():
    fit = fit_aggregator(
        planted(300, 0, Role.TRAIN, shuffled=True), planted(100, 1, Role.VAL_SELECT), FuseConfig(**FAST), seed=0
    )
    test = planted(600, 2, Role.VAL_TEST, shuffled=True)
    figures = select_scores(score_features(fit.head, test), test.labels)
    # Standard error of AUROC without signal at 300 against 300: 0.024.
    assert abs(figures["auroc"] - 0.5) < 0.08
    assert figures["nll"] > 0.68


def test_probe_sees_the_global_view_alone():
    config = TrainConfig(epochs=20, hidden=0, lr=5e-3)
    seen = fit_probe(
        planted(300, 0, Role.TRAIN, in_global=True), planted(100, 1, Role.VAL_SELECT, in_global=True), config, seed=0
    )
    unseen = fit_probe(planted(300, 0, Role.TRAIN), planted(100, 1, Role.VAL_SELECT), config, seed=0)
    assert seen.scores["auroc"] > 0.95
    assert unseen.scores["auroc"] < 0.8
    test = planted(50, 3, Role.VAL_TEST, in_global=True)
    blind = replace(test, embeddings=np.concatenate([test.embeddings[:, :1], test.embeddings[:, 1:] * 9], axis=1))
    np.testing.assert_array_equal(score_features(seen.head, test), score_features(seen.head, blind))


def test_same_seed_same_weights_and_the_global_generator_is_left():
    data, held = planted(80, 0, Role.TRAIN), planted(40, 1, Role.VAL_SELECT)
    config = FuseConfig(**(FAST | {"epochs": 3}))
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = fit_aggregator(data, held, config, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    again = fit_aggregator(data, held, config, seed=3)
    other = fit_aggregator(data, held, config, seed=4)
    for key, value in first.head.state_dict().items():
        assert torch.equal(value, again.head.state_dict()[key])
    assert not np.array_equal(score_features(first.head, held), score_features(other.head, held))
    members = [score_features(type(first.head)([m]), held) for m in first.head.members]
    assert not np.array_equal(*members)


def test_best_epoch_is_kept_and_patience_stops():
    data, held = planted(60, 0, Role.TRAIN, shuffled=True), planted(60, 1, Role.VAL_SELECT)
    config = FuseConfig(**(FAST | {"epochs": 200, "members": 1, "patience": 4, "dropout": 0.0}))
    fit = fit_aggregator(data, held, config, seed=0)
    (member,) = fit.members
    assert len(member.history) < 200
    assert len(member.history) >= member.best_epoch + 4
    assert member.best["nll"] == min(row["nll"] for row in member.history)
    assert fit.scores["nll"] == pytest.approx(member.best["nll"], abs=1e-6)


def test_missing_views_may_hold_anything():
    data, held = planted(60, 0, Role.TRAIN), planted(40, 1, Role.VAL_SELECT)
    config = FuseConfig(**(FAST | {"epochs": 2}))
    mask = data.mask.copy()
    mask[::2, 3:] = False
    wild = data.embeddings.copy()
    wild[::2, 3:] = np.nan
    calm = np.where(mask[..., None], data.embeddings, 0).astype(np.float32)
    a = fit_aggregator(replace(data, embeddings=wild, mask=mask), held, config, seed=0)
    b = fit_aggregator(replace(data, embeddings=calm, mask=mask), held, config, seed=0)
    np.testing.assert_array_equal(score_features(a.head, held), score_features(b.head, held))


def test_trained_head_survives_the_disk(tmp_path):
    held = planted(40, 1, Role.VAL_SELECT)
    fit = fit_aggregator(planted(60, 0, Role.TRAIN), held, FuseConfig(**(FAST | {"epochs": 2})), seed=0)
    save_head(fit.head, tmp_path)
    np.testing.assert_array_equal(score_features(load_head(tmp_path), held), score_features(fit.head, held))


def test_other_roles_and_one_class_are_refused():
    train, held = planted(40, 0, Role.TRAIN), planted(40, 1, Role.VAL_SELECT)
    for a, b in ((train, replace(held, role=Role.VAL_CALIB)), (replace(train, role=Role.VAL_TEST), held)):
        with pytest.raises(LeakageError, match="fit_aggregator was handed"):
            fit_aggregator(a, b, FuseConfig(**FAST), seed=0)
        with pytest.raises(LeakageError, match="fit_probe was handed"):
            fit_probe(a, b, TrainConfig(), seed=0)
    with pytest.raises(DataError, match="one class"):
        fit_aggregator(replace(train, labels=np.zeros(40, dtype=np.int64)), held, FuseConfig(**FAST), seed=0)
    with pytest.raises(DataError, match="not finite"):
        replace(train, embeddings=train.embeddings * np.nan)


def test_pos_weight_raises_scores():
    rng = np.random.default_rng(0)
    data, held = planted(200, 0, Role.TRAIN), planted(80, 1, Role.VAL_SELECT)
    keep = (data.labels == 0) | (rng.random(200) < 0.2)
    few = Features(data.embeddings[keep], data.boxes[keep], data.mask[keep], data.labels[keep], Role.TRAIN)
    weight = float((few.labels == 0).sum() / few.labels.sum())
    config = FuseConfig(**(FAST | {"epochs": 6, "members": 1}))
    plain = score_features(fit_aggregator(few, held, config, seed=0).head, held)
    weighted = score_features(fit_aggregator(few, held, config, seed=0, pos_weight=weight).head, held)
    assert weighted.mean() > plain.mean() + 0.3
