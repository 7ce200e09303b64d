"""An import survives kills, full disks and sources that change; exactly once, whatever happens."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
from pathlib import Path

import layouts
import polars as pl
import pytest

from workzone.data.manifest import Manifest
from workzone.data.sources import importing
from workzone.data.sources.importing import import_source
from workzone.data.sources.natix import NatixSource
from workzone.data.sources.roadwork import RoadworkSource
from workzone.data.sources.unlabelled import UnlabelledSource
from workzone.errors import ConfigError, DataError

KILLED = """
import os, signal, sys
from pathlib import Path
from workzone.data.sources.importing import import_source
from workzone.data.sources.natix import NatixSource
def stop(done, total):
    if done == {after}:
        os.kill(os.getpid(), signal.SIGKILL)
import_source(NatixSource(), Path(sys.argv[1]), Path(sys.argv[2]), part=3, progress=stop)
"""


def images(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted((out / "images").rglob("*")) if p.is_file()}


def test_a_killed_import_gives_the_identical_manifest(tmp_path: Path) -> None:
    location = layouts.make_natix(tmp_path / "data", labels=(1, 0) * 6)
    import_source(NatixSource(), location, tmp_path / "whole", part=3)
    out = tmp_path / "out"
    for after in (2, 7, 11):
        command = [sys.executable, "-c", KILLED.format(after=after), str(location), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not (out / "manifest.parquet").exists()
    (out / "images" / ".abc-0123abcd.partial.jpg").write_bytes(b"half")
    last = import_source(NatixSource(), location, out, part=3)
    assert last.resumed == 9, "the parts that were finished before the last kill are not read again"
    for name in ("manifest.parquet", "left_out.csv"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert images(out) == images(tmp_path / "whole")


def test_one_thread_and_three_give_one_manifest(tmp_path: Path) -> None:
    location = layouts.make_natix(tmp_path / "data", labels=(1, 0) * 6)
    one, three = (
        import_source(NatixSource(), location, tmp_path / str(n), part=5, workers=n).manifest.parent for n in (1, 3)
    )
    assert (one / "manifest.parquet").read_bytes() == (three / "manifest.parquet").read_bytes()
    for folder in (one, three):
        notes = [json.loads(p.read_text())["files"] for p in sorted((folder / ".import").glob("part-*.json"))]
        assert {f for files in notes for f in files} == set(images(folder)), "a part is valid while its images exist"


def test_a_full_disk_is_said_and_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    location, out = layouts.make_natix(tmp_path / "data"), tmp_path / "out"
    real, count = importing.write_atomic, [0]

    def full(target: Path, content: bytes | str) -> None:
        count[0] += 1
        if count[0] > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(target, content)

    monkeypatch.setattr(importing, "write_atomic", full)
    with pytest.raises(DataError, match="the disk is full"):
        import_source(NatixSource(), location, out, part=2)
    assert not (out / "manifest.parquet").exists()
    monkeypatch.undo()
    assert import_source(NatixSource(), location, out, part=2).resumed == 2
    assert len(images(out)) == 6


def test_a_changed_source_is_refused(tmp_path: Path) -> None:
    location = layouts.make_roadwork(tmp_path / "data")
    import_source(RoadworkSource(), location, tmp_path / "out", part=2)
    file = location / "annotations" / "instances_train_gps_split.json"
    file.write_text(file.read_text().replace("Cloudy", "Snowy"))
    with pytest.raises(DataError, match="has changed since the import began"):
        import_source(RoadworkSource(), location, tmp_path / "out", part=2)


def test_another_import_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    location = layouts.make_roadwork(tmp_path / "data")
    import_source(RoadworkSource(), location, tmp_path / "out")
    with pytest.raises(ConfigError, match="another source, or with other options"):
        import_source(RoadworkSource(split="pittsburgh"), location, tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        import_source(RoadworkSource(), location, tmp_path / "full")
    with pytest.raises(ConfigError, match="no folder"):
        import_source(RoadworkSource(), location, tmp_path / "full" / "notes.txt")


def test_a_lost_image_is_written_again(tmp_path: Path) -> None:
    location, out = layouts.make_natix(tmp_path / "data"), tmp_path / "out"
    import_source(NatixSource(), location, out, part=2)
    before = images(out)
    victim = Manifest.load(out / "manifest.parquet").paths[3]
    victim.unlink()
    assert import_source(NatixSource(), location, out, part=2).resumed == 2
    assert images(out) == before


def test_equal_images_are_written_once_and_counted(tmp_path: Path) -> None:
    same = {"image": {"bytes": layouts.jpeg(1), "path": "x.jpg"}}
    location = layouts.make_natix(tmp_path / "data", labels=(1, 0, 1, 1), **same)
    done = import_source(NatixSource(), location, tmp_path / "out")
    assert len(images(tmp_path / "out")) == 1
    assert (done.survey.images, done.copies, done.contradictory) == (4, 3, 1)


def test_ids_that_repeat_are_refused(tmp_path: Path) -> None:
    layouts.make_phone(tmp_path / "data")
    paths = [str(p) for p in sorted((tmp_path / "data").rglob("*.jpg"))[:2]]
    pl.DataFrame({"id": ["a", "a"], "path": paths}).write_csv(tmp_path / "list.csv")
    with pytest.raises(DataError, match=r"not unique|share ids"):
        import_source(UnlabelledSource(), tmp_path / "list.csv", tmp_path / "out", part=1)


def test_too_many_pixels_are_unreadable(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"6 of 6 images cannot be read.*larger than the limit"):
        import_source(NatixSource(), layouts.make_natix(tmp_path / "data"), tmp_path / "out", max_pixels=10_000)


def test_memory_does_not_grow_with_the_source(tmp_path: Path) -> None:
    """Events of a large listing are looked at one by one: at most a few records wait for a thread."""
    from collections.abc import Iterator

    from workzone.data.sources.records import Event, Stream

    location, alive, most = layouts.make_natix(tmp_path / "data", labels=(1, 0) * 15), [0], [0]

    class Counted(NatixSource):
        __slots__ = ()

        def stream(self, location: Path, *, start: int = 0, content: bool = True) -> Stream:
            inner = super().stream(location, start=start, content=content)

            def events() -> Iterator[Event]:
                for event in inner.events:
                    alive[0] += 1
                    yield event

            return Stream(events(), inner.extra, inner.total, inner.where)

    def settled(done: int, total: int) -> None:
        most[0] = max(most[0], alive[0] - done)

    import_source(Counted(), location, tmp_path / "out", part=5, workers=2, progress=settled)
    assert alive[0] == 30
    assert most[0] <= 5
