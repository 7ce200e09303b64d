from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from workzone.vision.streetvision import geometry, opencv
from workzone.vision.streetvision.transforms import STRENGTHS

pytestmark = pytest.mark.parity
PIXELS = np.asarray(
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (18, 32, 3), dtype=np.uint8)).resize(
        (320, 180), Image.Resampling.BICUBIC
    )
)


@pytest.fixture(scope="module")
def tv() -> Any:
    pytest.importorskip("torch")
    return pytest.importorskip("torchvision.transforms")


@pytest.fixture(scope="module")
def cv() -> Any:
    return pytest.importorskip("cv2", reason="parity with OpenCV needs opencv-python-headless")


def tensor(pixels: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).to(torch.float32) / 255


@pytest.mark.parametrize("angle", [-20.0, -7.3, 0.0, 3.0, 19.99])
@pytest.mark.parametrize("size", [(320, 180), (224, 224), (225, 301)])
def test_rotation_is_torchvisions(tv: Any, angle: float, size: tuple[int, int]) -> None:
    pixels = np.asarray(Image.fromarray(PIXELS).resize(size))
    wanted = tv.functional.rotate(tensor(pixels), angle).permute(1, 2, 0).numpy()
    found = geometry.rotate(pixels, angle).astype(np.float32) / np.float32(255)
    # A source place halfway between two pixels may go either way.
    assert np.mean((found != wanted).any(axis=-1)) < 1e-3


def test_random_resized_crop_is_torchvisions(tv: Any) -> None:
    wanted = tv.functional.resized_crop(tensor(PIXELS), 13, 40, 141, 141, [224, 224], antialias=True)
    found = geometry.resize_unit(PIXELS[13 : 13 + 141, 40 : 40 + 141])
    np.testing.assert_allclose(found, wanted.permute(1, 2, 0).numpy(), atol=2e-6)
    big = np.asarray(Image.fromarray(PIXELS).resize((1280, 720)))
    wanted = tv.functional.resized_crop(tensor(big), 10, 200, 700, 700, [224, 224], antialias=True)
    found = geometry.resize_unit(big[10:710, 200:900])
    np.testing.assert_allclose(found, wanted.permute(1, 2, 0).numpy(), atol=2e-6)


def test_a_crop_beyond_the_picture_is_black_there_as_torchvision_pads_it(tv: Any) -> None:
    turned = tv.functional.rotate(tensor(PIXELS), 17.0)
    height, width = PIXELS.shape[:2]
    window = (height - 60, width - 80, 70, 90)
    wanted = tv.functional.crop(turned, *window).permute(1, 2, 0).numpy()
    found = geometry.rotate(PIXELS, 17.0, window).astype(np.float32) / np.float32(255)
    assert np.mean((found != wanted).any(axis=-1)) < 1e-3
    assert not found[60:].any()
    assert not found[:, 80:].any()


@pytest.mark.parametrize("size", [(320, 180), (181, 320), (333, 202)])
def test_centre_square_is_torchvisions(tv: Any, size: tuple[int, int]) -> None:
    image = Image.fromarray(PIXELS).resize(size)
    wanted = tv.Compose([tv.CenterCrop(min(size)), tv.Resize(224)])(image)
    assert np.array_equal(np.asarray(geometry.centre_square(image)), np.asarray(wanted))


def test_sides_of_crops_are_drawn_as_torchvision_does(tv: Any) -> None:
    import torch

    torch.manual_seed(0)
    theirs = [tv.RandomResizedCrop.get_params(tensor(PIXELS), [0.2, 1.0], [1.0, 1.0]) for _ in range(2000)]
    rng = np.random.default_rng(0)
    ours = [geometry.crop_window(320, 180, rng) for _ in range(2000)]
    for a, b in ((2, 2), (0, 0), (1, 1)):
        x, y = np.array([t[a] for t in theirs]), np.array([o[b] for o in ours])
        assert x.mean() == pytest.approx(y.mean(), abs=4 * x.std() / 2000**0.5 * 2**0.5)
        assert x.std() == pytest.approx(y.std(), rel=0.08)


@pytest.mark.parametrize("factor", STRENGTHS["JPEG"])
def test_resize_is_opencvs(cv: Any, factor: int) -> None:
    square = np.ascontiguousarray(PIXELS[:, :180])
    square = np.asarray(Image.fromarray(square).resize((224, 224)))
    small = cv.resize(square, (224 // factor, 224 // factor))
    assert np.array_equal(opencv.resize(square, 224 // factor, 224 // factor), small)
    assert np.array_equal(opencv.resize(small, 224, 224), cv.resize(small, (224, 224)))


@pytest.mark.parametrize("size", STRENGTHS["GB"])
def test_blur_is_opencvs(cv: Any, size: int) -> None:
    assert np.array_equal(opencv.gaussian_blur(PIXELS, size, size / 6), cv.GaussianBlur(PIXELS, (size, size), size / 6))


def test_colours_are_opencvs(cv: Any) -> None:
    bgr = PIXELS.astype(np.float32)
    there = cv.cvtColor(bgr, cv.COLOR_BGR2YCR_CB)
    np.testing.assert_allclose(opencv.bgr_to_ycrcb(bgr), there, atol=1e-4)
    np.testing.assert_allclose(opencv.ycrcb_to_bgr(there), cv.cvtColor(there, cv.COLOR_YCR_CB2BGR), atol=1e-4)


@pytest.mark.parametrize("factor", STRENGTHS["JPEG"])
def test_resize_is_bilinear_without_antialias(tv: Any, factor: int) -> None:
    import torch

    square = np.asarray(Image.fromarray(PIXELS).resize((224, 224)))

    def plain(pixels: np.ndarray, side: int) -> np.ndarray:
        scaled = torch.nn.functional.interpolate(tensor(pixels)[None] * 255, size=(side, side), mode="bilinear")
        return np.asarray(scaled[0].permute(1, 2, 0).numpy())

    small = opencv.resize(square, 224 // factor, 224 // factor)
    # Weights of 11 bits, and a sum that is cut off before it is rounded.
    np.testing.assert_allclose(small, plain(square, 224 // factor), atol=0.8)
    np.testing.assert_allclose(opencv.resize(small, 224, 224), plain(small, 224), atol=0.8)


@pytest.mark.parametrize("size", STRENGTHS["GB"])
def test_blur_is_gaussian(tv: Any, size: int) -> None:
    wanted = tv.functional.gaussian_blur(tensor(PIXELS) * 255, [size, size], [size / 6, size / 6])
    found = opencv.gaussian_blur(PIXELS, size, size / 6)
    # Each entry of the kernel is off by up to 1/256.
    assert np.abs(found - wanted.permute(1, 2, 0).numpy()).mean() < 0.6
