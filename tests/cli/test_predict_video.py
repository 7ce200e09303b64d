from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.clips import write_clip

pytest.importorskip("av", reason="PyAV is not installed")
Call = Callable[..., Any]
pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    noise = np.random.default_rng(0).integers(0, 255, (10, 4, 6, 3), dtype=np.uint8)
    scenes = [np.asarray(Image.fromarray(n).resize((96, 64), Image.Resampling.BICUBIC)) for n in noise]
    folder = tmp_path_factory.mktemp("clips")
    return write_clip(
        folder / "clip [1].mp4",
        20,
        rate=2,
        picture=lambda n: scenes[n // 2],
        gop=2,
        container={"movflags": "faststart"},
    )


@pytest.fixture
def cut(clip: Path, tmp_path: Path) -> Path:
    path = tmp_path / "cut.mp4"
    whole = clip.read_bytes()
    path.write_bytes(whole[: len(whole) * 7 // 10])
    return path


def picture(path: Path) -> Path:
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (64, 96, 3), dtype=np.uint8)).save(path)
    return path


def rows_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_video_gives_frames_and_intervals(call: Call, tiny_bundle: Path, clip: Path) -> None:
    answer = call("predict", clip, "-b", tiny_bundle, "-f", "jsonl")
    assert answer.code == 0
    rows = rows_of(answer.out)
    frames = [r for r in rows if r["kind"] == "frame"]
    spans = [r for r in rows if r["kind"] == "interval"]
    assert [r["seconds"] for r in frames] == list(range(10))
    assert rows == frames + spans
    assert (spans[0]["start"], spans[-1]["end"]) == (0, 10)
    assert sum(r["frames"] for r in spans) == 10
    assert all(r["certified"] is False for r in spans)
    assert {r["path"] for r in rows} == {str(clip)}
    assert "pooled_probability" not in frames[0]
    assert "1 video: 10 frames" in answer.err
    assert "intervals of time" in answer.err
    assert " images: " not in answer.err


def test_pooling_and_sampling(call: Call, tiny_bundle: Path, clip: Path) -> None:
    def frames(*words: object) -> list[dict[str, Any]]:
        rows = rows_of(call("predict", clip, "-b", tiny_bundle, "-f", "jsonl", *words).out)
        return [r for r in rows if r["kind"] == "frame"]

    alone, pooled = frames(), frames("--pool", "mean")
    assert [r["probability"] for r in pooled] == [r["probability"] for r in alone]
    assert np.ptp([r["pooled_probability"] for r in pooled]) < np.ptp([r["probability"] for r in alone])
    assert [r["seconds"] for r in frames("--every", "2.5")] == [0.0, 2.5, 5.0, 7.5]


def test_a_table_has_intervals_only(call: Call, tiny_bundle: Path, clip: Path) -> None:
    rows = rows_of(call("predict", clip, "-b", tiny_bundle, "-f", "jsonl").out)
    answer = call("predict", clip, "-b", tiny_bundle)
    spans = [r for r in rows if r["kind"] == "interval"]
    lines = [line for line in answer.out.splitlines() if ".0-0:" in line]
    assert len(lines) == len(spans)
    assert "0:00.0-" in lines[0]
    assert "-0:10.0" in lines[-1]
    assert "clip [1].mp4" in answer.out


def test_one_row_a_frame_in_csv_and_parquet(call: Call, tiny_bundle: Path, clip: Path, tmp_path: Path) -> None:
    import polars as pl

    picture(tmp_path / "a.png")
    words = ("predict", tmp_path / "a.png", clip, "-b", tiny_bundle, "--pool", "hmm")
    comma = list(csv.DictReader(io.StringIO(call(*words, "-f", "csv").out)))
    assert call(*words, "-o", tmp_path / "o.parquet").code == 0
    parquet = pl.read_parquet(tmp_path / "o.parquet").to_dicts()
    assert [r["seconds"] for r in comma] == ["", *(f"{t}.0" for t in range(10))]
    for a, b in zip(comma, parquet, strict=True):
        assert a["path"] == b["path"]
        assert a["pooled_decision"] == (b["pooled_decision"] or "")
        assert (float(a["seconds"]) if a["seconds"] else None) == b["seconds"]
        assert (float(a["pooled_probability"]) if a["seconds"] else None) == b["pooled_probability"]


def test_images_and_videos_mixed_in_a_folder(call: Call, tiny_bundle: Path, clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name in ("a.png", "c.png", "d.png"):
        picture(folder / name)
    (folder / "b.mp4").write_bytes(clip.read_bytes())
    (folder / "e.ts").write_text("const program = 1;")
    answer = call("predict", folder, "-b", tiny_bundle, "-f", "jsonl")
    assert answer.code == 0, answer.err
    rows = rows_of(answer.out)
    order = list(dict.fromkeys(Path(r["path"]).name for r in rows))
    assert order == ["a.png", "b.mp4", "c.png", "d.png"]
    assert [r["kind"] for r in rows if r["path"].endswith("png")] == ["image"] * 3
    assert "3 images: " in answer.err
    assert "1 video: 10 frames" in answer.err


@pytest.mark.parametrize("form", ["table", "jsonl", "csv"])
def test_a_cut_video_is_reported(call: Call, tiny_bundle: Path, cut: Path, form: str) -> None:
    answer = call("predict", cut, "-b", tiny_bundle, "-f", form)
    assert answer.code == 1
    assert f"{cut}: truncated: " in answer.err
    assert "1 unreadable in whole or in part" in answer.err
    assert "Traceback" not in answer.err
    if form == "jsonl":
        rows = rows_of(answer.out)
        assert rows[-1] == {"kind": "video", "path": str(cut), "decision": None, "error": "truncated"}
        assert 5 <= sum(r["kind"] == "frame" for r in rows) < 10


@pytest.mark.parametrize("content", [b"", b"no film at all", b"\x00\x00\x00\x18ftypmp42" + bytes(100)])
def test_what_is_no_video_does_not_stop_the_rest(
    call: Call, tiny_bundle: Path, clip: Path, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "bad.mp4").write_bytes(content)
    answer = call("predict", tmp_path / "bad.mp4", clip, tmp_path / "none.mp4", "-b", tiny_bundle, "-f", "jsonl")
    assert answer.code == 1
    rows = rows_of(answer.out)
    assert [r["error"] for r in rows if r["kind"] == "video"][-1] == "missing"
    assert sum(r["kind"] == "frame" for r in rows) == 10
    assert "3 videos: 10 frames" in answer.err
    assert "2 unreadable" in answer.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--pool", "median"], "use one of mean, exponential, topk, hmm, attention"),
        (["--every", "0"], "--every"),
        (["--min-seconds", "-1"], "--min-seconds"),
    ],
)
def test_wrong_use(call: Call, tiny_bundle: Path, clip: Path, words: list[str], says: str) -> None:
    answer = call("predict", clip, "-b", tiny_bundle, *words)
    assert (answer.code, answer.out) == (2, "")
    assert says in answer.err


def test_without_pyav_nothing_is_begun(
    call: Call, tiny_bundle: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    answer = call("predict", picture(tmp_path / "a.png"), clip, "-b", tiny_bundle)
    assert (answer.code, answer.out) == (2, "")
    assert "pip install 'workzone[video]'" in answer.err
    assert call("predict", tmp_path / "a.png", "-b", tiny_bundle).code == 0
