"""``workzone data split``: what keeps images together, from the command line and in a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from workzone.bundle.embedding import ViewEmbeddings
from workzone.config import RunConfig
from workzone.config.load import load_config
from workzone.data.manifest import Manifest
from workzone.data.splits import Splits, make_splits
from workzone.errors import DataError
from workzone.pipeline.artifacts import Artifacts
from workzone.pipeline.engine import run_pipeline
from workzone.pipeline.phases import prepare

Call = Callable[..., Any]
N = 80


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """80 images, each a group; every four in a row show one place, one sequence, and look alike."""
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "id": [f"i{n:02d}" for n in range(N)],
            "path": [f"{n}.jpg" for n in range(N)],
            "label": pl.Series([(n // 4) % 2 for n in range(N)], dtype=pl.Int8()),
            "source": ["s"] * N,
            "phash": [f"{int(v):016x}" for v in rng.integers(0, 2**63, N)],
            "latitude": [52.0 + 0.1 * (n // 4) for n in range(N)],
            "longitude": [13.0] * N,
            "sequence": [f"q{n // 4}" for n in range(N)],
        }
    )
    centres = rng.normal(size=(N // 4, 16))
    near = centres[np.arange(N) // 4] + 0.01 * rng.normal(size=(N, 16))
    np.savez(tmp_path / "embeddings.npz", ids=np.array(frame["id"].to_list()), embeddings=near.astype(np.float32))
    return Manifest.from_frame(frame, root=tmp_path).save(tmp_path / "manifest.parquet")


def torn(splits: Splits) -> int:
    """Places whose images lie in more than one role."""
    roles: dict[int, set[str]] = {}
    for image, role in splits.assignment.items():
        roles.setdefault(int(image[1:]) // 4, set()).add(role)
    return sum(len(found) > 1 for found in roles.values())


@pytest.mark.parametrize(
    "options",
    [("--metres", "500"), ("--column", "sequence"), ("--similarity", "0.95", "--embeddings", "embeddings.npz")],
    ids=["metres", "column", "similarity"],
)
def test_images_of_one_place_stay_together(call: Call, table: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    words = [tmp_path / w if w.endswith(".npz") else w for w in options]
    plain = call("data", "split", table, "--out", tmp_path / "plain.json")
    assert plain.code == 0, plain.err
    assert torn(Splits.load(tmp_path / "plain.json")) > 5
    done = call("data", "split", table, "--out", tmp_path / "s.json", *words)
    assert done.code == 0, done.err
    assert torn(Splits.load(tmp_path / "s.json")) == 0
    assert "20 units of 80 images, the largest of 4; by group and hash alone there are 80" in done.err
    counts = [line.split() for line in done.out.splitlines() if "images," in line]
    assert sum(int(words[1]) for words in counts) == N
    assert sum(int(words[3]) for words in counts) == N // 2


def test_a_column_that_is_not_there(call: Call, table: Path, tmp_path: Path) -> None:
    done = call("data", "split", table, "--column", "drive", "--out", tmp_path / "s.json")
    assert done.code == 2 or done.code == 1
    assert "no column 'drive'" in done.err
    assert not (tmp_path / "s.json").exists()
    with pytest.raises(DataError, match="sequence"):
        make_splits(Manifest.load(table), columns=["drive"])


def prepared(root: Path, words: list[str]) -> Splits:
    config = load_config([f"data={root / 'table.csv'}", f"out={root / 'run'}", *words])
    run_pipeline(config, (prepare.SPEC,))
    return Splits.load(Artifacts(config.out).splits)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """The same 80 images as files of noise; the four of a place differ by less than a network minds."""
    rows = []
    for n in range(N):
        place = np.random.default_rng(n // 4).integers(0, 256, (6, 8, 3))
        image = Image.fromarray(place.astype(np.uint8)).resize((96, 72), Image.Resampling.BICUBIC)
        image = image.crop((4 * (n % 4), 3 * (n % 4), 96, 72))  # the hash moves, the picture is the same
        image.save(tmp_path / f"i{n:02d}.png")
        rows.append({"path": f"i{n:02d}.png", "label": (n // 4) % 2, "lat": 52 + 0.1 * (n // 4), "lon": 13.0})
    pl.DataFrame(rows).with_columns(pl.Series("drive_number", [f"d{n // 4}" for n in range(N)])).write_csv(
        tmp_path / "table.csv"
    )
    return tmp_path


def test_a_run_keeps_places_and_columns_together(pictures: Path) -> None:
    assert torn(prepared(pictures, [])) > 0
    assert torn(prepared(pictures, ["split.metres=500"])) == 0
    assert torn(prepared(pictures, ["split.columns=[drive_number]"])) == 0


def test_a_run_keeps_what_looks_alike_together(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def embed(manifest: Manifest, config: RunConfig, **rest: object) -> ViewEmbeddings:
        asked.append(config.model.backbone)
        place = np.eye(N // 4, dtype=np.float32)[[int(i[1:]) // 4 for i in manifest.frame["id"].to_list()]]
        return ViewEmbeddings(place[:, None], np.zeros((N, 1, 4), np.float32), np.ones((N, 1), bool))

    monkeypatch.setattr("workzone.pipeline.embedding.embed_manifest", embed)
    words = ["split.near_duplicates=false"]
    assert torn(prepared(pictures, words)) > 5
    assert not asked
    assert torn(prepared(pictures, [*words, "split.similarity=0.9"])) == 0
    assert torn(prepared(pictures, [*words, "split.similarity=0.9"])) == 0
    assert asked == ["efficientnet_lite0"], "the second time there was nothing to do"
    prepared(pictures, [*words, "split.similarity=0.9", "model.backbone=dinov2_vits14"])
    assert asked[1:] == ["dinov2_vits14"]


def test_embeddings_without_a_similarity_are_refused(call: Call, table: Path, tmp_path: Path) -> None:
    given = tmp_path / "embeddings.npz"
    done = call("data", "split", table, "--out", tmp_path / "s.json", "--embeddings", given)
    assert done.code == 2
    assert f"Where: {given}." in done.err
    assert not (tmp_path / "s.json").exists()
