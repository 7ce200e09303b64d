"""Weights of images, MixUp of embeddings, labels of tiles and mixed members in the training of a head."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from workzone.config.run import FuseConfig
from workzone.data.roles import Role
from workzone.errors import ConfigError, DataError
from workzone.models.aggregators import MIX, create_aggregator
from workzone.models.standardise import Standardise
from workzone.models.storage import load_head, save_head
from workzone.training.features import Features
from workzone.training.fuse import fit_aggregator, score_features, score_views
from workzone.training.instance import guess_instances
from workzone.training.loop import LoopSettings, TensorFeatures
from workzone.training.objective import bag_loss, instance_loss, mix, mixup_shares
from workzone.training.selection import select_scores

V, D = 6, 16
FAST = {"epochs": 20, "batch_size": 32, "members": 2, "hidden": 16, "lr": 5e-3, "patience": 20}


def planted(n: int, seed: int, role: Role = Role.TRAIN, *, size: float = 3.0):
    """A positive image carries a fixed direction in one tile; returns the features and which tile."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    x = rng.normal(size=(n, V, D)).astype(np.float32)
    where = rng.integers(1, V, n)
    x[np.flatnonzero(labels), where[labels == 1], :3] += size
    edges = np.linspace(0, 0.5, V, dtype=np.float32)[:, None]
    boxes = np.broadcast_to(np.hstack([edges, edges, edges + 0.5, edges + 0.5]), (n, V, 4)).copy()
    return Features(x, boxes, np.ones((n, V), dtype=bool), labels, role), where


def tensors(data: Features) -> TensorFeatures:
    return TensorFeatures.of(data, Standardise(data.dim), torch.device("cpu"))


def settings(**options) -> LoopSettings:
    return LoopSettings(epochs=1, batch_size=8, lr=1e-3, weight_decay=0.0, patience=1, **options)


@pytest.mark.parametrize("aggregator", ["noisy_or", "attention_mlp", "view_attention", "mix"])
def test_new_aggregators_learn_a_planted_problem(aggregator, tmp_path):
    config = FuseConfig(aggregator=aggregator, k=2, heads=2, **(FAST | {"members": 3 if aggregator == "mix" else 1}))
    fit = fit_aggregator(planted(400, 0)[0], planted(150, 1, Role.VAL_SELECT)[0], config, seed=0)
    test = planted(300, 2, Role.VAL_TEST)[0]
    assert select_scores(score_features(fit.head, test), test.labels)["auroc"] > 0.93
    if aggregator == "mix":
        assert tuple(m.name for m in fit.head.members) == MIX
    save_head(fit.head, tmp_path)
    np.testing.assert_array_equal(score_features(load_head(tmp_path), test), score_features(fit.head, test))


def test_flex_is_refused_for_training_before_it_starts():
    config = FuseConfig(aggregator="view_attention", backend="flex", **FAST)
    with pytest.raises(ConfigError, match="no backward pass on cpu"):
        fit_aggregator(planted(40, 0)[0], planted(40, 1, Role.VAL_SELECT)[0], config, seed=0)


def test_weight_multiplies_the_loss_of_an_image():
    data, _ = planted(8, 0)
    weights = np.array([1, 1, 3, 1, 1, 1, 1, 1], dtype=np.float32)
    torch.manual_seed(0)
    model = create_aggregator(FuseConfig(hidden=4), D).eval()
    rows = torch.arange(8)

    def loss(features: Features, only: torch.Tensor = rows) -> float:
        held = tensors(features)
        return bag_loss(model, held, only, held.mask[only], settings()).item()

    heavy = replace(data, weights=weights)
    assert loss(heavy) == pytest.approx(loss(data) + 2 * loss(data, rows[2:3]) / 8, rel=1e-5)
    assert loss(replace(data, weights=np.ones(8, dtype=np.float32))) == pytest.approx(loss(data))


