from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from workzone.vision.streetvision import geometry, opencv
from workzone.vision.streetvision.transforms import (
    DISTORTIONS,
    LEVELS,
    PROTOCOLS,
    STRENGTHS,
    Recipe,
    augment,
    distort,
    draw,
    transform,
    wire,
)

P204, LETTERBOX, P041 = (PROTOCOLS[name] for name in ("2.0.4", "letterbox", "0.4.1"))


def picture(width: int = 320, height: int = 180, seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def unit(seed: int = 0) -> np.ndarray:
    return np.asarray(picture(224, 224, seed)).astype(np.float32) / np.float32(255)


@pytest.mark.parametrize(("size", "black"), [((1280, 720), 99), ((640, 360), 99), ((1920, 1080), 98)])
def test_letterbox_of_wide_pictures(size: tuple[int, int], black: int) -> None:
    boxed = np.asarray(geometry.letterbox(Image.new("RGB", size, (200, 100, 50))))
    empty = (boxed == 0).all(axis=(1, 2))
    assert boxed.shape == (224, 224, 3)
    assert empty.sum() == black
    assert empty[: black // 2].all()
    assert not empty[black // 2]


def test_centre_square_cuts_the_sides() -> None:
    pixels = np.zeros((100, 200, 3), dtype=np.uint8)
    pixels[:, :50] = 255
    assert np.asarray(geometry.centre_square(Image.fromarray(pixels))).max() == 0
    pixels[:, 50:] = 90
    assert np.asarray(geometry.centre_square(Image.fromarray(pixels))).min() == 90


def test_base_of_a_square_of_224_is_the_picture_itself() -> None:
    same = picture(224, 224)
    for protocol in PROTOCOLS.values():
        assert np.array_equal(np.asarray(transform(same, Recipe(0), protocol)), np.asarray(same))


def test_versions_differ_in_levels_and_sources() -> None:
    assert P204.levels == LETTERBOX.levels == (0.25, 0.25, 0.25, 0.25)
    assert P041.levels == (1.0, 0.0, 0.0, 0.0)
    assert P204.sources == {"synthetic": 0.5, "real": 0.5}
    assert sum(P041.sources.values()) == pytest.approx(1)
    assert len(P041.sources) == 3
    rng = np.random.default_rng(0)
    assert draw((320, 180), 1, rng, P204).window is not None
    assert draw((320, 180), 1, rng, LETTERBOX).window is None


@pytest.mark.parametrize("protocol", [P204, LETTERBOX])
@pytest.mark.parametrize("level", [1, 2, 3])
def test_nothing_is_ever_mirrored(protocol: object, level: int) -> None:
    pixels = np.zeros((224, 224, 3), dtype=np.uint8)
    pixels[:, 112:, 0] = 255  # right half red
    pixels[112:, :, 2] = 255  # lower half blue
    rng = np.random.default_rng(level)
    for _ in range(25):
        recipe = draw((224, 224), level, rng, protocol)  # type: ignore[arg-type]
        seen = np.asarray(transform(Image.fromarray(pixels), recipe, protocol)).astype(float)  # type: ignore[arg-type]
        red, blue = seen[..., 0], seen[..., 2]
        columns, rows = np.arange(224)[None, :], np.arange(224)[:, None]
        window = recipe.window or (0, 0, 224)
        top, left, side = window
        if left < 80 and left + side > 144:
            assert (red * columns).sum() / red.sum() > (columns * np.ones_like(red)).mean() - 1
        if top < 80 and top + side > 144:
            assert (blue * rows).sum() / blue.sum() > (rows * np.ones_like(blue)).mean() - 1


def test_rotation_takes_the_nearest_pixel_and_leaves_black_corners() -> None:
    pixels = np.full((60, 80, 3), 200, dtype=np.uint8)
    pixels[20:40, 30:50] = 17
    turned = geometry.rotate(pixels, 15.0)
    assert set(np.unique(turned).tolist()) == {0, 17, 200}  # nothing in between
    assert all(turned[r, c].max() == 0 for r in (0, -1) for c in (0, -1))


def test_rotation_turns_against_the_clock() -> None:
    pixels = np.zeros((101, 101, 3), dtype=np.uint8)
    pixels[48:53, 90:95] = 255
    rows = np.argwhere(geometry.rotate(pixels, 20.0)[..., 0])[:, 0]
    assert rows.mean() < 40  # what was on the right has gone up


def test_window_of_the_rotation_is_part_of_the_whole() -> None:
    pixels = np.asarray(picture())
    whole = geometry.rotate(pixels, -13.0)
    assert np.array_equal(geometry.rotate(pixels, -13.0, (20, 30, 90, 100)), whole[20:110, 30:130])


def test_crop_windows() -> None:
    rng = np.random.default_rng(0)
    for width, height in ((320, 180), (180, 320), (224, 224)):
        drawn = [geometry.crop_window(width, height, rng) for _ in range(300)]
        assert all(t >= 0 and t + s <= height and x >= 0 and x + s <= width for t, x, s in drawn)
        shares = [s * s / (width * height) for *_, s in drawn]
        assert 0.19 < min(shares) < 0.3
    # So wide that no square with a fifth of the area fits.
    assert geometry.crop_window(2000, 100, rng) == (0, 950, 100)


def test_the_crop_of_a_painted_picture_holds_the_painted_place() -> None:
    rng = np.random.default_rng(0)
    moved = 0
    for _ in range(300):
        point = (int(rng.integers(0, 512)), int(rng.integers(0, 512)))
        recipe = draw((512, 512), 1, np.random.default_rng(rng.integers(2**31)), P204, towards=point)
        free = draw((512, 512), 1, np.random.default_rng(5), P204)
        top, left, side = recipe.window or (0, 0, 0)
        assert 0 <= left <= 512 - side
        assert 0 <= top <= 512 - side
        assert left <= point[0] <= left + side
        assert top <= point[1] <= top + side
        moved += draw((512, 512), 1, np.random.default_rng(5), P204, towards=point).window != free.window
    assert moved > 30
    assert geometry.pull_window((100, 100, 50), 512, 512, (120, 130)) == (100, 100, 50)
    assert geometry.pull_window((100, 100, 50), 512, 512, (40, 300)) == (260, 30, 50)
    assert draw((512, 512), 1, np.random.default_rng(5), LETTERBOX, towards=(3, 3)).window is None


def test_the_validators_limits_take_width_for_height() -> None:
    # Wide picture: the lower limit is that of the width, so the window ends 10 pixels below the picture.
    assert geometry.pull_window((0, 0, 100), 400, 200, (50, 200)) == (110, 0, 100)
    # and the right limit is that of the height: the window does not reach the point.
    assert geometry.pull_window((0, 0, 100), 400, 200, (390, 50)) == (0, 100, 100)
    white = np.full((200, 400, 3), 255, dtype=np.uint8)
    cut = geometry.rotate(white, 0.0, (110, 0, 100, 100))
    assert (cut[:90] == 255).all()
    assert (cut[90:] == 0).all()
    # What turns into the part below the picture was cut off by then.
    assert (geometry.rotate(white, 15.0, (110, 150, 100, 100))[90:] == 0).all()


def test_angles_are_uniform_in_twenty_degrees() -> None:
    rng = np.random.default_rng(0)
    angles = [draw((224, 224), 1, rng, LETTERBOX).angle for _ in range(2000)]
    assert max(map(abs, angles)) <= 20
    assert np.quantile(angles, [0.25, 0.75]) == pytest.approx([-10, 10], abs=1.5)


def test_strengths_by_level() -> None:
    rng = np.random.default_rng(0)
    for level, (names, most) in DISTORTIONS.items():
        found = [draw((224, 224), level, rng, LETTERBOX).strengths for _ in range(80)]
        assert {tuple(f) for f in found} == {names}
        for name in names:
            assert {f[name] for f in found} == set(range(most + 1))
    assert DISTORTIONS[2][0] == ("CS", "CC", "JPEG")
    assert DISTORTIONS[3][0] == ("CS", "CC", "JPEG", "GNC", "GB")


@pytest.mark.parametrize("name", list(STRENGTHS))
def test_strength_0_is_the_identity_and_others_are_not(name: str) -> None:
    before = unit()
    assert np.array_equal(distort(before, name, 0), before)
    after = [distort(before, name, s, np.random.default_rng(0)) for s in range(1, 6)]
    moved = [float(np.abs(a - before).mean()) for a in after]
    assert moved[0] > 0.005
    assert moved == sorted(moved)


def test_contrast_is_a_factor() -> None:
    before = unit()
    bytes_before = (before * 255).astype(np.uint8).astype(np.float32)
    after = (distort(before, "CC", 1) * 255).round()
    assert np.array_equal(after, np.floor(bytes_before * np.float32(0.85)))


def test_jpeg_is_shrink_and_enlarge() -> None:
    lines = np.zeros((224, 224, 3), dtype=np.float32)
    lines[::2] = 1.0
    grey = distort(lines, "JPEG", 1) * 255
    assert np.unique(grey.round()).tolist() == [128.0]


def test_saturation_moves_towards_grey_of_the_same_brightness() -> None:
    before, after = unit(), distort(unit(), "CS", 5)
    assert np.ptp(after, axis=-1).max() <= 1.5 / 255
    luma = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(after @ luma, before @ luma, atol=2 / 255)


def test_noise_is_drawn_in_ycbcr() -> None:
    grey = np.full((224, 224, 3), 0.5, dtype=np.float32)
    noise = (distort(grey, "GNC", 2, np.random.default_rng(0)) - grey) * 255
    luma = noise @ np.array([0.299, 0.587, 0.114])
    wanted = 255 * 0.002**0.5 * 255 / 219
    assert luma.std() == pytest.approx(wanted, rel=0.03)
    # Red moves by luma and by Cr, which are independent: more than luma alone, and by another amount than green.
    red = (wanted**2 + (1.403 * 255 * 0.002**0.5 * 255 / 224) ** 2) ** 0.5
    assert noise[..., 0].std() == pytest.approx(red, rel=0.03)
    assert noise[..., 1].std() < noise[..., 0].std() < noise[..., 2].std()


def test_blur_kernel() -> None:
    for size in STRENGTHS["GB"]:
        kernel = opencv.gaussian_kernel(int(size), size / 6)
        assert kernel.sum() == 256
        assert kernel.tolist() == kernel[::-1].tolist()
        exact = np.exp(-0.5 * ((np.arange(size) - size // 2) / (size / 6)) ** 2)
        np.testing.assert_allclose(kernel / 256, exact / exact.sum(), atol=1.1 / 256)
    point = np.zeros((31, 31, 3), dtype=np.uint8)
    point[15, 15] = 255
    spread = np.argwhere(opencv.gaussian_blur(point, 7, 7 / 6)[..., 0])
    assert np.ptp(spread, axis=0).tolist() == [6, 6]


def test_wire_is_jpeg_of_quality_75() -> None:
    image = picture(224, 224)
    sent, plain = wire(image), io.BytesIO()
    image.save(plain, "JPEG", quality=75)
    assert sent == plain.getvalue()
    assert Image.open(io.BytesIO(sent)).size == (224, 224)


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_augment_repeats_itself(name: str) -> None:
    image = picture()
    first, again, other = (augment(image, np.random.default_rng(s), name) for s in (1, 1, 2))
    assert first.size == (224, 224)
    assert first.mode == "RGB"
    assert np.array_equal(np.asarray(first), np.asarray(again))
    assert np.array_equal(np.asarray(first), np.asarray(other)) == (name == "0.4.1")


def test_unknown_level_and_strength() -> None:
    with pytest.raises(ValueError, match="level"):
        draw((224, 224), 4, np.random.default_rng(0), P204)
    with pytest.raises(ValueError, match="distortion"):
        distort(unit(), "BW", 1)
    assert LEVELS == (0, 1, 2, 3)
