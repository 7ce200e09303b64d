"""Read many images: decoding in threads, results in order, memory bounded, one bad image never stops the rest."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from PIL import Image

from workzone.errors import ImageError
from workzone.vision.decode import MAX_BYTES, MAX_PIXELS, decode
from workzone.vision.preprocess import Preprocessing
from workzone.vision.remote import Remote, fetch
from workzone.vision.views import Boxes, Pixels, make_views, needed_side

T = TypeVar("T")
R = TypeVar("R")
Source = Path | bytes | Image.Image
Given = Source | Remote | str
"""What names or is a picture: an address is one that has yet to be fetched, a str is a path."""


def at_hand(given: Given, *, max_bytes: int = MAX_BYTES) -> Source:
    """``given`` as something that can be decoded more than once; raises ImageError where a server gives nothing."""
    if isinstance(given, Remote):
        return fetch(given, max_bytes=max_bytes)
    return Path(given) if isinstance(given, str) else given


def open_views(
    source: Source, pre: Preprocessing, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES
) -> tuple[Pixels, Boxes]:
    """Decode one image at the scale its views need and cut them: the single way from a file to network input.

    Returns:
        uint8 (V, S, S, 3) and float32 (V, 4), see ``make_views``.

    Raises:
        ImageError: the image cannot be used.
    """
    image = decode(source, max_pixels=max_pixels, max_bytes=max_bytes, min_side=needed_side(pre))
    return make_views(image, pre)


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

    def results() -> Iterator[tuple[int, R]]:
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

    return results()


def all_in_order(
    items: Sequence[T], work: Callable[[T], R], *, workers: int, progress: Callable[[int, int], None] | None = None
) -> list[R]:
    """``work(item)`` of all ``items``, see ``in_order``; ``progress`` is told how many of how many are done."""
    found: list[R] = []
    for _, result in in_order(items, work, workers=max(1, workers), on_error=None):
        found.append(result)
        if progress is not None:
            progress(len(found), len(items))
    return found


def load_views(
    sources: Iterable[Source],
    pre: Preprocessing,
    *,
    workers: int,
    on_error: Callable[[int, ImageError], None],
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
) -> Iterator[tuple[int, Pixels, Boxes]]:
    """Yield ``(index, pixels, boxes)`` of each readable source, in the order of ``sources``.

    Pillow decodes and resizes outside the interpreter lock, so threads are enough. At most ``2 * workers`` images are
    read ahead of the consumer.

    Args:
        sources: paths, file contents or Pillow images; taken one at a time.
        pre: the preprocessing.
        workers: threads, at least 1.
        on_error: called in the consumer's thread, in order, with the index and the error of each unusable image; what
            it raises ends the iteration.
        max_pixels: as for ``decode``.
        max_bytes: as for ``decode``.
    """

    def work(source: Source) -> tuple[Pixels, Boxes]:
        return open_views(source, pre, max_pixels=max_pixels, max_bytes=max_bytes)

    done = in_order(sources, work, workers=workers, on_error=on_error)
    return ((index, pixels, where) for index, (pixels, where) in done)
