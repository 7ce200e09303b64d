"""Phase prepare notices when the data change, whatever their layout."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from workzone.config import RunConfig
from workzone.errors import DataError
from workzone.pipeline.phases.prepare import outside


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (32, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture(params=["folder", "table", "folder with a table"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for i in range(4):
        picture(root / ("roadwork" if i % 2 else "no_roadwork") / f"{i}.png", i)
    if request.param == "folder":
        return root
    rows = [f"{p.relative_to(root)},{int(p.parent.name == 'roadwork')}" for p in sorted(root.rglob("*.png"))]
    (root / "metadata.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    return root / "metadata.csv" if request.param == "table" else root


def stamp(data: Path) -> str:
    return outside(RunConfig(data=str(data), out=data.parent / "out"))


def folder_of(data: Path) -> Path:
    return data if data.is_dir() else data.parent


def test_nothing_changed(data: Path) -> None:
    assert stamp(data) == stamp(data)


def test_a_changed_image(data: Path) -> None:
    before = stamp(data)
    picture(folder_of(data) / "roadwork" / "1.png", 99)
    assert stamp(data) != before


def test_a_touched_image(data: Path) -> None:
    before = stamp(data)
    os.utime(folder_of(data) / "roadwork" / "1.png", (1, 1))
    assert stamp(data) != before


def test_a_new_image_and_a_changed_label(data: Path) -> None:
    before = stamp(data)
    root, table = folder_of(data), folder_of(data) / "metadata.csv"
    picture(root / "roadwork" / "new.png", 5)
    if table.exists():
        assert stamp(data) == before, "an image that the table does not name is no part of the data"
        table.write_text(table.read_text() + "roadwork/new.png,1\n")
    assert (added := stamp(data)) != before
    if table.exists():
        table.write_text(table.read_text().replace("roadwork/1.png,1", "roadwork/1.png,0"))
    else:
        (root / "roadwork" / "1.png").rename(root / "no_roadwork" / "1.png")
    assert stamp(data) not in (added, before)


def test_data_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        stamp(tmp_path / "nowhere")
