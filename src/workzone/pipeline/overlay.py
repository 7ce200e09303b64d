"""Pictures with the places that counted, for the gallery of a report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL.Image import Image

from workzone.bundle.illustrate import explain_image
from workzone.bundle.runtime import Decider
from workzone.bundle.slices import unknown_slices

_CELLS, _SIDE = 6, 320


def overlay_of(decider: Decider) -> Callable[[Path], Image]:
    """Draws a picture with the map of ``workzone explain`` over it, coarse and without its test of faithfulness."""

    def draw(path: Path) -> Image:
        columns = unknown_slices(decider.calibrator)
        return explain_image(decider, path, cells=_CELLS, side=_SIDE, columns=columns)[1]

    return draw
