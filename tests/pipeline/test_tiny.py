from __future__ import annotations

from pathlib import Path

def test_a(tiny_bundle: Path) -> None:
    assert (tiny_bundle / "bundle.json").is_file()
