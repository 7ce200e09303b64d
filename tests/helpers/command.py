"""The command line as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "src"


def environment(**extra: str) -> dict[str, str]:
    """Environment of a test process: this checkout, one thread, no settings of the user."""
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith("WORKZONE_") and k not in ("COLUMNS", "FORCE_COLOR")
    }
    ours = {"PYTHONPATH": str(SOURCES), "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    # Laying out a database takes MLflow seconds; tests that are about it say another word.
    return {**kept, **ours, "WORKZONE_MLFLOW": "off", **extra}


def command(words: Sequence[str | Path]) -> list[str]:
    """Arguments that start ``workzone`` with the interpreter of the tests."""
    return [sys.executable, "-m", "workzone", *(str(w) for w in words)]


def workzone(
    *words: str | Path,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 240,
) -> subprocess.CompletedProcess[str]:
    """Run ``workzone`` to its end and return code, output and errors."""
    return subprocess.run(
        command(words),
        input=stdin,
        env=environment(**(env or {})),
        cwd=cwd,
        timeout=timeout,
        capture_output=True,
        text=True,
    )
