"""Every option and argument that takes a file, given a file that is missing, empty, binary, cut off, or a folder.

In process, because starting Python would be most of the time; what is slow is marked so.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from PIL import Image

from workzone.bundle.starter import starter_bundle
from workzone.cli.main import main
from workzone.errors import DataError, unreadable

MONITOR = "monitor run --bundle {B} --log log.csv --reference reference.parquet --out m{n}"
FILES = {
    "score table": ("score {bad} --bundle {B} --out s{n}", ".csv"),
    "score parquet": ("score {bad} --bundle {B} --out s{n}", ".parquet"),
    "decide": ("decide {bad} --by rule", ".csv"),
    "certify csv": ("certify {bad} --out c{n}", ".csv"),
    "certify parquet": ("certify {bad} --out c{n}", ".parquet"),
    "map csv": ("map {bad}", ".csv"),
    "map jsonl": ("map {bad}", ".jsonl"),
    "map parquet": ("map {bad}", ".parquet"),
    "map --track gpx": ("map log.csv --track {bad}", ".gpx"),
    "map --track csv": ("map log.csv --track {bad}", ".csv"),
    "map --checks": ("map log.csv --checks {bad}", ".csv"),
    "run --config": ("run data=pics --config {bad}", ".yaml"),
    "run data": ("run data={bad} out=r{n}", ".parquet"),
    "run split.file": ("run data=manifest.csv out=r{n} split.file={bad}", ".json"),
    "evaluate table": ("evaluate {bad} --out e{n}", ".csv"),
    "evaluate parquet": ("evaluate {bad} --out e{n}", ".parquet"),
    "evaluate data": ("evaluate {B} {bad} --out e{n}", ".csv"),
    "compare": ("compare log.csv {bad}", ".csv"),
    "serve --api-key-file": ("serve {B} --api-key-file {bad}", ".txt"),
    "serve --log-db": ("serve {B} --log-db {bad}", ".db"),
    "checklist --api-key-file": ("checklist {B} --api-key-file {bad}", ".txt"),
    "checklist --reference": ("checklist {B} --reference {bad}", ".parquet"),
    "checklist --load-test": ("checklist {B} --load-test {bad}", ".json"),
    "streetvision simulate": ("streetvision simulate {B} {bad} --calib manifest.csv --out v{n}", ".csv"),
    "monitor freeze csv": ("monitor freeze {B} {bad} --out f{n}.parquet", ".csv"),
    "monitor freeze parquet": ("monitor freeze {B} {bad} --out f{n}.parquet", ".parquet"),
    "monitor --log csv": (MONITOR.replace("log.csv", "{bad}"), ".csv"),
    "monitor --log jsonl": (MONITOR.replace("log.csv", "{bad}"), ".jsonl"),
    "monitor --log db": (MONITOR.replace("log.csv", "{bad}"), ".db"),
    "monitor --reference": (MONITOR.replace("reference.parquet", "{bad}"), ".parquet"),
    "monitor --labels csv": (MONITOR + " --labels {bad}", ".csv"),
    "monitor --labels jsonl": (MONITOR + " --labels {bad}", ".jsonl"),
    "monitor --actions": (MONITOR + " --actions {bad}", ".json"),
    "registry shadow": ("registry shadow log.csv {bad}", ".jsonl"),
    "registry ab --log": ("registry ab --log {bad} --labels labels.csv", ".db"),
    "registry ab --champion": ("registry ab --champion {bad} --challenger log.csv --labels labels.csv", ".csv"),
    "registry ab --labels": ("registry ab --champion log.csv --challenger log.csv --labels {bad}", ".csv"),
    "data import csv": ("data import {bad} --out i{n}", ".csv"),
    "data import json": ("data import {bad} --out i{n}", ".json"),
    "data split": ("data split {bad} --out p{n}.json", ".parquet"),
    "data split --embeddings npz": ("data split many.csv --out p{n}.json --similarity 0.9 --embeddings {bad}", ".npz"),
    "data split --embeddings csv": ("data split many.csv --out p{n}.json --similarity 0.9 --embeddings {bad}", ".csv"),
    "data audit": ("data audit {bad} splits.json", ".parquet"),
    "data audit splits": ("data audit manifest.csv {bad}", ".json"),
    "data quality --review": ("data quality manifest.csv --review {bad} --out q{n}", ".csv"),
    "data apply-review": ("data apply-review manifest.csv {bad} --out a{n}.csv", ".csv"),
    "data fuse": ("data fuse {bad} manifest.csv --out f{n}.csv", ".csv"),
    "data fuse --splits": ("data fuse manifest.csv --out f{n}.csv --splits {bad}", ".json"),
    "data mine --splits": ("data mine manifest.csv --bundle {B} --splits {bad} --out n{n}.csv", ".json"),
    "data cross": ("data cross {bad} --out x{n}", ".csv"),
}
FOLDERS = {
    "predict --bundle": "predict pics --bundle {bad}",
    "score --bundle": "score pics --bundle {bad} --out s{n}",
    "decide --by": "decide log.csv --by {bad}",
    "explain": "explain {bad} pics/0.png",
    "export": "export {bad} --engine onnxruntime --out e{n}",
    "verify": "verify {bad}",
    "evaluate": "evaluate {bad} pics --out e{n}",
    "compare": "compare log.csv {bad}",
    "serve": "serve {bad}",
    "serve --monitor": "serve {B} --monitor {bad}",
    "serve --keep-abstained": "serve {B} --keep-abstained {bad}",
    "load": "load http://127.0.0.1:9 {bad} --p99-ms 100",
    "checklist": "checklist {bad}",
    "streetvision simulate": "streetvision simulate {bad} manifest.csv --calib manifest.csv --out v{n}",
    "review export": "review export {bad}",
    "monitor freeze": "monitor freeze {bad} log.csv --out f{n}.parquet",
    "monitor --bundle": MONITOR.replace("{B}", "{bad}"),
    "registry add": "registry add {bad} --root reg",
    "registry triton": "registry triton {bad} --out t{n}",
    "data split --bundle": "data split many.csv --out p{n}.json --similarity 0.9 --bundle {bad}",
    "data mine --bundle": "data mine manifest.csv --bundle {bad} --out n{n}.csv",
}
SLOW = ("checklist", "data mine", "evaluate {B}", "streetvision")
SPOILED = ("missing", "empty", "binary", "cut off", "folder", "of another kind")
_CUT = {".json": '{"a": [1, ', ".jsonl": '{"a": 1}\n{"b"', ".csv": 'id,path,"label\n1,a', ".yaml": "a: [1"}
_OTHER = {".json": '[1, {"a": null}]', ".jsonl": "[1]\n", ".csv": "a,b\n1,2\n", ".yaml": "- 1\n", ".gpx": "<gpx/>"}
# An empty configuration is one; texts of these kinds hold nothing that could be cut.
ALLOWED = {("run --config", "empty")}
# Whatever a file holds is sent to the server, which says what it thinks of it; a monitor may not have looked yet.
ALLOWED |= {("load FOLDER", kind) for kind in ("binary", "cut off", "of another kind")}
ALLOWED |= {("serve --monitor FOLDER", kind) for kind in ("missing", "empty", "folder")}
ALLOWED |= {("serve --keep-abstained FOLDER", kind) for kind in ("missing", "empty", "folder")}
ALLOWED |= {("serve --log-db", kind) for kind in ("missing", "empty")}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with whole files of every kind."""
    root = tmp_path_factory.mktemp("files")
    bundle = starter_bundle()
    assert bundle is not None
    (root / "pics").mkdir()
    for i, picture in enumerate(sorted((bundle / "golden").glob("*.jpg"))[:4]):
        Image.open(picture).save(root / "pics" / f"{i}.png")

    def table(name: str, header: str, row: Callable[[int], str], n: int) -> None:
        (root / name).write_text("\n".join([header, *(row(k) for k in range(n))]) + "\n")

    table("manifest.csv", "id,path,label,group", lambda k: f"{k},pics/{k}.png,{k % 2},g{k}", 4)
    table("many.csv", "id,path,label,group", lambda k: f"m{k},pics/{k % 4}.png,{k // 30},m{k}", 60)
    table("labels.csv", "id,label", lambda k: f"i{k},{k % 2}", 40)
    header = "id,path,latitude,longitude,time,probability,decision,label,log_odds"
    table("log.csv", header, lambda k: f"i{k},x{k}.png,52.{k:04d},13.0,2026-01-01T0{k % 10}:00:00,0.{k % 10},roadwork,"
          f"{k % 2},{k * 0.1 - 2}", 200)  # fmt: skip
    rng = random.Random(1)
    table("scores.csv", "id,label,log_odds,group", lambda k: f"s{k},{k % 2},{k % 2 * 6 - 3 + rng.gauss(0, 1):.3f},g{k}",
          800)  # fmt: skip
    return root


