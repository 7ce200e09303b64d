from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from workzone.vision.preprocess import Preprocessing
from workzone.vision.views import Cutter, ViewSpec, boxes, count, grid, make_views, needed_side

sides = st.integers(8, 5000)
specs = st.builds(
    ViewSpec,
    layout=st.sampled_from(["global", "grid", "adaptive"]),
    rows=st.integers(1, 5),
    cols=st.integers(1, 5),
    overlap=st.sampled_from([0.0, 0.125, 0.25, 0.5]),
    flip=st.booleans(),
    scales=st.sampled_from([(1.0,), (0.8, 1.0, 1.2)]),
)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_the_default_is_one_global_view_and_nine_tiles() -> None:
    spec = ViewSpec()
    found = boxes(spec, 4032, 3024)
    assert found.shape == (10, 4)
    assert found.dtype == np.float32
    assert found[0].tolist() == [0, 0, 1, 1]
    starts = np.array([0, 196, 392]) / 616
    np.testing.assert_allclose(found[1:4, 0], starts, atol=1e-7)
    np.testing.assert_allclose(found[1::3, 1], starts, atol=1e-7)
    np.testing.assert_allclose(found[1:, 2:] - found[1:, :2], 224 / 616, atol=1e-6)
    assert count(spec.model_copy(update={"flip": True}), 4032, 3024) == 20


@settings(max_examples=80, deadline=None)
@given(spec=specs, width=sides, height=sides, size=st.sampled_from([32, 224, 518]))
def test_tiles_cover_the_picture_with_the_stated_overlap(spec: ViewSpec, width: int, height: int, size: int) -> None:
    found = boxes(spec, width, height, image_size=size).astype(float)
    assert len(found) == count(spec, width, height, image_size=size)
    assert found.min() >= 0
    assert found.max() <= 1
    assert (found[:, :2] < found[:, 2:]).all()
    rows, cols = grid(spec, width, height, image_size=size)
    first = len(spec.scales)
    tiles = found[first : first + rows * cols].reshape(rows, cols, 4)
    for axis, line in ((0, tiles[0] if rows else []), (1, tiles[:, 0] if rows else [])):
        if not len(line):
            continue
        assert line[0][axis] == 0
        assert line[-1][axis + 2] == 1
        for left, right in pairwise(line):
            shared = (left[axis + 2] - right[axis]) / (left[axis + 2] - left[axis])
            assert shared == pytest.approx(spec.overlap, abs=0.51 / size + 1e-4)
    if rows:
        # All tiles of a row share their top and bottom, all of a column their left and right.
        assert (tiles[..., [1, 3]] == tiles[:, :1][..., [1, 3]]).all()
        assert (tiles[..., [0, 2]] == tiles[:1][..., [0, 2]]).all()


@pytest.mark.parametrize("aspect", [0.25, 0.4, 0.5625, 0.75, 1.0, 4 / 3, 16 / 9, 2.5, 4.0])
@pytest.mark.parametrize("short", [64, 240, 480, 1080, 3000])
def test_adaptive_grid(aspect: float, short: int) -> None:
    width, height = (round(short * aspect), short) if aspect >= 1 else (short, round(short / aspect))
    spec = ViewSpec(layout="adaptive")
    rows, cols = grid(spec, width, height)
    assert spec.min_tiles <= rows * cols <= spec.max_tiles
    tile = boxes(spec, width, height)[1]
    shape = (tile[2] - tile[0]) * width / ((tile[3] - tile[1]) * height)
    assert 1 / 1.5 < shape < 1.5, "tiles are near square"
    assert grid(spec, height, width) == (cols, rows) or rows == cols


def test_adaptive_examples() -> None:
    spec = ViewSpec(layout="adaptive")
    assert grid(spec, 4032, 3024) == (3, 4)
    assert grid(spec, 3024, 4032) == (4, 3)
    assert grid(spec, 250, 250) == (2, 2)
    assert grid(spec, 640, 360) == (2, 3)
    assert math.prod(grid(spec, 4000, 1000)) > math.prod(grid(spec, 400, 300))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("layout", ["grid", "adaptive"])
def test_a_landmark_lands_in_the_tiles_that_contain_it(interpolation: str, layout: str) -> None:
    pre = Preprocessing(image_size=64, interpolation=interpolation, views=ViewSpec(layout=layout, flip=True))
    rng = np.random.default_rng(3)
    for _ in range(12):
        width, height = (int(side) for side in rng.integers(200, 900, 2))
        x, y = int(rng.integers(0, width - 12)), int(rng.integers(0, height - 12))
        image = Image.new("RGB", (width, height))
        image.paste((255, 255, 255), (x, y, x + 12, y + 12))
        pixels, found = make_views(image, pre)
        centre = np.array([(x + 6) / width, (y + 6) / height])
        half = len(found) // 2
        for view, (box, shown) in enumerate(zip(found, pixels[..., 0].astype(float), strict=True)):
            place = (centre - box[:2]) / (box[2:] - box[:2])
            if view >= half:
                place[0] = 1 - place[0]
            margin = np.array([12 / width, 12 / height]) / (box[2:] - box[:2]) + 3 / 64
            if ((place > margin) & (place < 1 - margin)).all():
                rows, cols = np.mgrid[0:64, 0:64] + 0.5
                seen = np.array([(cols * shown).sum(), (rows * shown).sum()]) / shown.sum() / 64
                np.testing.assert_allclose(seen, place, atol=0.02)
            elif ((place < -margin) | (place > 1 + margin)).any():
                assert shown.max() == 0, "nothing leaks in from outside the tile"


