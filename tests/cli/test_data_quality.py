"""The loop quality, mine, review, fuse, train through the command line, at the smallest size."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from helpers.command import workzone
from helpers.orange import orange_bundle
from helpers.tiny import tiny_words
from workzone.data.manifest import Manifest


def scene(path: Path, rng: np.random.Generator, *, orange: bool) -> None:
    """Grey blocks of a random layout, and an orange square of a random place."""
    blocks = Image.fromarray(rng.integers(30, 220, (6, 9), dtype=np.uint8)).resize((160, 96), Image.Resampling.NEAREST)
    noise = np.asarray(blocks, dtype=np.int64) + rng.integers(-12, 13, (96, 160))
    image = Image.fromarray(np.repeat(np.clip(noise, 0, 255).astype(np.uint8)[..., None], 3, axis=2))
    if orange:
        x, y = int(rng.integers(10, 110)), int(rng.integers(10, 50))
        image.paste((255, 120, 0), (x, y, x + 34, y + 34))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def table(folder: Path, rng: np.random.Generator, n: int, *, source: str) -> Path:
    """A table of n images, every third orange; orange is roadwork but for two marked ones that are orange and not."""
    rows = []
    for i in range(n):
        orange = i % 3 == 0
        scene(folder / f"{source}{i}.png", rng, orange=orange)
        label = int(orange and i not in (0, 3))
        rows.append({"id": f"{source}{i}", "path": f"{source}{i}.png", "label": label, "source": source})
    pl.DataFrame(rows).write_csv(folder / "metadata.csv")
    return folder / "metadata.csv"


def edit(path: Path, action: str, **wanted: str) -> int:
    """Fill in ``action`` where the columns have the wanted values; the number of rows."""
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    hit = [r for r in rows if all(r[k] == v for k, v in wanted.items())]
    for row in hit:
        row["action"] = action
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return len(hit)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets, an unlabelled folder, and a bundle that answers by orange."""
    folder = tmp_path_factory.mktemp("loop")
    rng = np.random.default_rng(0)
    table(folder / "a", rng, 36, source="a")
    table(folder / "b", rng, 36, source="b")
    for i in range(12):
        scene(folder / "pool" / f"u{i}.png", rng, orange=i < 4)
    orange_bundle(folder / "bundle")
    return folder


def run(place: Path, *words: str | Path, code: int = 0) -> str:
    done = workzone(*words, cwd=place, env={"WORKZONE_CACHE": str(place / "cache")})
    assert done.returncode == code, done.stderr + done.stdout
    return done.stdout + done.stderr


@pytest.mark.e2e
def test_quality_writes_table_page_and_review_and_obeys_it(place: Path) -> None:
    folder = place / "dirty"
    folder.mkdir()
    frame = pl.read_csv(place / "a" / "metadata.csv")
    for name in frame["path"]:
        (folder / name).write_bytes((place / "a" / name).read_bytes())
    Image.open(folder / "a5.png").resize((120, 72)).save(folder / "a5_small.jpg", quality=70)
    (folder / "broken.png").write_bytes(b"no picture")
    more = pl.DataFrame(
        {"id": ["again", "broken"], "path": ["a5_small.jpg", "broken.png"], "label": [0, 0], "source": ["a", "a"]}
    )
    pl.concat([frame, more]).write_csv(folder / "metadata.csv")
    said = run(place, "data", "quality", "dirty", "--bundle", "bundle", "--out", "q", code=1)
    assert "near duplicate: 1" in said
    assert "unreadable: 1" in said
    assert "orange alone predicts the label" in said
    page = (place / "q" / "quality.html").read_text()
    assert page.count("data:image/jpeg;base64,") >= 3
    assert "http" not in page.replace("Content-Security-Policy", "").replace("http-equiv", "")
    summary = json.loads((place / "q" / "quality.json").read_text())
    orange = next(s for s in summary["shortcuts"] if s["known"] == "orange")
    assert orange["auroc"] > 0.85
    assert orange["low"] < orange["auroc"] < orange["high"]
    assert edit(place / "q" / "review.csv", "drop", id="again", finding="near_duplicate") == 1
    said = run(place, "data", "apply-review", "dirty", "q/review.csv", "--out", "clean.parquet")
    assert "1 dropped" in said
    assert "again" not in Manifest.load(place / "clean.parquet").frame["id"].to_list()
    assert (folder / "a5_small.jpg").exists()
    said = run(
        place, "data", "quality", "dirty", "--bundle", "bundle", "--out", "q", "--review", "q/review.csv", code=1
    )
    assert "near duplicate" not in said
    # Decisions are never written over.
    assert (place / "q" / "review-new.csv").exists()
    assert "drop" in (place / "q" / "review.csv").read_text()


