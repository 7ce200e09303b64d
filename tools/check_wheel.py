"""Build the wheel, install it with its core dependencies outside the tree, and try what needs no extra."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORE_LIMIT_MB = 300
_TRY = """
import sys, workzone
from importlib import resources
assert "site-packages" in workzone.__file__, workzone.__file__
heavy = {"torch", "scipy", "polars", "onnxruntime", "pandas"} & set(sys.modules)
assert not heavy, f"import workzone loads {heavy}"
for name in ("config/presets/small.yaml", "evaluation/report/templates/report.html.j2", "py.typed"):
    assert resources.files("workzone").joinpath(name).is_file(), f"the wheel lacks {name}"
import workzone.bundle.runtime
for name in ("torch", "polars", "scipy"):
    try:
        __import__(name)
    except ImportError:
        continue
    raise AssertionError(f"{name} came with the core")
print("import workzone", workzone.__version__)
"""


def run(*words: str | Path, cwd: Path, expect: int = 0) -> str:
    """Run a command outside the tree and return what it printed; stop with that text when the exit code is another."""
    done = subprocess.run([str(w) for w in words], cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != expect:
        sys.exit(f"{' '.join(map(str, words))} exited {done.returncode}, expected {expect}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def size_mb(folder: Path) -> float:
    """Megabytes of all files below ``folder``."""
    return sum(p.lstat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6


def main() -> None:
    """Exit with a message at the first thing that does not hold."""
    with tempfile.TemporaryDirectory(prefix="workzone-wheel-") as temporary:
        place = Path(temporary)
        # A copy, so that stale files of an earlier build cannot slip into the wheel.
        source = place / "source"
        ignored = shutil.ignore_patterns(".*", "*.egg-info", "build", "dist", "site", "demo", "outputs", "__pycache__")
        shutil.copytree(ROOT, source, ignore=ignored)
        run(sys.executable, "-m", "build", "--wheel", "--outdir", place / "dist", source, cwd=place)
        wheel = next((place / "dist").glob("*.whl"))
        venv.create(place / "venv", with_pip=True)
        python, command = place / "venv/bin/python", place / "venv/bin/workzone"
        bare = size_mb(place / "venv")
        pip = (python, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet")
        run(*pip, "-c", ROOT / "constraints.txt", wheel, cwd=place)
        core = size_mb(place / "venv") - bare
        print(run(python, "-I", "-c", _TRY, cwd=place).strip())
        if "predict" not in run(command, "--help", cwd=place):
            sys.exit("workzone --help does not list predict")
        # Without the extras these must say what to install, not raise.
        if "workzone[train]" not in run(command, "demo", f"out={place / 'demo'}", cwd=place, expect=2):
            sys.exit("workzone demo does not say which extra it needs")
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB, core with dependencies {core:.0f} MB")
        if core > CORE_LIMIT_MB:
            sys.exit(f"the core is larger than {CORE_LIMIT_MB} MB")


if __name__ == "__main__":
    main()
