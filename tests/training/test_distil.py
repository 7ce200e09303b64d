"""Distillation: teacher's tokens on disk, masks, what a student learns, resuming."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from helpers.patches import Killed, killer_at
from workzone.config.pretraining import DistilConfig, PretrainConfig
from workzone.models.backbones import Backbone, BackboneSpec
from workzone.training.distillation import Distillation, teacher_features, tokens
from workzone.training.distillation import teacher as teacher_module
from workzone.training.distillation.teacher import fixed_boxes, regrid
from workzone.training.pretraining.images import StoredImages
from workzone.training.pretraining.loop import run_loop


def images(n: int = 20, side: int = 32) -> StoredImages:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)
    return StoredImages(
        coarse.repeat(side // 4, axis=1).repeat(side // 4, axis=2), tuple(f"{i:064x}" for i in range(n))
    )


def conv(seed: int = 0) -> Backbone:
    """A small convolution with timm's interface: stride 8, a batch norm, mean pooling."""

    class Net(nn.Module):
        num_features = 24

        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(3, 16, 4, stride=4), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 2, stride=2)
            )

        def forward_features(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x).mean(dim=(2, 3))

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Net()
    spec = BackboneSpec("tiny_conv", "conv", 8, (0.5,) * 3, (0.5,) * 3, "none", "avg")
    return Backbone("tiny_conv", spec, network, image_size=32, pooling="avg").eval()


def config(**changes: object) -> PretrainConfig:
    base = {"method": "distil", "teacher": "dinov2_vits14", "epochs": 3, "batch_size": 8, "lr": 3e-3, "warmup": 0.0}
    return PretrainConfig(**(base | changes))


def features(tiny, tmp_path, *, grid: int = 4, views: int = 1, **more):
    return teacher_features(tiny(seed=9), images(), side=32, grid=grid, views=views, seed=1, folder=tmp_path, **more)


def students(tiny) -> dict[str, Backbone]:
    made = {"vit": tiny(seed=2), "conv": conv()}
    for student in made.values():
        for p in student.parameters():
            p.requires_grad_(True)
    return made


def test_tokens_are_those_that_the_embedding_is_made_of(tiny):
    backbone = tiny(pooling="cls_avg")
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    token, patches = tokens(backbone, x)
    assert patches.shape == (2, 4, 4, 32)
    torch.testing.assert_close(torch.cat([token, patches.mean(dim=(1, 2))], dim=1), backbone.features(x))
    token, patches = tokens(conv(), x)
    assert patches.shape == (2, 4, 4, 24)
    torch.testing.assert_close(token, conv().features(x))
    torch.testing.assert_close(regrid(patches, 2)[0, 0, 0], patches[0, :2, :2].mean(dim=(0, 1)))


