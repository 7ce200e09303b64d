from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from workzone.training.augmentation import RANGES, augment
from workzone.training.optimisers import cosine_factor, make_optimizer, make_schedule
from workzone.training.selection import select_scores


def test_selection_figures_match_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    for _ in range(20):
        y = rng.integers(0, 2, 60)
        z = np.round(rng.normal(size=60) + y, 1)
        got = select_scores(z, y)
        p = 1 / (1 + np.exp(-z))
        assert got["auroc"] == pytest.approx(metrics.roc_auc_score(y, z))
        assert got["mcc"] == pytest.approx(metrics.matthews_corrcoef(y, z > 0))
        assert got["nll"] == pytest.approx(metrics.log_loss(y, p))
        assert got["accuracy"] == pytest.approx(metrics.accuracy_score(y, z > 0))


def test_selection_figures_where_they_are_undefined():
    assert select_scores(np.zeros(3), np.ones(3, dtype=int)) == pytest.approx(
        {"nll": np.log(2), "auroc": 0.5, "mcc": 0.0, "accuracy": 0.0}
    )
    assert np.isfinite(select_scores(np.array([1e6, -1e6]), np.array([0, 1]))["nll"])


def test_schedule_warms_up_and_ends_at_the_floor():
    rates = [cosine_factor(s, total=100, warmup=10, floor=0.01) for s in range(101)]
    assert rates[:10] == pytest.approx([(s + 1) / 10 for s in range(10)])
    assert max(rates) == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.01)
    assert all(a >= b for a, b in pairwise(rates[10:]))


def test_every_group_ends_at_the_same_rate():
    a, b = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    optimizer = make_optimizer([(a, 1e-2), (b, 1e-4)], weight_decay=0.1)
    schedule = make_schedule(optimizer, total=20, warmup=0.1, min_lr=1e-6)
    for _ in range(20):
        optimizer.step()
        schedule.step()
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([1e-6] * 4)


def test_matrices_alone_are_decayed():
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    module[1].weight.requires_grad_(False)
    groups = make_optimizer([(module, 1e-3)], weight_decay=0.1).param_groups
    assert [(g["weight_decay"], len(g["params"])) for g in groups] == [(0.1, 1), (0.0, 2)]
    assert groups[0]["betas"] == (0.9, 0.95)
    with pytest.raises(ValueError, match="trainable"):
        make_optimizer([(torch.nn.ReLU(), 1e-3)], weight_decay=0.1)


def scene() -> torch.Tensor:
    image = torch.zeros(64, 3, 32, 32)
    image[:, 0, :14] = 1.0  # red sky
    image[:, 2, 18:] = 1.0  # blue ground
    image[:, 1, :, :6] = 0.5  # green on the left
    return image


@pytest.mark.parametrize("strength", ["light", "standard"])
def test_augmentation_keeps_up_up_and_colours_near(strength):
    out = augment(scene(), strength, torch.Generator().manual_seed(0))
    assert out.shape == (64, 3, 32, 32)
    assert out.min() >= 0
    assert out.max() <= 1
    middle = out[:, :, :, 12:20]
    assert (middle[:, 0, :4].mean((1, 2)) > middle[:, 0, -4:].mean((1, 2)) + 0.2).all()
    assert (middle[:, 2, -4:].mean((1, 2)) > middle[:, 2, :4].mean((1, 2)) + 0.2).all()
    left = out[:, 1, 10:20, :2].mean((1, 2)) > out[:, 1, 10:20, -2:].mean((1, 2))
    assert 16 < int(left.sum()) < 48
    assert len({round(float(v), 5) for v in out.mean((1, 2, 3))}) > 50
    assert RANGES[strength].hue <= 0.05


def test_augmentation_follows_its_generator_and_none_is_none():
    x = torch.rand(4, 3, 16, 16)
    a, b, c = (augment(x, "standard", torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(augment(x, "none", torch.Generator()), x)


def test_a_grey_image_stays_grey_under_hue_and_saturation():
    out = augment(torch.full((8, 3, 8, 8), 0.4), "standard", torch.Generator().manual_seed(0))
    assert (out.max(dim=1).values - out.min(dim=1).values).max() < 1e-4
