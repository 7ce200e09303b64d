from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from workzone.training.augmentation import augment, streetvision
from workzone.training.augmentation.mixing import any_side, draw_side, mix, rescale
from workzone.training.augmentation.policies import POLICIES, apply_policy
from workzone.vision.streetvision import transforms


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(side: int = 224) -> np.ndarray:
    """Smooth colours, edges and a little texture, the same every time."""
    rng = np.random.default_rng(4)
    y, x = np.mgrid[0:side, 0:side] / side
    base = np.stack([200 * x + 20, 180 * y + 40, 120 + 60 * np.sin(9 * x * y)], axis=-1)
    base[side // 4 : side // 2, side // 3 : side // 2] = (250, 120, 10)
    return (base + rng.normal(0, 6, base.shape)).clip(0, 255).astype(np.uint8)


def to_tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_policies_depend_on_the_generator_alone_and_change_each_image(name):
    images = to_tensor(picture(48)).repeat(6, 1, 1, 1)
    state = torch.random.get_rng_state()
    first, again, other = (augment(images, name, seeded(s)) for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == images.shape
    assert 0 <= float(first.min()) <= float(first.max()) <= 1
    assert len({tuple(x.flatten().tolist()) for x in first}) > 1


def test_severity_moves_further():
    images = to_tensor(picture(48)).repeat(60, 1, 1, 1)
    moved = {n: float((apply_policy(images, n, seeded()) - images).abs().mean()) for n in POLICIES}
    assert moved["randaugment_3"] < moved["randaugment_7"]
    assert moved["augmix_3"] < moved["augmix_7"]


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="no augmentation 'autoaugment_v3'"):
        augment(torch.zeros(1, 3, 8, 8), "autoaugment_v3", seeded())


@pytest.mark.parametrize(
    ("name", "values", "change", "tolerance"),
    [
        ("CS", streetvision.SATURATION, streetvision.saturation, 1.5),
        ("CC", streetvision.CONTRAST, streetvision.contrast, 1.0),
        ("JPEG", streetvision.SHRINK, streetvision.shrink_and_enlarge, 1.5),
        ("GB", streetvision.BLUR, streetvision.blur, 1.5),
    ],
)
def test_each_distortion_is_that_of_the_simulator(name, values, change, tolerance):
    pixels = picture()
    for strength, value in enumerate(values, 1):
        expected = transforms.distort(pixels.astype(np.float32) / 255, name, strength) * 255
        got = change(to_tensor(pixels), value).permute(1, 2, 0).numpy() * 255
        assert np.abs(got - expected).mean() < tolerance
        assert np.abs(pixels - expected).mean() > 1.0


def test_noise_has_the_deviation_of_the_simulator():
    pixels = np.full((224, 224, 3), 120, np.uint8)
    for strength, value in enumerate(streetvision.NOISE, 1):
        rng = np.random.default_rng(0)
        expected = transforms.distort(pixels.astype(np.float32) / 255, "GNC", strength, rng).std(axis=(0, 1)) * 255
        got = streetvision.noise(to_tensor(pixels), value, seeded()).std(dim=(1, 2)).numpy() * 255
        assert got == pytest.approx(expected, rel=0.05)


def figures(pixels: np.ndarray) -> list[float]:
    """Brightness, spread, share of black, colour, roughness."""
    p = pixels.astype(np.float64)
    grey = p.mean(axis=2)
    rough = np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()
    return [p.mean(), grey.std(), float((p.max(axis=2) < 8).mean()), np.ptp(p, axis=2).mean(), rough]


@pytest.mark.stat
def test_pictures_have_the_statistics_of_the_simulator():
    pixels, n = picture(), 160
    image, rng = Image.fromarray(pixels), np.random.default_rng(1)
    theirs = np.array([figures(np.asarray(transforms.augment(image, rng))) for _ in range(n)])
    ours_ = augment(to_tensor(pixels).repeat(n, 1, 1, 1), "streetvision", seeded(2))
    ours = np.array([figures((x.permute(1, 2, 0).numpy() * 255).round()) for x in ours_])
    error = np.sqrt((theirs.var(axis=0) + ours.var(axis=0)) / n)
    gap = np.abs(theirs.mean(axis=0) - ours.mean(axis=0)) / error
    assert (gap < 4).all(), gap
    spread = ours.std(axis=0) / theirs.std(axis=0)
    assert ((spread > 0.7) & (spread < 1.4)).all(), spread
    # The test can tell: the preset `standard` has other statistics.
    other = augment(to_tensor(pixels).repeat(n, 1, 1, 1), "standard", seeded(2))
    far = np.array([figures((x.permute(1, 2, 0).numpy() * 255).round()) for x in other])
    assert (np.abs(theirs.mean(axis=0) - far.mean(axis=0)) / error > 5).any()


def test_streetvision_never_mirrors():
    half = np.zeros((64, 64, 3), np.uint8)
    half[:, :32] = 255
    for image in augment(to_tensor(half).repeat(80, 1, 1, 1), "streetvision", seeded(3)):
        assert float(image[:, :, :24].mean()) >= float(image[:, :, 40:].mean()) - 0.02


def test_mixup_mixes_labels_as_it_mixes_pixels():
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 8, 8) / 4
    labels = torch.tensor([0.0, 1.0, 0.0, 1.0])
    mixed, soft = mix(images, labels, seeded(5), mixup=1.0, cutmix=0.0)
    share = float(soft[1])
    assert 0 < share < 1
    assert torch.allclose(soft, labels * share + labels.roll(1) * (1 - share))
    assert torch.allclose(mixed, images * share + images.roll(1, 0) * (1 - share))
    views, same = mix(images[:, None].repeat(1, 3, 1, 1, 1), labels, seeded(5), mixup=1.0, cutmix=0.0)
    assert torch.allclose(same, soft)
    assert torch.allclose(views, mixed[:, None].expand(4, 3, 3, 8, 8))


def test_cutmix_within_a_class_keeps_labels_and_across_them_follows_the_area():
    labels = torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0, 1.0])
    images = (labels * 0.5 + torch.arange(6) * 0.01).view(6, 1, 1, 1).expand(6, 3, 16, 16).contiguous()
    within, kept = mix(images, labels, seeded(1), mixup=0.0, cutmix=1.0)
    assert torch.equal(kept, labels)
    assert not torch.equal(within, images)
    assert torch.equal(within.flatten(1).amin(1) >= 0.5, labels > 0.5)
    anywhere, soft = mix(images, labels, seeded(1), mixup=0.0, cutmix=1.0, any_pair=True)
    area = (anywhere >= 0.5).float().mean(dim=(1, 2, 3))
    assert torch.allclose(soft, area, atol=1e-5)
    assert ((soft > 0) & (soft < 1)).any()


def test_sides_lie_between_three_and_five_quarters():
    sides = {draw_side(224, 14, seeded(s)) for s in range(300)}
    assert sides == {14 * k for k in range(12, 21)}


def test_a_transformer_takes_another_side_only_where_it_is_allowed_to(tiny):
    backbone, images = tiny(), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        before = backbone.features(images)
        with any_side(backbone, 40, 32):
            larger = backbone.features(rescale(images, 40))
        assert larger.shape == before.shape
        assert not torch.allclose(larger, before)
        assert torch.equal(backbone.features(images), before)
        with pytest.raises(AssertionError):
            backbone.features(rescale(images, 40))
