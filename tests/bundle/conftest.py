from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from workzone.bundle import Detector


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle that the test may damage."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def images(tiny_run: Path) -> list[Path]:
    """A few pictures of the tiny run."""
    found = sorted((tiny_run / "prepare").rglob("*.jpg"))[:12]
    assert len(found) == 12
    return found


@pytest.fixture(scope="session")
def detector(tiny_bundle: Path) -> Detector:
    """The tiny bundle, opened."""
    return Detector.load(tiny_bundle, threads=2)