def test_marked_negatives_score_lower_when_they_weigh_more():
    data, _ = planted(300, 0)
    rng = np.random.default_rng(5)
    hard = (data.labels == 0) & (rng.random(300) < 0.3)
    x = data.embeddings.copy()
    x[hard, 1, :3] += 2.0
    data = replace(data, embeddings=x)
    held = planted(80, 1, Role.VAL_SELECT)[0]
    config = FuseConfig(**(FAST | {"epochs": 8, "members": 1}))
    heavy = data.with_hard_negatives(hard.astype(np.int64), 10.0)
    plain = score_features(fit_aggregator(data, held, config, seed=0).head, data)[hard]
    weighted = score_features(fit_aggregator(heavy, held, config, seed=0).head, data)[hard]
    assert weighted.mean() < plain.mean() - 0.2


def test_column_of_hard_negatives_is_read_strictly():
    data, _ = planted(6, 0)
    data = replace(data, labels=np.array([0, 1, 0, 0, 1, 0]))
    for column in (
        np.array([1, 1, 0, 1, 0, 0]),
        np.array([1.0, 1.0, 0.0, 1.0, 0.0, np.nan]),
        np.array([1, 1, 0, 1, 0, None], dtype=object),
        np.array(["yes", "TRUE", "no", "1", "", "0"]),
        np.array([True, True, False, True, False, False]),
    ):
        got = data.with_hard_negatives(column, 2.0).weights
        assert got.tolist() == [2, 1, 1, 2, 1, 1], "a positive image is no hard negative"
    with pytest.raises(DataError, match="'maybe'"):
        data.with_hard_negatives(np.array(["maybe"] * 6), 2.0)
    with pytest.raises(DataError, match="no column hard_negative"):
        data.with_hard_negatives(None, 2.0)


def test_mixup_mixes_images_with_the_same_views_only():
    data, _ = planted(40, 0)
    mask = torch.from_numpy(data.mask.copy())
    mask[:10, 4] = False
    boxes = torch.from_numpy(data.boxes)
    boxes[10:20, 2] += 0.05
    torch.manual_seed(0)
    partner = torch.randperm(40)
    share = mixup_shares(1.0, mask, boxes, partner)
    kind = torch.repeat_interleave(torch.arange(4).clamp_max(2), 10)
    same = kind == kind[partner]
    assert (share[~same] == 1).all()
    assert (~same).sum() > 5
    assert ((share >= 0.5) & (share <= 1)).all()
    assert (share[same & (partner != torch.arange(40))] < 1).all()
    values = torch.arange(40.0)
    torch.testing.assert_close(mix(values, partner, share), share * values + (1 - share) * values[partner])


def test_mixup_trains_on_soft_labels():
    data, held = planted(300, 0)[0], planted(100, 1, Role.VAL_SELECT)[0]
    base = FuseConfig(**(FAST | {"members": 1, "dropout": 0.0, "view_dropout": 0.0, "aggregator": "attention"}))
    plain = fit_aggregator(data, held, base, seed=0)
    mixed = fit_aggregator(data, held, base.model_copy(update={"mixup": 2.0}), seed=0)
    assert mixed.members[0].history[-1]["train_loss"] > plain.members[0].history[-1]["train_loss"] + 0.05
    assert mixed.scores["auroc"] > 0.9


