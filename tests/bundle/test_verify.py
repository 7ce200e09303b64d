from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from helpers.forgery import edit_json, edit_manifest, failures, reseal
from workzone.bundle import Detector, schema, verify_bundle
from workzone.errors import BundleError

FILES = (
    "bundle.json", "preprocessing.json", "calibrator.json", "policy.json", "certificate.json", "parity.json",
    "metrics.json", "MODEL_CARD.md", "golden/cases.json", "golden/00.png", "engine/backbone.onnx", "engine/head.onnx",
)  # fmt: skip


def flip(at: float) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        i = min(int(at * len(content)), len(content) - 1)
        return content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :]

    return change


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "first byte": flip(0),
    "middle byte": flip(0.5),
    "last byte": flip(1),
    "appended": lambda c: c + b"\n",
    "truncated": lambda c: c[:-1],
    "empty": lambda c: b"",
}


def refused(folder: Path, reason: str = "") -> None:
    """Neither verified nor loaded, with the reason."""
    failed = failures(folder)
    assert failed
    assert reason in " ".join(failed.values())
    with pytest.raises(BundleError):
        Detector.load(folder)


def test_good_bundle_passes_every_check(tiny_bundle: Path) -> None:
    checks = verify_bundle(tiny_bundle)
    assert [c.name for c in checks] == ["schema", "hashes", "certificate", "golden cases"]
    assert all(c.passed for c in checks)


def test_list_of_files_is_complete(tiny_bundle: Path) -> None:
    present = {p.relative_to(tiny_bundle).as_posix() for p in tiny_bundle.rglob("*") if p.is_file()}
    assert set(FILES) <= present
    assert all(name.startswith("golden/") for name in present - set(FILES))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", FILES)
def test_any_changed_byte_is_named(copy: Path, name: str, change: str) -> None:
    path = copy / name
    path.write_bytes(CHANGES[change](path.read_bytes()))
    refused(copy, name)


@pytest.mark.parametrize("name", FILES)
def test_deleted_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    refused(copy, name)


@pytest.mark.parametrize("name", FILES)
def test_link_in_place_of_a_file(copy: Path, tmp_path: Path, name: str) -> None:
    away = tmp_path / "away"
    (copy / name).rename(away)
    (copy / name).symlink_to(away)
    refused(copy, name)


def test_linked_folder(copy: Path, tmp_path: Path) -> None:
    (copy / "engine").rename(tmp_path / "engine")
    (copy / "engine").symlink_to(tmp_path / "engine")
    refused(copy, "engine")


@pytest.mark.parametrize("name", ["note.txt", "engine/weights.bin", "golden/99.png", ".hidden", "sub/file"])
def test_added_file_is_named(copy: Path, name: str) -> None:
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_text("x")
    refused(copy, name.split("/")[0])


def test_added_fifo_does_not_block(copy: Path) -> None:
    os.mkfifo(copy / "engine" / "pipe")
    (copy / "policy.json").unlink()
    os.mkfifo(copy / "policy.json")
    refused(copy, "pipe")


def test_unreadable_file_is_a_failed_check(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(schema, "sha256_file", denied)
    refused(copy, "Permission denied")


def test_no_bundle_at_all(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "no bundle here")
    refused(tmp_path, "bundle.json")


def test_swapped_engine_voids_the_certificate(copy: Path) -> None:
    """Another working network, with every hash made to fit: only the certificate can tell."""
    from onnx import load, numpy_helper

    path = copy / "engine" / "backbone.onnx"
    model = load(path)
    weight = next(t for t in model.graph.initializer if len(t.dims) == 4)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 0.5, weight.name))
    path.write_bytes(model.SerializeToString())
    reseal(copy)
    assert failures(copy) == {"certificate": "it was issued for another engine"}
    refused(copy, "another engine")


@pytest.mark.parametrize("key", ["name", "precision"])
def test_engine_under_another_name(copy: Path, key: str) -> None:
    def rename(values: dict[str, object]) -> None:
        engine = values["engine"]
        assert isinstance(engine, dict)
        engine[key] = {"name": "openvino", "precision": "int8"}[key]

    edit_manifest(copy, rename)
    refused(copy)


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("preprocessing.json", lambda v: v | {"interpolation": "bilinear"}, "another preprocessing"),
        ("preprocessing.json", lambda v: v | {"image_size": 96}, "another preprocessing"),
        (
            "calibrator.json",
            lambda v: {"method": "temperature", "parameters": {"temperature": 9.0}},
            "another calibrator",
        ),
        ("policy.json", lambda v: {"policy": "argmax", "parameters": {"threshold": 0.01}}, "another policy"),
        ("certificate.json", lambda v: v | {"engine": "openvino-int8"}, "another engine name"),
        ("certificate.json", lambda v: v | {"policy_sha256": "0" * 64}, "another policy"),
    ],
)
def test_exchanged_part_voids_the_certificate(
    copy: Path, name: str, change: Callable[[dict[str, object]], object], reason: str
) -> None:
    edit_json(copy / name, change)
    reseal(copy)
    refused(copy, reason)


@pytest.mark.parametrize(
    "change",
    [
        lambda v: [v, v],
        lambda v: v | {"fallback": v},
        lambda v: {"policies": [v, v]},
        lambda v: {"first": v, "second": v},
        lambda v: [],
        lambda v: None,
        lambda v: "threshold",
    ],
)
def test_second_policy_inside_policy_json(copy: Path, change: Callable[[object], object]) -> None:
    path = copy / "policy.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    reseal(copy)
    refused(copy, "exactly one policy")


@pytest.mark.parametrize("name", ["policy2.json", "policy.yaml", "golden/policy.json", "engine/policy.json"])
def test_second_policy_as_a_file(copy: Path, name: str) -> None:
    shutil.copyfile(copy / "policy.json", copy / name)
    refused(copy, "policy")
    reseal(copy)
    if name != "golden/policy.json":  # among the golden cases it is one more file that nothing reads
        refused(copy, "exactly one policy")


def test_golden_image_replaced(copy: Path) -> None:
    Image.new("RGB", (320, 200), (255, 120, 0)).save(copy / "golden" / "00.png")
    reseal(copy)
    failed = failures(copy)
    assert list(failed) == ["golden cases"]
    assert "golden/00.png" in failed["golden cases"]


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v | {"tolerance": 1e6},
        lambda v: v | {"tolerance": 0},
        lambda v: v | {"cases": []},
        lambda v: v | {"cases": [v["cases"][0] | {"image": "golden/../policy.json"}]},
        lambda v: v | {"cases": [v["cases"][0] | {"image": "/etc/passwd"}]},
        lambda v: v | {"cases": [v["cases"][0] | {"image": "golden/none.png"}]},
        lambda v: v | {"cases": [v["cases"][0] | {"log_odds": v["cases"][0]["log_odds"] + 1}]},
        lambda v: v | {"cases": [v["cases"][0] | {"decision": "maybe"}]},
    ],
)
def test_impossible_golden_cases(copy: Path, change: Callable[[dict[str, object]], object]) -> None:
    edit_json(copy / "golden" / "cases.json", change)
    reseal(copy)
    assert list(failures(copy)) == ["golden cases"]
