"""``workzone export``: a bundle of its own from a run, an artefact beside bundles, and plain refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from helpers.command import workzone
from workzone.bundle import Detector, verify_bundle
from workzone.cli.main import app
from workzone.config import RunConfig
from workzone.config.load import build_config, load_config
from workzone.errors import ConfigError, LeakageError, MissingExtraError
from workzone.pipeline.variants import variants, with_variant


def refused(*words: object) -> Exception:
    """The error that a command ends with."""
    result = CliRunner().invoke(app, ["export", *(str(w) for w in words)])
    assert result.exception is not None
    return result.exception  # type: ignore[return-value]


def test_variant_is_added_once_and_checked() -> None:
    config = load_config(["data=x", "out=y", "export.also=[openvino-fp32]"])
    added = build_config(with_variant(config, "openvino-bf16"))
    assert isinstance(added, RunConfig)
    assert variants(added) == ["onnxruntime-fp32", "openvino-fp32", "openvino-bf16"]
    assert build_config(with_variant(added, "openvino-bf16")) == added
    assert build_config(with_variant(config, "onnxruntime-fp32")) == config
    with pytest.raises(ConfigError, match=r"export\.also"):
        build_config(with_variant(config, "onnxruntime-bf16"))
    with pytest.raises(ConfigError, match="onnxruntime has no bf16"):
        load_config(["data=x", "out=y", "export.precision=bf16"])
    assert load_config(["data=x", "out=y", "export.engine=openvino", "export.precision=bf16"])


def test_refusals_without_a_run(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "neither a run nor a bundle" in str(refused(tmp_path, "--engine", "openvino", "--out", out))
    assert "neither a run nor a bundle" in str(refused(tmp_path, "--engine", "aoti", "--out", out))
    assert "no engine 'caffe'" in str(refused(tmp_path, "--engine", "caffe", "--out", out))
    assert not out.exists()


def test_bundle_alone_is_refused_with_what_to_do(tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    error = refused(tiny_bundle, "--engine", "openvino", "--precision", "bf16", "--out", out)
    assert isinstance(error, ConfigError)
    assert "no calibration images" in str(error)
    assert "export.also=[openvino-bf16]" in str(error)
    assert "trained network" in str(refused(tiny_bundle, "--engine", "aoti", "--out", out))
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        assert isinstance(refused(tiny_bundle, "--engine", "tensorrt", "--out", out), MissingExtraError)
    assert not out.exists()


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled scenes that the tiny run has not seen."""
    from workzone.data.synthetic.dataset import write_dataset

    folder = tmp_path_factory.mktemp("street")
    write_dataset(folder, 60, seed=77)
    return folder


SLOW = [pytest.param(v, marks=pytest.mark.slow) for v in ("openvino-fp32", "openvino-bf16", "openvino-int8")]


