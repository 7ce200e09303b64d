from __future__ import annotations

import io

import imagehash
import numpy as np
import pytest
from pictures import picture
from PIL import Image

from workzone.data.perceptual import UnionFind, bits_from_hex, dct_matrix, hamming, near_pairs, phash, phash_bits


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
    assert hamming(phash(image), phash(Image.open(stream))) <= 4
    others = [hamming(phash(image), phash(picture(s))) for s in range(2, 12)]
    assert min(others) > 12


def test_flat_pictures_hash_alike() -> None:
    assert phash(Image.new("L", (50, 50), 7)) == phash(Image.new("RGB", (90, 20), (7, 7, 7)))


def test_phash_bits_refuses_other_sizes() -> None:
    with pytest.raises(ValueError, match="shape"):
        phash_bits(np.zeros((2, 16, 16), dtype=np.float32))


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_near_pairs_equals_brute_force(chunk: int) -> None:
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 2**63, 6)
    hashes = [f"{int(c) ^ (1 << int(b)) ^ (1 << int(d)):016x}" for c in centres for b, d in rng.integers(0, 63, (6, 2))]
    want = {
        (i, j, d) for i in range(36) for j in range(i + 1, 36) if (d := hamming(hashes[i], hashes[j])) <= 3
    }  # fmt: skip
    assert want
    assert set(near_pairs(hashes, 3, chunk=chunk)) == want


def test_union_find() -> None:
    sets = UnionFind(6)
    sets.union(4, 2)
    sets.union(2, 5)
    sets.join_equal(["a", None, None, "a", None, None])
    assert [sets.find(i) for i in range(6)] == [0, 1, 2, 0, 2, 2]
