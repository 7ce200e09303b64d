from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from workzone.vision.draw import captioned, colour_bar, heat_colours, outline_boxes, overlay, wrap


def test_heat_is_orange_or_blue_and_the_rest_is_grey() -> None:
    image = Image.new("RGB", (90, 60), (30, 200, 90))
    heat = np.zeros((2, 3))
    heat[0, 0], heat[1, 2], heat[0, 1] = 2.0, -1.0, 0.01
    drawn = overlay(image, heat)
    assert drawn.size == image.size
    red, green, blue = drawn.getpixel((10, 10))
    assert red > green > blue, "strongest: pale yellow"
    red, _, blue = drawn.getpixel((80, 50))
    assert blue > red
    assert len(set(drawn.getpixel((80, 10)))) == 1, "no heat, no colour"
    assert drawn.getpixel((45, 10)) == drawn.getpixel((80, 10)), "hardly any heat is not drawn"


def test_cells_divide_a_picture_that_they_do_not_fit() -> None:
    heat = np.array([[0.0, 0.0, 1.0]])
    pixels = np.asarray(overlay(Image.new("RGB", (100, 7)), heat)).sum(axis=2)
    assert (pixels[:, :67] == 0).all()
    assert (pixels[:, 67:] > 0).all()


def test_one_scale_for_several_pictures() -> None:
    image, heat = Image.new("RGB", (20, 20)), np.ones((1, 1))
    assert sum(overlay(image, heat).getpixel((5, 5))) > sum(overlay(image, heat, strongest=4.0).getpixel((5, 5)))


def test_stronger_is_lighter_on_both_sides() -> None:
    for sign in (1, -1):
        colours, opacity = heat_colours(sign * np.linspace(0.05, 1, 40), 1.0)
        light = colours.astype(float) @ [0.299, 0.587, 0.114]
        assert (np.diff(light) >= 0).all()
        assert (np.diff(opacity) >= 0).all()


def test_no_heat_at_all() -> None:
    image = Image.new("RGB", (20, 20), (100, 100, 100))
    assert overlay(image, np.zeros((2, 2))).getpixel((3, 3)) == (60, 60, 60)


@pytest.mark.parametrize("heat", [np.zeros(3), np.zeros((0, 2)), np.array([[np.nan]])])
def test_wrong_heat(heat: np.ndarray) -> None:
    with pytest.raises(ValueError, match="heat must be"):
        overlay(Image.new("RGB", (20, 20)), heat)


def test_the_bar_has_both_colours() -> None:
    bar = colour_bar(300, 0.5, ("against", "for"))
    left, right = bar.getpixel((30, 3)), bar.getpixel((270, 3))
    assert left[2] > left[0]
    assert right[0] > right[2]
    assert np.asarray(bar)[16:].min() < 128, "words"


def test_labels_lie_over_outlines() -> None:
    image = Image.new("RGB", (200, 200), (255, 255, 255))
    box = (0.0, 0.0, 1.0, 1.0)
    alone = outline_boxes(image, [(box, "+1.00", True)])
    # The second box begins inside the label of the first.
    crossed = outline_boxes(image, [(box, "+1.00", True), ((0.1, 0.0, 1.0, 1.0), "-1.00", False)])
    label = (4, 4, 18, 22)
    assert alone.crop(label).tobytes() == crossed.crop(label).tobytes()
    assert alone.getpixel((199, 100)) == (255, 120, 0)
    assert image.getpixel((199, 100)) == (255, 255, 255), "the picture itself is left alone"


def test_labels_keep_clear_of_each_other() -> None:
    image, box = Image.new("RGB", (300, 200), (255, 255, 255)), (0.0, 0.0, 1.0, 1.0)
    plates = [
        int((np.asarray(outline_boxes(image, [(box, "+1.00", True)] * n)) == 20).all(axis=2).sum()) for n in (1, 2, 4)
    ]
    assert plates[1] == 2 * plates[0]
    assert plates[2] == 4 * plates[0]


def test_words_are_wrapped_and_none_is_lost() -> None:
    text = "one two three four five six seven eight nine " + "x" * 80
    lines = wrap(text, 120, 15)
    assert " ".join(lines) == text
    assert len(lines) > 3
    assert wrap("", 100, 15) == [""]


@pytest.mark.parametrize(("size", "beside"), [((200, 150), True), ((400, 100), False), ((60, 300), True)])
def test_panels_stand_side_by_side_unless_they_are_broad(size: tuple[int, int], beside: bool) -> None:
    panels = [("a", Image.new("RGB", size, (255, 0, 0))), ("b", Image.new("RGB", size, (0, 0, 255)))]
    sheet = np.asarray(captioned(panels, ["Title", "a line that is long enough to be wrapped " * 5])).astype(int)
    red = np.argwhere((sheet == (255, 0, 0)).all(axis=2))
    blue = np.argwhere((sheet == (0, 0, 255)).all(axis=2))
    assert len(red) == len(blue) == size[0] * size[1], "whole and uncovered"
    assert bool(red[0][0] == blue[0][0]) is beside
    assert bool(red[0][1] == blue[0][1]) is not beside
    below = sheet[max(red[-1][0], blue[-1][0]) + 5 :]
    assert (below < 100).any(), "the caption"
