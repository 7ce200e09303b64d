"""No byte of a bundle can be changed unseen; JSON has one meaning or none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workzone.bundle import Detector, verify_bundle
from workzone.bundle.starter import STARTER
from workzone.bundle.strict_json import parse
from workzone.errors import BundleError
from workzone.files import canonical_json

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXT
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=12
)
ALMOST = JSON.map(json.dumps).flatmap(lambda t: st.integers(0, len(t)).map(lambda i: t[:i] + t[i + 1 :]))
FILES = sorted(p.relative_to(STARTER).as_posix() for p in STARTER.rglob("*") if p.is_file())
pytestmark = pytest.mark.skipif(not FILES, reason="this checkout has no starter bundle")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "starter"
    shutil.copytree(STARTER, folder)
    assert all(check.passed for check in verify_bundle(folder))
    return folder


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(FILES or [""]), at=st.floats(0, 1), change=st.integers(1, 255))
def test_any_single_byte_that_is_changed_is_found(bundle: Path, name: str, at: float, change: int) -> None:
    path = bundle / name
    with path.open("r+b") as stream:
        place = min(int(at * path.stat().st_size), path.stat().st_size - 1)
        stream.seek(place)
        old = stream.read(1)[0]
        stream.seek(place)
        stream.write(bytes([old ^ change]))
    try:
        assert not all(check.passed for check in verify_bundle(bundle))
        with pytest.raises(BundleError):
            Detector.load(bundle, threads=1)
    finally:
        with path.open("r+b") as stream:
            stream.seek(place)
            stream.write(bytes([old]))


@settings(max_examples=50, deadline=None)
@given(value=JSON)
def test_strict_json_reads_what_is_written(value: Any) -> None:
    assert parse(canonical_json(value)) == value
    assert parse(json.dumps(value)) == value


@settings(max_examples=50, deadline=None)
@given(text=st.text('{}[]",:0123456789.eE-+\\u dtrfalsn"NaIiy', max_size=40) | ALMOST)
def test_strict_json_agrees_with_the_standard_or_refuses(text: str) -> None:
    try:
        value = parse(text)
    except ValueError:
        return
    assert value == json.loads(text)
    assert parse(canonical_json(value)) == value


@settings(max_examples=40, deadline=None)
@given(value=st.dictionaries(TEXT, SCALARS, min_size=1, max_size=3), data=st.data())
def test_a_key_twice_is_refused(value: dict[str, Any], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(value)))
    text = json.dumps(value)
    twice = text[:-1] + f", {json.dumps(key)}: 1}}"
    assert json.loads(twice)
    with pytest.raises(ValueError, match="twice"):
        parse(twice)
