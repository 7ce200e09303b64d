from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from workzone.errors import DataError
from workzone.evaluation.figures import Draws
from workzone.evaluation.inputs import Evaluated
from workzone.evaluation.robustness import Robustness, robustness, sample_images, write_robustness
from workzone.predictions import FloatArray
from workzone.vision.corruptions import LEVELS, Picture

Make = Callable[..., Evaluated]
DRAWS = Draws(100, "percentile", 0.95, False, 0)


def _by_light(pictures: Iterator[Picture]) -> tuple[FloatArray, NDArray[np.int8]]:
    """A detector that takes bright pictures for roadwork."""
    p = np.array([np.clip(float(picture.mean()) / 255, 0.01, 0.99) for picture in pictures])
    return p, (p >= 0.5).astype(np.int8)


@pytest.fixture(scope="module")
def bright(make: Make, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """Roadwork is light grey, the rest dark grey."""
    folder = tmp_path_factory.mktemp("light")
    e = make(120, status="certified")
    (folder / "images").mkdir()
    for i, y in enumerate(e.labels.tolist()):
        Image.new("RGB", (48, 32), (190,) * 3 if y else (60,) * 3).save(folder / "images" / f"{i}.png")
    columns = {**e.predictions.columns, "path": np.array([f"images/{i}.png" for i in range(120)])}
    return replace(e, predictions=replace(e.predictions, columns=columns), root=folder)


@pytest.fixture(scope="module")
def found(bright: Evaluated) -> Robustness:
    steps: list[tuple[int, int]] = []
    out = robustness(
        bright, _by_light, n=40, draws=DRAWS, seed=0, corruptions=("low_light", "blur"),
        progress=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    assert steps[-1] == (11 * 40, 11 * 40)
    return out


def test_darkness_breaks_what_blur_does_not(found: Robustness) -> None:
    assert (found.n, found.n_positive) == (40, 20)
    assert found.rows[0].policy["fnr"].value == 0
    fnr = {row.level: row.policy["fnr"].value for row in found.rows if row.corruption == "low_light"}
    assert fnr[5] == 1
    assert [b.corruption for b in found.breaks] == ["low_light"]
    first = found.breaks[0]
    assert first.level == min(level for level in LEVELS if fnr[level] > 0.5)
    assert first.measured.low > first.alpha
    assert found.broken_when_clean == ()
    assert f"level {first.level} of 5" in found.sentence()
    assert "low light" in found.sentence()


def test_a_limit_that_is_broken_on_clean_pictures_is_said(bright: Evaluated) -> None:
    def blind(pictures: Iterator[Picture]) -> tuple[FloatArray, NDArray[np.int8]]:
        n = sum(1 for _ in pictures)
        return np.full(n, 0.1), np.zeros(n, dtype=np.int8)

    out = robustness(bright, blind, n=40, draws=DRAWS, seed=0, corruptions=("blur",))
    assert out.broken_when_clean == ("false_negative_rate",)
    assert "without any corruption" in out.sentence()


def test_files_are_strict_and_hold_every_level(found: Robustness, tmp_path: Path) -> None:
    write_robustness(found, tmp_path)
    stored = json.loads((tmp_path / "robustness.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert len(stored["rows"]) == 11
    assert stored["breaks"][0]["corruption"] == "low_light"
    with Image.open(tmp_path / "robustness.png") as image:
        assert min(image.size) > 200


def test_sample_is_half_roadwork_where_it_can_be() -> None:
    labels = np.array([1] * 10 + [0] * 90)
    assert labels[sample_images(labels, 40, seed=0)].sum() == 10
    assert len(sample_images(labels, 40, seed=0)) == 40
    assert labels[sample_images(labels, 10, seed=0)].sum() == 5
    assert len(sample_images(labels, 500, seed=0)) == 100
    assert len(sample_images(1 - labels, 40, seed=0)) == 40


def test_pictures_and_promises_that_are_missing_are_said(make: Make, bright: Evaluated) -> None:
    e = make(20)
    bare = replace(e, predictions=replace(e.predictions, columns={}))
    with pytest.raises(DataError, match="no path"):
        robustness(bare, _by_light, n=10, draws=DRAWS, seed=0)
    out = robustness(replace(bright, certificate=None), _by_light, n=10, draws=DRAWS, seed=0, corruptions=("blur",))
    assert out.certified == ()
    assert "No certified limit" in out.sentence()
