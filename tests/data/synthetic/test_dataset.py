"""Written sets: table, resuming, and that a killed run leaves no table behind."""

from __future__ import annotations

import csv
from datetime import datetime
from pathlib import Path

import pytest
from PIL import Image

from workzone.data.synthetic import COLUMNS, SceneSpec, dataset, generate, render_scene, write_dataset

SIZE = (128, 72)


class KilledError(Exception):
    pass


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_table_describes_the_images(tmp_path: Path) -> None:
    table = write_dataset(tmp_path, 24, seed=1, size=SIZE)
    assert table == tmp_path / "metadata.csv"
    found = rows(table)
    assert tuple(found[0]) == COLUMNS
    assert len(found) == len({row["id"] for row in found}) == 24
    assert sum(int(row["label"]) for row in found) == 12
    for row, image in zip(found, generate(24, seed=1, size=SIZE), strict=True):
        with Image.open(tmp_path / row["file"]) as stored:
            assert stored.size == SIZE == (int(row["width"]), int(row["height"]))
            assert stored.format == "JPEG"
        assert (row["id"], int(row["label"]), row["group"]) == (image.id, image.label, image.group)
        assert datetime.fromisoformat(row["captured_at"]).hour == int(row["hour"]) == image.captured_hour
        assert (row["evidence"] == "") == (row["label"] == "0")
        assert row["hard_negative"] == "0" or row["label"] == "0"
        assert row["camera_id"].startswith(row["source"])
        assert -90 < float(row["latitude"]) < 90
    assert not list(tmp_path.rglob("*partial*"))


def test_stream_has_prefix_property() -> None:
    short = [(i.id, i.label, i.image.tobytes()) for i in generate(6, seed=3, size=SIZE)]
    long = [(i.id, i.label, i.image.tobytes()) for i in generate(9, seed=3, size=SIZE)]
    assert long[:6] == short


def test_prevalence_is_kept() -> None:
    for prevalence in (0.0, 0.2, 1.0):
        labels = [i.label for i in generate(36, seed=4, size=(64, 48), prevalence=prevalence)]
        assert sum(labels) / 36 == pytest.approx(prevalence, abs=0.06)


def test_second_call_draws_nothing_and_changed_or_damaged_images_are_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []

    def counting(spec: SceneSpec) -> Image.Image:
        drawn.append(1)
        return render_scene(spec)

    monkeypatch.setattr(dataset, "render_scene", counting)
    table = write_dataset(tmp_path, 6, seed=1, size=SIZE)
    first = table.read_bytes()
    pictures = {p.name: p.read_bytes() for p in (tmp_path / "images").iterdir()}
    assert len(drawn) == 6
    write_dataset(tmp_path, 6, seed=1, size=SIZE)
    assert len(drawn) == 6
    victims = sorted(pictures)
    (tmp_path / "images" / victims[0]).write_bytes(b"no picture")
    (tmp_path / "images" / victims[1]).write_bytes(pictures[victims[2]])
    write_dataset(tmp_path, 6, seed=1, size=SIZE)
    assert len(drawn) == 8
    assert table.read_bytes() == first
    assert {p.name: p.read_bytes() for p in (tmp_path / "images").iterdir()} == pictures
    write_dataset(tmp_path, 6, seed=1, size=(96, 64))
    assert len(drawn) == 14


def test_killed_run_leaves_no_table_and_resumes(tmp_path: Path) -> None:
    def kill(done: int, total: int) -> None:
        assert total == 8
        if done == 5:
            raise KilledError

    with pytest.raises(KilledError):
        write_dataset(tmp_path, 8, seed=6, size=SIZE, progress=kill)
    assert not (tmp_path / "metadata.csv").exists()
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "images").iterdir()}
    assert len(kept) == 5
    seen: list[int] = []
    table = write_dataset(tmp_path, 8, seed=6, size=SIZE, progress=lambda done, total: seen.append(done))
    assert seen == list(range(1, 9))
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in kept.items())
    assert len(rows(table)) == 8


def test_stale_table_is_gone_while_another_set_is_written(tmp_path: Path) -> None:
    write_dataset(tmp_path, 3, seed=1, size=SIZE)

    def kill(done: int, total: int) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        write_dataset(tmp_path, 4, seed=1, size=SIZE, progress=kill)
    assert not (tmp_path / "metadata.csv").exists()


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="prevalence"):
        write_dataset(tmp_path, 3, seed=1, prevalence=1.5)
    with pytest.raises(ValueError, match="nowhere"):
        list(generate(1, seed=1, domains=["nowhere"]))