@pytest.fixture(scope="module")
def made(place: Path) -> Path:
    """The same, with what commands made of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for line in ("certify scores.csv --out rule", "data split many.csv --out splits.json",
                     f"monitor freeze {starter_bundle()} log.csv --out reference.parquet"):  # fmt: skip
            assert called(line.split(), patch) == 0, line
    return place


def called(words: list[str], patch: pytest.MonkeyPatch) -> int:
    """Exit code of the command."""
    patch.setattr(sys, "argv", ["workzone", *words])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def spoiled(folder: Path, kind: str, suffix: str) -> Path:
    path = folder / f"spoiled{suffix}"
    if kind == "folder":
        path.mkdir()
        (path / "x.txt").write_text("x")
    elif kind == "empty" and not suffix:
        path.mkdir()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "binary":
        path.write_bytes(random.Random(0).randbytes(3000))
    elif kind == "cut off":
        path.write_text(_CUT.get(suffix, "PAR1 x"))
    elif kind == "of another kind":
        _other(path, suffix)
    return path


def _other(path: Path, suffix: str) -> None:
    if suffix == ".npz":
        import numpy as np

        np.savez(path, a=np.zeros(3))
    elif suffix == ".parquet":
        import polars as pl

        pl.DataFrame({"a": [1.5]}).write_parquet(path)
    elif suffix == ".db":
        base = sqlite3.connect(path)
        base.execute("CREATE TABLE predictions (x)")
        base.execute("INSERT INTO predictions VALUES (1)")
        base.commit()
        base.close()
    else:
        path.write_text(_OTHER.get(suffix, "a b c"))


ROWS = [
    *((name, line, suffix, kind) for name, (line, suffix) in FILES.items() for kind in SPOILED),
    *((f"{name} FOLDER", line, "", kind) for name, line in FOLDERS.items() for kind in SPOILED),
]


def _row(name: str, line: str, suffix: str, kind: str) -> ParameterSet:
    # Bytes at random meet every reader; the other kinds mostly fail before it or say the same.
    marks = () if kind == "binary" and not line.startswith(SLOW) else pytest.mark.slow
    return pytest.param(name, line, suffix, kind, marks=marks, id=f"{name}: {kind}")


@pytest.mark.parametrize(
    ("name", "line", "suffix", "kind"), [_row(*r) for r in ROWS if (r[0], r[3]) not in ALLOWED]
)
def test_a_file_that_cannot_be_used_is_named_in_one_paragraph(
    name: str, line: str, suffix: str, kind: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(made)
    monkeypatch.setenv("WORKZONE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WORKZONE_MLFLOW", "off")
    bad = spoiled(tmp_path, kind, suffix)
    n = f"{len(name)}-{abs(hash((name, kind)))}"
    words = [word.format(bad=bad, B=starter_bundle(), n=n) for word in line.split()]
    code = called(words, monkeypatch)
    out, err = capsys.readouterr()
    assert code in (2, 3), (code, out[-500:], err[-500:])
    told = (err + out).strip().splitlines()
    assert "Traceback" not in err + out
    assert "fault of workzone" not in err + out
    errors = [text for text in told if text.startswith("Error:")]
    if not errors:
        # Two commands check all there is and list what does not hold.
        assert words[0] in ("verify", "checklist")
        errors = [text for text in told if "FAILED" in text or str(bad) in text]
        assert any(str(bad) in text for text in errors), told
    else:
        assert len(errors) == 1, told
        assert str(bad) in errors[0]
    assert not any(word in text for word in ("Errno", "codec", "pickle") for text in errors), errors
    if words[0] not in ("verify", "checklist"):
        assert "Where:" in errors[0]
        assert "What to do:" in errors[0]


def test_words_for_what_was_met(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    assert "there is no such file" in str(unreadable(DataError, "the table", file, ValueError("x")))
    file.write_text("")
    assert "it is empty" in str(unreadable(DataError, "the table", file, ValueError("x")))
    file.write_text("x")
    told = unreadable(DataError, "the table", file, ValueError("first\nsecond"), fix="mend it")
    assert str(told) == f"the table cannot be read: first. Where: {file}. What to do: mend it."
    assert "permission was denied" in str(unreadable(DataError, "the table", file, PermissionError(13, "no")))
    shutil.rmtree(tmp_path / "none", ignore_errors=True)
    assert "it is a folder" in str(unreadable(DataError, "the table", tmp_path, OSError(5, "I/O")))
