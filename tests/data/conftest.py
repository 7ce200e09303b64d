from __future__ import annotations

import sys
from pathlib import Path

import pytest

# importlib mode does not put this folder on the path, and the helpers are shared by several files here.
sys.path.insert(0, str(Path(__file__).parent))

STREETS = Path(__file__).parents[3] / "shared" / "data" / "streets"


@pytest.fixture
def streets() -> Path:
    """Folder of the street images for development; they may not be redistributed, so they are not in the repository."""
    import os

    folder = Path(os.environ.get("WORKZONE_STREETS", STREETS))
    if not (folder / "metadata.csv").is_file():
        pytest.skip("the street images for development are not on this machine (set WORKZONE_STREETS)")
    return folder
