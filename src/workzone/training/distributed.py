"""Adaptation of a backbone by several processes, on one machine or on many, through torch's own launcher or Ray.

The phase that trains stays one process: it writes a job, has ``workzone.training.worker`` run by the processes of
``torch.distributed.run`` or by the workers of Ray Train, and reads what rank 0 wrote. The job folder lies below the run
folder, which all machines must see.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from workzone.config.run import TrackingConfig, TrainConfig
from workzone.config.views import ViewSpec
from workzone.data.roles import RoleData, SelectData, TrainData
from workzone.errors import ConfigError, WorkzoneError
from workzone.files import read_json, write_json
from workzone.models.backbones import Backbone
from workzone.training.datasets import COLUMNS

_SHOWN = 2000


def world() -> tuple[int, int, int]:
    """Rank, number of processes, and processes on this machine, as the launcher set them; (0, 1, 1) without one."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return 0, 1, 1
    return tuple(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"))  # type: ignore[return-value]


def batch_share(config: TrainConfig, processes: int | None = None) -> int:
    """Images of one step for each process, of the launcher where not told; raises ConfigError if it does not divide."""
    size = world()[1] if processes is None else processes
    if config.batch_size % size:
        raise ConfigError(
            f"a step of {config.batch_size} images does not divide among {size} processes",
            where="train.batch_size",
            fix=f"take a multiple of {size}",
        )
    return config.batch_size // size


def adapt_distributed(
    backbone: Backbone,
    train: TrainData,
    select: SelectData,
    config: TrainConfig,
    *,
    seed: int,
    folder: Path,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    workers: int = 0,
    tracking: TrackingConfig | None = None,
    layout: ViewSpec | None = None,
) -> tuple[Backbone, dict[str, Any]]:
    """``adapt_backbone`` by ``config.processes`` on each of ``config.nodes`` machines: the backbone and the figures.

    Raises:
        WorkzoneError: a process failed; its last words are in the message.
        MissingExtraError: Ray is to launch and is not installed.
        ConfigError: the batch does not divide, or a setting of the job is refused.
    """
    from workzone.models.backbones import load_backbone, save_backbone

    job = folder / "job"
    result = job / "result"
    total = config.processes * config.nodes
    batch_share(config, total)
    (result / "metrics.json").unlink(missing_ok=True)
    save_backbone(backbone, job)
    write_json(
        job / "job.json",
        {
            "config": config.model_dump(mode="json"),
            "seed": seed,
            "folder": str(folder.resolve()),
            "device": device,
            "workers": workers,
            "tracking": tracking.model_dump(mode="json") if tracking else None,
            "layout": layout.model_dump(mode="json") if layout else None,
            "train": _rows(train),
            "select": _rows(select),
        },
    )
    if config.launcher == "ray":
        from workzone.training.on_ray import run_workers

        run_workers(job, total, device=device, address=config.ray_address)
    else:
        _run_launcher(launch_command(config, job), total)
    adapted = load_backbone(result)
    metrics: dict[str, Any] = read_json(result / "metrics.json")
    return adapted, metrics


def _run_launcher(command: list[str], total: int) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise WorkzoneError(
            f"training by {total} processes ended with {done.returncode}: {(done.stderr or done.stdout)[-_SHOWN:]}",
            where=" ".join(command),
            fix="run the command by hand to see all of its output",
        )


def launch_command(config: TrainConfig, job: Path) -> list[str]:
    """Command that starts the processes of one machine; the other machines are given the same one."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={config.processes}"]
    if config.nodes == 1:
        command.append("--standalone")
    else:
        meet = [f"--nnodes={config.nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={config.rendezvous}"]
        command += [*meet, "--rdzv-id=workzone"]
    return [*command, "-m", "workzone.training.worker", str(job.resolve())]


def shard(backbone: Backbone, head: nn.Module, *, mesh: Any, precision: str) -> None:
    """Share the weights among the processes of ``mesh`` (FSDP2): each block of a transformer, the backbone, the head.

    Reference: Zhao et al. 2023 (arXiv 2304.11277); ``torch.distributed.fsdp.fully_shard``.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    capable = mesh.device_type == "cuda" and torch.cuda.is_bf16_supported()
    low = torch.bfloat16 if precision == "bf16" or (precision == "auto" and capable) else None
    policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32 if low else None)
    repeated = (getattr(m, "blocks", None) for m in backbone.modules())
    for block in next((b for b in repeated if isinstance(b, nn.Sequential | nn.ModuleList)), ()):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(backbone, mesh=mesh, mp_policy=policy)
    # Training enters through ``features``, which gathers the weights only if it is known as a way in.
    register_fsdp_forward_method(backbone, "features")
    fully_shard(head, mesh=mesh, mp_policy=policy)


def _rows(data: RoleData) -> dict[str, Any]:
    if data.paths is None:
        raise ValueError("images need paths")
    parts = {"ids": data.ids, "labels": data.labels, "groups": data.groups}
    columns = {k: data.columns[k].tolist() for k in COLUMNS if k in data.columns}
    # Absolute, as the processes of another machine start elsewhere.
    paths = [str(Path(p).resolve()) for p in data.paths.tolist()]
    return {k: v.tolist() for k, v in parts.items()} | {"paths": paths, "columns": columns}
