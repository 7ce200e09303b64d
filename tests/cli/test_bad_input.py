"""Bad input of every kind: one paragraph, the right code, nothing half-written."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.command import workzone
from helpers.tiny import tiny_words

Call = Callable[..., "object"]
Data = Callable[[Path], str]


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (8, 12, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((96, 64)).save(path)


def folders(root: Path, positive: int = 6, negative: int = 6) -> str:
    (root / "roadwork").mkdir(parents=True)
    (root / "no_roadwork").mkdir()
    for i in range(positive):
        picture(root / "roadwork" / f"p{i}.jpg", i)
    for i in range(negative):
        picture(root / "no_roadwork" / f"n{i}.jpg", 100 + i)
    return str(root)


def table(root: Path, header: str, rows: list[str]) -> str:
    for i in range(12):
        picture(root / f"{i}.jpg", i)
    (root / "table.csv").write_text("\n".join([header, *rows]) + "\n")
    return str(root / "table.csv")


def _rows(**changes: str) -> list[str]:
    """Twelve rows id,path,label,latitude,longitude; ``changes`` replaces columns of the third."""
    made = []
    for i in range(12):
        row = {"id": f"i{i}", "path": f"{i}.jpg", "label": str(i % 2), "latitude": "48.1", "longitude": "11.5"}
        made.append(",".join({**row, **(changes if i == 2 else {})}.values()))
    return made


HEADER = "id,path,label,latitude,longitude"
BAD_DATA: dict[str, tuple[Data, str]] = {
    "missing folder": (lambda d: str(d / "nowhere"), "no such file or folder"),
    "empty folder": (lambda d: str(_made(d / "empty")), "not clear what kind of data"),
    "empty class folder": (lambda d: folders(d, 6, 0), "no_roadwork"),
    "label not in the set": (lambda d: table(d, HEADER, _rows(label="maybe")), "maybe"),
    "duplicate ids": (lambda d: table(d, HEADER, _rows(id="i1")), "i1"),
    "NaN coordinates": (lambda d: table(d, HEADER, _rows(latitude="nan")), "latitude"),
    "coordinates off the globe": (lambda d: table(d, HEADER, _rows(longitude="500")), "longitude"),
    "missing image": (lambda d: table(d, HEADER, _rows(path="none.jpg")), "none.jpg"),
    "one class only": (lambda d: table(d, "path,label", [f"{i}.jpg,1" for i in range(12)]), "one class"),
    "too few groups": (
        lambda d: table(d, "path,label,group", [f"{i}.jpg,{i % 2},g{i % 2}" for i in range(12)]),
        "group",
    ),
    "no labels": (lambda d: table(d, "path", [f"{i}.jpg" for i in range(12)]), "label"),
    "no column for images": (lambda d: table(d, "name,label", [f"{i}.jpg,{i % 2}" for i in range(12)]), "path"),
    "table of nothing": (lambda d: table(d, HEADER, []), "table.csv"),
    "table that is no text": (lambda d: _binary(d), "t.csv"),
    "nothing readable": (lambda d: _unreadable(d), "cannot be read"),
}


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _binary(root: Path) -> str:
    root.mkdir(parents=True, exist_ok=True)
    (root / "t.csv").write_bytes(bytes(range(256)) * 4)
    return str(root / "t.csv")


def _unreadable(root: Path) -> str:
    for name in ("roadwork", "no_roadwork"):
        (root / name).mkdir(parents=True)
        (root / name / "x.jpg").write_text("no picture")
    return str(root)


def check_paragraph(answer: object, says: str, code: int = 2) -> None:
    text = answer.err  # type: ignore[attr-defined]
    assert answer.code == code, text  # type: ignore[attr-defined]
    assert "Traceback" not in text
    errors = [line for line in text.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, text
    assert text.splitlines()[-1] == errors[0], "the paragraph is one line, and the last"
    assert says in errors[0]


@pytest.mark.parametrize("kind", BAD_DATA)
def test_bad_data(call: Call, tmp_path: Path, kind: str) -> None:
    make, says = BAD_DATA[kind]
    (tmp_path / "data").mkdir()
    place = make(tmp_path / "data" / "set")
    before = sorted(tmp_path.rglob("*"))
    answer = call("run", f"data={place}", f"out={tmp_path / 'run'}", f"cache.folder={tmp_path / 'cache'}")
    check_paragraph(answer, says)
    assert sorted(tmp_path.rglob("*")) == before, "something was left behind"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["out={out}"], "the key 'data' is missing"),
        (["data=synthetic"], "the key 'out' is missing"),
        (["data=synthetic", "out={out}", "trian.lr=1"], "perhaps 'train' was meant"),
        (["data=synthetic", "out={out}", "train.lr=fast"], "train.lr: Input should be a valid number"),
        (["data=synthetic", "out={out}", "--config", "none.yaml"], "cannot be read"),
        (["data=synthetic", "out={out}", "--to", "nowhere"], "there is no phase 'nowhere'"),
        (["data=synthetic", "out={out}", "preset=tiny"], "there is no preset 'tiny'"),
        (["data=synthetic", "out={out}", "split.file={out}/none.json"], "none.json"),
        (["data=synthetic", "out={file}"], "cannot be written"),
        (["data=synthetic", "out={file}/below"], "cannot be written"),
        (["data=synthetic", "out=/proc/run"], "cannot be written"),
    ],
)
def test_bad_words(call: Call, tmp_path: Path, words: list[str], says: str) -> None:
    (tmp_path / "file").write_text("x")
    filled = [w.format(out=tmp_path / "run", file=tmp_path / "file") for w in words]
    check_paragraph(call("run", *filled), says)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "x"


def test_a_folder_in_use(call: Call, tmp_path: Path) -> None:
    import fcntl

    out = tmp_path / "run"
    out.mkdir()
    with (out / ".lock").open("w") as held:
        held.write("process 1 on elsewhere")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        check_paragraph(
            call("run", "data=synthetic", f"out={out}"), "another run is working in this folder (process 1 on"
        )
    assert [p.name for p in out.iterdir()] == [".lock"]


def test_unknown_options_and_commands(call: Call) -> None:
    for words in (["run", "--nope"], ["nope"], ["data", "nope"]):
        answer = call(*words)
        assert answer.code == 2  # type: ignore[attr-defined]
        assert "Traceback" not in answer.err  # type: ignore[attr-defined]


def test_a_fault_is_said_to_be_one(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import workzone.config.load

    def broken(*args: object, **options: object) -> None:
        raise ZeroDivisionError("seven by zero")

    monkeypatch.setattr(workzone.config.load, "load_config", broken)
    check_paragraph(call("run", "data=synthetic", f"out={tmp_path}/run"), "ZeroDivisionError: seven by zero", code=70)
    monkeypatch.setenv("WORKZONE_DEBUG", "1")
    answer = call("run", "data=synthetic", f"out={tmp_path}/run")
    assert "Traceback" in answer.err  # type: ignore[attr-defined]
    assert answer.code == 70  # type: ignore[attr-defined]


@pytest.mark.e2e
def test_unreadable_weights(tiny_run: Path, tmp_path: Path) -> None:
    out, weights = tmp_path / "tiny", tmp_path / "w.safetensors"
    weights.write_bytes(b"\xff" * 4096)
    shutil.copytree(tiny_run, out)
    before = (out / "run.json").read_text()
    done = workzone("run", *tiny_words(out, tmp_path / "cache", f"model.weights={weights}"))
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "w.safetensors" in done.stderr.splitlines()[-1]
    assert json_phases(before) == json_phases((out / "run.json").read_text())


def json_phases(text: str) -> object:
    import json

    return json.loads(text)["phases"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can be mounted by root only")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.e2e
def test_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    out = small_disk / "run"
    (small_disk / "filler").write_bytes(b"x" * 1_200_000)
    words = tiny_words(out, tmp_path / "cache")
    done = workzone("run", *words, "--to", "prepare")
    assert done.returncode == 2, done.stderr
    assert "the disk is full" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (out / "run.json").exists()
    assert [p for p in out.rglob(".*") if p.name != ".lock"] == []
    (small_disk / "filler").unlink()
    assert len(list(out.rglob("*.jpg"))) > 5, "what was drawn is kept"
    again = workzone("run", *words, "source.synthetic_images=60", "--to", "prepare")
    assert "given twice" in again.stderr
    small = tiny_words(out, tmp_path / "cache", "source.synthetic_images=60")
    assert workzone("run", *small, "--to", "prepare").returncode == 0


@pytest.mark.e2e
def test_a_full_disk_for_the_results_of_predict(small_disk: Path, tiny_bundle: Path) -> None:
    image = next((tiny_bundle / "golden").glob("*.png"))
    (small_disk / "filler").write_bytes(b"x" * (2 << 20))
    done = workzone("predict", image, "-b", tiny_bundle, "-o", small_disk / "out.csv")
    assert done.returncode == 2
    assert "No space left on device" in done.stderr.splitlines()[-1]
    assert [p.name for p in small_disk.iterdir()] == ["filler"]
