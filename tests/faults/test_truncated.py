"""Files that were cut short: a run makes them again or says what is wrong; a reader never ends in a traceback."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.tiny import tiny_words
from workzone.bundle import Detector, verify_bundle
from workzone.config.load import load_config
from workzone.data.manifest import Manifest
from workzone.data.splits import Splits
from workzone.errors import ArtifactError, BundleError, WorkzoneError
from workzone.evaluation.given import load_given
from workzone.pipeline import engine
from workzone.pipeline.engine import run_pipeline
from workzone.pipeline.hashing import Hasher
from workzone.pipeline.record import Record
from workzone.predictions import Predictions

pytestmark = pytest.mark.e2e
# Of the whole; 1 leaves out the last byte.
CUTS = (0.0, 0.3, 0.5, 0.9, 1.0)


def cut(path: Path, share: float) -> None:
    """Leave that share of a file, and less than the whole of it."""
    content = path.read_bytes()
    path.write_bytes(content[: min(int(share * len(content)), len(content) - 1)])


@pytest.fixture(scope="module")
def copy(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that tests may damage, one file at a time."""
    out = tmp_path_factory.mktemp("truncated") / tiny_run.name
    shutil.copytree(tiny_run, out)
    return out


def test_every_cut_file_of_a_run_is_made_again(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workzone.pipeline.phases import PHASES

    # One memory of hashes for all plans: what is not touched is not read again.
    shared = Hasher()
    monkeypatch.setattr(engine, "Hasher", lambda: shared)
    config = load_config(tiny_words(copy, tmp_path / "cache"))
    record = json.loads((copy / "run.json").read_text())["phases"]
    assert not any(result.ran for result in run_pipeline(config, PHASES, dry_run=True))
    seen = 0
    for phase, entry in record.items():
        # Pictures and golden cases are alike: the first two of each folder stand for the rest.
        alike: dict[tuple[str, str], int] = {}
        for name in entry["outputs"]:
            path = copy / name
            kind = (str(path.parent), path.suffix)
            alike[kind] = alike.get(kind, 0) + 1
            if alike[kind] > 2 or not path.stat().st_size:
                continue
            whole = path.read_bytes()
            for share in (0.0, 0.5, 1.0):
                cut(path, share)
                plan = {result.name: result for result in run_pipeline(config, PHASES, dry_run=True, to=phase)}
                path.write_bytes(whole)
                assert plan[phase].ran, name
                assert plan[phase].sure, name
                assert plan[phase].why == f"an output was changed: {name}"
                seen += 1
    assert seen > 100
    assert not any(result.ran for result in run_pipeline(config, PHASES, dry_run=True))


READERS: dict[str, Callable[[Path], object]] = {
    "run.json": Record.load,
    "prepare/manifest.parquet": Manifest.load,
    "prepare/splits.json": Splits.load,
    "calibrate/onnxruntime-fp32/val_calib.parquet": Predictions.load,
    "evaluate/predictions.parquet": lambda path: load_given(path.parent.parent),
    "config.yaml": lambda path: load_config([], file=path),
}


def refusal(reader: Callable[[Path], object], path: Path) -> str | None:
    """What a reader says against a file, None where it takes it."""
    try:
        reader(path)
    except WorkzoneError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", READERS)
def test_readers_say_what_is_wrong(copy: Path, name: str) -> None:
    path = copy / name
    whole = path.read_bytes()
    READERS[name](path)
    refused = 0
    try:
        for share in (*CUTS, *(i / 23 for i in range(1, 23))):
            path.write_bytes(whole)
            cut(path, share)
            said = refusal(READERS[name], path)
            assert said is None or path.name in said or str(path.parent) in said or "key" in said
            refused += said is not None
    finally:
        path.write_bytes(whole)
    # YAML that ends between two keys is still YAML.
    assert refused >= (1 if name == "config.yaml" else len(CUTS) + 20)


def test_a_cut_run_manifest_is_no_reason_to_begin_again_silently(copy: Path, tmp_path: Path) -> None:
    from workzone.pipeline.phases import PHASES

    whole = (copy / "run.json").read_bytes()
    cut(copy / "run.json", 0.5)
    try:
        with pytest.raises(ArtifactError, match=r"run manifest cannot be read.*delete it to run every phase again"):
            run_pipeline(load_config(tiny_words(copy, tmp_path / "cache")), PHASES)
    finally:
        (copy / "run.json").write_bytes(whole)


@pytest.mark.parametrize("share", CUTS)
def test_every_cut_file_of_a_bundle_is_found(copy: Path, share: float) -> None:
    bundle = copy / "bundle"
    for path in sorted(p for p in bundle.rglob("*") if p.is_file()):
        whole = path.read_bytes()
        cut(path, share)
        try:
            failed = [check.detail for check in verify_bundle(bundle) if not check.passed]
            assert any(path.name in detail for detail in failed), (path.name, failed)
            with pytest.raises(BundleError, match=re.escape(path.name)):
                Detector.load(bundle, threads=1)
        finally:
            path.write_bytes(whole)
    assert all(check.passed for check in verify_bundle(bundle))
