from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.forgery import edit_json, edit_manifest, failures, reseal
from workzone.bundle import Detector, schema
from workzone.bundle.strict_json import parse
from workzone.errors import BundleError, WorkzoneError
from workzone.files import canonical_json


def refused(folder: Path, reason: str = "") -> None:
    with pytest.raises(BundleError) as caught:
        Detector.load(folder)
    assert reason in str(caught.value)
    assert failures(folder)


def test_another_folder_is_told_from_a_bundle_without_its_manifest(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    refused(tmp_path / "photos", "give the folder that holds bundle.json")
    (tmp_path / "run").mkdir()
    shutil.copytree(copy, tmp_path / "run" / "bundle")
    refused(tmp_path / "run", f"give {tmp_path / 'run' / 'bundle'}")
    (copy / "bundle.json").unlink()
    refused(copy, "take the original bundle")


@pytest.mark.parametrize("version", [0, 2, -1, "1", True, 1.0, None, [1], {"v": 1}, 10**30])
def test_unknown_schema_version(copy: Path, version: object) -> None:
    edit_manifest(copy, lambda v: v.update(schema_version=version))
    refused(copy, "unknown bundle schema version")


def test_missing_schema_version(copy: Path) -> None:
    edit_manifest(copy, lambda v: v.pop("schema_version"))
    refused(copy, "unknown bundle schema version")


@pytest.mark.parametrize("key", ["name", "created", "workzone_version", "engine", "files", "lineage"])
def test_missing_key(copy: Path, key: str) -> None:
    edit_manifest(copy, lambda v: v.pop(key))
    refused(copy, key)


def _set(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(values: dict[str, Any]) -> None:
        for key in path[:-1]:
            values = values[key]
        values[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        _set("extra", value=1),
        _set("engine", "code", value="run me"),
        _set("engine", "name", value="torch"),
        _set("engine", "precision", value="fp16"),
        _set("engine", "embedding_dim", value="1280"),
        _set("engine", "embedding_dim", value=0),
        _set("engine", "embedding_dim", value=7),
        _set("files", value=[]),
        _set("files", value={}),
        _set("files", "policy.json", "size", value=-1),
        _set("files", "policy.json", "size", value="424"),
        _set("files", "policy.json", "sha256", value="0" * 63),
        _set("files", "policy.json", "mode", value="0777"),
        _set("name", value=5),
        _set("lineage", value=[]),
    ],
)
def test_wrong_key_or_type(copy: Path, change: Callable[[dict[str, Any]], None]) -> None:
    edit_manifest(copy, change)
    with pytest.raises(BundleError):
        Detector.load(copy)


@pytest.mark.parametrize(
    "name",
    [
        "../x", "/etc/passwd", "engine/../x", "engine\\x", "..\\x", "golden/../../x", "golden//a.png", "./policy.json",
        "golden/.", "golden/..", "golden/.hidden", "golden/a/b.png", "engine/extra.bin", "golden/a\n.png", "golden/a\0",
        "", ".", "C:/x", "golden/" + "a" * 300, "POLICY.json",
    ],
)  # fmt: skip
def test_name_that_has_no_place(copy: Path, name: str) -> None:
    edit_manifest(copy, lambda v: v["files"].update({name: {"sha256": "0" * 64, "size": 0}}))
    refused(copy, "no place in this bundle")


@pytest.mark.parametrize("name", ["policy.json", "engine/head.onnx", "golden/cases.json", "MODEL_CARD.md"])
def test_required_file_not_listed(copy: Path, name: str) -> None:
    edit_manifest(copy, lambda v: v["files"].pop(name))
    refused(copy, "lacks")


def test_many_files(copy: Path) -> None:
    entry = {"sha256": "0" * 64, "size": 0}
    edit_manifest(copy, lambda v: v["files"].update({f"golden/{i}.png": entry for i in range(2000)}))
    refused(copy, "bundle.json")
    many = ",".join(f'"golden/{i}":{{}}' for i in range(1_000_000))
    (copy / "bundle.json").write_text('{"files":{' + many + '},"schema_version":1}')
    refused(copy, "larger than")


JSON = ("bundle.json", "preprocessing.json", "calibrator.json", "policy.json", "certificate.json")
HOSTILE = {
    "empty": b"",
    "not JSON": b"{",
    "not UTF-8": b'{"a": "\xff"}',
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "array": b"[]",
    "number": b"1",
    "null": b"null",
    "string": b'"x"',
    "nan": b'{"schema_version": NaN}',
    "infinity": b'{"a": -Infinity}',
    "overflow": b'{"a": 1e999}',
    "long integer": b'{"a": ' + b"9" * 100_000 + b"}",
    "key twice": b'{"schema_version": 1, "schema_version": 1}',
    "half a pair": b'{"schema_version": 1, "a": "\\ud800"}',
    "deep list": b"[" * 100_000,
    "deep object": b'{"a":' * 900 + b"1" + b"}" * 900,
    "huge": b'{"a": "' + b"x" * (schema.MAX_JSON_BYTES + 1) + b'"}',
}


@pytest.mark.parametrize("content", HOSTILE)
@pytest.mark.parametrize("name", JSON)
def test_hostile_json(copy: Path, name: str, content: str) -> None:
    (copy / name).write_bytes(HOSTILE[content])
    if name != "bundle.json":
        reseal(copy)
    refused(copy)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("calibrator.json", lambda v: {"method": "temperature", "parameters": {"temperature": 0}}),
        ("calibrator.json", lambda v: {"method": "temperature", "parameters": {"temperature": "1"}}),
        ("calibrator.json", lambda v: {"method": "platt", "parameters": {"slope": 10**400, "intercept": 0}}),
        (
            "calibrator.json",
            lambda v: {"method": "isotonic", "parameters": {"scores": [1, 0], "probabilities": [0, 1]}},
        ),
        ("calibrator.json", lambda v: {"method": "os.system", "parameters": {}}),
        ("calibrator.json", lambda v: {"method": "temperature"}),
        ("policy.json", lambda v: {"policy": "argmax", "parameters": {"threshold": 1.5}}),
        ("policy.json", lambda v: {"policy": "argmax", "parameters": {"threshold": None}}),
        ("policy.json", lambda v: {"policy": "builtins.eval", "parameters": {}}),
        ("policy.json", lambda v: {"policy": ["argmax"], "parameters": {}}),
        ("preprocessing.json", lambda v: v | {"image_size": "64"}),
        ("preprocessing.json", lambda v: v | {"image_size": 10**9}),
        ("preprocessing.json", lambda v: v | {"plugin": "x"}),
        ("preprocessing.json", lambda v: v | {"views": {"layout": "spiral"}}),
        ("certificate.json", lambda v: v | {"prevalence": 2}),
        ("certificate.json", lambda v: v | {"guarantees": "all"}),
        ("certificate.json", lambda v: {}),
    ],
)
def test_impossible_parts(copy: Path, name: str, change: Callable[[Any], Any]) -> None:
    edit_json(copy / name, change)
    reseal(copy)
    refused(copy)


