"""The passes of an engine over the views of one image.

One thread takes one image from its file to its embedding, and the engine runs each pass on the thread that asks for it.
Several passes side by side need no barrier between the cores inside an operator: on a shared machine, where one core
comes late, a pass split over cores costs up to twice the processor time of the same pass on one.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from workzone.bundle.engines import Engine
from workzone.bundle.engines.base import FloatViews


def embed_views(engine: Engine, pixels: NDArray[np.uint8], *, side_by_side: bool = False) -> FloatViews:
    """Embeddings (V, D) of the views (V, S, S, 3) of one image, in passes of ``engine.views_per_pass``.

    The passes are the same whoever asks, so that an image gets the same embedding alone and among many.

    Args:
        engine: opened engine.
        pixels: uint8.
        side_by_side: run the passes on all threads of the engine, for one image that somebody waits for.
    """
    step = engine.views_per_pass
    parts = [pixels[i : i + step] for i in range(0, len(pixels), step)]
    if side_by_side and len(parts) > 1 and engine.threads > 1:
        with ThreadPoolExecutor(min(engine.threads, len(parts))) as pool:
            embedded = list(pool.map(engine.embed, parts))
    else:
        embedded = [engine.embed(part) for part in parts]
    return embedded[0] if len(embedded) == 1 else np.concatenate(embedded)
