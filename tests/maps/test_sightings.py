from __future__ import annotations

from datetime import timedelta, timezone
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import ExifTags, Image

from workzone.bundle.rows import write_parquet
from workzone.errors import DataError
from workzone.maps.sightings import parse_time, read_sightings
from workzone.maps.tracks import Track

NOON = parse_time("2026-05-01T12:00:00Z")
DRIVE = Track(NOON + np.array([0.0, 10.0, 20.0]), 50.0 + np.array([0.0, 0.001, 0.002]), np.full(3, 8.0))


def picture(path: Path, clock: str | None) -> Path:
    """A small JPEG whose EXIF holds the local time of a camera, without an offset and without a place."""
    exif = Image.Exif()
    if clock is not None:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = clock
    Image.new("RGB", (16, 16), "grey").save(path, exif=exif)
    return path


def row(path: Path) -> dict[str, object]:
    return {"path": str(path), "decision": "roadwork", "probability": 0.9, "log_odds": 2.0, "prediction_set": []}


def test_a_dashcam_folder_is_placed_by_the_clock_of_its_images_and_the_track(tmp_path: Path) -> None:
    """What ``predict`` writes has neither time nor place, and cameras write local time."""
    files = [picture(tmp_path / f"{s}.jpg", f"2026:05:01 14:00:{s:02d}") for s in (0, 5, 20)]
    table = tmp_path / "answers.parquet"
    write_parquet([row(f) for f in (*files, picture(tmp_path / "bare.jpg", None))], table)
    found = read_sightings(table, track=DRIVE, zone=timezone(timedelta(hours=2)))
    assert found.unplaced == 1
    assert found.time.tolist() == [NOON, NOON + 5, NOON + 20]
    assert found.latitude == pytest.approx([50.0, 50.0005, 50.002])
    with pytest.raises(DataError, match=r"images are of 2026-05-01 14:.* track of 2026-05-01 12:.*--utc-offset"):
        read_sightings(table, track=DRIVE)


def test_the_track_is_asked_before_any_image_is_opened(tmp_path: Path) -> None:
    table = tmp_path / "p.csv"
    table.write_text("path,decision,probability,time\nno-such-file.jpg,roadwork,0.9,2026-05-01T12:00:10Z\n")
    opened: list[int] = []
    found = read_sightings(table, track=DRIVE, progress=lambda done, total: opened.append(done))
    assert found.latitude.tolist() == [50.001]
    assert not opened


def test_the_folder_of_score_counts_as_one_table(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"path": ["a", "b"], "decision": ["roadwork", "abstain"], "probability": [0.9, 0.5], "latitude": [50.0, 50.1],
         "longitude": [8.0, 8.0], "time": ["2026-05-01T12:00:00Z", "2026-05-01T12:00:01Z"]}
    )  # fmt: skip
    for part in (0, 1):
        shard = tmp_path / "scored" / "shards" / f"{part:05d}" / "part-00000000-ab.parquet"
        shard.parent.mkdir(parents=True)
        frame[part : part + 1].write_parquet(shard)
    assert read_sightings(tmp_path / "scored").decision.tolist() == ["roadwork", "abstain"]
    with pytest.raises(DataError, match="no scored shards"):
        read_sightings(tmp_path)
