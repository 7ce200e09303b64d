from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

GOOD, BAD = 9, 2


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the folders a and b: nine pictures, an empty file, a text named .jpeg, and other files."""
    folder = tmp_path_factory.mktemp("bulk") / "pictures"
    rng = np.random.default_rng(3)
    for i in range(GOOD):
        low = rng.integers(0, 255, (9, 16, 3), dtype=np.uint8)
        path = folder / "ab"[i % 2] / f"{9 - i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(low).resize((320, 180), Image.Resampling.BICUBIC).save(path, quality=90)
    (folder / "a" / "5x.jpg").write_bytes(b"")
    (folder / "b" / "text.jpeg").write_text("no picture")
    (folder / "b" / "notes.txt").write_text("no picture")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "1.jpg").write_bytes(b"")
    return folder
