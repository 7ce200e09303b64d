from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workzone.bundle import Detector, embedding
from workzone.bundle.embedding import EmbeddingCache, ViewEmbeddings, embed_images, pad_views
from workzone.errors import ImageError
from workzone.files import sha256_file


class Counting:
    """An engine that counts the views it embeds."""

    def __init__(self, engine: Any) -> None:
        self.inner, self.views = engine, 0
        self.name, self.precision = engine.name, engine.precision
        self.views_per_pass, self.threads = engine.views_per_pass, engine.threads

    def embed(self, pixels: Any) -> Any:
        self.views += len(pixels)
        return self.inner.embed(pixels)


class Case:
    def __init__(self, root: Path, detector: Detector, images: list[Path]) -> None:
        self.root, self.detector, self.engine = root, detector, Counting(detector.engine)
        self.paths, self.sha256 = [str(p) for p in images], [sha256_file(p) for p in images]

    def cache(self, **other: Any) -> EmbeddingCache:
        engine: Any = other.get("engine", self.engine)
        backbone = other.get("backbone", self.detector.folder / "engine" / "backbone.onnx")
        return EmbeddingCache(self.root, engine, backbone, other.get("pre", self.detector.preprocessing))

    def embed(self, cache: EmbeddingCache, stop: int | None = None) -> ViewEmbeddings:
        engine: Any = self.engine
        return embed_images(
            self.paths[:stop], self.sha256[:stop], engine, self.detector.preprocessing,
            cache=cache, workers=2, max_pixels=10**8,
        )  # fmt: skip


@pytest.fixture
def case(tmp_path: Path, detector: Detector, images: list[Path]) -> Case:
    return Case(tmp_path / "cache", detector, images)


def same(a: ViewEmbeddings, b: ViewEmbeddings) -> bool:
    return bool((a.embeddings == b.embeddings).all() and (a.boxes == b.boxes).all() and (a.mask == b.mask).all())


def test_nothing_is_embedded_twice(case: Case) -> None:
    first = case.embed(case.cache())
    assert case.engine.views == 12 * 5
    assert same(first, case.embed(case.cache()))
    assert case.engine.views == 12 * 5


def test_equal_pictures_are_embedded_once(case: Case) -> None:
    case.paths, case.sha256 = case.paths[:1] * 4, case.sha256[:1] * 4
    views = case.embed(case.cache())
    assert views.embeddings.shape[0] == 4
    assert case.engine.views == 5


def test_killed_run_goes_on(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "SHARD_IMAGES", 4)
    seen = 0

    def kill(done: int, total: int) -> None:
        nonlocal seen
        seen = done
        if done == 7:
            raise KeyboardInterrupt

    engine: Any = case.engine
    with pytest.raises(KeyboardInterrupt):
        embed_images(
            case.paths, case.sha256, engine, case.detector.preprocessing,
            cache=case.cache(), workers=1, max_pixels=10**8, progress=kill,
        )  # fmt: skip
    assert seen == 7
    cache = case.cache()
    assert sum(s in cache for s in case.sha256) == 4
    case.engine.views = 0
    case.embed(cache)
    assert case.engine.views == 8 * 5


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "text", "other arrays", "not finite"])
def test_damaged_shard_is_dropped_and_reported(case: Case, damage: str) -> None:
    whole = case.embed(case.cache())
    (shard,) = case.cache().folder.glob("*.npz")
    content = bytearray(shard.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 255
    shard.write_bytes({"cut": bytes(content[:-200]), "empty": b"", "text": b"x" * 500}.get(damage, bytes(content)))
    if damage == "other arrays":
        np.savez(
            shard, sha256=np.array(["a"]), counts=np.array([3]), embeddings=np.zeros((1, 2)), boxes=np.zeros((1, 4))
        )
    if damage == "not finite":
        with np.load(shard) as data:
            arrays = dict(data)
        arrays["embeddings"][0, 0] = np.nan
        np.savez(shard, **arrays)
    cache = case.cache()
    assert cache.dropped == [shard]
    assert not shard.exists()
    assert same(whole, case.embed(cache))
    assert case.cache().dropped == []


def test_any_flipped_byte_is_noticed_or_harmless(case: Case) -> None:
    whole = case.embed(case.cache(), stop=2)
    (shard,) = case.cache().folder.glob("*.npz")
    content = shard.read_bytes()
    rng = np.random.default_rng(0)
    for at in [
        *range(0, 200, 7),
        *rng.integers(0, len(content), 60).tolist(),
        *range(len(content) - 300, len(content), 7),
    ]:
        changed = bytearray(content)
        changed[at] ^= 1 << int(rng.integers(8))
        shard.write_bytes(bytes(changed))
        cache = case.cache()
        if not cache.dropped:
            kept = [s for s in case.sha256[:2] if s in cache]
            rows = pad_views([cache.get(s) for s in kept]) if kept else None
            assert rows is None or same(rows, whole.take(np.array([case.sha256.index(s) for s in kept])))


def test_two_writers(case: Case) -> None:
    first, second = case.cache(), case.cache()
    a, b = case.embed(first, stop=8), case.embed(second)
    assert same(a, b.take(np.arange(8)))
    third = case.cache()
    assert third.dropped == []
    assert all(s in third for s in case.sha256)


def test_shard_that_is_being_written_is_left_alone(case: Case) -> None:
    case.embed(case.cache(), stop=2)
    partial = case.cache().folder / ".abc.partial.npz"
    partial.write_bytes(b"half")
    assert case.cache().dropped == []
    assert partial.exists()


def test_keys(case: Case, tmp_path: Path) -> None:
    other = Counting(case.detector.engine)
    other.precision = "int8"
    changed = tmp_path / "backbone.onnx"
    changed.write_bytes(b"another network")
    pre = case.detector.preprocessing
    keys = {
        case.cache().key,
        case.cache(engine=other).key,
        case.cache(backbone=changed).key,
        case.cache(pre=pre.model_copy(update={"interpolation": "bilinear"})).key,
        case.cache(pre=pre.model_copy(update={"views": pre.views.model_copy(update={"overlap": 0.25})})).key,
    }
    assert len(keys) == 5
    assert case.cache().key == case.cache().key


def test_vanished_image_stops_with_its_name(case: Case) -> None:
    case.paths[3], case.sha256[3] = str(case.root / "gone.jpg"), "0" * 64
    with pytest.raises(ImageError, match=r"gone\.jpg"):
        case.embed(case.cache())


def test_views_of_different_number_are_padded() -> None:
    rows = [(np.ones((n, 3), np.float32), np.ones((n, 4), np.float32)) for n in (1, 4, 2)]
    views = pad_views(rows)
    assert views.embeddings.shape == (3, 4, 3)
    assert views.mask.sum(axis=1).tolist() == [1, 4, 2]
    assert (views.embeddings[~views.mask] == 0).all()
