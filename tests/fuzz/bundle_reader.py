"""Fuzz target: files of a bundle. Only errors that a user can meet may come out of a reader.

``python tests/fuzz/bundle_reader.py [FOLDER_OF_CASES] -max_total_time=60``; the first byte chooses the reader.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["workzone"]):
    from workzone import calibration, decisions
    from workzone.bundle import schema
    from workzone.bundle.engines.onnx_scan import refuse_unsafe_onnx
    from workzone.bundle.runtime import read_parts
    from workzone.bundle.starter import STARTER
    from workzone.bundle.strict_json import parse
    from workzone.decisions import Certificate
    from workzone.errors import WorkzoneError
    from workzone.files import canonical_json
    from workzone.streetvision.challenges import Pictures, load_scores
    from workzone.vision.preprocess import Preprocessing
    from workzone.vision.streetvision import PROTOCOLS

import numpy as np

FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))
PARTS = (schema.PREPROCESSING, schema.CALIBRATOR, schema.POLICY, schema.CERTIFICATE)
NOBODY = Pictures(*(np.array([], dtype=t) for t in ("U1", "U1", "i8", "U1", "U1")))  # type: ignore[arg-type]


def _manifest(content: bytes) -> None:
    (FOLDER / schema.MANIFEST).write_bytes(content)
    schema.read_manifest(FOLDER)


def _sealed_manifest(content: bytes) -> None:
    """Past the seal, which no mutation would keep: what is behind it must stand on its own."""
    try:
        value = parse(content.decode())
    except ValueError:
        return
    if isinstance(value, dict):
        value.pop("sha256", None)
        (FOLDER / schema.MANIFEST).write_text(schema.seal(value))
        manifest = schema.read_manifest(FOLDER)
        schema.check_files(STARTER, manifest)


def _json(content: bytes) -> None:
    try:
        text = content.decode()
        value = parse(text)
    except ValueError:
        return
    if parse(canonical_json(value)) != value:
        raise AssertionError("a value changed when it was written and read again")


def _parts(content: bytes) -> None:
    for name in PARTS:
        (FOLDER / name).write_bytes((STARTER / name).read_bytes())
    name = PARTS[content[0] % len(PARTS)] if content else PARTS[0]
    (FOLDER / name).write_bytes(content[1:])
    preprocessing, calibrator, policy, _ = read_parts(FOLDER)
    # What was read must work: a reader that accepts what fails later only moves the error.
    probability = calibrator(np.array([-3.0, 0.0, 40.0]))
    decisions.apply_policy(policy, probability, np.zeros((3, 2)))
    if not isinstance(preprocessing, Preprocessing):
        raise AssertionError("no preprocessing")


def _golden(content: bytes) -> None:
    path = FOLDER / "cases.json"
    path.write_bytes(content)
    schema.read_model(path, schema.Golden)


def _certificate(content: bytes) -> None:
    path = FOLDER / "certificate.json"
    path.write_bytes(content)
    certificate = schema.read_model(path, Certificate)
    for guarantee in certificate.guarantees:
        guarantee.sentence()


def _onnx(content: bytes) -> None:
    path = FOLDER / "network.onnx"
    path.write_bytes(content)
    refuse_unsafe_onnx(path)


def _scores(content: bytes) -> None:
    path = FOLDER / "scores.npz"
    path.write_bytes(content)
    load_scores(NOBODY, PROTOCOLS["2.0.4"], path, "key")


def _calibrator(content: bytes) -> None:
    try:
        value = parse(content.decode())
    except ValueError:
        return
    if isinstance(value, dict):
        calibration.from_dict(value)
        decisions.from_dict(value)


READERS = (_manifest, _sealed_manifest, _json, _parts, _golden, _certificate, _onnx, _scores, _calibrator)


def one_input(data: bytes) -> None:
    """The reader that the first byte names, on the rest."""
    if not data:
        return
    try:
        READERS[data[0] % len(READERS)](data[1:])
    except WorkzoneError as error:
        if not str(error):
            raise AssertionError("an error without words") from error


def cases(folder: Path) -> None:
    """Good files as first cases."""
    folder.mkdir(parents=True, exist_ok=True)

    def put(reader: object, content: bytes, name: str) -> None:
        (folder / name).write_bytes(bytes([READERS.index(reader)]) + content)  # type: ignore[arg-type]

    whole = (STARTER / schema.MANIFEST).read_bytes()
    put(_manifest, whole, "manifest")
    put(_sealed_manifest, whole, "sealed")
    put(_json, b'{"a": [1, 2.5e3, null, true, "\\u00e9\\ud83d\\ude00"], "b": {}}', "json")
    for number, name in enumerate(PARTS):
        put(_parts, bytes([number]) + (STARTER / name).read_bytes(), f"part{number}")
    put(_golden, (STARTER / schema.GOLDEN_CASES).read_bytes(), "golden")
    put(_certificate, (STARTER / schema.CERTIFICATE).read_bytes(), "certificate")
    put(_onnx, (STARTER / "engine" / "head.onnx").read_bytes()[:20_000], "onnx")
    put(_calibrator, (STARTER / schema.POLICY).read_bytes(), "policy")
    put(_calibrator, (STARTER / schema.CALIBRATOR).read_bytes(), "calibrator")
    stream = io.BytesIO()
    np.savez(stream, key=np.array("key"), probability=np.zeros((1, 4, 1)), codes=np.zeros((1, 4, 1), dtype=np.int8))
    put(_scores, stream.getvalue(), "scores")


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
