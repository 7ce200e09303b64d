"""The same run as bundles of several engines: each proves itself, and they agree as far as they state."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from helpers.command import workzone
from helpers.forgery import failures, reseal
from helpers.tiny import tiny_words
from workzone.bundle import Detector, verify_bundle

pytestmark = [pytest.mark.parity, pytest.mark.timeout(600)]
SPREAD = ("fuse.epochs=60", "fuse.lr=0.01", "fuse.dropout=0", "fuse.patience=60", "export.golden=8")
"""Trained further than the tiny run: scores near zero would agree whatever the engines did."""
NAMES = ("onnxruntime-int8", "openvino-fp32", "openvino-int8")


@pytest.fixture(scope="session")
def variants(tiny_run: Path, shared_folder: Path) -> dict[str, Path]:
    """Bundles by engine and precision."""
    import fcntl

    pytest.importorskip("openvino")
    out = shared_folder / "variants"
    with (shared_folder / "variants.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (out / "variants" / NAMES[-1] / "bundle.json").exists():
            # The phases before fuse are those of the tiny run.
            shutil.copytree(tiny_run, out, dirs_exist_ok=True)
            words = tiny_words(out, shared_folder / "cache", f"export.also=[{','.join(NAMES)}]", *SPREAD)
            done = workzone("run", *words, timeout=500)
            assert done.returncode == 0, done.stderr
    return {"onnxruntime-fp32": out / "bundle"} | {name: out / "variants" / name for name in NAMES}


@pytest.mark.parametrize("name", ["onnxruntime-fp32", *NAMES])
def test_each_variant_verifies(variants: dict[str, Path], name: str) -> None:
    checks = verify_bundle(variants[name])
    assert [c.name for c in checks if not c.passed] == []
    manifest = Detector.load(variants[name]).manifest
    assert f"{manifest.engine.name}-{manifest.engine.precision}" == name


@pytest.mark.parametrize("name", NAMES)
def test_variants_agree_within_their_tolerance(variants: dict[str, Path], name: str, images: list[Path]) -> None:
    reference = Detector.load(variants["onnxruntime-fp32"], threads=1)
    other = Detector.load(variants[name], threads=1)
    golden = json.loads((variants[name] / "golden" / "cases.json").read_text())
    tolerance = golden["tolerance"]
    assert tolerance == (0.002 if name.endswith("fp32") else 0.25)
    for (_, a), (_, b) in zip(reference.predict(images), other.predict(images), strict=True):
        assert abs(a.log_odds - b.log_odds) <= tolerance
        assert [v.box for v in a.views] == [v.box for v in b.views]


def test_int8_has_its_own_certificate(variants: dict[str, Path]) -> None:
    def certificate(name: str) -> dict[str, object]:
        return dict(json.loads((variants[name] / "certificate.json").read_text()))

    engines = {name: certificate(name)["engine_sha256"] for name in variants}
    assert len(set(engines.values())) == len(variants)
    assert all(certificate(name)["engine"] == name for name in variants)


@pytest.mark.parametrize("name", NAMES)
def test_engine_of_another_variant_copied_in(variants: dict[str, Path], name: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(variants["onnxruntime-fp32"], tmp_path / "bundle"))
    shutil.rmtree(folder / "engine")
    shutil.copytree(variants[name] / "engine", folder / "engine")
    before = failures(folder)
    assert before
    reseal(folder)
    if name == "onnxruntime-int8":
        assert failures(folder) == {"certificate": "it was issued for another engine"}
    else:
        assert "no place in this bundle" in failures(folder)["schema"]
