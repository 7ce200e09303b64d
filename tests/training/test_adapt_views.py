"""Adaptation with mixed images, other scales and tiles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from helpers.patches import role
from workzone.config.run import RunConfig, TrainConfig
from workzone.config.views import ViewSpec
from workzone.data.roles import SelectData, TrainData
from workzone.errors import ConfigError
from workzone.training.adapt import adapt_backbone
from workzone.training.views import draw_views, pool_views, top_views

GRID = ViewSpec(layout="grid", rows=2, cols=2)


def views_of(path: str) -> np.ndarray:
    """A whole view that shows nothing, and four tiles of which one carries the patch of a positive image."""
    index, label = (int(part) for part in path.split("-"))
    rng = np.random.default_rng(index)
    views = rng.integers(60, 120, (5, 32, 32, 3), dtype=np.uint8)
    if label:
        tile, (y, x) = 1 + rng.integers(4), rng.integers(0, 16, 2)
        views[tile, y : y + 16, x : x + 16] = (250, 120, 10)
    return views


def run(tiny, folder, load=views_of, layout=GRID, **changes):
    base = {
        "method": "full", "epochs": 2, "batch_size": 8, "lr": 3e-3, "backbone_lr": 1e-3, "hidden": 0, "dropout": 0.0,
        "augment": "none", "patience": 50,
    }  # fmt: skip
    return adapt_backbone(
        tiny(), role(TrainData, 48, 0), role(SelectData, 24, 1000), TrainConfig(**(base | changes)), seed=3,
        folder=folder, load=load, layout=layout,
    )  # fmt: skip


def test_tiles_teach_what_the_whole_image_does_not_show(tiny, tmp_path):
    tiles = run(tiny, tmp_path / "tiles", views=4, view_k=1, epochs=10)
    whole = run(tiny, tmp_path / "whole", load=lambda p: views_of(p)[0], layout=None, epochs=10)
    assert tiles.metrics["val_select"]["auroc"] > 0.95
    assert whole.metrics["val_select"]["auroc"] < 0.85
    # The scores of selection are those of all tiles by the weights that are returned.
    views = torch.from_numpy(np.stack([views_of(p) for p in role(SelectData, 24, 1000).paths]))
    with torch.inference_mode():
        scores = tiles.head(tiles.backbone(views.flatten(0, 1))).unflatten(0, (24, 5)).amax(dim=1)
    assert tiles.select_log_odds == pytest.approx(scores.numpy(), abs=1e-4)


def test_logsumexp_trains_and_a_resumed_run_is_the_same(tiny, tmp_path):
    cfg = {"views": 2, "view_pool": "logsumexp", "mixup": 0.4, "multiscale": True, "augment": "light", "epochs": 2}
    once, twice = (run(tiny, tmp_path / name, **cfg) for name in ("a", "b"))
    assert once.trace == twice.trace
    assert len({round(loss, 6) for _, loss in once.trace}) == len(once.trace) == 12
    plain = run(tiny, tmp_path / "c", views=2, view_pool="logsumexp", augment="light")
    assert [x for _, x in plain.trace] != [x for _, x in once.trace]


def test_gradient_goes_through_the_chosen_views_only(tiny):
    from workzone.models.heads import ProbeHead
    from workzone.training.module import ImageModule

    backbone, seen = tiny(), []
    torch.manual_seed(1)
    head = ProbeHead(backbone.embedding_dim, 0, 0.0)
    module = ImageModule(backbone, head, TrainConfig(method="full", views=3, view_k=2)).train()
    backbone.network.register_forward_pre_hook(lambda m, args: seen.append((len(args[0]), torch.is_grad_enabled())))
    images = torch.rand(3, 4, 3, 32, 32, requires_grad=True)
    network = backbone.network
    original = network.forward_features
    network.forward_features = lambda x: (seen.append((len(x), torch.is_grad_enabled())), original(x))[1]
    scores, embeddings = module._score(images)
    assert [s for s in seen if not s[1]] == [(3, False)] * 4
    assert [s for s in seen if s[1]] == [(6, True)]
    assert scores.shape == (3,)
    assert embeddings.shape == (3, 32)
    assert module.training
    assert head.training
    scores.sum().backward()
    touched = images.grad.abs().sum(dim=(2, 3, 4)) > 0
    assert touched.sum(dim=1).tolist() == [2, 2, 2]


def test_draws_and_pools():
    pixels = torch.arange(5).repeat(40, 1)
    drawn = draw_views(pixels, 2, torch.Generator().manual_seed(0))
    assert drawn.shape == (40, 3)
    assert (drawn[:, 0] == 0).all()
    assert all(len({a, b} - {0}) == 2 for _, a, b in drawn.tolist())
    assert set(drawn[:, 1:].flatten().tolist()) == {1, 2, 3, 4}
    scores = torch.tensor([[0.0, 3.0, 1.0], [2.0, 2.0, 2.0]])
    assert pool_views(scores, "topk_mean", 2).tolist() == [2.0, 2.0]
    soft = pool_views(scores, "logsumexp", 2)
    assert float(soft[1]) == pytest.approx(2.0)
    assert 4 / 3 < float(soft[0]) < 3.0
    assert top_views(scores, scores, 1).tolist() == [[3.0], [2.0]]


@pytest.mark.parametrize("changes", [{"augment": "streetvision"}, {"augment": "augmix_3"}, {"cutmix": 1.0}])
def test_other_augmentations_train(tiny, tmp_path, changes):
    done = run(tiny, tmp_path, load=lambda p: views_of(p)[0], layout=None, **changes)
    assert np.isfinite([loss for _, loss in done.trace]).all()
    assert len(done.trace) == 12


def test_what_does_not_go_together_is_refused(tiny, tmp_path):
    with pytest.raises(ConfigError, match="grid of at least 4 tiles"):
        run(tiny, tmp_path, layout=None, views=4)
    with pytest.raises(ConfigError, match="no meaning for mixed labels"):
        run(tiny, tmp_path, mixup=0.2, loss="supcon+cross_entropy")
    with pytest.raises(ConfigError, match="optimizer muon"):
        run(tiny, tmp_path, strategy="fsdp2", optimizer="muon")
    with pytest.raises(ValidationError, match="paste between tiles"):
        TrainConfig(views=2, cutmix=1.0)
    given = {"data": "synthetic", "out": tmp_path}
    with pytest.raises(ValidationError, match=r"views\.layout=global cuts 0"):
        RunConfig(**given, train={"method": "lora", "views": 2}, views={"layout": "global"})
    with pytest.raises(ValidationError, match="trains on none"):
        RunConfig(**given, augment={"search": True})
