"""Where trainings run: processes of this machine, or tasks of a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, Protocol

from workzone.cluster import Launcher, RayPool, joined


class Pool(Protocol):
    """What runs functions elsewhere."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        """Run ``function`` elsewhere."""


@contextmanager
def open_pool(launcher: Launcher, workers: int, *, address: str | None = None) -> Iterator[Pool]:
    """A pool of ``workers`` single-threaded trainings; those of a cluster need its folders to be shared.

    Raises:
        MissingExtraError: ray is asked for and not installed.
        ConfigError: no cluster answers.
    """
    if launcher == "local":
        context = get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context, initializer=one_thread) as pool:
            yield pool
        return
    with joined("the ray launcher", address=address, cpus=workers) as ray:
        yield _OneThread(RayPool(ray))


def neighbours(launcher: Launcher, workers: int) -> int:
    """Trainings that must be reckoned with on one machine; a task of a cluster never knows that it is alone."""
    return workers if launcher == "local" else max(2, workers)


class _OneThread:
    """Ray starts a task in whichever worker is free, so each sets its threads by itself."""

    def __init__(self, pool: RayPool) -> None:
        self._pool = pool

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        return self._pool.submit(_alone, function, *arguments)


def _alone(function: Callable[..., Any], *arguments: Any) -> Any:
    one_thread()
    return function(*arguments)


def one_thread() -> None:
    """Let torch use one thread in this process."""
    import torch

    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
