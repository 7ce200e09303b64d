"""A folder in which the commands of the documentation are run, as a reader would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Workshop:
    """Runs blocks of the documentation in one folder, with the commands of this environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        bin_folder = str(Path(sys.executable).parent)
        self.environment = {
            **os.environ,
            "PATH": os.pathsep.join([bin_folder, os.environ.get("PATH", "")]),
            "WORKZONE_CACHE": str(folder / "cache"),
            "COLUMNS": "160",
            "WORKZONE_MLFLOW": "off",  # laying out a database takes MLflow seconds; tests/registry is about it
        }

    def bash(self, text: str) -> str:
        return self._run(["bash", "-euo", "pipefail", "-c", text], text)

    def python(self, text: str, *words: str) -> str:
        return self._run([sys.executable, "-c", text, *words], text)

    def _run(self, command: list[str], text: str) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=840,
        )  # fmt: skip
        assert done.returncode == 0, f"exit code {done.returncode} of\n{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """An empty workshop."""
    return Workshop(tmp_path_factory.mktemp("docs"))


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A workshop where the run of the README has been made."""
    place = Workshop(tmp_path_factory.mktemp("readme"))
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    start = text.index("workzone data synth streets")
    place.bash(text[start : text.index("```", start)])
    return place
