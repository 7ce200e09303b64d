from __future__ import annotations

import io
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from workzone.errors import ImageError
from workzone.vision.batch import all_in_order, in_order, load_views, open_views
from workzone.vision.decode import decode
from workzone.vision.preprocess import Preprocessing
from workzone.vision.views import ViewSpec, make_views, needed_side

PRE = Preprocessing(image_size=32)


def jpeg(shade: int, width: int = 120, height: int = 90) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), (shade, shade, shade)).save(stream, "JPEG")
    return stream.getvalue()


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_order_and_errors(workers: int, tmp_path: Path) -> None:
    good = tmp_path / "good.jpg"
    good.write_bytes(jpeg(200, 900, 700))
    sources = [jpeg(10), b"text", jpeg(30, 2000, 1500), good, tmp_path / "none.jpg", Image.new("L", (50, 50), 77), b""]
    errors: list[tuple[int, str]] = []
    results = list(load_views(sources, PRE, workers=workers, on_error=lambda i, e: errors.append((i, e.reason))))
    assert [index for index, _, _ in results] == [0, 2, 3, 5]
    assert errors == [(1, "not_an_image"), (4, "missing"), (6, "empty")]
    assert [round(float(pixels.mean())) for _, pixels, _ in results] == [10, 30, 200, 77]
    assert all(pixels.shape == (10, 32, 32, 3) and where.shape == (10, 4) for _, pixels, where in results)


def test_memory_is_bounded_and_an_early_stop_is_clean() -> None:
    taken = 0

    def sources() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield jpeg(taken % 256)

    def fail(index: int, error: ImageError) -> None:
        raise error

    before = threading.active_count()
    stream = load_views(sources(), PRE, workers=2, on_error=fail)
    for expected in range(20):
        index, _, _ = next(stream)
        assert index == expected
        assert taken <= expected + 4
    stream.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_on_error_may_end_the_iteration() -> None:
    def fail(index: int, error: ImageError) -> None:
        raise error

    stream = load_views([jpeg(1), b"x", jpeg(2)], PRE, workers=2, on_error=fail)
    assert next(stream)[0] == 0
    with pytest.raises(ImageError):
        next(stream)


def test_workers_are_checked_at_once() -> None:
    with pytest.raises(ValueError, match="workers"):
        load_views([], PRE, workers=0, on_error=lambda index, error: None)
    with pytest.raises(ValueError, match="at least 1"):
        in_order([1], str, workers=0, on_error=None)


def test_errors_of_the_work_end_it() -> None:
    def work(x: int) -> int:
        return 1 // x

    with pytest.raises(ZeroDivisionError):
        list(in_order([1, 0, 1], work, workers=2, on_error=None))


def test_all_in_order_tells_of_each() -> None:
    told: list[tuple[int, int]] = []
    assert all_in_order([3, 1, 2], str, workers=0, progress=lambda *done: told.append(done)) == ["3", "1", "2"]
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_every_way_gives_the_same_bits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (75, 100, 3), dtype=np.uint8)).resize((1600, 1200))
    path = tmp_path / "street.jpg"
    image.save(path, quality=90)
    pre = Preprocessing(image_size=64, views=ViewSpec(layout="adaptive", flip=True, scales=(0.8, 1.0, 1.2)))
    pixels, where = open_views(path, pre)
    spelled = make_views(decode(path.read_bytes(), min_side=needed_side(pre)), pre)
    (_, threaded, boxes), *_ = load_views([path] * 4, pre, workers=3, on_error=lambda index, error: None)
    assert (pixels == spelled[0]).all()
    assert (pixels == threaded).all()
    assert (where == boxes).all()


def test_reduced_decoding_hardly_changes_the_views() -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).resize((1600, 1200))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=92)
    pre = Preprocessing(image_size=64)
    reduced = open_views(stream.getvalue(), pre)[0].astype(int)
    whole = make_views(decode(stream.getvalue()), pre)[0].astype(int)
    assert np.abs(reduced - whole).mean() < 2


def test_import_stays_light() -> None:
    code = (
        "import workzone.vision, sys; print([m for m in ('torch','scipy','polars','matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
