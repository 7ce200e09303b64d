from __future__ import annotations

import io

import imagehash
import numpy as np
import pytest
from pictures import picture
from PIL import Image

from workzone.data import perceptual
from workzone.data.perceptual import (
    UnionFind,
    bits_from_hex,
    dct_matrix,
    near_edges,
    near_pairs,
    phash,
    phash_bits,
)


def test_dct_matrix_is_orthonormal() -> None:
    matrix = dct_matrix(32)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(32), atol=1e-12)


@pytest.mark.parity
@pytest.mark.parametrize("seed", range(12))
def test_phash_agrees_with_imagehash(seed: int) -> None:
    image = picture(seed, (400, 300))
    bits = imagehash.phash(image).hash.ravel()
    ours = bits_from_hex([phash(image)])[0]
    assert int((bits != ours).sum()) <= 4


def test_phash_survives_encoding_and_tells_pictures_apart() -> None:
    image = picture(1)
    stream = io.BytesIO()
    image.resize((200, 150)).save(stream, "JPEG", quality=40)
    hashes = [phash(image), phash(Image.open(stream)), *(phash(picture(s)) for s in range(2, 12))]
    assert [(i, j) for i, j, _ in near_pairs(hashes[:2], 4)] == [(0, 1)]
    assert list(near_pairs(hashes[:1] + hashes[2:], 12)) == []


def test_flat_pictures_hash_alike() -> None:
    assert phash(Image.new("L", (50, 50), 7)) == phash(Image.new("RGB", (90, 20), (7, 7, 7)))


def test_phash_bits_refuses_other_sizes() -> None:
    with pytest.raises(ValueError, match="shape"):
        phash_bits(np.zeros((2, 16, 16), dtype=np.float32))


def clumped(seed: int, n: int) -> list[str]:
    """Hashes in clumps, with equal ones among them, so that every distance from 0 to 12 occurs."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2**64, 5, dtype=np.uint64)
    out = []
    for i in range(n):
        value = int(centres[i % 5])
        for bit in rng.integers(0, 64, int(rng.integers(0, 7))):
            value ^= 1 << int(bit)
        out.append(f"{value:016x}")
    return out


@pytest.mark.parametrize("limit", [0, 1, 3, 4, 6, 12])
@pytest.mark.parametrize("kept", [None, 1, 2, 3])
def test_near_pairs_equals_brute_force(limit: int, kept: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if kept is not None:
        monkeypatch.setattr(perceptual, "_plan", lambda n, bits: (bits + kept, kept))
    hashes = clumped(limit, 120)
    numbers = [int(h, 16) for h in hashes]
    want = sorted(
        (i, j, d)
        for i in range(120)
        for j in range(i + 1, 120)
        if (d := (numbers[i] ^ numbers[j]).bit_count()) <= limit
    )
    assert {d for _, _, d in want} == set(range(limit + 1))
    assert sorted(near_pairs(hashes, limit)) == want


def test_pairs_of_different_marks_are_those_of_all_pairs() -> None:
    rng = np.random.default_rng(4)
    values = rng.integers(0, 2**64, 40, dtype=np.uint64).tolist()
    values += [v ^ 5 for v in values[:20]] + values[:15] * 2
    hashes = [f"{v:016x}" for v in values]
    marks = rng.integers(0, 3, len(hashes)).tolist()
    want = sorted(p for p in near_pairs(hashes, 4) if marks[p[0]] != marks[p[1]])
    assert 20 < len(want) < len(list(near_pairs(hashes, 4)))
    assert sorted(near_pairs(hashes, 4, apart=marks)) == want


def test_hash_bits_are_above_the_median() -> None:
    grey = np.random.default_rng(1).integers(0, 256, (50, 32, 32)).astype(np.float32)
    rows = dct_matrix(32)[:8]
    low = np.round((rows @ grey.astype(np.float64) @ rows.T).reshape(50, 64), 6)
    want = low > np.median(low[:, 1:], axis=1, keepdims=True)
    np.testing.assert_array_equal(phash_bits(grey), want)


def test_near_edges_connect_what_near_pairs_connect() -> None:
    hashes = clumped(1, 200) + ["00000000000000ff"] * 300
    few, all_ = UnionFind(500), UnionFind(500)
    count = 0
    for i, j in near_edges(hashes, 3):
        few.union(i, j)
        count += 1
    for i, j, _ in near_pairs(hashes, 3):
        all_.union(i, j)
    assert [few.find(i) for i in range(500)] == [all_.find(i) for i in range(500)]
    assert count < 3000, "300 equal hashes must not give all of their 44 850 pairs"


def test_the_index_finds_every_planted_pair_among_many(monkeypatch: pytest.MonkeyPatch) -> None:
    assert perceptual._plan(10**6, 4)[1] > 1, "many hashes are looked up by more than one block"
    monkeypatch.setattr(perceptual, "_plan", lambda n, bits: (bits + 2, 2))
    rng = np.random.default_rng(5)
    values = rng.integers(0, 2**64, 60_000, dtype=np.uint64)
    planted = {}
    for k in range(300):
        bits = rng.choice(64, k % 6, replace=False)
        values[2 * k + 1] = values[2 * k]
        for bit in bits.tolist():
            values[2 * k + 1] ^= np.uint64(1 << bit)
        if 0 < len(bits) <= 4:
            planted[2 * k, 2 * k + 1] = len(bits)
    hashes = [f"{v:016x}" for v in values.tolist()]
    found = {(i, j): d for i, j, d in near_pairs(hashes, 4)}
    assert planted.items() <= found.items()
    assert (10, 11) not in found, "five bits are more than four"
    assert len(found) < 450, "random hashes hardly ever meet"


def test_limits_out_of_range() -> None:
    with pytest.raises(ValueError, match="limit"):
        list(near_pairs(["0" * 16, "1" * 16], 17))
    assert list(near_pairs([], 4)) == []
    assert list(near_pairs(["0" * 16], 4)) == []


def test_union_find() -> None:
    sets = UnionFind(6)
    sets.union(4, 2)
    sets.union(2, 5)
    sets.join_equal(["a", None, None, "a", None, None])
    assert [sets.find(i) for i in range(6)] == [0, 1, 2, 0, 2, 2]
