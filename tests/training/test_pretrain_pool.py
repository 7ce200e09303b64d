"""Which images are learned from without labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from workzone.data.roles import Role
from workzone.data.sources.build import build_manifest
from workzone.data.splits import Splits
from workzone.errors import DataError
from workzone.training.pretraining.pool import gather


def picture(path: Path, seed: int, noise: int = 0) -> None:
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 220, (8, 8, 3)).repeat(8, axis=0).repeat(8, axis=1)
    moved = base + np.random.default_rng(noise).integers(0, 6, base.shape) if noise else base
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(moved.astype(np.uint8)).save(path)


@pytest.fixture
def data(tmp_path):
    """Six labelled images, of which 4 and 5 are held out, and one without a label."""
    rows = []
    for i in range(7):
        picture(tmp_path / "own" / f"{i}.png", i)
        label = None if i == 6 else i % 2
        rows.append({"id": f"{i}", "file": f"{i}.png", "label": label, "group": f"drive{i}", "source": "own"})
    pl.DataFrame(rows).write_csv(tmp_path / "own" / "metadata.csv")
    manifest = build_manifest(tmp_path / "own" / "metadata.csv")
    roles = [Role.TRAIN] * 4 + [Role.VAL_CALIB, Role.VAL_TEST, Role.TRAIN]
    return manifest, Splits({str(i): role for i, role in enumerate(roles)})


def further(tmp_path: Path, rows: list[tuple[str, int, int, str]]) -> Path:
    """A table of further images: name, picture, noise, group."""
    for name, seed, noise, _ in rows:
        picture(tmp_path / "more" / f"{name}.png", seed, noise)
    table = pl.DataFrame([{"id": n, "file": f"{n}.png", "group": g, "source": "more"} for n, _, _, g in rows])
    table.write_csv(tmp_path / "more" / "unlabelled.csv")
    return tmp_path / "more" / "unlabelled.csv"


def test_role_train_alone(data):
    pool = gather(*data)
    assert sorted(pool.frame["id"].to_list()) == ["0", "1", "2", "3", "6"]
    assert pool.frame.filter(pl.col("id") == "6")["label"].to_list() == [None]
    assert pool.counts == {"train_labelled": 4, "train_unlabelled": 1, "further": 0}
    assert all(Path(p).is_file() for p in pool.frame["path"].to_list())


def test_relations_of_held_out_images_are_left_out(data, tmp_path):
    place = further(
        tmp_path,
        [
            ("free", 50, 0, "a"),
            ("0", 51, 0, "b"),
            ("same_drive", 52, 0, "drive5"),
            ("same_content", 4, 0, "c"),
            ("near_copy", 5, 3, "d"),
            ("of_its_group", 53, 0, "d"),
            ("copy_of_train", 1, 0, "e"),
            ("train_drive", 54, 0, "drive2"),
            ("twice", 50, 0, "f"),
        ],
    )
    pool = gather(*data, unlabelled=place)
    taken = [i for i in pool.frame["id"].to_list() if i.startswith("further/")]
    assert sorted(taken) == ["further/0", "further/free", "further/train_drive"]
    assert pool.counts["left_out_related"] == 4
    assert pool.counts["left_out_repeated"] == 2
    assert pool.frame["id"].n_unique() == pool.frame.height == 8


def test_a_draw_of_the_further_images(data, tmp_path):
    place = further(tmp_path, [(f"m{i}", 100 + i, 0, f"g{i}") for i in range(12)])
    picks = [sorted(gather(*data, unlabelled=place, limit=4, seed=s).frame["id"].to_list()) for s in (0, 0, 1)]
    assert picks[0] == picks[1] != picks[2]
    assert len(picks[0]) == 5 + 4
    (tmp_path / "more" / "m3.png").write_bytes(b"broken")
    assert gather(*data, unlabelled=place).counts["unreadable"] == 1


def test_what_is_not_there_or_has_labels_is_refused(data, tmp_path):
    with pytest.raises(DataError, match=r"pretrain\.unlabelled"):
        gather(*data, unlabelled=tmp_path / "nothing")
    with pytest.raises(DataError, match="label column"):
        gather(*data, unlabelled=tmp_path / "own" / "metadata.csv")
