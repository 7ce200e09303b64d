from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageDraw

from workzone.vision.corruptions import CORRUPTIONS, LEVELS, Picture, corrupt, psnr


def _street(width: int, height: int, seed: int) -> Picture:
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (width, height), (120, 140, 160))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, height // 2, width, height), fill=(70, 70, 75))
    for _ in range(40):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        size = int(rng.integers(4, max(5, height // 5)))
        pen.rectangle((x, y, x + size // 2, y + size), fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    return np.asarray(image)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("size", [(320, 180), (97, 131)])
def test_higher_levels_are_further_from_the_picture(name: str, size: tuple[int, int]) -> None:
    for seed in range(3):
        picture = _street(*size, seed)
        before = picture.copy()
        values = [psnr(picture, corrupt(picture, name, level, seed)) for level in LEVELS]
        assert all(a > b + 0.2 for a, b in pairwise(values)), values
        assert 5 < values[-1] < 27
        assert (picture == before).all()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_same_seed_same_picture_and_shape(name: str) -> None:
    picture = _street(160, 90, 0)
    first, again = corrupt(picture, name, 3, 7), corrupt(picture, name, 3, 7)
    assert first.dtype == np.uint8
    assert first.shape == picture.shape
    assert (first == again).all()
    assert (corrupt(picture, name, 0) == picture).all()
    if name in ("gaussian_noise", "fog", "rain", "low_light", "motion_blur"):
        assert any((corrupt(picture, name, 5, seed) != corrupt(picture, name, 5, 7)).any() for seed in (1, 2, 3))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_single_pixel_survives(name: str) -> None:
    assert corrupt(np.full((1, 1, 3), 90, dtype=np.uint8), name, 5).shape == (1, 1, 3)


def test_wrong_input_is_refused() -> None:
    picture = np.zeros((4, 4, 3), dtype=np.uint8)
    for args in ((picture, "snowman", 1), (picture, "fog", 6), (picture[:, :, 0], "fog", 1), (picture / 2, "fog", 1)):
        with pytest.raises(ValueError, match=r"picture|corruption|level"):
            corrupt(*args)
    with pytest.raises(ValueError, match="shape"):
        psnr(picture, picture[:2])
    assert psnr(picture, picture) == float("inf")
    assert psnr(picture, picture + np.uint8(255)) == pytest.approx(0)
