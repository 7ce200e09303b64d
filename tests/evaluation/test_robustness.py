from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from workzone.decisions.types import Decisions
from workzone.errors import DataError
from workzone.evaluation.changes import CLEAN, Change, corruption_changes, streetvision_changes
from workzone.evaluation.figures import Draws
from workzone.evaluation.inputs import Evaluated
from workzone.evaluation.report.more import block, related
from workzone.evaluation.report.robustness import robustness_tables, write_robustness
from workzone.evaluation.robustness import Robustness, robustness, sample_images
from workzone.metrics.proportions import clopper_pearson
from workzone.vision.corruptions import LEVELS, Picture

Make = Callable[..., Evaluated]
DRAWS = Draws(100, "percentile", 0.95, False, 0)


def _decided(p: np.ndarray) -> Decisions:
    codes = (p >= 0.5).astype(np.int8)
    return Decisions(codes, p, np.stack([codes != 1, codes != 0], axis=1), [""] * len(p))


def _by_light(pictures: Iterator[Picture]) -> Decisions:
    """A detector that takes bright pictures for roadwork."""
    return _decided(np.array([np.clip(float(picture.mean()) / 255, 0.01, 0.99) for picture in pictures]))


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
        bright, _by_light, n=40, draws=DRAWS, seed=0,
        changes=(*corruption_changes(("low_light", "blur")), *streetvision_changes()),
        progress=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    assert steps[-1] == (19 * 40, 19 * 40)
    return out


def test_darkness_breaks_what_blur_does_not(found: Robustness) -> None:
    assert (found.n, found.n_positive) == (40, 20)
    assert found.rows[0].policy["fnr"].value == 0
    fnr = {row.level: row.policy["fnr"].value for row in found.rows if row.change == "low_light"}
    assert fnr[5] == 1
    corruptions = [b for b in found.breaks if b.kind == "corruption"]
    assert [b.change for b in corruptions] == ["low_light"]
    first = corruptions[0]
    assert first.level == min(level for level in LEVELS if fnr[level] > 0.5)
    assert first.measured.low > first.alpha
    assert found.broken_when_clean == ()
    assert f"level {first.level} of 5" in found.sentence()
    assert "low light" in found.sentence()


def test_a_limit_that_is_broken_on_clean_pictures_is_said(bright: Evaluated) -> None:
    def blind(pictures: Iterator[Picture]) -> Decisions:
        return _decided(np.full(sum(1 for _ in pictures), 0.1))

    out = robustness(bright, blind, n=40, draws=DRAWS, seed=0, changes=corruption_changes(("blur",)))
    assert out.broken_when_clean == ("false_negative_rate",)
    assert "without any change" in out.sentence()


def test_files_are_strict_and_hold_every_level(found: Robustness, tmp_path: Path) -> None:
    write_robustness(found, tmp_path)
    stored = json.loads((tmp_path / "robustness.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert len(stored["rows"]) == 19
    assert {b["change"] for b in stored["breaks"] if b["kind"] == "corruption"} == {"low_light"}
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
    e, blur = make(20), corruption_changes(("blur",))
    bare = replace(e, predictions=replace(e.predictions, columns={}))
    with pytest.raises(DataError, match="no path"):
        robustness(bare, _by_light, n=10, draws=DRAWS, seed=0)
    out = robustness(replace(bright, certificate=None), _by_light, n=10, draws=DRAWS, seed=0, changes=blur)
    assert out.certified == ()
    assert "No certified limit" in out.sentence()


def test_every_level_of_the_validator_is_measured_and_named(found: Robustness) -> None:
    levels = {name: [r.level for r in found.rows if r.change == name] for name in {r.change for r in found.rows}}
    assert levels[CLEAN] == [0]
    assert levels["streetvision 2.0.4"] == levels["streetvision letterbox"] == [0, 1, 2, 3]
    dark = next(r for r in found.rows if r.change == "streetvision letterbox" and r.level == 3)
    # Black bars and darkening make light grey pictures dark: this detector must miss them.
    assert dark.policy["fnr"].value > 0.5
    assert any(b.change == "streetvision letterbox" for b in found.breaks)
    assert "of the StreetVision validator" in found.sentence()


def test_risks_of_changed_pictures_carry_exact_intervals(found: Robustness) -> None:
    for row in found.rows:
        (promise,) = row.promises
        assert promise.measured.n == found.n_positive
        low, high = clopper_pearson(promise.events, found.n_positive, 0.95)
        assert (promise.measured.low, promise.measured.high) == pytest.approx((low, high))
        assert promise.measured.method.startswith("clopper-pearson")


def test_tables_mark_exactly_what_breaks_and_stand_on_the_report(found: Robustness, tmp_path: Path) -> None:
    (table,) = robustness_tables(found)
    assert "promised at most 10.0%" in table["title"]
    marked = {row["name"]: [c["broken"] for c in row["cells"]] for row in table["rows"]}
    for row in found.rows[1:]:
        expected = row.promises[0].measured.low > 0.1
        assert marked[row.change.replace("_", " ")][table["levels"].index(row.level)] == expected
    breaks = {row["name"]: row["breaks"] for row in table["rows"]}
    assert breaks["blur"] == "no"
    assert breaks["low light"] == f"at {next(b.level for b in found.breaks if b.change == 'low_light')}"
    write_robustness(found, tmp_path)
    html = block(related(tmp_path))
    assert html.count('class="broken"') == sum(map(sum, marked.values())) > 0
    assert "streetvision 2.0.4" in html


def test_a_promise_about_all_images_keeps_the_prevalence(bright: Evaluated) -> None:
    assert bright.certificate is not None
    (guarantee,) = bright.certificate.guarantees
    changed = guarantee.model_copy(update={"risk": "selective_error"})
    e = replace(bright, certificate=bright.certificate.model_copy(update={"guarantees": (changed,)}))
    out = robustness(e, _by_light, n=60, draws=DRAWS, seed=0, changes=corruption_changes(("low_light",), (5,)))
    assert out.certified == ("selective_error",)
    assert out.n_positive < 24  # of 60; the data hold 29 % roadwork
    dark = out.rows[-1].promises[0]
    assert (dark.events, dark.measured.n) == (out.n_positive, 60)


def test_a_group_gives_a_second_image_only_after_all_gave_one() -> None:
    labels = np.array([1, 0] * 30)
    groups = np.array([f"g{i // 10}" for i in range(60)])
    rows = sample_images(labels, 12, seed=1, groups=groups)
    for y in (0, 1):
        assert sorted(groups[rows][labels[rows] == y]) == [f"g{i}" for i in range(6)]


def test_a_pattern_depends_on_seed_and_level_alone() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    change: Change = streetvision_changes(("2.0.4",))[0]
    sent = [change.apply(picture, level, 5) for level in change.levels]
    assert all(p.shape == (224, 224, 3) for p in sent)
    assert all(np.array_equal(change.apply(picture, level, 5), p) for level, p in enumerate(sent))
    assert not np.array_equal(change.apply(picture, 1, 6), sent[1])
