from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from workzone.data.audit import crops, window_index
from workzone.data.audit.crops import Match, find_matches
from workzone.data.audit.window_index import Greys, nearest_windows
from workzone.data.audit.windows import SIDE, bank
from workzone.data.perceptual import grey_square

PLAIN, PLANTED = 60, 16


def _picture(rng: np.random.Generator) -> Image.Image:
    total = np.linspace(40, 0, 300)[:, None] * np.ones((1, 400))
    for cells in (3, 6, 12, 24, 48):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells), dtype=np.uint8))
        total = total + np.asarray(noise.resize((400, 300), Image.Resampling.BICUBIC), dtype=np.float64) / cells**0.7
    total -= total.min()
    return Image.fromarray((total / total.max() * 255).astype(np.uint8))


@pytest.fixture(scope="module")
def planted() -> tuple[NDArray[np.uint8], NDArray[np.int64], set[tuple[int, int]]]:
    """Pictures in two roles, crops and mirrored and plain copies of some of them in a third one, and the true pairs."""
    rng = np.random.default_rng(3)
    images = [_picture(rng) for _ in range(PLAIN)]
    roles = [i % 2 for i in range(PLAIN)]
    pairs = set()
    for k in range(PLANTED):
        image = images[3 * k]
        if k % 4:
            width, height = rng.uniform(0.6, 0.95, 2) if k % 4 == 1 else [rng.uniform(0.6, 0.95)] * 2
            x, y = (1 - width) * rng.random() * 400, (1 - height) * rng.random() * 300
            image = image.crop((round(x), round(y), round(x + width * 400), round(y + height * 300)))
        if k % 4 == 2:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        images.append(image.resize((170, 130)))
        roles.append(2)
        pairs.add((3 * k, PLAIN + k))
    grey = np.stack([grey_square(i, SIDE).astype(np.uint8) for i in images])
    return grey, np.array(roles), pairs


def _pairs(found: list[Match]) -> dict[tuple[int, int], Match]:
    return {(min(m.part, m.whole), max(m.part, m.whole)): m for m in found}


def test_the_index_finds_what_all_pairs_find(
    planted: tuple[NDArray[np.uint8], NDArray[np.int64], set[tuple[int, int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    grey, roles, pairs = planted
    every = _pairs(find_matches(grey, roles, exact_up_to=len(grey)))
    monkeypatch.setattr(window_index, "_BLOCK", 20)
    monkeypatch.setattr(crops, "_coarse", None)  # all pairs are not compared
    monkeypatch.setattr(window_index, "CELLS_PER_ENTRY", 1 / 8)  # as many cells as a larger set has
    indexed = _pairs(find_matches(grey, roles, exact_up_to=len(grey) - 1))
    assert indexed.keys() == every.keys() == pairs
    for pair, match in indexed.items():
        assert match.score == pytest.approx(every[pair].score, abs=0.01)
        assert (match.part, match.mirrored) == (every[pair].part, every[pair].mirrored)
        assert match.window.width == pytest.approx(every[pair].window.width, abs=0.03)


def test_only_other_roles_are_compared_and_flat_pictures_never(
    planted: tuple[NDArray[np.uint8], NDArray[np.int64], set[tuple[int, int]]],
) -> None:
    grey, roles, _ = planted
    flat = np.concatenate([grey, np.full((3, SIDE, SIDE), 90, dtype=np.uint8)])
    marks = np.append(roles, (0, 1, 2))
    found = nearest_windows(flat, marks)
    rows, slots = np.nonzero(found.whole >= 0)
    assert len(rows) >= PLANTED
    assert (marks[rows] != marks[found.whole[rows, slots]]).all()
    assert (found.whole[-3:] == -1).all()
    assert not np.isin(found.whole, len(flat) - 1 - np.arange(3)).any()
    for row in np.unique(rows):
        own = found.whole[row][found.whole[row] >= 0]
        assert len(np.unique(own)) == len(own)
    assert (np.diff(found.score, axis=1) <= 0).all()
    assert found.window.max() < len(bank()[2])
    assert (find_matches(np.full((4, SIDE, SIDE), 7, dtype=np.uint8), [0, 1, 2, 3], exact_up_to=0)) == []


def test_pictures_on_disk_are_those_in_memory(
    planted: tuple[NDArray[np.uint8], NDArray[np.int64], set[tuple[int, int]]], disk: Greys
) -> None:
    grey, roles, _ = planted
    for picture in grey:
        disk.append(picture)
    assert len(disk) == len(grey)
    np.testing.assert_array_equal(disk[7], grey[7])
    np.testing.assert_array_equal(disk[30:70], grey[30:70])
    disk.append(grey[0])  # after reading in the middle
    np.testing.assert_array_equal(disk[len(grey)], grey[0])
    np.testing.assert_array_equal(disk[7], grey[7])
    memory, stored = nearest_windows(grey, roles), nearest_windows(disk, np.append(roles, roles[0]))
    assert (stored.whole[PLAIN : len(grey)] >= 0).sum() >= (memory.whole[PLAIN:] >= 0).sum() - PLANTED


@pytest.fixture
def disk() -> Iterator[Greys]:
    stored = Greys()
    yield stored
    stored.close()


def test_the_number_of_cells_grows_with_the_number_of_pictures() -> None:
    rng = np.random.default_rng(0)
    grey = np.stack([grey_square(_picture(rng), SIDE).astype(np.uint8) for _ in range(12)])
    few, many = (window_index._Space.of(grey, n, np.random.default_rng(0)) for n in (6400, 640_000))
    assert (len(few.centres[0]), len(many.centres[0])) == (10, 100)
    points = many.project(window_index._low_windows(grey).reshape(-1, window_index.LOW**2))
    used = np.bincount(many.cell(points), minlength=10_000)
    assert used.max() < len(points) / 20
    near = many.cells(points[:50], 16)
    assert all(c in row for c, row in zip(many.cell(points[:50]), near, strict=True))
