"""Two processes on the CPU (gloo) train what one process trains."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.launched import train
from workzone.config.run import TrainConfig
from workzone.errors import ConfigError
from workzone.training.distributed import batch_share, launch_command
from workzone.training.images import SeededOrder

TESTS = Path(__file__).parents[1]
HELPER = TESTS / "helpers" / "launched.py"
FOUND_IN = f"{TESTS.parent / 'src'}{os.pathsep}{TESTS}"


def launch(out: Path, strategy: str, epochs: int, *more: str) -> list[dict]:
    out.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(HELPER), str(out),
         strategy, str(epochs), *more],
        env=os.environ | {"PYTHONPATH": FOUND_IN, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((out / f"rank{r}.json").read_text()) for r in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_train_as_one(tmp_path, strategy):
    alone = train(tmp_path / "alone", "auto", 3)
    both = launch(tmp_path / "two", strategy, 3)
    assert len(alone["trace"]) == 12
    assert np.ptp([loss for _, loss in alone["trace"]]) > 0.05
    for rank in both:
        assert [at for at, _ in rank["trace"]] == [at for at, _ in alone["trace"]]
        assert [x for _, x in rank["trace"]] == pytest.approx([x for _, x in alone["trace"]], abs=2e-5)
        assert rank["metrics"]["processes"] == 2
        assert rank["weights"] == pytest.approx(alone["weights"], rel=1e-4)
        assert rank["scores"] == pytest.approx(alone["scores"], abs=1e-3)
        assert rank["metrics"]["val_select"] == pytest.approx(alone["metrics"]["val_select"], abs=1e-3)
        assert rank["metrics"]["best_epoch"] == alone["metrics"]["best_epoch"]
    names = {p.name for p in (tmp_path / "two" / "checkpoints").iterdir()}
    assert names == {p.name for p in (tmp_path / "alone" / "checkpoints").iterdir()}
    # Rank 1 wrote nothing: one line for each epoch, and, but for shared weights, one for the validation at the end.
    lines = [(tmp_path / n / "logs" / "csv" / "metrics.csv").read_text().count("\n") for n in ("alone", "two")]
    assert lines[1] == lines[0] - (strategy == "fsdp2")

    # Taken up where it ended: nothing is left to do, and the result is the same.
    again = launch(tmp_path / "two", strategy, 3)
    assert [rank["trace"] for rank in again] == [[], []]
    assert again[0]["weights"] == both[0]["weights"]


@pytest.mark.slow
def test_two_processes_draw_by_weight_what_one_draws(tmp_path):
    plain = train(tmp_path / "plain", "auto", 2)
    alone = train(tmp_path / "alone", "auto", 2, weighed=True)
    both = launch(tmp_path / "two", "ddp", 2, "weighed")
    assert [at for at, _ in plain["trace"]] == [at for at, _ in alone["trace"]], "an epoch is as long as without"
    assert [x for _, x in plain["trace"]] != pytest.approx([x for _, x in alone["trace"]], abs=1e-3)
    for rank in both:
        assert [x for _, x in rank["trace"]] == pytest.approx([x for _, x in alone["trace"]], abs=2e-5)
        assert rank["weights"] == pytest.approx(alone["weights"], rel=1e-4)


def in_namespace(name: str, command: list[str], **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["ip", "netns", "exec", name, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more
    )


@pytest.fixture
def two_networks() -> Iterator[tuple[str, str]]:
    """Names of two network namespaces that are joined by one cable, 10.91.0.1 and 10.91.0.2."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("two networks on one machine need root and iproute2")
    names = f"wz{os.getpid()}a", f"wz{os.getpid()}b"

    def ip(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["ip", *words], capture_output=True, text=True, check=check)

    if (tried := ip("netns", "add", names[0], check=False)).returncode:
        pytest.skip(f"this machine makes no network namespaces: {tried.stderr.strip()}")
    try:
        ip("netns", "add", names[1])
        ip("link", "add", "wz0", "netns", names[0], "type", "veth", "peer", "name", "wz0", "netns", names[1])
        for host, name in enumerate(names, 1):
            ip("-n", name, "addr", "add", f"10.91.0.{host}/24", "dev", "wz0")
            ip("-n", name, "link", "set", "wz0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            ip("netns", "del", name, check=False)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_machines_train_as_one(tmp_path, strategy, two_networks):
    """Each process sees a network of its own, so that only what torchrun was told leads from one to the other."""
    alone = train(tmp_path / "alone", "auto", 3)
    out = tmp_path / "two"
    out.mkdir()
    processes = []
    for host, name in enumerate(two_networks, 1):
        words = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
        words += ["--rdzv-backend=c10d", "--rdzv-endpoint=10.91.0.1:29517", f"--local-addr=10.91.0.{host}"]
        # The name of the machine means nothing in its network, so the first is told that it is the one where all meet.
        words.append(f"--rdzv-conf=is_host={int(host == 1)}")
        settings = {"PYTHONPATH": FOUND_IN, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "wz0"}
        command = [*words, str(HELPER), str(out), strategy, "3"]
        processes.append(in_namespace(name, command, env=os.environ | settings))
    told = [p.communicate(timeout=800)[0] for p in processes]
    assert [p.returncode for p in processes] == [0, 0], "\n".join(t[-3000:] for t in told)
    for rank in (0, 1):
        found = json.loads((out / f"rank{rank}.json").read_text())
        assert [x for _, x in found["trace"]] == pytest.approx([x for _, x in alone["trace"]], abs=2e-5)
        assert found["weights"] == pytest.approx(alone["weights"], rel=1e-4)
        assert found["scores"] == pytest.approx(alone["scores"], abs=1e-3)
        assert found["metrics"]["processes"] == 2


def test_processes_share_each_step_of_the_one_order():
    whole = SeededOrder(10, 3)
    parts = [SeededOrder(10, 3, rank=r, world=4) for r in range(4)]
    for order in (whole, *parts):
        order.set_epoch(2)
    shown = [list(p) for p in parts]
    assert [len(s) for s in shown] == [len(p) for p in parts] == [3, 3, 3, 3]
    assert [shown[i % 4][i // 4] for i in range(10)] == list(whole)
    assert np.unique(np.concatenate(shown)).tolist() == list(range(10))


def test_steps_must_divide(monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    assert batch_share(TrainConfig(batch_size=9)) == 3
    with pytest.raises(ConfigError, match="multiple of 3"):
        batch_share(TrainConfig(batch_size=8))


def test_the_command_of_many_machines_names_where_they_meet(tmp_path):
    with pytest.raises(ValueError, match="rendezvous"):
        TrainConfig(nodes=2)
    with pytest.raises(ValueError, match="one machine"):
        TrainConfig(nodes=2, launcher="local", rendezvous="first:29500")
    assert TrainConfig(nodes=2, launcher="ray").rendezvous is None
    config = TrainConfig(nodes=2, processes=4, rendezvous="first:29500")
    command = launch_command(config, tmp_path)
    assert "--nnodes=2" in command
    assert "--rdzv-endpoint=first:29500" in command
    assert "--standalone" in launch_command(TrainConfig(processes=2), tmp_path)
