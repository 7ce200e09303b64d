"""Shards made by actors of a Ray cluster; list, images, bundle and output lie where every machine sees them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from workzone.cluster import cluster_cpus, joined
from workzone.errors import ConfigError, WorkzoneError
from workzone.scoring.plan import Shard
from workzone.scoring.shard import Job, Scorer

_BLOCKS = 16
"""Blocks for each actor: enough that none waits long for the last, few enough for a driver with 10^6 shards."""


def run_ray(job: Job, shards: Sequence[Shard], workers: int, address: str | None) -> Iterator[int]:
    """Make ``shards`` by a stream of Ray Data; yields the images of each as it is finished, in any order.

    Rows of the stream are shards and their counts: images go from disk to score inside one actor. Ray makes a shard
    again that was lost with its machine; it gets the same name and the same bytes.

    Raises:
        MissingExtraError: ray is not installed.
        ConfigError: the cluster has too few CPUs.
        WorkzoneError: an actor failed.
    """
    with joined("the ray launcher", address=address, cpus=workers * job.threads or None) as ray:
        import ray.data as rd
        from ray.exceptions import RayError

        cpus = cluster_cpus(ray)
        actors = min(workers or cpus // job.threads, len(shards))
        if not actors or actors * job.threads > cpus:
            raise ConfigError(
                f"{actors or 1} workers of {job.threads} threads do not fit a cluster of {cpus} CPUs",
                where="--workers",
                fix="take fewer workers or threads, or add machines",
            )
        context = rd.DataContext.get_current()
        context.enable_progress_bars = False
        # It would print the stack of an error that is told in one paragraph below.
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        rows = rd.from_items([asdict(s) for s in shards], override_num_blocks=min(len(shards), _BLOCKS * actors))
        made = rows.map_batches(
            Actor,
            fn_constructor_args=(job,),
            batch_size=1,
            batch_format="numpy",
            compute=rd.ActorPoolStrategy(size=actors),
            num_cpus=job.threads,
        )
        try:
            for row in made.iter_rows():
                yield int(row["count"])
        except RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, WorkzoneError):
                raise cause from error
            told = str(error).strip().splitlines()[-1].partition(" What to do:")[0]
            raise WorkzoneError(
                f"a worker of the cluster failed: {told}",
                fix="run the same command again, it goes on",
            ) from error


class Actor:
    """A worker of the cluster: opens the bundle once."""

    def __init__(self, job: Job) -> None:
        self._score = Scorer(job)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Make the one shard of ``batch``."""
        values = {name: column[0] for name, column in batch.items()}
        address = str(values.pop("address"))
        self._score(Shard(**{name: int(v) for name, v in values.items()}, address=address))
        return batch
