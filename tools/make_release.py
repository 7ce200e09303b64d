"""Build what a release consists of: wheel, source distribution, bills of materials, and their hashes, in dist/.

The wheel is built from the source distribution, so that what is published is what anybody can build again. Bills of
materials are CycloneDX JSON: one of the core as it installs beside the wheel, one of every pinned package.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
_IGNORED = (".*", "*.egg-info", "build", "dist", "site", "demo", "outputs", "__pycache__")


def run(*words: str | Path, cwd: Path) -> None:
    """Run a command; stop with what it printed when it fails."""
    done = subprocess.run([str(w) for w in words], cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))} exited {done.returncode}\n{done.stdout}{done.stderr}")


def build(place: Path) -> tuple[Path, Path]:
    """Source distribution of a clean copy, and the wheel that is built from it."""
    source = place / "source"
    # A copy, so that stale files of an earlier build cannot slip in.
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*_IGNORED))
    out = place / "dist"
    run(sys.executable, "-m", "build", "--outdir", out, source, cwd=place)
    return next(out.glob("*.tar.gz")), next(out.glob("*.whl"))


def bills(wheel: Path, place: Path, version: str) -> list[Path]:
    """Bills of materials of the installed core and of all pinned packages."""
    venv.create(place / "venv", with_pip=True)
    python = place / "venv" / "bin" / "python"
    pip = (python, "-m", "pip", "--disable-pip-version-check", "--no-input")
    run(*pip, "install", "--quiet", "-c", ROOT / "constraints.txt", wheel, cwd=place)
    run(*pip, "uninstall", "--quiet", "--yes", "pip", "setuptools", cwd=place)
    core = place / f"workzone-{version}.core.cdx.json"
    pinned = place / f"workzone-{version}.pinned.cdx.json"
    tool = (sys.executable, "-m", "cyclonedx_py")
    options = ("--output-reproducible", "--output-format", "JSON", "--validate")
    run(*tool, "environment", *options, "-o", core, "--pyproject", ROOT / "pyproject.toml", python, cwd=place)
    run(*tool, "requirements", *options, "-o", pinned, ROOT / "constraints.txt", cwd=place)
    return [core, pinned]


def check(core: Path, version: str) -> int:
    """Number of packages of the core; exits when the bill lacks what the core needs or holds what it must not."""
    found = {c["name"].lower(): c.get("version") for c in json.loads(core.read_text(encoding="utf-8"))["components"]}
    missing = {"numpy", "pillow", "onnxruntime", "pydantic"} - set(found)
    heavy = {"torch", "scipy", "polars"} & set(found)
    if missing or heavy:
        sys.exit(f"the bill of materials of {version} lacks {sorted(missing)} and should not hold {sorted(heavy)}")
    return len(found)


def main() -> None:
    """Fill dist/ and print what lies there."""
    with tempfile.TemporaryDirectory(prefix="workzone-release-") as temporary:
        place = Path(temporary)
        sdist, wheel = build(place)
        version = wheel.name.split("-")[1]
        made = [sdist, wheel, *bills(wheel, place, version)]
        packages = check(made[2], version)
        shutil.rmtree(DIST, ignore_errors=True)
        DIST.mkdir()
        for path in made:
            shutil.copy2(path, DIST / path.name)
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}\n" for p in sorted(DIST.iterdir())]
    (DIST / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")
    sizes = ", ".join(f"{p.name} {p.stat().st_size / 1e6:.1f} MB" for p in sorted(DIST.iterdir()))
    print(f"{packages} packages in the core; {sizes}")


if __name__ == "__main__":
    main()
