from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from helpers.clips import write_clip
from workzone.bundle import Detector
from workzone.bundle.drive import decide_video, drive_score, frame_record
from workzone.data.roles import CalibData
from workzone.decisions.pooling import POOLS, WindowMean, create_pool
from workzone.decisions.sequences import DriveScore
from workzone.errors import ConfigError, ImageError
from workzone.predictions import logit
from workzone.vision.video import Video

pytest.importorskip("av", reason="PyAV is not installed")
pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def clip(images: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve scenes, a second each."""
    scenes = [np.asarray(Image.open(p).convert("RGB").resize((192, 128))) for p in images]
    folder = tmp_path_factory.mktemp("clip")
    return write_clip(folder / "a.mp4", 24, rate=2, picture=lambda n: scenes[n // 2], gop=4)


def test_frames_are_decided_as_images_are(detector: Detector, clip: Path) -> None:
    found = decide_video(detector, clip)
    alone = [d for _, d in detector.predict(image for _, image in Video(clip))]
    assert [f.seconds for f in found.frames] == list(range(12))
    assert [f.alone.label for f in found.frames] == [d.label for d in alone]
    assert [f.probability for f in found.frames] == pytest.approx([d.probability for d in alone], abs=1e-6)
    assert [f.label for f in found.frames] == [d.label for d in alone]
    assert found.problem is None
    assert found.intervals[0].start == 0
    assert found.intervals[-1].end == 12
    assert sum(i.frames for i in found.intervals) == 12


@pytest.mark.parametrize("name", POOLS)
def test_pooled_frames_follow_the_pool_and_the_policy(detector: Detector, clip: Path, name: str) -> None:
    single = decide_video(detector, clip)
    found = decide_video(detector, clip, pool=name)
    scores = logit(np.array([f.alone.probability for f in found.frames]))
    assert [f.alone for f in found.frames] == [f.alone for f in single.frames], "the certified answer is kept"
    p = np.array([f.probability for f in found.frames])
    if name != "attention":
        np.testing.assert_allclose(p, DriveScore(create_pool(name))(scores, np.arange(12.0)))
    codes = {"abstain": -1, "no_roadwork": 0, "roadwork": 1}
    assert [codes[f.label] for f in found.frames] == detector.policy.decide(p).codes.tolist()
    assert "does not cover" in found.promise
    record = frame_record(found.frames[0], pooled=True)
    assert record["pooled_probability"] == p[0]
    assert record["probability"] == single.frames[0].alone.probability


def test_attention_compares_the_pictures(detector: Detector, tmp_path: Path, images: list[Path]) -> None:
    two = [np.asarray(Image.open(p).convert("RGB").resize((192, 128))) for p in images[:2]]
    path = write_clip(tmp_path / "a.mp4", 16, rate=1, picture=lambda n: two[n % 2], gop=1)
    score = DriveScore(create_pool("attention", temperature=0.05, seconds=1e6))
    found = decide_video(detector, path, pool=score)
    p = np.array([f.probability for f in found.frames])
    alone = np.array([f.alone.probability for f in found.frames])
    # Frames of one picture heed each other and not the frames between them.
    np.testing.assert_allclose(p, alone, atol=0.02)
    mean = decide_video(detector, path, pool=DriveScore(WindowMean(seconds=1e6)))
    assert np.ptp([f.probability for f in mean.frames]) < 1e-6


def test_a_fitted_score_is_used_and_named(detector: Detector, clip: Path) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 80)
    data = CalibData.from_arrays(y, 2.0 * y - 1 + rng.normal(0, 2, 80), groups=np.repeat(["a", "b", "c", "d"], 20))
    score = DriveScore.fit(data, WindowMean(), seconds=np.tile(np.arange(20.0), 4))
    found = decide_video(detector, clip, pool=score)
    scores = logit(np.array([f.alone.probability for f in found.frames]))
    np.testing.assert_allclose([f.probability for f in found.frames], score(scores, np.arange(12.0)))
    assert "80 frames of 4 drives" in found.promise


def test_a_damaged_video_gives_its_readable_part_and_the_reason(detector: Detector, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (20, 64, 96, 3), dtype=np.uint8)
    path = write_clip(tmp_path / "a.mp4", 20, rate=2, picture=lambda n: noise[n], container={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    found = decide_video(detector, path, pool="mean")
    assert 3 <= len(found.frames) < 10
    assert found.problem is not None
    assert found.problem.reason == "truncated"
    assert found.intervals[-1].end <= found.frames[-1].seconds + 1
    path.write_bytes(b"no film")
    with pytest.raises(ImageError):
        decide_video(detector, path)


def test_progress_counts_frames(detector: Detector, clip: Path) -> None:
    seen: list[tuple[int, int]] = []
    decide_video(detector, clip, every=2.0, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert {total for _, total in seen} <= {6, 7}


def test_options_that_cannot_be(detector: Detector, clip: Path) -> None:
    with pytest.raises(ConfigError, match="no pool 'median'"):
        drive_score("median")
    assert drive_score("none") is None

    gate = replace(detector, policy=SimpleNamespace(name="gate", needs=("entropy",)))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="single images"):
        decide_video(gate, clip, pool="mean")
