from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.forgery import edit_json, failures, reseal
from workzone.bundle import schema, write
from workzone.bundle.write import BundleParts, write_bundle
from workzone.errors import BundleError, WorkzoneError


@pytest.fixture
def parts(tiny_bundle: Path) -> BundleParts:
    def stored(name: str) -> Any:
        return json.loads((tiny_bundle / name).read_text())

    manifest, cases = stored("bundle.json"), stored("golden/cases.json")
    return BundleParts(
        name=manifest["name"],
        engine=tiny_bundle / "engine",
        engine_name=manifest["engine"]["name"],
        precision=manifest["engine"]["precision"],
        backbone=manifest["engine"]["backbone"],
        embedding_dim=manifest["engine"]["embedding_dim"],
        preprocessing=stored("preprocessing.json"),
        calibrator=stored("calibrator.json"),
        policy=stored("policy.json"),
        certificate=stored("certificate.json"),
        parity=stored("parity.json"),
        metrics=stored("metrics.json"),
        card="# Card\n",
        golden_images=[tiny_bundle / c["image"] for c in cases["cases"]],
        tolerance=cases["tolerance"],
        compare_decisions=True,
        lineage=manifest["lineage"],
    )


def left_over(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_written_bundle_verifies(parts: BundleParts, tmp_path: Path) -> None:
    assert not failures(write_bundle(parts, tmp_path / "new" / "bundle"))
    assert left_over(tmp_path / "new") == ["bundle"]


def test_old_bundle_is_replaced(parts: BundleParts, tmp_path: Path) -> None:
    target = write_bundle(parts, tmp_path / "bundle")
    write_bundle(replace(parts, card="# Another\n"), target)
    assert (target / "MODEL_CARD.md").read_text() == "# Another\n"
    assert not failures(target)
    assert left_over(tmp_path) == ["bundle"]


@pytest.mark.parametrize("step", ["_fill", "write_golden", "verify_bundle", "_flush", "_replace", "write_json"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_stopped_half_way_leaves_nothing(
    parts: BundleParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: type[BaseException]
) -> None:
    def stop(*args: object) -> None:
        raise error

    monkeypatch.setattr(write, step, stop)
    with pytest.raises(error):
        write_bundle(parts, tmp_path / "bundle")
    assert left_over(tmp_path) == []


def test_old_bundle_survives_a_failed_rename(
    parts: BundleParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = write_bundle(parts, tmp_path / "bundle")
    before = (target / "bundle.json").read_bytes()
    rename = Path.rename

    def fail(self: Path, goal: Path) -> Path:
        if self.suffix == ".partial":
            raise OSError("no")
        return rename(self, goal)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="no"):
        write_bundle(replace(parts, card="# Another\n"), target)
    assert (target / "bundle.json").read_bytes() == before
    assert left_over(tmp_path) == ["bundle"]


def test_bundle_is_put_back_after_a_kill_between_the_renames(parts: BundleParts, tmp_path: Path) -> None:
    target = write_bundle(parts, tmp_path / "bundle")
    target.rename(tmp_path / ".bundle.old")
    with pytest.raises(BundleError):
        write_bundle(replace(parts, policy={}), target)
    assert not failures(target)


def test_remains_of_a_killed_writer_are_removed(parts: BundleParts, tmp_path: Path) -> None:
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    for writer in (dead.stdout.strip(), str(os.getpid())):
        (tmp_path / f".bundle-{writer}-abc.partial").mkdir()
    write_bundle(parts, tmp_path / "bundle")
    assert left_over(tmp_path) == [f".bundle-{os.getpid()}-abc.partial", "bundle"]


def test_damaged_bundle_is_replaced(parts: BundleParts, tmp_path: Path) -> None:
    target = write_bundle(parts, tmp_path / "bundle")
    (target / "bundle.json").unlink()
    (target / "policy.json").unlink()
    assert not failures(write_bundle(parts, target))


def test_folder_that_is_no_bundle_is_not_deleted(parts: BundleParts, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "dear.jpg").write_bytes(b"x")
    with pytest.raises(BundleError, match="no bundle"):
        write_bundle(parts, tmp_path / "photos")
    (tmp_path / "file").write_text("x")
    with pytest.raises(BundleError, match="not a folder"):
        write_bundle(parts, tmp_path / "file")
    assert left_over(tmp_path / "photos") == ["dear.jpg"]


@pytest.mark.parametrize(
    "change",
    [
        lambda p: replace(p, certificate={**p.certificate, "engine_sha256": "0" * 64}),
        lambda p: replace(p, certificate={**p.certificate, "calibrator_sha256": "0" * 64}),
        lambda p: replace(p, certificate={**p.certificate, "policy_sha256": "0" * 64}),
        lambda p: replace(p, certificate={**p.certificate, "preprocessing_sha256": "0" * 64}),
        lambda p: replace(p, precision="int8"),
        lambda p: replace(p, policy={"policies": [p.policy, p.policy]}),
        lambda p: replace(p, calibrator={"method": "temperature", "parameters": {"temperature": 3.0}}),
        lambda p: replace(p, preprocessing={**p.preprocessing, "image_size": 96}),
        lambda p: replace(p, embedding_dim=3),
        lambda p: replace(p, golden_images=[]),
        lambda p: replace(p, tolerance=float(schema.MAX_TOLERANCE * 2)),
        lambda p: replace(p, engine=p.engine.parent / "golden"),
    ],
)
def test_parts_that_do_not_fit(
    parts: BundleParts, tmp_path: Path, change: Callable[[BundleParts], BundleParts]
) -> None:
    with pytest.raises(WorkzoneError):
        write_bundle(change(parts), tmp_path / "bundle")
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("compared", [True, False])
def test_near_a_threshold_only_log_odds_are_compared(parts: BundleParts, tmp_path: Path, compared: bool) -> None:
    """Another processor may decide a borderline image otherwise; its log-odds must still agree."""
    target = write_bundle(replace(parts, compare_decisions=compared), tmp_path / "bundle")

    def other_decision(cases: Any) -> None:
        case = cases["cases"][0]
        case["decision"] = "no_roadwork" if case["decision"] == "roadwork" else "roadwork"

    edit_json(target / "golden/cases.json", other_decision)
    reseal(target)
    assert list(failures(target)) == (["golden cases"] if compared else [])

    def other_score(cases: Any) -> None:
        cases["cases"][0]["log_odds"] += 3 * parts.tolerance

    edit_json(target / "golden/cases.json", other_score)
    reseal(target)
    assert list(failures(target)) == ["golden cases"]
