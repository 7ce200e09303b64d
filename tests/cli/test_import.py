"""``workzone data import`` and ``download`` from the command line."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

sys.path[:0] = [str(Path(__file__).parents[1] / "data"), str(Path(__file__).parents[1] / "data" / "sources")]
layouts = importlib.import_module("layouts")

Call = Callable[..., Any]


def test_import_of_a_published_data_set(call: Call, tmp_path: Path) -> None:
    data, out = layouts.make_natix(tmp_path / "natix"), tmp_path / "out"
    dry = call("data", "import", "natix", data, "--dry-run")
    assert dry.code == 0, dry.err
    assert "6 images: 3 roadwork, 3 no_roadwork" in dry.out
    assert "licence of natix" in dry.err
    assert not out.exists()
    refused = call("data", "import", "natix", data, "--out", out)
    assert refused.code == 2
    assert "--accept-licence" in refused.err
    assert not out.exists()
    done = call("data", "import", "natix", data, "--out", out, "--accept-licence")
    assert done.code == 0, done.err
    assert pl.read_parquet(out / "manifest.parquet").height == 6
    assert json.loads((out / "import.json").read_text())["labels"] == {"no_roadwork": 3, "roadwork": 3}
    again = call("data", "import", "natix", data, "--out", out, "--accept-licence")
    assert "6 images were read by an earlier import" in again.out


def test_import_with_a_class_map(call: Call, tmp_path: Path) -> None:
    data = layouts.make_coco(tmp_path / "coco")
    words = ("data", "import", "coco", data, "--class-map", "cone,sign=ambiguous", "--rest", "unlabelled")
    dry = call(*words, "--dry-run")
    assert "left out: 1, only ambiguous objects; such as c2.jpg" in dry.out
    assert call(*words).code == 2
    table = call(*words, "--out", tmp_path / "m.csv")
    assert table.code == 0, table.err
    assert "5 images (2 roadwork, 0 without, 3 unlabelled)" in table.out
    assert "1 images were left out by the rules of coco" in table.err
    assert call("data", "import", "coco", data, "--out", tmp_path / "x").code == 2
    assert call("data", "import", "coco", data, "--kind", "yolo").code == 2
    assert call("data", "import", "zip", data).code == 2


def test_unreadable_images_give_exit_code_1(call: Call, tmp_path: Path) -> None:
    data = layouts.make_bdd(tmp_path / "bdd")
    (data / "images/100k/val/b1c66a42-4.jpg").write_bytes(b"broken")
    words = ("data", "import", "bdd100k", data, "--assume-negative", "--accept-licence")
    done = call(*words, "--out", tmp_path / "out")
    assert done.code == 1
    assert "b1c66a42-4.jpg: not_an_image" in done.err
    assert call(*words, "--out", tmp_path / "m.parquet").code == 1


def test_audit_says_by_its_exit_code_that_images_were_not_compared(call: Call, tmp_path: Path) -> None:
    data = layouts.make_phone(tmp_path / "phone")
    manifest, splits = tmp_path / "m.parquet", tmp_path / "s.json"
    assert call("data", "import", data, "--kind", "phone", "-o", manifest).code == 0
    ids = pl.read_parquet(manifest)["id"].to_list()
    splits.write_text(json.dumps({"version": 1, "assignment": dict.fromkeys(ids, "train")}))
    assert call("data", "audit", manifest, splits).code == 0
    (data / ids[0]).write_bytes(b"broken")
    answer = call("data", "audit", manifest, splits)
    assert answer.code == 1, answer.out
    assert "1 images could not be compared" in answer.out


def test_download_needs_a_licence_and_a_name(call: Call, tmp_path: Path) -> None:
    refused = call("data", "download", "natix", "--out", tmp_path)
    assert refused.code == 2
    assert "no licence is stated" in refused.err
    assert call("data", "download", "bdd100k", "--out", tmp_path, "--accept-licence").code == 2
    offline = call(
        "data", "download", "natix", "--out", tmp_path, "--accept-licence", "--endpoint", "http://example.invalid"
    )
    assert offline.code == 2
    assert "only https" in offline.err
