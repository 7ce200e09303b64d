from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageFilter

from workzone.data.manifest import Manifest
from workzone.data.quality.duplicates import find_clusters
from workzone.data.quality.inspect import inspect
from workzone.data.quality.labels import confident_joint, find_label_doubts, out_of_fold
from workzone.data.quality.measures import Measures, measure, measure_files
from workzone.data.quality.orange import components, orange_parts
from workzone.data.quality.outliers import rank_outliers
from workzone.data.sources.build import build_manifest
from workzone.errors import DataError


def texture(seed: int, size: tuple[int, int] = (240, 160)) -> Image.Image:
    """A picture with structure at several scales, another for each seed."""
    rng = np.random.default_rng(seed)
    total = np.zeros((size[1], size[0], 3))
    for cells, strength in ((4, 70), (12, 40), (60, 25)):
        small = rng.integers(-strength, strength + 1, (cells, cells, 3)).astype(np.float32)
        layers = [Image.fromarray(small[..., c]).resize(size, Image.Resampling.BICUBIC) for c in range(3)]
        total += np.stack([np.asarray(layer) for layer in layers], axis=-1)
    return Image.fromarray(np.clip(total + 120, 0, 255).astype(np.uint8))


def test_faults_are_named_and_a_good_picture_has_none() -> None:
    good = texture(0)
    assert measure(good).faults() == {}
    assert set(measure(good.filter(ImageFilter.GaussianBlur(12))).faults()) == {"blurred"}
    assert "dark" in measure(good.point(lambda v: v // 20)).faults()
    assert set(measure(Image.new("RGB", (200, 100), (90, 120, 130))).faults()) == {"blank"}


def test_sharpness_does_not_depend_on_the_size_of_the_file_or_on_contrast() -> None:
    rng = np.random.default_rng(1)
    coarse = Image.fromarray(rng.integers(60, 200, (120, 160, 3), dtype=np.uint8))
    large = coarse.resize((640, 480), Image.Resampling.BICUBIC)
    figures = [measure(p).sharpness for p in (large, large.resize((320, 240), Image.Resampling.BOX))]
    assert figures[1] == pytest.approx(figures[0], rel=0.15)
    assert figures[0] > 0.1
    pale = large.point(lambda v: 100 + v // 4)
    assert measure(pale).sharpness == pytest.approx(figures[0], rel=0.25)


def test_components_join_corners_and_tell_parts_apart() -> None:
    mask = np.zeros((6, 8), dtype=bool)
    mask[0, 0] = mask[1, 1] = mask[2, 0] = True  # a corner chain
    mask[4:6, 4:8] = True
    mask[0, 6:8] = True
    assert sorted(components(mask)) == [(2, 6, 0, 8, 1), (3, 0, 0, 2, 3), (8, 4, 4, 8, 6)]
    # A U joins only in its last row.
    u = np.array([[1, 0, 1], [1, 0, 1], [1, 1, 1]], dtype=bool)
    assert components(u) == [(7, 0, 0, 3, 3)]
    assert components(np.zeros((3, 3), dtype=bool)) == []


def test_orange_is_found_by_colour_and_not_in_red_or_brown_or_grey() -> None:
    scene = Image.new("RGB", (192, 96), (110, 110, 115))
    assert orange_parts(scene).share == 0.0
    for other in ((200, 20, 30), (110, 75, 45), (230, 220, 40)):
        painted = scene.copy()
        painted.paste(other, (20, 20, 40, 40))
        assert orange_parts(painted).share == 0.0
    scene.paste((255, 110, 0), (100, 40, 120, 60))
    scene.paste((255, 110, 0), (10, 10, 14, 14))
    found = orange_parts(scene)
    assert found.parts == 2
    assert found.largest == pytest.approx(400 / (192 * 96))
    assert found.fill == pytest.approx(1.0)


@pytest.fixture
def pictures(tmp_path: Path) -> Manifest:
    """Eight pictures, two copies that were saved again, one exact copy with another label."""
    folder = tmp_path / "images"
    rows = []
    for i in range(8):
        path = folder / ("roadwork" if i % 2 else "no_roadwork") / f"p{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        texture(10 + i).save(path)
        rows.append(path)
    texture(10).save(folder / "no_roadwork" / "again.jpg", quality=50)
    texture(11).resize((150, 100)).save(folder / "roadwork" / "small.png")
    (folder / "no_roadwork" / "twin.png").write_bytes(rows[1].read_bytes())
    return build_manifest(folder)


def test_copies_are_clustered_the_largest_first_and_conflicts_are_seen(pictures: Manifest) -> None:
    ids = pictures.frame["id"].to_list()
    squares = np.stack([m.square for m in measure_files(pictures.paths)])
    found = {(c.kind, frozenset(ids[i] for i in c.members)): c for c in find_clusters(pictures, squares=squares)}
    assert set(found) == {
        ("exact_copy", frozenset({"p1", "twin"})),
        ("near_duplicate", frozenset({"p1", "twin", "small"})),
        ("near_duplicate", frozenset({"p0", "again"})),
    }
    assert found["exact_copy", frozenset({"p1", "twin"})].conflict
    assert not found["near_duplicate", frozenset({"p0", "again"})].conflict
    assert ids[found["near_duplicate", frozenset({"p1", "twin", "small"})].members[-1]] == "small"


def test_similar_pictures_are_those_of_other_groups_that_hashes_do_not_find(pictures: Manifest) -> None:
    n = len(pictures)
    embeddings = np.eye(n)
    at = {name: i for i, name in enumerate(pictures.frame["id"].to_list())}
    embeddings[at["p4"]] = embeddings[at["p5"]] + 0.05 * embeddings[at["p4"]]
    found = [c for c in find_clusters(pictures, embeddings=embeddings) if c.kind == "similar"]
    assert [set(c.members) for c in found] == [{at["p4"], at["p5"]}]
    grouped = pictures.frame.with_columns(pl.lit("one").alias("group"))
    alone = find_clusters(Manifest(grouped, pictures.root), embeddings=embeddings)
    assert not [c for c in alone if c.kind == "similar"]


def test_flat_pictures_are_no_copies_of_each_other(tmp_path: Path) -> None:
    for i, shade in enumerate((40, 90, 200)):
        path = tmp_path / "d" / ("roadwork" if i else "no_roadwork") / f"f{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (80, 60), (shade, shade, shade)).save(path)
    manifest = build_manifest(tmp_path / "d")
    squares = np.stack([m.square for m in measure_files(manifest.paths)])
    assert find_clusters(manifest, squares=squares) == []


def noisy(n: int = 400, flipped: float = 0.06, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    true = (rng.random(n) < 0.35).astype(np.int64)
    x = rng.normal(size=(n, 20)) + 1.1 * (2 * true[:, None] - 1) * (np.arange(20) < 6)
    wrong = rng.choice(n, round(flipped * n), replace=False)
    given = true.copy()
    given[wrong] = 1 - given[wrong]
    return x, given, wrong, [f"g{i // 3}" for i in range(n)]


def test_flipped_labels_are_found_and_few_others() -> None:
    x, given, wrong, groups = noisy()
    p = out_of_fold(x, given, groups)
    doubts = find_label_doubts(given, p)
    hits = len(set(doubts.rows.tolist()) & set(wrong.tolist()))
    assert hits >= 0.8 * len(wrong)
    assert hits >= 0.7 * len(doubts.rows)
    assert doubts.joint.sum() == pytest.approx(1.0)
    assert doubts.joint[0, 1] + doubts.joint[1, 0] == pytest.approx(0.06, abs=0.03)
    assert (np.diff(doubts.margin) <= 1e-12).all()
    assert (doubts.margin > 0).all()


def test_out_of_fold_probabilities_do_not_know_the_group() -> None:
    # Labels are random, but all images of a group are one point: whoever saw its group would know the label.
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(60), 5)
    labels = rng.integers(0, 2, 60)[groups]
    x = rng.normal(size=(60, 80))[groups] * 3
    names = [str(g) for g in groups]
    honest = out_of_fold(x, labels, names, repeats=1, strength=1.0)
    leaky = out_of_fold(x, labels, [str(i) for i in range(300)], repeats=1, strength=1.0)
    agree = [((p > 0.5) == (labels == 1)).mean() for p in (honest, leaky)]
    assert agree[1] > 0.95
    assert agree[0] < 0.75


def test_confident_joint_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    p = np.array([0.1, 0.2, 0.9, 0.8, 0.9, 0.1])
    # Thresholds: class 0 mean(0.9, 0.8, 0.1) = 0.6; class 1 mean(0.8, 0.9, 0.1) = 0.6.
    assert confident_joint(labels, p).tolist() == [[2, 1], [1, 2]]
    doubts = find_label_doubts(labels, p)
    assert set(doubts.rows.tolist()) == {2, 5}
    assert doubts.thresholds == pytest.approx([0.6, 0.6])


@pytest.mark.parity
def test_label_doubts_are_those_of_cleanlab() -> None:
    cleanlab = pytest.importorskip("cleanlab", reason="cleanlab is not installed")
    for seed in range(5):
        x, given, _, groups = noisy(seed=seed)
        p = out_of_fold(x, given, groups, repeats=1)
        both = np.stack([1 - p, p], axis=1)
        theirs = cleanlab.filter.find_label_issues(given, both, filter_by="prune_by_noise_rate")
        ours = np.zeros(len(given), dtype=bool)
        ours[find_label_doubts(given, p).rows] = True
        assert (ours == theirs).mean() > 0.99


def test_label_search_refuses_a_class_of_one_group() -> None:
    with pytest.raises(DataError, match="fewer than two groups"):
        out_of_fold(np.zeros((6, 2)), np.array([0, 0, 0, 0, 1, 1]), ["a", "b", "c", "d", "e", "e"])


def test_the_oddest_rows_come_first() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 10)) @ rng.normal(size=(10, 64)) + 0.05 * rng.normal(size=(300, 64))
    x[[7, 150]] *= 5
    order, score = rank_outliers(x, dimensions=10)
    assert set(order[:2].tolist()) == {7, 150}
    assert sorted(order.tolist()) == list(range(300))
    assert (np.diff(score[order]) <= 0).all()


def test_inspection_lists_everything_once_and_obeys_what_was_kept(pictures: Manifest, tmp_path: Path) -> None:
    measured = measure_files(pictures.paths)
    found = inspect(pictures, measured, embeddings=np.random.default_rng(0).normal(size=(len(pictures), 12)))
    said = {(f.kind, f.id) for f in found.findings}
    assert {("near_duplicate", "again"), ("label_conflict", "p1"), ("label_conflict", "twin")} <= said
    assert next(f for f in found.findings if f.id == "again").suggested == "drop"
    assert next(f for f in found.findings if f.kind == "exact_copy").suggested == "keep"  # its label is in conflict
    again = inspect(pictures, measured, reviewed={"again"})
    assert "again" not in {f.id for f in again.findings}
    assert again.skipped
    found.write_csv(tmp_path / "q.csv")
    table = pl.read_csv(tmp_path / "q.csv")
    assert table["id"].to_list() == pictures.frame["id"].to_list()
    assert "near_duplicate" in table.filter(pl.col("id") == "again")["findings"][0]


def many(n: int, flipped: list[int]) -> tuple[Manifest, list[Measures], np.ndarray]:
    """n usable pictures of two classes that a line tells apart, but for the ``flipped`` labels."""
    rng = np.random.default_rng(1)
    truth = np.arange(n) % 2
    given = truth.copy()
    given[flipped] = 1 - given[flipped]
    frame = pl.DataFrame({"id": [f"i{i}" for i in range(n)], "path": [f"{i}.jpg" for i in range(n)]}).with_columns(
        pl.Series("label", given.tolist(), dtype=pl.Int8),
        pl.Series("sha256", [f"{i:064x}" for i in range(n)]),
        pl.Series("phash", [f"{int(v):016x}" for v in rng.integers(0, 2**63, n)]),
    )
    one = measure(texture(3))
    # Pictures near the line are doubted with less; many like features, as the regression is a stiff one.
    side = (2.0 * truth - 1) * rng.uniform(0.1, 3.0, n)
    features = side[:, None] * np.ones(300) + 0.3 * rng.normal(size=(n, 300))
    return Manifest.from_frame(frame, root="/"), [one] * n, features


def test_only_sure_doubts_go_to_the_review_and_outliers_are_bounded() -> None:
    flipped = list(range(0, 200, 10))
    manifest, measured, features = many(200, flipped)
    found = inspect(manifest, measured, embeddings=features)
    doubts = [f for f in found.findings if f.kind == "label_doubt"]
    assert found.doubts is not None
    by_row = dict(zip(found.doubts.rows.tolist(), found.doubts.probability.tolist(), strict=True))
    sure = {f"i{row}" for row, p in by_row.items() if p >= 0.9}
    assert 0 < len(sure) < len(doubts)
    queue = {r["id"] for r in found.review_rows() if r["finding"] == "label_doubt"}
    assert queue == sure
    all_of_them = inspect(manifest, measured, embeddings=features, confidence=0.5).review_rows()
    assert {r["id"] for r in all_of_them if r["finding"] == "label_doubt"} == {f.id for f in doubts}
    assert found.counts()["outlier"] == 10, "5 % of 200"
    assert inspect(manifest, measured, embeddings=features, contamination=0.2).counts()["outlier"] == 40
    assert inspect(manifest, measured, embeddings=features, contamination=0.2, outliers=7).counts()["outlier"] == 7
    assert inspect(manifest, measured, embeddings=features, contamination=0.0).counts()["outlier"] == 0
