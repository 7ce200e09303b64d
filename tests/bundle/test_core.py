"""The light core alone decides: nothing heavy is imported, and nothing heavy needs to be installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN = (
    "torch", "torchvision", "timm", "scipy", "polars", "matplotlib", "jinja2", "sklearn", "openvino", "onnx",
    "lightning", "peft", "safetensors", "pandas",
)  # fmt: skip
BLOCKER = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {FORBIDDEN!r}:
            raise ImportError(f"{{name}} must not be imported")
sys.meta_path.insert(0, Blocker())
sys.argv = ["workzone", *sys.argv[1:]]
from workzone.cli.main import main
main()
"""


def blocked(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BLOCKER, *words], capture_output=True, text=True, timeout=120)


def test_predict_imports_nothing_heavy(tiny_bundle: Path, images: list[Path]) -> None:
    done = blocked("predict", "--bundle", str(tiny_bundle), "--format", "jsonl", *map(str, images))
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [r["path"] for r in rows] == [str(p) for p in images]
    assert {r["decision"] for r in rows} <= {"roadwork", "no_roadwork", "abstain"}


def test_verify_imports_nothing_heavy(tiny_bundle: Path) -> None:
    done = blocked("verify", str(tiny_bundle))
    assert done.returncode == 0, done.stderr
    assert "The bundle is good." in done.stdout


def test_blocker_blocks() -> None:
    code = BLOCKER.replace("from workzone.cli.main import main\nmain()", "import scipy")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "scipy must not be imported" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_core_installation_alone(tiny_bundle: Path, images: list[Path], tmp_path: Path) -> None:
    """Wheel, fresh environment, core requirements only."""

    # pip takes a package that PYTHONPATH shows for one that is installed.
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*words: str | Path) -> str:
        done = subprocess.run([str(w) for w in words], capture_output=True, text=True, cwd=tmp_path, env=alone)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel)
    packages = [
        p
        for p in (tmp_path / "venv").glob("lib/*/site-packages/*")
        if p.name.split("-")[0] not in ("pip", "setuptools")
    ]
    size = sum(f.stat().st_size for p in packages for f in (p.rglob("*") if p.is_dir() else [p]) if f.is_file())
    assert size < 300e6
    present = run(python, "-c", f"import importlib.util as u; print([n for n in {FORBIDDEN!r} if u.find_spec(n)])")
    assert present.strip() == "[]"
    command = tmp_path / "venv" / "bin" / "workzone"
    assert "The bundle is good." in run(command, "verify", tiny_bundle)
    rows = run(command, "predict", "--bundle", tiny_bundle, "--format", "jsonl", *images).splitlines()
    assert len(rows) == len(images)
