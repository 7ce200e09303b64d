"""Units across sources: drives, pictures, embeddings and columns."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from workzone.data.manifest import Manifest
from workzone.data.neighbours import cosine_pairs
from workzone.data.units import find_units


def manifest(**columns: list[object]) -> Manifest:
    n = len(next(iter(columns.values())))
    frame = pl.DataFrame({"id": [f"i{k}" for k in range(n)], "path": [f"{k}.jpg" for k in range(n)], **columns})
    return Manifest.from_frame(frame, root="/")


def test_a_picture_in_two_sources_makes_one_unit() -> None:
    rows = manifest(
        source=["natix", "roadwork", "natix", "roadwork"],
        group=["drive:a", "drive:b", "drive:c", "drive:c"],
        phash=["00000000000000ff", "00000000000000fe", "ff00ff00ff00ff00", "00ffff00ff00ff0f"],
    )
    assert find_units(rows) == ["drive:a", "drive:a", "drive:c", "drive:c"]
    assert find_units(rows, near_duplicates=False) == ["drive:a", "drive:b", "drive:c", "drive:c"]


def test_columns_and_embeddings_join() -> None:
    rows = manifest(group=["a", "b", "c", "d", "e"], sequence=["s1", None, None, "s1", "s2"])
    assert find_units(rows, columns=["sequence"]) == ["a", "b", "c", "a", "e"]
    vectors = np.array([[1, 0, 0], [0, 1, 0], [0.02, 3, 0], [0, 0, 0], [np.nan, 1, 0]])
    assert find_units(rows, embeddings=vectors) == ["a", "b", "b", "d", "e"]
    assert find_units(rows, embeddings=vectors, columns=["sequence"]) == ["a", "b", "b", "a", "e"]


def test_what_does_not_fit_is_refused() -> None:
    rows = manifest(group=["a", "b"])
    with pytest.raises(ValueError, match="no column 'sequence'"):
        find_units(rows, columns=["sequence"])
    with pytest.raises(ValueError, match="shape"):
        find_units(rows, embeddings=np.ones((3, 2)))
    with pytest.raises(ValueError, match="similarity"):
        find_units(rows, embeddings=np.ones((2, 2)), similarity=0.0)


def test_cosine_pairs_exact_and_by_cells() -> None:
    rng = np.random.default_rng(0)
    places = rng.normal(size=(400, 32))
    vectors = np.concatenate([places, places + 0.05 * rng.normal(size=places.shape)])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    want = {(int(i), int(j)) for i, j in np.argwhere(unit @ unit.T >= 0.95) if i < j}
    assert len(want) >= 400
    assert set(cosine_pairs(vectors, 0.95)) == want
    by_cells = set(cosine_pairs(vectors, 0.95, exact_up_to=0))
    assert by_cells <= want
    assert len(by_cells) >= 0.97 * len(want)
    assert set(cosine_pairs(np.ones((3, 2)), 1.0)) == {(0, 1), (0, 2), (1, 2)}
