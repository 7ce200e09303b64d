from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from helpers.command import workzone
from helpers.tiny import tiny_words
from workzone.data.manifest import Manifest
from workzone.data.roles import Role
from workzone.data.splits import Splits
from workzone.tuning.folds import HELD_OUT, make_folds


def test_folds_hold_every_open_image_once_and_no_other(tiny_run: Path) -> None:
    manifest = Manifest.load(tiny_run / "prepare" / "manifest.parquet")
    splits = Splits.load(tiny_run / "prepare" / "splits.json")
    folds = make_folds(manifest, splits, folds=3, select=0.3, seed=1)
    shut = {*splits.ids(Role.VAL_CALIB), *splits.ids(Role.VAL_TEST)}
    held = [i for f in folds for i in f.ids(HELD_OUT)]
    assert sorted(held) == sorted({*splits.ids(Role.TRAIN), *splits.ids(Role.VAL_SELECT)})
    label = dict(manifest.frame.select("id", "label").rows())
    for fold in folds:
        assert not shut & set(fold.assignment)
        for role in (Role.TRAIN, Role.VAL_SELECT, HELD_OUT):
            assert {label[i] for i in fold.ids(role)} == {0, 1}
        units = {}
        for image, role in fold.assignment.items():
            assert units.setdefault(fold.units[image], role) == role
    other = make_folds(manifest, splits, folds=3, select=0.3, seed=2)
    assert [f.ids(HELD_OUT) for f in other] != [f.ids(HELD_OUT) for f in folds]


@pytest.mark.slow
def test_an_ablation_from_the_command_line_and_again(tiny_run: Path, tmp_path: Path) -> None:
    words = tiny_words(tmp_path / "unused", tiny_run.parent / "cache", "split.train=0.6", "split.val_calib=0.1")
    call = ["ablate", *words, "--out", str(tmp_path / "a"), "--vary", "fuse.aggregator=logsumexp", "--folds", "2"]
    call += ["--resamples", "100", "--fewest", "2", "--metric", "auroc"]
    done = workzone(*call)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "a" / "ablation.json").read_text())
    assert [r["variant"] for r in result["rows"]] == ["baseline", "fuse.aggregator=logsumexp", "one view"]
    assert (tmp_path / "a" / "forest.png").read_bytes().startswith(b"\x89PNG")
    moved = result["rows"][1]["differences"]["auroc"]
    assert moved["low"] <= moved["value"] <= moved["high"]
    assert np.isfinite(result["rows"][2]["figures"]["nll"]["value"])
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "a" / "cells").rglob("fusion.safetensors")}
    assert len(stamps) == 4
    assert workzone(*call).returncode == 0
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert json.loads((tmp_path / "a" / "ablation.json").read_text()) == result


def test_a_sweep_goes_on_where_it_stopped(tiny_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    words = tiny_words(tmp_path / "unused", tiny_run.parent / "cache")
    call = ["sweep", *words, "--out", str(tmp_path / "s"), "--space", "fuse.lr=1e-4..1e-2:log", "--sampler", "random"]
    first = workzone(*call, "--trials", "2")
    assert first.returncode == 0, first.stderr
    before = (tmp_path / "s" / "trials.csv").read_text().splitlines()
    assert len(before) == 3
    again = workzone(*call, "--trials", "3")
    assert again.returncode == 0, again.stderr
    after = (tmp_path / "s" / "trials.csv").read_text().splitlines()
    assert after[:3] == before
    assert len(after) == 4
    best = json.loads((tmp_path / "s" / "sweep.json").read_text())["best"]
    values = [float(line.split(",")[2]) for line in after[1:]]
    assert best["value"] == pytest.approx(min(values))
    assert f"lr: {best['params']['fuse.lr']}" in (tmp_path / "s" / "best.yaml").read_text()
    assert (tmp_path / "s" / "history.png").exists()
    refused = workzone("sweep", *words, "--out", str(tmp_path / "s"), "--space", "fuse.k=1..3")
    assert refused.returncode == 2
    assert "another space" in refused.stderr