def test_instance_loss_by_hand():
    u = torch.tensor([[0.0, 2.0, -1.0], [3.0, 1.0, 0.5]])
    labels = torch.tensor([[np.nan, 1.0, np.nan], [np.nan, 0.0, 0.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    expected = (np.log1p(np.exp(-2.0)) + np.log1p(np.exp(1.0))) / 2
    assert instance_loss(u, labels, mask).item() == pytest.approx(expected, rel=1e-6)
    none = instance_loss(u.requires_grad_(), torch.full((2, 3), torch.nan), mask)
    none.backward()
    assert none.item() == 0
    assert torch.equal(u.grad, torch.zeros(2, 3))


def test_guesses_take_the_top_tile_of_positives_and_all_of_negatives():
    data, _ = planted(4, 0)
    mask = data.mask.copy()
    mask[1, 5] = False
    data = replace(data, labels=np.array([1, 0, 1, 1]), mask=mask)
    scores = np.array(
        [
            [9.0, 1.0, 4.0, 2.0, 0.0, 0.0],
            [9.0, 1.5, 0.0, 0.0, 0.0, 99.0],
            [9.0, 1.2, 0.0, 0.0, 0.0, 0.0],
            [9.0, -1.0, -2.0, -3.0, -1.0, -2.0],
        ]
    )
    got = guess_instances(data, scores)
    nan = np.nan
    expected = [[nan, nan, 1, nan, nan, nan], [nan, 0, 0, 0, 0, nan], [nan] * 6, [nan] * 6]
    np.testing.assert_array_equal(got, np.array(expected, dtype=np.float32))
    with pytest.raises(ConfigError, match="no tiles"):
        guess_instances(data.views(1), scores[:, :1])


def test_rounds_find_the_tile_that_carries_the_evidence():
    data, _ = planted(400, 0)
    held = planted(150, 1, Role.VAL_SELECT)[0]
    config = FuseConfig(refine_rounds=1, instance_weight=1.0, **(FAST | {"members": 1, "aggregator": "attention"}))
    calls: list[tuple[int, int]] = []
    fit = fit_aggregator(data, held, config, seed=0, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 2), (2, 2)]
    first, second = fit.rounds
    assert first["tiles"] == 0
    assert 50 < second["tiles"] <= data.labels.sum()
    assert first["kept"] + second["kept"] == 1
    best = min(fit.rounds, key=lambda row: row["nll"])
    assert best["kept"] == 1
    assert fit.scores["nll"] == best["nll"]
    assert fit.metrics()["rounds"] == [first, second]
    test, at = planted(300, 2, Role.VAL_TEST)
    views = score_views(fit.head, test)
    positive = test.labels == 1
    assert (views[:, 1:].argmax(axis=1) + 1 == at)[positive].mean() > 0.9


def test_instance_labels_train_the_view_scores():
    data, where = planted(200, 0)
    held = planted(80, 1, Role.VAL_SELECT)[0]
    labels = np.full(data.mask.shape, np.nan, dtype=np.float32)
    labels[data.labels == 0, 1:] = 0
    labels[np.flatnonzero(data.labels), where[data.labels == 1]] = 1
    config = FuseConfig(**(FAST | {"members": 1, "epochs": 6, "aggregator": "attention"}))

    def gap(features: Features) -> float:
        views = score_views(fit_aggregator(features, held, config, seed=0).head, data)
        return float(views[labels == 1].mean() - views[labels == 0].mean())

    assert gap(replace(data, instances=labels)) > gap(data) + 0.2


def test_options_that_are_off_change_nothing():
    data, held = planted(80, 0)[0], planted(40, 1, Role.VAL_SELECT)[0]
    config = FuseConfig(**(FAST | {"epochs": 3, "members": 1}))
    plain = fit_aggregator(data, held, config, seed=0)
    assert plain.rounds == ()
    assert "rounds" not in plain.metrics()
    marked = data.with_hard_negatives(np.zeros(80, dtype=np.int64), 7.0)
    assert np.allclose(
        score_features(fit_aggregator(marked, held, config, seed=0).head, held), score_features(plain.head, held)
    )


def test_parts_that_do_not_fit_are_refused():
    data, _ = planted(6, 0)
    with pytest.raises(ValueError, match="weights do not fit"):
        replace(data, weights=np.ones(5, dtype=np.float32))
    with pytest.raises(ValueError, match="labels of views"):
        replace(data, instances=np.ones((6, V - 1), dtype=np.float32))
    narrowed = replace(data, instances=np.ones((6, V), dtype=np.float32)).views(2)
    assert narrowed.instances.shape == (6, 2)
