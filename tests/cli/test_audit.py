"""``workzone data``: import, split, and an audit that finds leaks planted by hand."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

Call = Callable[..., "object"]
pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from workzone.data.synthetic import write_dataset

    folder = tmp_path_factory.mktemp("scenes")
    write_dataset(folder, 60, seed=3)
    return folder


def prepare(call: Call, scenes: Path, tmp_path: Path) -> tuple[Path, Path]:
    manifest, splits = tmp_path / "manifest.parquet", tmp_path / "splits.json"
    assert call("data", "import", scenes / "metadata.csv", "-o", manifest).code == 0  # type: ignore[attr-defined]
    assert call("data", "split", manifest, "-o", splits).code == 0  # type: ignore[attr-defined]
    return manifest, splits


def test_an_honest_split_passes(call: Call, scenes: Path, tmp_path: Path) -> None:
    answer = call("data", "audit", *prepare(call, scenes, tmp_path))
    assert answer.code == 0, answer.out  # type: ignore[attr-defined]


def test_the_folder_of_a_run_can_be_audited(call: Call, tiny_run: Path) -> None:
    assert call("data", "audit", tiny_run).code == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["re-encoded copy", "crop", "same group"])
def test_a_planted_leak_is_found(call: Call, scenes: Path, tmp_path: Path, kind: str) -> None:
    from workzone.data.splits import Splits

    _, splits = prepare(call, scenes, tmp_path)
    honest = Splits.load(splits).assignment
    train = next(i for i, role in honest.items() if role == "train")
    test = next(i for i, role in honest.items() if role == "val_test")
    planted = tmp_path / "planted"
    shutil.copytree(scenes, planted)
    rows = list(csv.DictReader((planted / "metadata.csv").open(encoding="utf-8")))
    by_id = {row["id"]: row for row in rows}
    if kind == "same group":
        by_id[test]["group"] = by_id[train]["group"]
    else:
        with Image.open(planted / by_id[train]["file"]) as image:
            w, h = image.size
            box = (w // 8, h // 8, w - w // 16, h - h // 16) if kind == "crop" else (0, 0, w, h)
            image.crop(box).save(planted / by_id[test]["file"], quality=55)
    for row in rows:
        # Sizes in the table are those of the honest images.
        del row["width"], row["height"]
    with (planted / "metadata.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    manifest = tmp_path / "planted.parquet"
    assert call("data", "import", planted / "metadata.csv", "-o", manifest).code == 0  # type: ignore[attr-defined]
    Splits(honest).save(splits)
    answer = call("data", "audit", manifest, splits, "-o", tmp_path / "audit")
    assert answer.code == 3, answer.out + answer.err  # type: ignore[attr-defined]
    assert (by_id[train]["group"] if kind == "same group" else test) in answer.out  # type: ignore[attr-defined]
    assert json.loads((tmp_path / "audit" / "audit.json").read_text())


def test_without_a_split_file(call: Call, scenes: Path, tmp_path: Path) -> None:
    manifest, _ = prepare(call, scenes, tmp_path)
    answer = call("data", "audit", manifest)
    assert answer.code == 2  # type: ignore[attr-defined]
    assert "no split file was given" in answer.err  # type: ignore[attr-defined]


@pytest.mark.parametrize("which", ["manifest", "splits"])
def test_broken_files(call: Call, scenes: Path, tmp_path: Path, which: str) -> None:
    files = dict(zip(("manifest", "splits"), prepare(call, scenes, tmp_path), strict=True))
    files[which].write_bytes(b"broken")
    answer = call("data", "audit", files["manifest"], files["splits"])
    assert answer.code == 2, answer.err  # type: ignore[attr-defined]
    assert "Traceback" not in answer.err  # type: ignore[attr-defined]
    assert files[which].name in answer.err  # type: ignore[attr-defined]