def test_manifest_has_one_text_form(copy: Path) -> None:
    path = copy / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    refused(copy, "changed after it was sealed")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_edited_manifest_is_never_read_silently(tiny_bundle: Path, tmp_path: Path, data: st.DataObject) -> None:
    original = (tiny_bundle / "bundle.json").read_bytes()
    start = data.draw(st.integers(0, len(original)))
    stop = data.draw(st.integers(start, min(len(original), start + 40)))
    edited = original[:start] + data.draw(st.binary(max_size=40)) + original[stop:]
    folder = tmp_path / "edited"
    folder.mkdir(exist_ok=True)
    (folder / "bundle.json").write_bytes(edited)
    try:
        schema.read_manifest(folder)
    except WorkzoneError:
        return
    assert edited == original


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=20,
    )
)
def test_strict_parser_keeps_values(value: Any) -> None:
    assert parse(canonical_json(value)) == value


def test_no_unsafe_reader_in_the_source() -> None:
    source = Path(schema.__file__).parent
    text = "\n".join(p.read_text() for p in source.rglob("*.py"))
    for word in (
        "import pickle",
        "yaml.load",
        "eval(",
        "exec(",
        "allow_pickle=True",
        "__import__",
        "importlib.import_module",
    ):
        assert word not in text


def test_bundle_read_from_a_linked_folder(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(tiny_bundle)
    assert not failures(tmp_path / "current")


def test_copy_elsewhere_still_verifies(tiny_bundle: Path, tmp_path: Path) -> None:
    assert not failures(Path(shutil.copytree(tiny_bundle, tmp_path / "with space é")))
