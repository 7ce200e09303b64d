from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from workzone.config.run import FuseConfig
from workzone.data.roles import Role, TrainData
from workzone.errors import ConfigError, DataError
from workzone.models.standardise import Standardise
from workzone.pipeline.phases.fuse import mixed
from workzone.training.features import Features
from workzone.training.fuse import fit_aggregator, score_features
from workzone.training.loop import LoopSettings, TensorFeatures, prior_shift


def features(n: int, role: Role, seed: int, **more: np.ndarray) -> Features:
    """Two data sets of one view; the label is told by dimension 0 in set 0 and by dimension 1 in set 1."""
    rng = np.random.default_rng(seed)
    labels, sets = rng.integers(0, 2, n), (np.arange(n) < n // 10).astype(np.int64)
    x = rng.normal(size=(n, 1, 6)).astype(np.float32)
    x[np.arange(n), 0, sets] += 2.0 * (2 * labels - 1)
    x[:, 0, 5] += 3.0 * sets
    boxes = np.tile(np.array([0, 0, 1, 1], dtype=np.float32), (n, 1, 1))
    return Features(x, boxes, np.ones((n, 1), dtype=bool), labels, role, sets=sets, **more)


def config(**more: object) -> FuseConfig:
    return FuseConfig(
        aggregator="logsumexp", epochs=12, members=1, hidden=8, dropout=0.0, batch_size=64, lr=0.02, **more
    )


def fit(train: Features, **more: object) -> object:
    return fit_aggregator(train, features(200, Role.VAL_SELECT, 2), config(**more), seed=0)


def test_rows_of_rate_zero_are_never_seen() -> None:
    train = features(300, Role.TRAIN, 1)
    draw = (train.sets == 0).astype(np.float64)
    broken = train.embeddings.copy()
    broken[train.sets == 1] *= -50.0
    torch.manual_seed(0)
    one, other = (
        fit(replace(t, draw=draw, embeddings=e), mixture="manifest")
        for t, e in ((train, train.embeddings), (train, broken))
    )
    test = features(100, Role.VAL_TEST, 3)
    # The standardisation sees all rows; what was trained does not, so both still rank set 0 well.
    for found in (one, other):
        own = test.sets == 0
        z = score_features(found.head, test)[own]
        assert z[test.labels[own] == 1].mean() > z[test.labels[own] == 0].mean()


def test_adaptive_shares_move_to_the_set_with_more_loss() -> None:
    train = features(400, Role.TRAIN, 1)
    equal = np.where(train.sets == 0, 1 / (train.sets == 0).sum(), 1 / (train.sets == 1).sum()) * 200
    noisy = train.labels.copy()
    flip = (train.sets == 1) & (np.arange(400) % 2 == 0)
    noisy[flip] = 1 - noisy[flip]  # set 1 cannot be learnt
    found = fit(replace(train, draw=equal, labels=noisy), mixture="adaptive", mixture_every=5)
    shares = [row["share_1"] for row in found.members[0].history]
    assert shares[0] == pytest.approx(0.5)
    assert shares[:4] == [shares[0]] * 4
    assert shares[4] > 0.55
    assert found.members[0].history[4]["share_0"] + shares[4] == pytest.approx(1.0)


def test_the_adversary_changes_the_training_and_needs_sets() -> None:
    train = features(300, Role.TRAIN, 1)
    plain, hidden = fit(train), fit(train, dann=1.0)
    test = features(100, Role.VAL_TEST, 3)
    assert not np.allclose(score_features(plain.head, test), score_features(hidden.head, test))
    again = fit(train, dann=1.0)
    assert np.array_equal(score_features(hidden.head, test), score_features(again.head, test))
    with pytest.raises(DataError, match="two data sets"):
        fit(replace(train, sets=np.zeros(300, dtype=np.int64)), dann=1.0)
    with pytest.raises(DataError, match="both classes"):
        fit(replace(train, sets=train.labels), dann=1.0)
    with pytest.raises(ConfigError, match="hidden layer"):
        fit_aggregator(train, features(50, Role.VAL_SELECT, 2), config(dann=1.0).model_copy(update={"hidden": 0, "aggregator": "attention_mlp"}), seed=0)  # fmt: skip  # noqa: E501


def data(**columns: np.ndarray) -> TrainData:
    train = features(20, Role.TRAIN, 1)
    ids = np.arange(20).astype(np.str_)
    return TrainData(ids=ids, labels=train.labels, groups=ids, columns=columns)


def test_columns_of_the_manifest_become_rates_weights_and_sets() -> None:
    train = replace(features(20, Role.TRAIN, 1), weights=np.full(20, 2.0, dtype=np.float32), sets=None)
    rates, weigh = np.linspace(0, 2, 20), np.linspace(1, 3, 20)
    name = np.array(["a", "b"] * 10)
    found = mixed(train, data(sample_weight=rates, loss_weight=weigh, domain_set=name), FuseConfig(mixture="adaptive"))
    assert found.draw.tolist() == rates.tolist()
    assert found.weights.tolist() == pytest.approx((2 * weigh).tolist())
    assert found.sets.tolist() == [0, 1] * 10
    assert mixed(train, data(), FuseConfig()) is train
    with pytest.raises(DataError, match="sample_weight"):
        mixed(train, data(), FuseConfig(mixture="manifest"))
    with pytest.raises(DataError, match="loss_weight"):
        mixed(train, data(sample_weight=rates, loss_weight=np.full(20, np.nan)), FuseConfig(mixture="manifest"))


@pytest.mark.parametrize("more", [{"class_balance": "sampler"}, {"curriculum": 0.5}])
def test_two_ways_to_weigh_are_refused(more: dict) -> None:
    with pytest.raises(ValueError, match="mixture weighs"):
        FuseConfig(mixture="manifest", **more)


def skewed(n: int, role: Role, seed: int) -> Features:
    """One image in ten is roadwork, told by dimension 0."""
    data = features(n, role, seed)
    labels = (np.arange(n) % 10 == 0).astype(np.int64)
    x = np.random.default_rng(seed).normal(size=(n, 1, 6)).astype(np.float32)
    x[:, 0, 0] += 1.2 * (2 * labels - 1)
    return replace(data, embeddings=x, labels=labels, sets=None)


def balanced_draw(labels: np.ndarray) -> np.ndarray:
    return np.where(labels == 1, 5.0, 5.0 / 9.0)


def test_the_shift_of_the_prior_is_that_of_drawing_and_weights() -> None:
    train = skewed(100, Role.TRAIN, 1)
    device, none = torch.device("cpu"), Standardise(6)
    settings = LoopSettings(epochs=1, batch_size=8, lr=0.1, weight_decay=0.0, patience=1)
    plain = TensorFeatures.of(train, none, device)
    wanted = math.log(9.0)  # from one in ten to one in two
    assert prior_shift(plain, settings) == 0.0
    drawn = replace(plain, draw=torch.from_numpy(balanced_draw(train.labels)))
    assert prior_shift(drawn, settings) == pytest.approx(wanted)
    weighed = replace(plain, weights=torch.from_numpy(balanced_draw(train.labels)))
    assert prior_shift(weighed, settings) == pytest.approx(wanted)
    assert prior_shift(plain, replace(settings, class_balance="sampler")) == pytest.approx(wanted)
    assert prior_shift(plain, replace(settings, pos_weight=9.0)) == pytest.approx(wanted)
    doubled = replace(plain, weights=torch.full((100,), 2.0))
    assert prior_shift(doubled, settings) == pytest.approx(0.0)


def test_balanced_drawing_does_not_end_the_training_at_its_first_epoch() -> None:
    train, select, test = skewed(600, Role.TRAIN, 1), skewed(300, Role.VAL_SELECT, 2), skewed(600, Role.VAL_TEST, 3)
    slow = config(mixture="manifest").model_copy(update={"lr": 3e-3, "epochs": 25})
    drawn = replace(train, draw=balanced_draw(train.labels))
    found = fit_aggregator(drawn, select, slow, seed=0)
    plain = fit_aggregator(train, select, config().model_copy(update={"lr": 3e-3, "epochs": 25}), seed=0)
    assert found.members[0].best_epoch > 2
    # Scores stand for one in two; what selection reports stands for the share that there is.
    z = score_features(found.head, test)
    assert z.mean() > score_features(plain.head, test).mean() + 1.0
    assert found.scores["nll"] == pytest.approx(plain.scores["nll"], abs=0.06)
