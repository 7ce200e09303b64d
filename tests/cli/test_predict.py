from __future__ import annotations

import csv
import io
import json
import os
import shutil
import struct
import threading
import zlib
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.command import workzone

Call = Callable[..., "object"]
pytestmark = pytest.mark.e2e


def scene(seed: int, size: tuple[int, int] = (96, 64)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def giant_header(path: Path) -> None:
    """A PNG of a few bytes that says it has 400 million pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\x00" * 99)) + chunk(b"IEND", b""))


@pytest.fixture
def good(tmp_path: Path) -> Path:
    folder = tmp_path / "good"
    folder.mkdir()
    for i in range(5):
        scene(i).save(folder / f"{i}.jpg")
    return folder


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Files as they come, named in the order they sort: a bad one first, last, and several in a row."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    whole = io.BytesIO()
    scene(1).save(whole, "JPEG")
    (folder / "a_empty.jpg").write_bytes(b"")
    scene(2).convert("CMYK").save(folder / "b_cmyk.jpg")
    (folder / "c_text.jpg").write_text("this is no picture")
    (folder / "d_truncated.jpg").write_bytes(whole.getvalue()[:-300])
    giant_header(folder / "e_giant.png")
    Image.fromarray(np.arange(96 * 64, dtype=np.uint16).reshape(64, 96) * 10).save(folder / "f_16bit.png")
    scene(3).save(folder / "g_animated.gif", save_all=True, append_images=[scene(4), scene(5)])
    exif = Image.Exif()
    exif[0x0112] = 6
    scene(6).save(folder / "h_rotated.jpg", exif=exif)
    scene(7).save(folder / "i_[1]_[red].jpg")
    (folder / "x_folder.jpg").mkdir()
    (folder / "y_dangling.jpg").symlink_to(folder / "nowhere")
    (folder / "z_corrupt.png").write_bytes(b"\x89PNG\r\n\x1a\n" + os.urandom(200))
    (folder / "notes.txt").write_text("not looked at")
    return folder


BAD = {
    "a_empty.jpg": "empty",
    "c_text.jpg": "not_an_image",
    "d_truncated.jpg": "truncated",
    "e_giant.png": "too_large",
    "x_folder.jpg": "not_a_file",
    "y_dangling.jpg": "missing",
    "z_corrupt.png": "corrupt",
}


def rows_of(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_hostile_folder_is_finished_and_every_bad_file_named(call: Call, tiny_bundle: Path, hostile: Path) -> None:
    answer = call("predict", hostile, "-b", tiny_bundle, "-f", "jsonl")
    assert answer.code == 1
    rows = rows_of(answer.out)
    names = sorted(p.name for p in hostile.iterdir() if p.name != "notes.txt")
    assert [Path(str(r["path"])).name for r in rows] == names, "every file, in order"
    assert {Path(str(r["path"])).name: r["error"] for r in rows if r["error"]} == BAD
    for row in rows:
        assert (row["decision"] is None) == bool(row["error"])
    for name, reason in BAD.items():
        line = next(line for line in answer.err.splitlines() if name in line)
        assert f": {reason}: " in line
    assert f"{len(names)} images: " in answer.err
    assert f"{len(BAD)} unreadable" in answer.err
    assert "Traceback" not in answer.err


def test_no_bad_file_changes_the_answer_about_a_good_one(call: Call, tiny_bundle: Path, hostile: Path) -> None:
    rows = rows_of(call("predict", hostile, "-b", tiny_bundle, "-f", "jsonl").out)
    for row in (r for r in rows if not r["error"]):
        alone = rows_of(call("predict", row["path"], "-b", tiny_bundle, "-f", "jsonl").out)[0]
        assert alone["decision"] == row["decision"]
        assert alone["log_odds"] == pytest.approx(row["log_odds"], abs=1e-4)


def test_pictures_of_a_server_are_decided_like_files(call: Call, tiny_bundle: Path, good: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(good)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        names = [f"http://127.0.0.1:{server.server_address[1]}/{i}.jpg" for i in (0, 1, 9)]
        answer = call("predict", *names, good / "2.jpg", "-b", tiny_bundle, "-f", "jsonl")
    finally:
        server.shutdown()
        server.server_close()
    rows = rows_of(answer.out)
    assert answer.code == 1
    assert [r["path"] for r in rows] == [*names, str(good / "2.jpg")]
    assert [r["error"] for r in rows] == [None, None, "unreachable", None]
    local = rows_of(call("predict", good / "0.jpg", good / "1.jpg", "-b", tiny_bundle, "-f", "jsonl").out)
    assert [r["log_odds"] for r in rows[:2]] == [r["log_odds"] for r in local]


@pytest.mark.parametrize("pattern", ["gggbb", "bbggg", "bbbbb", "gbgbgbgb", "bbbbbbbbbbbbg", "gggggggggggb"])
def test_rows_stay_in_order_wherever_the_bad_ones_are(
    call: Call, tiny_bundle: Path, tmp_path: Path, pattern: str
) -> None:
    paths = []
    for i, kind in enumerate(pattern):
        path = tmp_path / f"{len(pattern) - i:02d}.jpg"  # given in an order that is not theirs
        scene(i).save(path) if kind == "g" else path.write_bytes(b"")
        paths.append(path)
    answer = call("predict", *paths, "-b", tiny_bundle, "-f", "jsonl", "--threads", 2)
    rows = rows_of(answer.out)
    assert [r["path"] for r in rows] == [str(p) for p in paths]
    assert ["b" if r["error"] else "g" for r in rows] == list(pattern)
    assert answer.code == 1


def test_single_folder_glob_and_list_agree(call: Call, tiny_bundle: Path, good: Path) -> None:
    folder = call("predict", good, "-b", tiny_bundle, "-f", "jsonl")
    assert folder.code == 0
    single = "".join(call("predict", p, "-b", tiny_bundle, "-f", "jsonl").out for p in sorted(good.iterdir()))
    pattern = call("predict", good / "*.jpg", "-b", tiny_bundle, "-f", "jsonl")
    listed = workzone(
        "predict", "-", "-b", tiny_bundle, "-f", "jsonl", stdin="\n".join(map(str, sorted(good.iterdir()))) + "\n\n"
    )
    assert pattern.out == folder.out
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout == folder.out
    for one, other in zip(rows_of(single), rows_of(folder.out), strict=True):
        assert one["decision"] == other["decision"]
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-4)


def test_the_formats_say_the_same(call: Call, tiny_bundle: Path, hostile: Path, tmp_path: Path) -> None:
    import polars as pl

    lines = rows_of(call("predict", hostile, "-b", tiny_bundle, "-f", "jsonl").out)
    comma = list(csv.DictReader(io.StringIO(call("predict", hostile, "-b", tiny_bundle, "-f", "csv").out)))
    target = tmp_path / "out.parquet"
    assert call("predict", hostile, "-b", tiny_bundle, "-o", target).code == 1
    parquet = pl.read_parquet(target).to_dicts()
    table = call("predict", hostile, "-b", tiny_bundle).out
    for a, b, c in zip(lines, comma, parquet, strict=True):
        assert a["path"] == b["path"] == c["path"]
        assert (a["decision"] or "") == b["decision"] == (c["decision"] or "")
        assert (a["error"] or "") == b["error"] == (c["error"] or "")
        if not a["error"]:
            assert float(b["probability"]) == a["probability"] == c["probability"]
            assert b["prediction_set"].split() == c["prediction_set"] == a["prediction_set"]
        shown = next(line for line in table.splitlines() if str(a["path"]) in line)
        assert str(a["decision"] or "unreadable") in shown


def test_parquet_of_unreadable_files_alone(call: Call, tiny_bundle: Path, tmp_path: Path) -> None:
    import polars as pl

    (tmp_path / "a.jpg").write_bytes(b"")
    target = tmp_path / "out.parquet"
    assert call("predict", tmp_path / "a.jpg", "-b", tiny_bundle, "-o", target).code == 1
    assert pl.read_parquet(target)["error"].to_list() == ["empty"]


def test_views_on_request(call: Call, tiny_bundle: Path, good: Path) -> None:
    row = rows_of(call("predict", good / "0.jpg", "-b", tiny_bundle, "-f", "jsonl", "--views").out)[0]
    assert len(row["views"]) == 5  # type: ignore[arg-type]
    assert "views" not in rows_of(call("predict", good / "0.jpg", "-b", tiny_bundle, "-f", "jsonl").out)[0]


def test_a_file_is_written_whole_or_not_at_all(
    call: Call, tiny_bundle: Path, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "results" / "out.csv"
    target.parent.mkdir()
    target.write_text("old")
    from workzone.bundle.runtime import Detector

    answered = Detector.predict

    def stopped(self: Detector, *args: object, **options: object):  # type: ignore[no-untyped-def]
        yield from list(answered(self, *args, **options))[:3]  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Detector, "predict", stopped)
        answer = call("predict", good, "-b", tiny_bundle, "-o", target)
    assert answer.code == 130
    assert [p.name for p in target.parent.iterdir()] == ["out.csv"]
    assert target.read_text() == "old"
    assert call("predict", good, "-b", tiny_bundle, "-o", target).code == 0
    assert len(target.read_text().splitlines()) == 6


def test_the_bundle_may_come_from_the_environment(
    call: Call, tiny_bundle: Path, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKZONE_BUNDLE", str(tiny_bundle))
    assert call("predict", good / "0.jpg").code == 0


def test_hidden_files_are_left_out(call: Call, tiny_bundle: Path, good: Path) -> None:
    (good / ".cache").mkdir()
    scene(1).save(good / ".cache" / "x.jpg")
    scene(1).save(good / ".y.jpg")
    assert len(rows_of(call("predict", good, "-b", tiny_bundle, "-f", "jsonl").out)) == 5


def test_a_name_that_is_no_text(tiny_bundle: Path, good: Path) -> None:
    (good / "0.jpg").rename(good / os.fsdecode(b"\xff\xfe.jpg"))
    for form in ("jsonl", "csv", "table"):
        done = workzone("predict", good, "-b", tiny_bundle, "-f", form)
        assert done.returncode == 0, done.stderr
        assert "xff" in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 2, "no images were given"),
        (["{empty}"], 2, "the folder holds no images"),
        (["{good}", "{empty}"], 2, "the folder holds no images"),
        (["{empty}/*.jpg"], 2, "no file matches the pattern"),
        (["{good}", "-f", "xml"], 2, "unknown format 'xml'"),
        (["{good}", "-f", "parquet"], 2, "add --out FILE.parquet"),
        (["{good}", "-f", "table", "-o", "{empty}/t.txt"], 2, "a table is for the terminal"),
        (["{good}", "-o", "{empty}"], 2, "no regular file"),
        (["{good}", "-o", "{good}/0.jpg/x.csv"], 2, "What to do:"),
        (["{good}", "-o", "/dev/null"], 2, "no regular file"),
        (["{good}", "--threads", "-1"], 2, "--threads"),
        (["{good}", "-b", "{empty}"], 3, "Where: {empty}"),
        (["{good}", "-b", "{empty}/none"], 3, "none"),
    ],
)
def test_wrong_use(
    call: Call, tiny_bundle: Path, good: Path, tmp_path: Path, words: list[str], code: int, says: str
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    filled = [w.format(good=good, empty=empty) for w in words]
    if "-b" not in filled:
        filled += ["-b", str(tiny_bundle)]
    answer = call("predict", *filled)
    assert (answer.code, answer.out) == (code, "")
    assert says.format(empty=empty) in answer.err
    assert "Traceback" not in answer.err
    assert list(empty.iterdir()) == []


def test_no_bundle(call: Call, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORKZONE_BUNDLE", raising=False)
    monkeypatch.setattr("workzone.bundle.starter.STARTER", Path("/nowhere"))
    answer = call("predict", good)
    assert answer.code == 2
    assert "add --bundle FOLDER or set WORKZONE_BUNDLE" in answer.err


def test_an_empty_list_on_standard_input(tiny_bundle: Path) -> None:
    done = workzone("predict", "-", "-b", tiny_bundle, stdin="\n\n")
    assert done.returncode == 2
    assert "the list on standard input is empty" in done.stderr


@pytest.mark.parametrize("policy", ["abstain", "warn"])
def test_a_void_certificate_is_honoured(call: Call, tiny_bundle: Path, good: Path, tmp_path: Path, policy: str) -> None:
    from workzone.bundle.schema import read_manifest
    from workzone.monitoring.void import mark_path, write_mark

    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "b"))
    before = call("predict", good, "-b", bundle, "-f", "jsonl")
    write_mark(mark_path(bundle), read_manifest(bundle).sha256, ["too many misses"], [{"e": 25.0}], policy)
    after = call("predict", good, "-b", bundle, "-f", "jsonl")
    assert after.code == 0, after.err
    assert "is void since" in after.err
    assert "too many misses" in after.err
    rows = rows_of(after.out)
    assert all("certificate void" in r["reason"] for r in rows)
    if policy == "abstain":
        assert {r["decision"] for r in rows} == {"abstain"}
    else:
        assert [r["decision"] for r in rows] == [r["decision"] for r in rows_of(before.out)]
