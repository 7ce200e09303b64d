from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pictures import picture, save_picture
from PIL import Image, ImageEnhance

from workzone.data.audit.crops import find_matches
from workzone.data.audit.run import AuditReport, audit
from workzone.data.audit.windows import COARSE, FINE, SIDE, kernels, mirror, whole_features, window_features
from workzone.data.manifest import Manifest
from workzone.data.perceptual import grey_square
from workzone.data.roles import Role
from workzone.data.splits import Splits
from workzone.errors import DataError

SIZE = (320, 240)
CLEAN = 24


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clean")
    for n in range(CLEAN):
        save_picture(folder / f"c{n}.jpg", n, SIZE, quality=90)
    return folder


def run(clean: Path, planted: dict[str, Path] | None = None, groups: dict[str, str] | None = None) -> AuditReport:
    """Clean pictures alternate between train and val_test; planted ones are val_calib."""
    planted, groups = planted or {}, groups or {}
    files = {f"c{n}": clean / f"c{n}.jpg" for n in range(CLEAN)} | planted
    roles = {i: Role.VAL_CALIB if i in planted else [Role.TRAIN, Role.VAL_TEST][int(i[1:]) % 2] for i in files}
    frame = pl.DataFrame(
        {"id": list(files), "path": [str(p) for p in files.values()], "group": [groups.get(i, i) for i in files]}
    )
    return audit(Manifest.from_frame(frame, root="/"), Splits(roles))


def test_clean_data_has_no_findings(clean: Path) -> None:
    report = run(clean)
    assert report.passed
    assert report.render() == [f"{CLEAN} images compared across split roles: no leak"]


def test_a_group_in_two_roles(clean: Path) -> None:
    report = run(clean, groups={"c0": "drive", "c1": "drive", "c2": "drive", "c4": "tour", "c6": "tour"})
    assert [(f.kind, f.id_a, f.role_a, f.id_b, f.role_b) for f in report.findings] == [
        ("group", "c0", Role.TRAIN, "c1", Role.VAL_TEST)
    ]
    assert "2 images in train and 1 in val_test" in report.findings[0].detail
    assert not report.passed


