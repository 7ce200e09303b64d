from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.command import workzone
from helpers.tiny import tiny_words
from workzone.bundle import Detector
from workzone.bundle.slices import exif_hour_band
from workzone.bundle.verify import verify_bundle
from workzone.calibration.slices import PerDatasetCalibrator, PerSliceCalibrator
from workzone.data.roles import CalibData
from workzone.errors import DataError


def by_source() -> PerDatasetCalibrator:
    """Offset of source b far above that of a."""
    return PerDatasetCalibrator.from_parameters(
        {
            "column": "source",
            "slope": 1.0,
            "intercept": 0.0,
            "slice_slope": 1.0,
            "prior_sd": 1.0,
            "offsets": {"a": -2.0, "b": 2.0},
            "images": {"a": 200, "b": 200},
        }
    )


def by_hour() -> PerSliceCalibrator:
    stored = by_source().parameters() | {"column": "hour_band", "offsets": {"night": 3.0}, "images": {"night": 150}}
    return PerSliceCalibrator.from_parameters(stored)


def logit(p: float) -> float:
    return float(np.log(p / (1 - p)))


def test_each_image_gets_its_own_slice(detector: Detector, images: list[Path]) -> None:
    sliced = replace(detector, calibrator=by_source())
    names = ["a", "b", ""]
    found = [d for _, d in sliced.predict(images[:3], columns={"source": names})]
    for d, offset in zip(found, (-2.0, 2.0, 0.0), strict=True):
        assert logit(d.probability) == pytest.approx(d.log_odds + offset, abs=1e-6)
    constant = [d for _, d in sliced.predict(images[:3], columns={"source": "b"})]
    assert all(logit(d.probability) == pytest.approx(d.log_odds + 2.0, abs=1e-6) for d in constant)


def test_a_needed_column_must_be_given(detector: Detector, images: list[Path]) -> None:
    sliced = replace(detector, calibrator=by_source())
    with pytest.raises(DataError, match=r"--slice source="):
        next(iter(sliced.predict(images[:1])))
    with pytest.raises(DataError, match="source"):
        sliced(images[0])


@pytest.mark.parametrize(("time", "offset"), [("2026:03:01 23:10:00", 3.0), ("2026:03:01 12:00:00", 0.0), (None, 0.0)])
def test_the_band_of_the_day_comes_from_exif(
    detector: Detector, images: list[Path], tmp_path: Path, time: str | None, offset: float
) -> None:
    path = tmp_path / "stamped.jpg"
    with Image.open(images[0]) as image:
        exif = Image.Exif()
        if time:
            exif.get_ifd(0x8769)[0x9003] = time
        image.save(path, quality=95, exif=exif)
    assert exif_hour_band(path) == exif_hour_band(path.read_bytes())
    d = replace(detector, calibrator=by_hour())(path)
    assert logit(d.probability) == pytest.approx(d.log_odds + offset, abs=1e-6)
    given = replace(detector, calibrator=by_hour())(path, columns={"hour_band": "night"})
    assert logit(given.probability) == pytest.approx(given.log_odds + 3.0, abs=1e-6)


def test_hour_column_stands_for_its_band() -> None:
    rng = np.random.default_rng(0)
    u, hour = rng.normal(size=600), rng.choice([3.0, 12.0], 600)
    y = (rng.random(600) < 1 / (1 + np.exp(-(u + np.where(hour == 3, 1.5, -1.5))))).astype(int)
    data = replace(CalibData.from_arrays(y, u), columns={"hour": hour})
    fitted = PerSliceCalibrator().fit(data)
    assert set(fitted.offsets) == {"day", "night"}
    assert fitted.offsets["night"] - fitted.offsets["day"] > 1.5


@pytest.mark.parametrize("calibrator", ["per_slice", "per_dataset"])
def test_a_run_calibrated_by_slice_verifies(tiny_run: Path, tmp_path: Path, calibrator: str) -> None:
    out = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    done = workzone("run", *tiny_words(out, tiny_run.parent / "cache", f"calibrate.method={calibrator}"))
    assert done.returncode == 0, done.stderr
    assert all(c.passed for c in verify_bundle(out / "bundle"))
    assert Detector.load(out / "bundle").calibrator.name == calibrator


def test_the_command_line_passes_a_slice_on(tiny_run: Path, tmp_path: Path, images: list[Path]) -> None:
    out = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    words = tiny_words(out, tiny_run.parent / "cache", "calibrate.method=per_dataset", "evaluate.gallery=0")
    assert workzone("run", *words).returncode == 0
    bundle = str(out / "bundle")
    refused = workzone("predict", str(images[0]), "--bundle", bundle)
    assert refused.returncode == 2
    assert "--slice source=VALUE" in refused.stderr
    done = workzone("predict", str(images[0]), "--bundle", bundle, "--slice", "source=", "--format", "csv")
    assert done.returncode == 0, done.stderr
    assert "COLUMN=VALUE" in workzone("predict", str(images[0]), "--bundle", bundle, "--slice", "x").stderr
