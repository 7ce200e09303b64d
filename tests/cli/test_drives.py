"""``workzone drives`` on drawn drives, and what ``predict --pool FILE`` makes of it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.clips import write_clip

pytest.importorskip("av", reason="PyAV is not installed")
Call = Callable[..., Any]
pytestmark = pytest.mark.e2e

SECONDS = 6


def scenes(seed: int, labels: list[int]) -> list[np.ndarray]:
    """One place through the seconds of a drive, with roadwork where ``labels`` says so."""
    from workzone.data.synthetic.render import render_scene
    from workzone.data.synthetic.scene import sample_scene

    specs = [sample_scene(seed, label=y, domain="lyra", place=seed, size=(192, 128)) for y in labels]
    return [np.asarray(render_scene(spec)) for spec in specs]


@pytest.fixture(scope="module")
def drives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four drives, half of each in a work zone; the last second has no label."""
    folder = tmp_path_factory.mktemp("drives")
    with (folder / "labels.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["drive", "seconds", "label", "evidence"])
        for seed in range(4):
            labels = [int((i < SECONDS // 2) == (seed % 2 == 0)) for i in range(SECONDS)]
            pictures = scenes(seed, labels)
            write_clip(
                folder / f"d{seed}.mp4", 2 * SECONDS, rate=2, picture=lambda n, own=pictures: own[n // 2], gop=2
            )
            table.writerows([f"d{seed}", i, y, ""] for i, y in enumerate(labels[:-1]))
    return folder


def pooled(call: Call, bundle: Path, clip: Path, *words: object) -> list[dict[str, Any]]:
    answer = call("predict", clip, "-b", bundle, "-f", "jsonl", *words)
    assert answer.code == 0, answer.err
    return [r for line in answer.out.splitlines() if (r := json.loads(line))["kind"] == "frame"]


def test_a_pool_is_trained_stored_and_used(call: Call, tiny_bundle: Path, drives: Path, tmp_path: Path) -> None:
    file = tmp_path / "drive.json"
    for words in (("--components", 0), ("--components", 2)):
        answer = call("drives", drives, "-b", tiny_bundle, "-o", file, "--steps", 20, "--resamples", 100, *words)
        assert answer.code == 0, answer.err
        assert "20 labelled frames of 4 drives" in answer.out
        assert "nll: single frames" in answer.out
        assert "Only 10 frames of the rarer class" in answer.out
        stored = json.loads(file.read_text())
        assert stored["figures"]["frames"] == stored["score"]["frames"] == 20
        assert stored["score"]["pool"] == ("trained_evidence" if words[1] == 0 else "trained_attention")
    frames = pooled(call, tiny_bundle, drives / "d1.mp4", "--pool", file)
    alone = pooled(call, tiny_bundle, drives / "d1.mp4")
    assert [f["probability"] for f in frames] == [f["probability"] for f in alone]
    assert all(0 < f["pooled_probability"] < 1 for f in frames)
    # What was stored is what runs: louder numbers give another answer.
    stored["score"]["parameters"]["bias"]["values"] = [3.0]
    file.write_text(json.dumps(stored))
    louder = pooled(call, tiny_bundle, drives / "d1.mp4", "--pool", file)
    assert [f["pooled_probability"] for f in louder] != [f["pooled_probability"] for f in frames]
    stored["calibrator_sha256"] = "0" * 64
    file.write_text(json.dumps(stored))
    other = call("predict", drives / "d1.mp4", "-b", tiny_bundle, "--pool", file)
    assert other.code != 0
    assert "fitted for another bundle" in other.err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "there are no labels"),
        ("drive,seconds\nd0,1\n", "no column 'label'"),
        ("drive,seconds,label\nd0,1,2\n", "line 2"),
        ("drive,seconds,label\nd0,soon,1\n", "line 2"),
        ("drive,seconds,label\nother,1,1\n", "no clip of drive 'other'"),
        ("drive,seconds,label\n../d0,1,1\n", "no clip of drive"),
        ("drive,seconds,label\nd0,1,1\nd0,60,0\n", "no frame within"),
        ("drive,seconds,label\nd0,1,1\nd0,2,0\n", "too few to train on some"),
    ],
)
def test_labels_that_cannot_be_used_are_named(
    call: Call, tiny_bundle: Path, drives: Path, tmp_path: Path, text: str | None, told: str
) -> None:
    (tmp_path / "d0.mp4").symlink_to(drives / "d0.mp4")
    if text is not None:
        (tmp_path / "labels.csv").write_text(text)
    answer = call("drives", tmp_path, "-b", tiny_bundle, "-o", tmp_path / "drive.json")
    assert answer.code == 2
    assert told in answer.err
    assert not (tmp_path / "drive.json").exists()


def test_a_file_that_is_no_pool_is_refused(call: Call, tiny_bundle: Path, drives: Path, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    for name in ("x.json", "missing.json"):
        answer = call("predict", drives / "d0.mp4", "-b", tiny_bundle, "--pool", tmp_path / name)
        assert answer.code != 0
        assert name in answer.err


def test_a_cascade_is_pooled_where_every_frame_passes_through_all_stages(
    call: Call, tiny_chain: Path, drives: Path, tmp_path: Path
) -> None:
    file, bundle = tmp_path / "drive.json", tiny_chain / "bundle"
    answer = call("drives", drives, "-b", bundle, "-o", file, "--steps", 5, "--resamples", 100, "--folds", 2)
    assert answer.code == 0, answer.err
    assert "--budget 1 --pool" in answer.out
    frames = pooled(call, bundle, drives / "d0.mp4", "--pool", file, "--budget", 1)
    assert {f["stage"] for f in frames} == {4}
    assert all(f["pooled_probability"] is not None for f in frames)
    alone = pooled(call, bundle, drives / "d0.mp4")
    assert {f["stage"] for f in alone} != {4}
    for pool in (file, "mean"):
        refused = call("predict", drives / "d0.mp4", "-b", bundle, "--pool", pool)
        assert refused.code == 2
        assert "add --budget 1" in refused.err
