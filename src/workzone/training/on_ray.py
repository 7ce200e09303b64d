"""The processes of a distributed training as workers of Ray Train: the same worker function, the same job folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from workzone.cluster import cluster_cpus, joined
from workzone.errors import ConfigError, WorkzoneError
from workzone.training.trainer import pick_device

_SHOWN = 2000


def run_workers(
    job: Path, total: int, *, device: Literal["auto", "cpu", "cuda"] = "auto", address: str | None = None
) -> None:
    """Run ``workzone.training.worker`` on ``job`` in ``total`` workers of a Ray cluster, one to a device.

    The cluster decides which machines they are on; all of them must see the job, the run folder and the images.

    Raises:
        MissingExtraError: ray is not installed.
        ConfigError: the cluster is too small.
        WorkzoneError: a worker failed; its last words are in the message.
    """
    cuda = pick_device(device) == "cuda"
    with joined("train.launcher=ray", address=address, cpus=None if cuda else total) as ray:
        has = int(ray.cluster_resources().get("GPU", 0)) if cuda else cluster_cpus(ray)
        if has < total:
            raise ConfigError(
                f"{total} processes do not fit a cluster of {has} {'GPUs' if cuda else 'CPUs'}",
                where="train.processes and train.nodes",
                fix="take fewer, or add machines",
            )
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        trainer = TorchTrainer(
            worker,
            train_loop_config={"job": str(job.resolve())},
            torch_config=TorchConfig(backend="nccl" if cuda else "gloo"),
            # Without the CPU that Ray would keep for a trainer of its own.
            scaling_config=ScalingConfig(num_workers=total, use_gpu=cuda, resources_per_worker=_needs(cuda)),
            run_config=RunConfig(name="ray", storage_path=str(job.resolve())),
        )
        try:
            trainer.fit()
        except Exception as error:  # of a failed worker ray gives its own unrelated classes
            raise WorkzoneError(
                f"training by {total} workers of Ray failed: {str(error)[-_SHOWN:]}",
                where=str(job),
                fix="look into the logs of the workers, below /tmp/ray/session_latest/logs on their machines",
            ) from error


def _needs(cuda: bool) -> dict[str, float]:
    return {"GPU": 1} if cuda else {"CPU": 1}


def worker(told: dict[str, Any]) -> None:
    """One worker: what ``torchrun`` would have said to the process is said here, then the same function runs."""
    import ray.train

    from workzone.training.worker import main

    place = ray.train.get_context()
    os.environ |= {
        "RANK": str(place.get_world_rank()),
        "LOCAL_RANK": str(place.get_local_rank()),
        "WORLD_SIZE": str(place.get_world_size()),
        "LOCAL_WORLD_SIZE": str(place.get_local_world_size()),
        "GROUP_RANK": str(place.get_node_rank()),
        # What tells torch, Lightning and ``world()`` that a launcher has set the others.
        "TORCHELASTIC_RUN_ID": "ray",
    }
    main(Path(told["job"]))