def test_flip_doubles_and_mirrors_left_to_right_only() -> None:
    image = noise(301, 203)
    plain = Preprocessing(image_size=64, views=ViewSpec(scales=(1.0, 1.2)))
    both = plain.model_copy(update={"views": plain.views.model_copy(update={"flip": True})})
    one, where = make_views(image, plain)
    two, mirrored = make_views(image, both)
    assert len(two) == 2 * len(one) == 22
    assert (two[:11] == one).all()
    assert (two[11:] == one[:, :, ::-1]).all()
    assert (mirrored == np.concatenate([where, where])).all()


def test_the_global_view_comes_first_and_is_the_same_in_every_layout() -> None:
    image = noise(640, 360)
    views = [
        make_views(image, Preprocessing(image_size=96, views=ViewSpec(layout=layout, scales=scales)))[0][0]
        for layout in ("global", "grid", "adaptive")
        for scales in ((1.0,), (0.8, 1.0, 1.2))
    ]
    assert all((view == views[0]).all() for view in views)
    plain = np.asarray(image.resize((96, 96), Image.Resampling.BICUBIC))
    assert np.abs(views[0].astype(int) - plain).mean() < 2


def test_scales_zoom_in_and_add_a_border() -> None:
    image = Image.new("RGB", (400, 400))
    image.paste((255, 255, 255), (150, 150, 250, 250))
    pre = Preprocessing(image_size=100, views=ViewSpec(layout="global", scales=(0.8, 1.0, 2.0)))
    pixels, found = make_views(image, pre)
    # Order: 1.0, 0.8, 2.0; the white square takes 1/16 of the picture.
    np.testing.assert_allclose(pixels.mean(axis=(1, 2, 3)) / 255, [1 / 16, 0.64 / 16, 1 / 4], atol=0.01)
    np.testing.assert_allclose(found, [[0, 0, 1, 1], [0, 0, 1, 1], [0.25, 0.25, 0.75, 0.75]])


def test_shrunk_view_continues_the_picture_by_reflection() -> None:
    gradient = Image.fromarray(np.repeat(np.linspace(0, 255, 200).astype(np.uint8)[None, :, None], 200, 0).repeat(3, 2))
    view = make_views(gradient, Preprocessing(image_size=100, views=ViewSpec(layout="global", scales=(1.0, 0.8))))[0][1]
    row = view[50, :, 0].astype(int)
    assert (row[:10] == row[20:10:-1]).all()
    assert row[10] < 6
    assert row[89] > 249


def test_tiles_equal_a_resize_of_their_own_box() -> None:
    smooth = noise(60, 40).resize((900, 700), Image.Resampling.BICUBIC)
    pixels, found = make_views(smooth, Preprocessing(interpolation="bilinear"))
    for tile, (x0, y0, x1, y1) in zip(pixels[1:], found[1:].astype(float), strict=True):
        box = (x0 * 900, y0 * 700, min(900.0, x1 * 900), min(700.0, y1 * 700))
        own = np.asarray(smooth.resize((224, 224), Image.Resampling.BILINEAR, box=box))
        assert np.abs(own.astype(int) - tile).max() <= 2


def test_needed_side() -> None:
    def need(**views: object) -> int:
        return needed_side(Preprocessing(views=ViewSpec(**views)))

    assert need(layout="global") == 224
    assert need(layout="global", scales=(1.0, 1.2)) == 269
    assert need() == 616
    assert need(layout="adaptive") == 812
    assert need(layout="grid", rows=2, cols=4, overlap=0) == 896


@pytest.mark.parametrize("aspect", [1.0, 4 / 3, 16 / 9, 2.5])
def test_reduced_decoding_does_not_change_an_adaptive_grid(aspect: float) -> None:
    pre = Preprocessing(views=ViewSpec(layout="adaptive"))
    short = needed_side(pre)
    reduced = grid(pre.views, round(short * aspect), short)
    assert reduced == grid(pre.views, round(8 * short * aspect), 8 * short)


@pytest.mark.parametrize(
    "bad",
    [{"rows": 0}, {"overlap": 0.9}, {"scales": (0.8,)}, {"scales": (1.0, 9.0)}, {"scales": (1.0, 1.0)}, {"typo": 1},
     {"pyramid": ((3, 3),)}, {"pyramid": ((4, 4), (4, 4))}, {"pyramid": ((9, 1),)}, {"pyramid": ((0, 1),)},
     {"layout": "adaptive", "pyramid": ((4, 4),)}, {"layout": "global", "pyramid": ((4, 4),)},
     {"scales": (1.0, math.nan)}, {"min_tiles": 9, "max_tiles": 4}, {"layout": "spiral"}],
)  # fmt: skip
def test_wrong_specs_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ViewSpec(**bad)


