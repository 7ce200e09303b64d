"""The phase in a run: off by default, killed and taken up, and taken as the weights of what follows."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import polars as pl
import pytest

from helpers.command import command, environment, workzone
from helpers.tiny import tiny_words
from workzone.config.load import load_config
from workzone.errors import ConfigError
from workzone.pipeline.artifacts import Artifacts
from workzone.pipeline.engine import run_pipeline
from workzone.pipeline.phases import PHASES

WORDS = (
    "pretrain.method=hybrid",
    "pretrain.epochs=4",
    "pretrain.batch_size=8",
    "pretrain.check_every=2",
    "pretrain.checkpoint_seconds=0.001",
    "pretrain.ssl.local_crops=1",
    "pretrain.ssl.prototypes=16",
    "pretrain.ssl.queue=16",
    "pretrain.ssl.hidden=16",
    "pretrain.ssl.bottleneck=8",
)


def test_off_by_default_and_said_when_asked_for(tmp_path: Path) -> None:
    config = load_config(["data=synthetic", f"out={tmp_path / 'run'}"])
    with pytest.raises(ConfigError, match=r"'pretrain' is switched off.*pretrain\.method"):
        run_pipeline(config, PHASES, to="pretrain", dry_run=True)
    on = load_config(["data=synthetic", f"out={tmp_path / 'run'}", "pretrain.method=dino"])
    train = next(s for s in PHASES if s.name == "train")
    artifacts = Artifacts(tmp_path / "run")
    assert set(artifacts.pretrained) <= set(train.inputs(artifacts, on))
    assert not set(artifacts.pretrained) & set(train.inputs(artifacts, config))
    assert artifacts.adapted in train.outputs(artifacts, on)
    assert artifacts.adapted not in train.outputs(artifacts, config)


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_with_sigkill_and_taken_up(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = workzone("run", *tiny_words(whole, cache, *WORDS), "--to", "train", timeout=400)
    assert done.returncode == 0, done.stderr
    assert "AUROC by neighbours" in done.stderr
    process = subprocess.Popen(
        command(["run", *tiny_words(killed, cache, *WORDS), "--to", "train"]),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    checkpoint = killed / "pretrain" / "checkpoints" / "last.ckpt"
    for _ in range(2000):
        if checkpoint.exists():
            break
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert checkpoint.exists()
    assert not (killed / "pretrain" / "pretrain.json").exists()
    again = workzone("run", *tiny_words(killed, cache, *WORDS), "--to", "train", timeout=400)
    assert again.returncode == 0, again.stderr
    for name in ("pretrain/backbone.safetensors", "pretrain/images.parquet", "train/onnx/backbone.onnx"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    written = [json.loads((f / "pretrain" / "pretrain.json").read_text()) for f in (whole, killed)]
    for one in written:
        assert one.pop("seconds_per_image") > 0
    assert written[0] == written[1]
    rows = written[0]["history"]
    assert [r["epoch"] for r in rows] == [0, 1, 2, 3, 4]
    assert [r["epoch"] for r in rows if "check" in r] == [0, 2, 4]
    record = json.loads((whole / "run.json").read_text())
    assert record["phases"]["pretrain"]["roles_opened"] == {"train": 1}
    splits = json.loads((whole / "prepare" / "splits.json").read_text())["assignment"]
    used = pl.read_parquet(whole / "pretrain" / "images.parquet")["id"].to_list()
    assert {splits[i] for i in used} == {"train"}
    stored = json.loads((whole / "train" / "backbone" / "backbone.json").read_text())
    assert stored["fingerprint"] == json.loads((whole / "pretrain" / "backbone.json").read_text())["fingerprint"]
