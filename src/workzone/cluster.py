"""A Ray cluster as a place to work: joined, or started on this machine for as long as it is needed."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Literal

from workzone.errors import ConfigError, MissingExtraError

Launcher = Literal["local", "ray"]
LAUNCHERS: tuple[Launcher, ...] = ("local", "ray")
_STORE_BYTES = 128 * 2**20
"""Object store of a cluster that is started here: what passes through it are names and figures, never images."""

_ATTEMPTS = 3


def launcher_of(word: str) -> Launcher:
    """``word`` as the name of a launcher; raises ConfigError on another."""
    for name in LAUNCHERS:
        if word == name:
            return name
    raise ConfigError(f"there is no launcher {word!r}", where="--launcher", fix=f"take {' or '.join(LAUNCHERS)}")


def require_ray(feature: str) -> Any:
    """The module ``ray``, with its reports about usage switched off; raises MissingExtraError where it is missing."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray would otherwise replace the environment of workers started from a project that uses uv.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise MissingExtraError("ray", "ray", feature=feature) from error


@contextmanager
def joined(feature: str, *, address: str | None = None, cpus: int | None = None) -> Iterator[Any]:
    """The module ``ray``, connected for as long as the block lasts.

    A connection that this process already has is used and left open. ``address`` (or ``RAY_ADDRESS``) names a running
    cluster; without it one is started on this machine with ``cpus`` (None: all cores) and ended with the block.

    Raises:
        MissingExtraError: ray is not installed.
        ConfigError: no cluster answers at the address.
    """
    ray = require_ray(feature)
    if ray.is_initialized():
        yield ray
        return
    where = address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if where:
        options["address"] = where
    else:
        # The dashboard is a server that nobody asked for.
        options |= {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": _STORE_BYTES}
    _connect(ray, options, where)
    try:
        yield ray
    finally:
        ray.shutdown()


def _connect(ray: Any, options: dict[str, Any], where: str | None) -> None:
    """Ray gives the processes of a new cluster half a minute to come up, which on a busy machine may be too little."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            ray.init(**options)
        except Exception as error:  # ray raises bare exceptions here
            ray.shutdown()
            if where or attempt == _ATTEMPTS:
                raise ConfigError(
                    f"Ray cannot be reached: {str(error).strip().splitlines()[0]}",
                    where=where or "a cluster started on this machine",
                    fix="check the address, that Python and ray have the same versions there, and the load here",
                ) from error
        else:
            return


def cluster_cpus(ray: Any) -> int:
    """CPUs of the cluster that this process is connected to."""
    return int(ray.cluster_resources().get("CPU", 0))


class RayPool:
    """Tasks on a Ray cluster behind the interface of ``concurrent.futures``.

    Args:
        ray: the connected module.
        cpus: CPUs that each task reserves.
    """

    def __init__(self, ray: Any, *, cpus: int = 1) -> None:
        # A task that was lost with its machine is tried again by Ray; what it raises itself is an answer.
        self._remote = ray.remote(num_cpus=cpus, max_retries=2)(_call)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run ``function`` on the cluster; it must be importable there."""
        future: Future[Any] = self._remote.remote(function, *arguments).future()
        return future


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)
