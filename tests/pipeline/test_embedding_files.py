from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from workzone.bundle.embedding import ViewEmbeddings
from workzone.data.manifest import Manifest
from workzone.data.splits import Splits
from workzone.errors import ConfigError, DataError
from workzone.pipeline.commands.mining import only_training
from workzone.pipeline.embedding import picture_and_tiles, read_embeddings, tool_config

MANIFEST = Manifest.from_frame(pl.DataFrame({"id": ["a", "b"], "path": ["a.jpg", "b.jpg"]}), root="/x")


def test_embeddings_are_read_by_id_from_both_forms(tmp_path: Path) -> None:
    values = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], dtype=np.float32)
    np.savez(tmp_path / "e.npz", ids=np.array(["b", "c", "a"]), embeddings=values)
    pl.DataFrame({"id": ["b", "c", "a"], "embedding_0": values[:, 0], "embedding_1": values[:, 1]}).write_csv(
        tmp_path / "e.csv"
    )
    for name in ("e.npz", "e.csv"):
        assert read_embeddings(tmp_path / name, MANIFEST).tolist() == [[5.0, 6.0], [1.0, 2.0]]
    np.savez(tmp_path / "few.npz", ids=np.array(["b"]), embeddings=values[:1])
    with pytest.raises(DataError, match="1 images have no embedding"):
        read_embeddings(tmp_path / "few.npz", MANIFEST)


def test_missing_views_do_not_reach_the_features() -> None:
    embeddings = np.array([[[1.0, -5.0], [2.0, -6.0], [99.0, 99.0]]], dtype=np.float32)
    views = ViewEmbeddings(embeddings, np.zeros((1, 3, 4), np.float32), np.array([[True, True, False]]))
    assert picture_and_tiles(views).tolist() == [[1.0, -5.0, 2.0, -5.0]]


def test_only_images_of_train_are_mined() -> None:
    splits = Splits({"a": "val_test"})  # type: ignore[dict-item]
    assert only_training(MANIFEST, splits).frame["id"].to_list() == ["b"]
    with pytest.raises(DataError, match="no image of role train"):
        only_training(MANIFEST, Splits({"a": "val_test", "b": "val_calib"}))  # type: ignore[dict-item]


def test_data_is_not_given_twice() -> None:
    with pytest.raises(ConfigError, match="data=other"):
        tool_config(Path("d"), Path("o"), ["data=other"])
