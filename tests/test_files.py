from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from workzone.errors import ConfigError
from workzone.files import PARTIAL, atomic_path, canonical_json, sha256_file, sha256_json, write_atomic, write_json


def test_the_old_content_stays_until_the_new_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "a" / "x.json"
    write_atomic(target, "old")
    with atomic_path(target) as partial:
        partial.write_text("new")
        assert target.read_text() == "old"
        assert re.fullmatch(PARTIAL, partial.name)
        assert partial.suffix == ".json", "libraries choose a format by the suffix"
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_a_failure_leaves_no_trace(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "x.txt"
    target.write_text("old")

    def fail() -> None:
        with atomic_path(target) as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("name", ["x.json", ".hidden", "no suffix", "x.tar.gz"])
def test_every_partial_name_is_swept_by_its_pattern(tmp_path: Path, name: str) -> None:
    with atomic_path(tmp_path / name) as partial:
        assert re.fullmatch(PARTIAL, partial.name)


@pytest.mark.parametrize(
    "name", ["x.json", ".x.partial", "x-0123abcd.partial", ".x-0123abcd.partial.a.b", ".x-0123ABCD.partial"]
)
def test_other_names_are_not_of_the_pattern(name: str) -> None:
    assert not re.fullmatch(PARTIAL, name)


def test_a_device_or_a_folder_is_never_replaced(tmp_path: Path) -> None:
    for target in (Path(os.devnull), tmp_path):
        with pytest.raises(ConfigError, match="no regular file"):
            write_atomic(target, "x")
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


def test_the_mask_of_the_user_holds(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_atomic(tmp_path / "x", "secret")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o600


def test_canonical_json() -> None:
    assert canonical_json({"b": 1, "a": "ä"}) == '{\n  "a": "ä",\n  "b": 1\n}\n'
    assert sha256_json({"b": 1, "a": 2}) == sha256_json({"a": 2, "b": 1})
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))


def test_hash_of_a_large_file(tmp_path: Path) -> None:
    import hashlib

    content = os.urandom(3_000_001)
    write_atomic(tmp_path / "x", content)
    assert sha256_file(tmp_path / "x") == hashlib.sha256(content).hexdigest()
    write_json(tmp_path / "y.json", {"n": 1})
    assert (tmp_path / "y.json").read_text() == canonical_json({"n": 1})
