"""A disk that is full at the n-th write, for every n: what was there stays, what was begun goes, and it can go on."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "pipeline"))

from toy import NAMES, config, phases

from workzone.bundle import schema, verify_bundle
from workzone.bundle.starter import STARTER
from workzone.bundle.write import BundleParts, write_bundle
from workzone.errors import ArtifactError, WorkzoneError
from workzone.files import read_json
from workzone.pipeline import engine
from workzone.pipeline.engine import run_pipeline
from workzone.predictions import Predictions
from workzone.registry import store
from workzone.registry.store import Registry, read_bundle

starter = pytest.mark.skipif(not STARTER.exists(), reason="this checkout has no starter bundle")
MOST = 400


class Disk:
    """Has room for ``room`` writes; of the next one the first half arrives."""

    def __init__(self, room: int) -> None:
        self.room, self.refused = room, 0

    def take(self) -> None:
        self.room -= 1
        if self.room < 0:
            self.refused += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def disk(room: int) -> Iterator[Disk]:
    """Everything that makes or fills a file of this process writes to a disk of that room."""
    kept = os.open, os.fsync, Path.write_bytes, shutil.copyfile
    found = Disk(room)

    def opened(path: Any, flags: int, *more: Any, **other: Any) -> int:
        if flags & os.O_CREAT:
            found.take()
        return kept[0](path, flags, *more, **other)

    def synced(handle: int) -> None:
        found.take()
        kept[1](handle)

    def written(self: Path, content: bytes) -> int:
        kept[2](self, content[: len(content) // 2])
        found.take()
        return kept[2](self, content)

    def copied(source: Any, target: Any, **other: Any) -> Any:
        Path(target).touch()
        found.take()
        return kept[3](source, target, **other)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", opened)
        patch.setattr(os, "fsync", synced)
        patch.setattr(Path, "write_bytes", written)
        patch.setattr(shutil, "copyfile", copied)
        yield found


def full(error: BaseException | None) -> bool:
    while error is not None:
        # Copying a folder gathers what went wrong as text.
        if isinstance(error, OSError) and (error.errno == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def at_every_write(work: Callable[[], object], after: Callable[[BaseException | None], None]) -> int:
    """Do ``work`` on disks of 0, 1, 2 ... writes until one is large enough; how many were too small."""
    for room in range(MOST):
        error: BaseException | None = None
        with disk(room) as found:
            try:
                work()
            except (OSError, WorkzoneError) as caught:
                error = caught
        assert (error is not None) or not found.refused, f"a full disk at write {room + 1} was passed over"
        assert error is None or full(error), error
        after(error)
        if error is None:
            return room
    raise AssertionError(f"{MOST} writes were not enough")


def remains(folder: Path) -> list[str]:
    return [str(p) for p in folder.rglob("*") if ".partial" in p.name or p.name.endswith(".old")]


def artifacts(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for n in NAMES for p in sorted((out / n).rglob("*")) if p.is_file()}


def test_a_run_goes_on_from_every_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Asked of the system for every phase, which is slow and writes nothing.
    monkeypatch.setattr(engine, "environment", dict)
    monkeypatch.setattr(engine, "git_commit", lambda: None)
    run_pipeline(config(tmp_path / "whole"), phases())
    whole, out = artifacts(tmp_path / "whole"), tmp_path / "run"

    def after(error: BaseException | None) -> None:
        if error is not None:
            assert isinstance(error, ArtifactError)
            assert "the disk is full; finished phases are kept" in str(error)
        assert remains(out) == []
        done = read_json(out / "run.json")["phases"] if (out / "run.json").exists() else {}
        ran = [result.name for result in run_pipeline(config(out), phases()) if result.ran]
        assert ran == list(NAMES[len(done) :]), "finished phases are kept, and only those"
        assert artifacts(out) == whole
        shutil.rmtree(out)

    assert at_every_write(lambda: run_pipeline(config(out), phases()), after) > 4 * len(NAMES)


def parts(bundle: Path) -> BundleParts:
    """What the bundle was made of."""

    def stored(name: str) -> Any:
        return json.loads((bundle / name).read_text())

    manifest, golden = schema.read_manifest(bundle), stored(schema.GOLDEN_CASES)
    return BundleParts(
        name="again", engine=bundle / schema.ENGINE, engine_name=manifest.engine.name,
        precision=manifest.engine.precision, backbone=manifest.engine.backbone,
        embedding_dim=manifest.engine.embedding_dim, preprocessing=stored(schema.PREPROCESSING),
        calibrator=stored(schema.CALIBRATOR), policy=stored(schema.POLICY), certificate=stored(schema.CERTIFICATE),
        parity=stored(schema.PARITY), metrics=stored(schema.METRICS), card="# Card\n",
        golden_images=[bundle / case["image"] for case in golden["cases"][:1]], tolerance=golden["tolerance"],
        compare_decisions=False, lineage=stored(schema.MANIFEST)["lineage"],
    )  # fmt: skip


@starter
def test_a_bundle_is_replaced_by_a_whole_one_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    shutil.copytree(STARTER, target)
    old, made = (target / schema.MANIFEST).read_bytes(), parts(STARTER)

    def after(error: BaseException | None) -> None:
        assert remains(tmp_path) == []
        assert ((target / schema.MANIFEST).read_bytes() == old) == (error is not None)
        if error is not None:
            schema.check_files(target, schema.read_manifest(target))

    assert at_every_write(lambda: write_bundle(made, target), after) > 15
    assert all(check.passed for check in verify_bundle(target))


@starter
def test_the_registry_keeps_its_state_or_has_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Golden cases are not what is tried here, and take most of the time.
    monkeypatch.setattr(store, "_require_good", lambda folder, sha: schema.check_files(folder, read_bundle(folder)))
    root = tmp_path / "registry"

    def after(error: BaseException | None) -> None:
        registry = Registry(root)
        assert registry.add(STARTER) == "1.0.0"
        assert [entry.event for entry in registry.entries()] == ["add"], "once, however often it was asked for"
        assert remains(root) == []
        assert [gate.name for gate in registry.verify(bundles=False) if gate.passed is False] == []
        shutil.rmtree(root)

    assert at_every_write(lambda: Registry(root).add(STARTER), after) > 10


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_keeps_its_old_content(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"p{suffix}"
    ids = np.array(["a", "b"])
    Predictions(ids, np.array([0.0, 1.0])).save(path)

    def after(error: BaseException | None) -> None:
        assert [p.name for p in tmp_path.iterdir()] == [path.name]
        assert Predictions.load(path).log_odds.tolist() == ([0.0, 1.0] if error else [2.0, 3.0])

    assert at_every_write(lambda: Predictions(ids, np.array([2.0, 3.0])).save(path), after) >= 2
