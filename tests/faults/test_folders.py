"""Folders that cannot be written, and bundles of another time."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers.command import workzone
from workzone.bundle import Detector, schema, verify_bundle
from workzone.bundle.embedding import EmbeddingCache
from workzone.bundle.starter import STARTER
from workzone.errors import BundleError
from workzone.files import canonical_json, sha256_bytes

starter = pytest.mark.skipif(not STARTER.exists(), reason="this checkout has no starter bundle")


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that nobody can write, root included: a file system mounted for reading."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = not os.geteuid() and not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)], capture_output=True, check=False
    ).returncode
    if not mounted and not os.geteuid():
        pytest.skip("root writes everywhere, and nothing can be mounted here")
    if STARTER.exists():
        shutil.copytree(STARTER, place / "bundle")
    (place / "run").mkdir()
    if mounted:
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    else:
        place.chmod(0o500)
        (place / "run").chmod(0o500)
    try:
        yield place
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], check=True)
        else:
            place.chmod(0o700)
            (place / "run").chmod(0o700)


@starter
def test_a_folder_that_cannot_be_written_is_named(read_only: Path) -> None:
    picture = next((read_only / "bundle" / "golden").glob("*.*g"))
    for words in (
        ["run", "data=synthetic", f"out={read_only / 'run'}"],
        ["run", "data=synthetic", f"out={read_only / 'new'}"],
        ["predict", picture, "-b", read_only / "bundle", "-o", read_only / "out.csv"],
        ["data", "synth", read_only / "scenes", "--images", "2"],
        ["registry", "add", read_only / "bundle", "--root", read_only / "registry"],
    ):
        done = workzone(*words)
        assert done.returncode == 2, (words, done.stderr)
        assert "Traceback" not in done.stderr
        assert str(read_only) in done.stderr
        assert "cannot be written" in done.stderr or "Read-only file system" in done.stderr, done.stderr


@starter
def test_a_bundle_can_be_used_from_where_nothing_can_be_written(read_only: Path) -> None:
    assert all(check.passed for check in verify_bundle(read_only / "bundle"))


@starter
def test_a_cache_that_cannot_be_written_is_named(read_only: Path) -> None:
    detector = Detector.load(STARTER, threads=1)
    cache = EmbeddingCache(
        read_only / "cache", detector.engine, STARTER / "engine" / "backbone.onnx", detector.preprocessing
    )
    row = np.zeros((1, detector.engine.embedding_dim), dtype=np.float32), np.zeros((1, 4), dtype=np.float32)
    with pytest.raises(OSError, match=re.escape(str(read_only / "cache"))):
        cache.append({"0" * 64: row})
    assert "0" * 64 not in cache


def other_version(folder: Path, version: int) -> None:
    """Seal the bundle as one of another schema version, with hashes that fit."""
    values = json.loads((folder / schema.MANIFEST).read_text())
    del values["sha256"]
    values["schema_version"] = version
    body = canonical_json(values).encode()
    (folder / schema.MANIFEST).write_text(canonical_json({**values, "sha256": sha256_bytes(body)}))


@starter
@pytest.mark.parametrize("version", [0, 2])
def test_a_bundle_of_another_time_is_refused_with_what_to_do(tmp_path: Path, version: int) -> None:
    shutil.copytree(STARTER, tmp_path / "bundle")
    other_version(tmp_path / "bundle", version)
    with pytest.raises(BundleError, match=rf"version '{version}'; this version of workzone reads 1.*export again"):
        Detector.load(tmp_path / "bundle")
    (check,) = verify_bundle(tmp_path / "bundle")
    assert not check.passed
    other_version(tmp_path / "bundle", 1)
    assert all(check.passed for check in verify_bundle(tmp_path / "bundle")), "nothing but the version was changed"


@starter
def test_the_bundle_of_the_first_schema_is_read(tmp_path: Path) -> None:
    """The starter bundle was made once as version 1; only its card is ever renewed. It stands for all of version 1."""
    values = json.loads((STARTER / schema.MANIFEST).read_text())
    assert values["schema_version"] == 1
    detector = Detector.load(STARTER, threads=1)
    golden = schema.read_model(STARTER / schema.GOLDEN_CASES, schema.Golden)
    for case in golden.cases[:2]:
        answer = detector(STARTER / case.image)
        assert abs(answer.log_odds - case.log_odds) <= golden.tolerance