def test_teacher_looks_once_and_the_shards_say_what_it_saw(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(teacher_module, "SHARD_IMAGES", 8)
    looked: list[int] = []
    look = teacher_module._look

    def counted(backbone, kept, rows, *rest):
        looked.append(len(rows))
        return look(backbone, kept, rows, *rest)

    monkeypatch.setattr(teacher_module, "_look", counted)
    first = features(tiny, tmp_path, grid=2, views=3)
    assert looked == [8, 8, 4]
    files = sorted(tmp_path.rglob("*.npy"))
    assert len(files) == 3
    whole = images().batch([13])
    token, patches = tokens(tiny(seed=9), tiny().normalise(whole))
    got = first.batch([13], [0])[0]
    torch.testing.assert_close(got[0], token[0], atol=5e-3, rtol=5e-3)
    torch.testing.assert_close(got[1:], regrid(patches, 2).flatten(1, 2)[0], atol=5e-3, rtol=5e-3)
    assert not torch.allclose(first.batch([13], [1]), first.batch([13], [0]), atol=1e-3)
    expected = first.batch([13, 19], [2, 1])
    files[1].unlink()
    files[2].write_bytes(b"damaged")
    again = features(tiny, tmp_path, grid=2, views=3)
    assert looked == [8, 8, 4, 8, 4]
    assert torch.equal(again.batch([13, 19], [2, 1]), expected)
    assert torch.equal(fixed_boxes(5, 3, 1)[:, 0], torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(5, 4))


@pytest.mark.parametrize("kind", ["vit", "conv"])
def test_a_student_comes_nearer_to_its_teacher_than_a_constant(tiny, tmp_path, kind):
    """Errors are shares of the teacher's variance, so a constant answer has 1."""
    known = features(tiny, tmp_path)
    made = Distillation(students(tiny)[kind], known, DistilConfig(), side=32, seed=0)
    cfg = config(epochs=30)
    rows = list(range(20))
    start = made.step(rows, images().batch(rows), torch.Generator().manual_seed(0), 0.0).terms
    assert all(float(v.detach()) < 2.0 for v in start.values()), "heads start near the mean of the teacher"
    outcome = run_loop(made, images(), cfg, seed=0, folder=tmp_path, key="k")
    last = outcome.history[-1]
    assert last["token"] < 0.85
    assert last["feature"] < 0.85
    # Cells of these pictures are drawn one by one, so nothing tells what is behind a hidden one but the mean.
    assert last["patch"] == pytest.approx(1.0, abs=0.05)
    assert made.result() is made.student


@pytest.mark.parametrize("kind", ["vit", "conv"])
def test_hidden_patches_are_hidden(tiny, tmp_path, kind):
    """Nothing of a hidden patch reaches any token."""
    known = features(tiny, tmp_path)
    made = Distillation(students(tiny)[kind], known, DistilConfig(), side=32, seed=0).eval()
    hidden = torch.zeros(2, 4, 4, dtype=torch.bool)
    hidden[:, 1, 2] = True
    one = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    other = one.clone()
    other[:, :, 8:16, 16:24] += 3.0
    assert (tokens(made.student, one)[0] - tokens(made.student, other)[0]).abs().max() > 1e-4
    with made._hide(hidden):
        if kind == "conv":
            cover = 1.0 - teacher_module.F.interpolate(hidden.unsqueeze(1).float(), size=(32, 32))
            one, other = one * cover, other * cover
        a, b = tokens(made.student, one), tokens(made.student, other)
    torch.testing.assert_close(a[0], b[0])
    torch.testing.assert_close(a[1], b[1])
    assert not made.student.network._forward_hooks


def test_masks_hide_the_asked_share(tiny, tmp_path):
    known = features(tiny, tmp_path)
    made = Distillation(students(tiny)["vit"], known, DistilConfig(mask_images=0.25, mask_ratio=0.75), side=32, seed=0)
    mask = made._mask(400, torch.Generator().manual_seed(0)).flatten(1)
    counts = mask.sum(dim=1)
    assert set(counts.tolist()) == {0, 12}
    assert 0.18 < (counts > 0).float().mean() < 0.32


def test_terms_can_be_switched_off(tiny, tmp_path):
    known = features(tiny, tmp_path)
    generator = torch.Generator().manual_seed(0)
    for off in ("token", "feature", "patch"):
        made = Distillation(students(tiny)["vit"], known, DistilConfig(**{off: 0.0}), side=32, seed=0)
        values = made.step([0, 1, 2, 3], images().batch([0, 1, 2, 3]), generator, 0.0).terms
        assert set(values) == {"token", "feature", "patch"} - {off}
    with pytest.raises(ValidationError, match="nothing to learn"):
        DistilConfig(token=0, feature=0, patch=0)


@pytest.mark.parametrize("kind", ["vit", "conv"])
def test_a_killed_distillation_repeats_the_uninterrupted_one(tiny, tmp_path, kind):
    cfg = config(checkpoint_seconds=1e-9)

    def train(folder, on_step=None):
        known = features(tiny, tmp_path, views=2)
        made = Distillation(students(tiny)[kind], known, cfg.distil, side=32, seed=0)
        return made, run_loop(made, images(), cfg, seed=4, folder=folder, key="k", on_step=on_step)

    whole, expected = train(tmp_path / "whole")
    with pytest.raises(Killed):
        train(tmp_path / "killed", killer_at(3))
    seen: list[int] = []
    made, outcome = train(tmp_path / "killed", seen.append)
    assert seen[0] == 4
    assert outcome.trace == expected.trace
    assert all(torch.equal(v, whole.state_dict()[k]) for k, v in made.state_dict().items())