@pytest.mark.parametrize("variant", ["onnxruntime-fp32", *SLOW])
def test_a_bundle_is_calibrated_anew_on_images_of_its_own(
    tiny_bundle: Path, street: Path, tmp_path: Path, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKZONE_CACHE", str(tmp_path / "cache"))
    engine, _, precision = variant.partition("-")
    if engine == "openvino":
        ov = pytest.importorskip("openvino")
        if precision == "bf16" and "BF16" not in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            pytest.skip("this processor has no bf16")
    if precision == "int8":
        pytest.importorskip("nncf")
    words = ["export", str(tiny_bundle), "--engine", engine, "--precision", precision, "--calib", str(street)]
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out")])
    assert result.exception is None, result.exception
    assert [c.name for c in verify_bundle(tmp_path / "out") if not c.passed] == []
    made, old = Detector.load(tmp_path / "out", threads=1), Detector.load(tiny_bundle, threads=1)
    assert (made.manifest.engine.name, made.manifest.engine.precision) == (engine, precision)
    assert made.certificate.engine == variant
    assert made.certificate.n_calibration + made.certificate.n_certification == 60
    assert made.policy.name == old.policy.name
    targets = ("target_fnr", "delta", "unit")
    assert all(made.policy.parameters()[t] == old.policy.parameters()[t] for t in targets)
    assert made.policy.parameters() != old.policy.parameters()
    assert made.certificate.certification_images_sha256 != old.certificate.certification_images_sha256
    assert made.manifest.lineage["recalibrated_from"] == old.manifest.sha256
    parity = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert (parity["max_difference"] == 0) == (variant == "onnxruntime-fp32")
    assert parity["max_difference"] < 1.0


def test_recalibrating_a_run_keeps_features_in_its_cache(
    tiny_run: Path, street: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workzone.config.load import dump_yaml, load_config

    for name in ("bundle", "prepare"):
        shutil.copytree(tiny_run / name, tmp_path / "run" / name)
    shutil.copyfile(tiny_run / "run.json", tmp_path / "run" / "run.json")
    words = [f"out={tmp_path / 'run'}", f"cache.folder={tmp_path / 'own'}"]
    (tmp_path / "run" / "config.yaml").write_text(dump_yaml(load_config(words, file=tiny_run / "config.yaml")))
    monkeypatch.setenv("WORKZONE_CACHE", str(tmp_path / "of the user"))
    words = ["export", str(tmp_path / "run"), "--engine", "onnxruntime", "--precision", "fp32", "--calib", str(street)]
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out")])
    assert result.exception is None, result.exception
    assert any((tmp_path / "own").rglob("*.*"))
    assert not (tmp_path / "of the user").exists()


def test_images_that_the_run_was_trained_on_are_refused(tiny_run: Path, tmp_path: Path) -> None:
    error = refused(
        tiny_run, "--engine", "onnxruntime", "--out", tmp_path / "out", "--calib", tiny_run / "prepare/manifest.parquet"
    )
    assert isinstance(error, LeakageError)
    assert "train" in str(error)
    assert "artefact" in str(refused(tiny_run, "--engine", "aoti", "--out", tmp_path / "out", "--calib", tmp_path))


@pytest.mark.slow
def test_artefact_of_a_run(tiny_run: Path, tmp_path: Path) -> None:
    from workzone.export.artefacts import open_artefact

    result = CliRunner().invoke(app, ["export", str(tiny_run), "--engine", "torch", "--out", str(tmp_path / "out")])
    assert result.exception is None, result.output
    digest = result.output.rpartition("sha256=")[2].strip()
    assert open_artefact(tmp_path / "out", sha256=digest).image_size == 64
    assert "not empty" in str(refused(tiny_run, "--engine", "torch", "--out", tmp_path / "out"))


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.timeout(400)
def test_run_gives_a_bundle_with_its_own_certificate(tiny_run: Path, tmp_path: Path) -> None:
    ov = pytest.importorskip("openvino")
    bf16 = "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    precision = "bf16" if bf16 else "fp32"
    run, out = Path(shutil.copytree(tiny_run, tmp_path / "moved")), tmp_path / "out"
    words = ("export", run, "--engine", "openvino", "--precision", precision, "--out", out)
    done = workzone(*words, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [c.name for c in verify_bundle(out) if not c.passed] == []
    manifest = Detector.load(out).manifest
    assert (manifest.engine.name, manifest.engine.precision) == ("openvino", precision)
    own, base = (json.loads((p / "certificate.json").read_text()) for p in (out, run / "bundle"))
    assert own["engine"] == f"openvino-{precision}"
    assert own["engine_sha256"] != base["engine_sha256"]
    parity = json.loads((run / "export" / "parity.json").read_text())["engines"][f"openvino-{precision}"]
    assert parity["max_difference"] > 0
    assert 0.9 < parity["least_cosine_of_embeddings"] <= 1.0 + 1e-6
    assert workzone(*words).returncode == 2, "the folder is not empty now"
    assert f"openvino-{precision}" in (run / "config.yaml").read_text()
