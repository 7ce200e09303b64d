from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from workzone.bundle import Detector
from workzone.bundle.embedding import EmbeddingCache, embed_images
from workzone.config.views import ViewSpec
from workzone.errors import BundleError, ImageError
from workzone.files import sha256_file
from workzone.vision import decode, needed_side


def test_predict_equals_the_batch_path(detector: Detector, images: list[Path], tmp_path: Path) -> None:
    """What calibration and certificate rest on is what the user gets."""
    cache = EmbeddingCache(
        tmp_path, detector.engine, detector.folder / "engine" / "backbone.onnx", detector.preprocessing
    )
    shas = [sha256_file(p) for p in images]
    views = embed_images(
        [str(p) for p in images],
        shas,
        detector.engine,
        detector.preprocessing,
        cache=cache,
        workers=2,
        max_pixels=10**8,
    )
    scores = detector.score(views)
    batch = detector.decide(scores)
    for i, d in detector.predict(images):
        assert abs(d.log_odds - scores.log_odds[i]) < 1e-5
        assert abs(d.probability - batch.probability[i]) < 1e-5
        assert d.reason == batch.reasons[i]
        assert len(d.views) == 5
        assert sum(v.weight for v in d.views) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_order_and_independence_of_company(detector: Detector, images: list[Path], workers: int) -> None:
    alone = [detector(p) for p in images]
    many = list(detector.predict(images * 3, workers=workers))
    assert [i for i, _ in many] == list(range(36))
    assert [d.log_odds for _, d in many] == [d.log_odds for d in alone] * 3
    assert [d for _, d in many] == alone * 3


def test_kinds_of_source_agree(detector: Detector, images: list[Path]) -> None:
    path = images[0]
    expected = detector(path)
    assert detector(str(path)) == detector(path.read_bytes()) == expected
    # A JPEG file is decoded at the scale its views need; a picture in memory comes at its own.
    picture = decode(path, min_side=needed_side(detector.preprocessing))
    assert detector(picture) == expected
    with Image.open(path) as opened:
        assert abs(detector(opened).log_odds - expected.log_odds) < 0.05


def test_bad_images_are_reported_in_their_place(detector: Detector, images: list[Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff nonsense")
    sources: list[Path | bytes] = [bad, images[0], b"", images[1], tmp_path / "none.jpg", images[2], b"text"]
    events: list[tuple[int, str]] = []
    for i, _ in detector.predict(sources, on_error=lambda i, e: events.append((i, e.reason))):
        events.append((i, "ok"))
    assert [i for i, _ in events] == list(range(7))
    assert [i for i, what in events if what == "ok"] == [1, 3, 5]
    assert dict(events)[4] == "missing"
    with pytest.raises(ImageError):
        list(detector.predict(sources))
    with pytest.raises(ImageError):
        detector(bad)
    assert list(detector.predict([])) == []


def test_too_large_image(detector: Detector, images: list[Path]) -> None:
    with pytest.raises(ImageError) as caught:
        detector(images[0], max_pixels=1000)
    assert caught.value.reason == "too_large"


@pytest.mark.parametrize("layout", ["global", "adaptive"])
def test_other_layouts(detector: Detector, layout: Any) -> None:
    """Pictures of different shapes get different numbers of views; each is decided as if it were alone."""
    pre = detector.preprocessing.model_copy(update={"views": ViewSpec(layout=layout, min_tiles=1, max_tiles=9)})
    other = replace(detector, preprocessing=pre)
    rng = np.random.default_rng(0)
    sizes = [(64, 64), (600, 80), (90, 500), (300, 300), (640, 360)]
    pictures = [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]
    found = [d for _, d in other.predict(pictures)]
    assert found == [other(p) for p in pictures]
    assert ({len(d.views) for d in found} == {1}) == (layout == "global")


def test_generator_is_read_only_as_far_as_needed(detector: Detector, images: list[Path]) -> None:
    taken, before = 0, set(threading.enumerate())

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield images[taken % len(images)]

    answers = detector.predict(endless(), workers=2)
    for _ in range(30):
        next(answers)
        assert taken <= 30 + 4
    answers.close()
    gc.collect()
    assert not [t for t in set(threading.enumerate()) - before if t.name.startswith("workzone")]


def test_memory_stays_bounded(detector: Detector, images: list[Path]) -> None:
    import tracemalloc

    content = images[0].read_bytes()
    tracemalloc.start()
    try:
        peaks = []
        for count in (20, 200):
            tracemalloc.reset_peak()
            for _ in detector.predict((content for _ in range(count)), workers=2):
                pass
            peaks.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2_000_000


def test_score_that_is_no_number_is_an_error(
    detector: Detector, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = type(detector.engine)
    embed = engine.embed
    monkeypatch.setattr(engine, "embed", lambda self, pixels: embed(self, pixels) * np.nan)
    with pytest.raises(BundleError, match="not a number"):
        detector(images[0])
    with pytest.raises(BundleError, match="not a number"):
        list(detector.predict(images, on_error=lambda i, e: None))


def test_loading_twice_gives_the_same_answers(tiny_bundle: Path, detector: Detector, images: list[Path]) -> None:
    one = Detector.load(str(tiny_bundle), threads=1)
    assert one.engine.threads == 1
    assert [d for _, d in one.predict(images)] == [d for _, d in detector.predict(images)]
