from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from workzone.vision.draw import draw_views
from workzone.vision.views import ViewSpec, boxes


def test_the_heaviest_tile_is_the_most_orange() -> None:
    image = Image.new("RGB", (300, 300), (100, 100, 100))
    found = boxes(ViewSpec(overlap=0), 300, 300)
    weights = np.zeros(10)
    weights[1], weights[9], weights[5] = 0.7, 0.3, -0.7
    drawn = draw_views(image, found, weights)
    assert image.getpixel((50, 50)) == (100, 100, 100)
    red = {
        name: drawn.getpixel(at)[0] for name, at in {"first": (60, 60), "last": (260, 260), "none": (150, 60)}.items()
    }
    assert red["first"] > red["last"] > red["none"] == 100
    assert drawn.getpixel((150, 160))[2] > 130, "negative weights are blue"


def test_mirrors_add_up_and_zeros_draw_nothing() -> None:
    image = Image.new("RGB", (200, 100), (50, 50, 50))
    spec = ViewSpec(layout="global", flip=True)
    found = boxes(spec, 200, 100)
    assert draw_views(image, found, [0.0, 0.0]).tobytes() == image.tobytes()
    assert draw_views(image, found, [0.5, -0.5]).tobytes() == image.tobytes()
    assert draw_views(image, found, [0.5, 0.5]).tobytes() == draw_views(image, found[:1], [1.0]).tobytes()


def test_wrong_arguments() -> None:
    image = Image.new("RGB", (20, 20))
    with pytest.raises(ValueError, match="must be"):
        draw_views(image, np.zeros((2, 4), dtype=np.float32), [1.0])
    with pytest.raises(ValueError, match="finite"):
        draw_views(image, np.zeros((1, 4), dtype=np.float32), [float("nan")])