def test_equal_bytes(clean: Path, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes((clean / "c5.jpg").read_bytes())
    report = run(clean, {"x": tmp_path / "x.jpg"})
    assert [(f.kind, {f.id_a, f.id_b}) for f in report.findings] == [("copy", {"c5", "x"})]


@pytest.mark.parametrize("change", ["encode", "shrink", "bright", "mirror", "stretch"])
def test_altered_copies(clean: Path, tmp_path: Path, change: str) -> None:
    image = picture(4, SIZE)
    if change == "shrink":
        image = image.resize((150, 112))
    elif change == "bright":
        image = ImageEnhance.Brightness(image).enhance(1.15)
    elif change == "mirror":
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    elif change == "stretch":
        image = image.resize((200, 200))
    image.save(tmp_path / "x.jpg", quality=45)
    report = run(clean, {"x": tmp_path / "x.jpg"})
    assert [(f.kind, {f.id_a, f.id_b}) for f in report.findings] == [("near_duplicate", {"c4", "x"})]
    assert ("mirrored" in report.findings[0].detail) is (change == "mirror")


def _crop(seed: int, share: float, rng: np.random.Generator) -> Image.Image:
    x, y = (1 - share) * rng.random(2)
    box = (x * SIZE[0], y * SIZE[1], (x + share) * SIZE[0], (y + share) * SIZE[1])
    return picture(seed, SIZE).crop(tuple(round(v) for v in box))  # type: ignore[arg-type]


def test_crops_of_60_to_95_percent_are_found_with_their_size(clean: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    planted, truth = {}, {}
    for n, share in enumerate(np.linspace(0.6, 0.93, CLEAN)):
        image = _crop(n, float(share), rng)
        if n % 4 == 1:
            image = image.resize((160, 120))
        elif n % 4 == 2:
            image = ImageEnhance.Brightness(image).enhance(1.1)
        elif n % 4 == 3:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        image.save(tmp_path / f"x{n}.jpg", quality=60)
        planted[f"x{n}"], truth[f"x{n}"] = tmp_path / f"x{n}.jpg", (f"c{n}", share)
    report = run(clean, planted)
    pairs = {(f.id_a, f.id_b) for f in report.findings}
    assert pairs == {(crop, whole) for crop, (whole, _) in truth.items()}
    for finding in report.findings:
        assert finding.kind == "crop"
        share = truth[finding.id_a][1]
        assert abs(_first_percent(finding.detail) - share) < 0.03
        assert ("mirrored" in finding.detail) is (int(finding.id_a[1:]) % 4 == 3)


def _first_percent(detail: str) -> float:
    return int(detail.split("shows ")[1].split("%")[0]) / 100


def test_crops_inside_one_role_are_no_leak() -> None:
    rng = np.random.default_rng(1)
    image = _crop(3, 0.75, rng)
    grey = np.stack([grey_square(p, SIDE).astype(np.uint8) for p in (picture(3, SIZE), image, picture(5, SIZE))])
    assert find_matches(grey, [0, 0, 1]) == []
    found = find_matches(grey, [0, 1, 1])
    assert [(m.part, m.whole) for m in found] == [(1, 0)]


def test_flat_pictures_are_like_nothing() -> None:
    grey = np.stack([np.full((SIDE, SIDE), v, dtype=np.uint8) for v in (0, 90, 255, 255)])
    assert find_matches(grey, [0, 1, 2, 3]) == []


def test_unreadable_and_changed_files_are_reported(clean: Path, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"nothing")
    report = run(clean, {"x": tmp_path / "x.jpg"})
    assert dict(report.unreadable) == {"x": "not_an_image"}
    assert "1 images could not be compared, first x" in report.render()[-1]
    frame = pl.DataFrame({"id": ["c0"], "path": [str(clean / "c0.jpg")], "sha256": ["0" * 64]})
    changed = audit(Manifest.from_frame(frame, root="/"), Splits({"c0": Role.TRAIN}, {"c0": "0" * 64}))
    assert changed.changed == ["c0"]
    assert not changed.passed


def test_a_split_of_other_images_is_refused(clean: Path) -> None:
    frame = pl.DataFrame({"id": ["c0"], "path": [str(clean / "c0.jpg")]})
    with pytest.raises(DataError, match="not in the manifest"):
        audit(Manifest.from_frame(frame, root="/"), Splits({"other": Role.TRAIN}))


def test_write(clean: Path, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes((clean / "c5.jpg").read_bytes())
    files = run(clean, {"x": tmp_path / "x.jpg"}).write(tmp_path / "out")
    body = json.loads(files[0].read_text())
    assert body["passed"] is False
    assert body["findings"][0]["kind"] == "copy"
    with Image.open(files[1]) as sheet:
        assert sheet.width > 400
        assert len(sheet.getcolors(1 << 24) or []) > 1000
    assert [p.name for p in run(clean).write(tmp_path / "clean")] == ["audit.json"]


def test_progress_counts_every_step(clean: Path) -> None:
    frame = pl.DataFrame({"id": ["c0", "c1"], "path": [str(clean / "c0.jpg"), str(clean / "c1.jpg")]})
    steps: list[tuple[int, int]] = []
    roles = {"c0": Role.TRAIN, "c1": Role.VAL_TEST}
    audit(Manifest.from_frame(frame, root="/"), Splits(roles), progress=lambda d, t: steps.append((d, t)))
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_kernels_equal_the_dct_of_block_means() -> None:
    from scipy.fft import dct

    line = np.random.default_rng(0).normal(size=SIDE).astype(np.float32)
    part = line[40:120].reshape(COARSE, -1).mean(axis=1)
    got = kernels([(40 / SIDE, 80 / SIDE)], COARSE)[0] @ line
    np.testing.assert_allclose(got, dct(part, norm="ortho"), atol=1e-5)


def test_features_are_blind_to_contrast_and_know_mirrors() -> None:
    grey = grey_square(picture(0, SIZE), SIDE)[None]
    plain = whole_features(grey, FINE)
    np.testing.assert_allclose(whole_features(grey * 0.5 + 20, FINE), plain, atol=1e-5)
    np.testing.assert_allclose(whole_features(grey[:, :, ::-1], FINE), mirror(plain, FINE), atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(window_features(grey[0]), axis=1), 1.0, atol=1e-5)
