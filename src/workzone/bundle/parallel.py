"""Work on many images at once and hand the results back in order.

One thread takes one image from its file to its embedding, and the engine runs each pass on the thread that asks for it.
Several passes side by side need no barrier between the cores inside an operator: on a shared machine, where one core
comes late, a pass split over cores costs up to twice the processor time of the same pass on one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from workzone.bundle.engines import Engine
from workzone.bundle.engines.base import FloatViews
from workzone.errors import ImageError

T = TypeVar("T")
R = TypeVar("R")


def in_order(
    items: Iterable[T], work: Callable[[T], R], *, workers: int, on_error: Callable[[int, ImageError], None] | None
) -> Iterator[tuple[int, R]]:
    """Yield (index, ``work(item)``) in the order of ``items``, at most ``2 * workers`` of them ahead of the consumer.

    Args:
        items: taken one at a time.
        work: called in a thread.
        workers: threads, at least 1.
        on_error: called in the consumer's thread, in order, with index and error where ``work`` raises ImageError;
            without it the error is raised. Any other error is raised.
    """
    if workers < 1:
        raise ValueError("workers must be at least 1")
    waiting: deque[tuple[int, Future[R]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="workzone")

    def settle() -> Iterator[tuple[int, R]]:
        index, future = waiting.popleft()
        try:
            result = future.result()
        except ImageError as error:
            if on_error is None:
                raise
            on_error(index, error)
        else:
            yield index, result

    try:
        for index, item in enumerate(items):
            waiting.append((index, pool.submit(work, item)))
            if len(waiting) >= 2 * workers:
                yield from settle()
        while waiting:
            yield from settle()
    finally:
        # A consumer may stop early; jobs not yet begun are dropped, running ones finish.
        pool.shutdown(wait=True, cancel_futures=True)


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