@pytest.mark.e2e
def test_mine_review_fuse_train(place: Path) -> None:
    said = run(place, "data", "mine", "a", "--bundle", "bundle", "--out", "queue.csv", "--confidence", "0.8")
    assert "2 false alarm" in said
    queue = pl.read_csv(place / "queue.csv")
    assert set(queue.filter(pl.col("finding") == "false_alarm")["id"]) == {"a0", "a3"}
    assert edit(place / "queue.csv", "keep", finding="false_alarm") == 2
    said = run(place, "data", "mine", "a", "--bundle", "bundle", "--out", "queue.csv", code=2)
    assert "holds decisions" in said
    run(place, "data", "apply-review", "a", "queue.csv", "--out", "a2.parquet")
    said = run(place, "data", "mine", "pool", "--bundle", "bundle", "--out", "pool.csv", "--pseudo", "0.8")
    pseudo = Manifest.load(place / "pool-pseudo.parquet").frame
    assert set(pseudo.filter(pl.col("label") == 1)["id"]) <= {"u0", "u1", "u2", "u3"}
    assert pseudo["pseudo_confidence"].min() >= 0.8
    said = run(
        place, "data", "fuse", "a=a2.parquet", "b", "pool=pool-pseudo.parquet", "--strategy", "hard_negative", "-o",
        "all.parquet",
    )  # fmt: skip
    frame = Manifest.load(place / "all.parquet").frame
    assert set(frame.filter(pl.col("loss_weight") == 2.0)["origin_id"]) == {"a0", "a3"}
    assert set(frame["origin"].unique()) == {"a", "b", "pool"}
    out = place / "run"
    words = tiny_words(out, place / "cache", "data=all.parquet", "fuse.mixture=adaptive", "fuse.mixture_every=1")
    words = [w for w in words if not w.startswith("source.")]
    run(place, "run", *words, "fuse.dann=0.1", "--to", "fuse")
    metrics = json.loads((out / "fuse" / "metrics.json").read_text())
    assert np.isfinite(metrics["val_select"]["nll"])


@pytest.mark.e2e
def test_a_run_obeys_a_review(place: Path) -> None:
    review = place / "r.csv"
    review.write_text("id,action,new_label\na1,relabel,roadwork\na2,drop,\n")
    words = [w for w in tiny_words(place / "reviewed", place / "cache", "data=a") if not w.startswith("source.")]
    run(place, "run", *words, f"source.review={review}", "--to", "prepare")
    frame = Manifest.load(place / "reviewed" / "prepare" / "manifest.parquet").frame
    assert dict(frame.select("id", "label").rows())["a1"] == 1
    assert "a2" not in frame["id"].to_list()
    assert "a2" in (place / "reviewed" / "prepare" / "rejected.csv").read_text()


@pytest.mark.e2e
@pytest.mark.slow
def test_cross_trains_on_each_and_leaves_each_out(place: Path) -> None:
    run(place, "data", "fuse", "a", "b", "-o", "both.parquet")
    words = [w for w in tiny_words(place / "x", place / "cache") if w.partition("=")[0] not in ("data", "out")]
    words = [w for w in words if not w.startswith(("source.", "split."))]
    said = run(place, "data", "cross", "both.parquet", *words, "--fewest", "4", "--resamples", "100", "--out", "cross")
    result = json.loads((place / "cross" / "cross.json").read_text())
    pairs = {(r["trained"], r["tested"]) for r in result["rows"]}
    assert {("a", "b"), ("b", "a"), ("all others", "a"), ("all others", "b")} <= pairs
    assert result["not_tested"] == {}
    assert (place / "cross" / "cross.png").stat().st_size > 1000
    assert "all others" in said