def test_programming_mistakes() -> None:
    with pytest.raises(ValueError, match="decode"):
        make_views(Image.new("L", (50, 50)), Preprocessing())
    with pytest.raises(ValueError, match="positive"):
        boxes(ViewSpec(), 0, 10)


def test_preprocessing_json_round_trip() -> None:
    pre = Preprocessing(image_size=518, views=ViewSpec(scales=(0.8, 1.0, 1.2), flip=True))
    assert Preprocessing.model_validate_json(pre.model_dump_json()) == pre
    for bad in ({"std": (1, 1, 0)}, {"mean": (math.nan, 0, 0)}, {"image_size": 4}, {"extra": 1}, {"std": (1, 1)}):
        with pytest.raises(ValidationError):
            Preprocessing(**bad)
    with pytest.raises(ValidationError):
        pre.image_size = 10  # type: ignore[misc]


def test_square_preprocessing_is_written_as_before_there_was_a_width() -> None:
    square = Preprocessing()
    assert "image_width" not in square.model_dump(mode="json")
    assert Preprocessing(image_size=224, image_width=224) == square
    wide = Preprocessing(image_size=112, image_width=208)
    assert Preprocessing.model_validate_json(wide.model_dump_json()) == wide
    assert (square.width, wide.width) == (224, 208)


@pytest.mark.parametrize("flip", [False, True])
def test_a_pyramid_adds_the_tiles_of_each_grid(flip: bool) -> None:
    picture, scales = noise(640, 360), (0.8, 1.0)
    pyramid = Preprocessing(image_size=64, views=ViewSpec(pyramid=((4, 5), (2, 2)), scales=scales, flip=flip))
    pixels, found = make_views(picture, pyramid)
    assert len(pixels) == len(found) == count(pyramid.views, 640, 360) == (2 + 9 + 20 + 4) * (1 + flip)
    assert pyramid.views.fixed_tiles == 33
    assert needed_side(pyramid) == needed_side(Preprocessing(image_size=64, views=ViewSpec(rows=4, cols=5)))
    start = 2
    for rows, cols in pyramid.views.grids:
        alone = Preprocessing(image_size=64, views=ViewSpec(rows=rows, cols=cols, scales=scales))
        own = slice(start, start + rows * cols)
        for got, wanted in zip((pixels[own], found[own]), make_views(picture, alone), strict=True):
            np.testing.assert_array_equal(got, wanted[2:])
        start += rows * cols
    cutter = Cutter(picture, pyramid)
    np.testing.assert_array_equal(cutter.cut([34, 3, 12, 0]), pixels[[34, 3, 12, 0]])


def test_views_without_a_pyramid_are_written_as_before_there_was_one() -> None:
    assert "pyramid" not in Preprocessing().model_dump_json()
    assert Preprocessing(views=ViewSpec(pyramid=())) == Preprocessing()
    assert Preprocessing(views=ViewSpec(pyramid=())).model_dump_json() == Preprocessing().model_dump_json()
    pre = Preprocessing(views=ViewSpec(pyramid=((4, 4),)))
    assert Preprocessing.model_validate_json(pre.model_dump_json()) == pre
    assert pre.model_dump(mode="json")["views"]["pyramid"] == [[4, 4]]


def test_wide_views_keep_width_and_height_apart() -> None:
    picture = noise(640, 360)
    pre = Preprocessing(image_size=56, image_width=96, views=ViewSpec(rows=2, cols=3, overlap=0.25, scales=(0.8, 1.0)))
    pixels, found = make_views(picture, pre)
    assert pixels.shape == (8, 56, 96, 3)
    assert found.shape == (8, 4)
    # The canvas is 96 + 2 * 72 wide and 56 + 42 high.
    np.testing.assert_allclose(found[2], [0, 0, 96 / 240, 56 / 98], atol=1e-6)
    np.testing.assert_allclose(found[-1], [144 / 240, 42 / 98, 1, 1], atol=1e-6)
    canvas = np.asarray(picture.resize((240, 98), Image.Resampling.BICUBIC, reducing_gap=3.0))
    np.testing.assert_array_equal(pixels[-1], canvas[42:, 144:])
    whole = picture.resize((96, 56), Image.Resampling.BICUBIC, reducing_gap=3.0)
    np.testing.assert_array_equal(pixels[0], np.asarray(whole))
    assert needed_side(pre) == 240


def test_wide_tiles_make_a_wide_picture_adaptive_like_a_square_one() -> None:
    spec = ViewSpec(layout="adaptive")
    square = grid(spec, 900, 900, image_size=112)
    assert grid(spec, 1800, 900, image_size=112, image_width=224) == square
    assert count(spec, 1800, 900, image_size=112, image_width=224) == 1 + math.prod(square)
