"""Manifests survive a round trip through CSV and Parquet, with any cell that a table may hold."""

from __future__ import annotations

import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from workzone.data.columns import COLUMNS
from workzone.data.manifest import Manifest
from workzone.errors import WorkzoneError

WORDS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=12)
SPECIAL = ["007", "1e5", "true", "nan", "null", "-0", "=cmd|' /C calc'!A0", 'a"b', "a,b", "a\nb", "a\r\nb", " x "]
HOSTILE = WORDS | st.sampled_from([*SPECIAL, "\ufeff", "'", "01"])
VALUES = {
    "label": st.none() | st.integers(0, 1),
    "source": st.none() | HOSTILE,
    "group": st.none() | HOSTILE,
    "hour": st.none() | st.integers(0, 23),
    "weather": st.none() | HOSTILE,
    "width": st.none() | st.integers(1, 2_000_000_000),
    "captured_at": st.none() | st.datetimes().map(lambda d: d.isoformat()),
    "sha256": st.none() | st.text("0123456789abcdef", min_size=64, max_size=64),
}


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    filled = HOSTILE.filter(lambda s: s.strip() != "")
    ids = draw(st.lists(filled, min_size=1, max_size=5, unique_by=str.strip))
    data = {"id": ids, "path": draw(st.lists(filled, min_size=len(ids), max_size=len(ids)))}
    for name in draw(st.sets(st.sampled_from(sorted(VALUES)))):
        data[name] = draw(st.lists(VALUES[name], min_size=len(ids), max_size=len(ids)))
    if draw(st.booleans()):
        angle = st.floats(-90, 90)
        data["latitude"] = draw(st.lists(angle, min_size=len(ids), max_size=len(ids)))
        data["longitude"] = draw(st.lists(angle, min_size=len(ids), max_size=len(ids)))
    if draw(st.booleans()):
        data["note"] = draw(st.lists(st.none() | HOSTILE, min_size=len(ids), max_size=len(ids)))
    schema = {name: COLUMNS.get(name, pl.String()) for name in data}
    return Manifest.from_frame(pl.DataFrame(data, schema=schema), root="/images")


def plain(manifest: Manifest) -> pl.DataFrame:
    return manifest.frame.drop("path")


@settings(max_examples=25, deadline=None)
@given(made=manifests())
def test_parquet_gives_back_what_was_saved(made: Manifest) -> None:
    with tempfile.TemporaryDirectory() as folder:
        back = Manifest.load(made.save(Path(folder) / "m.parquet"))
    assert_frame_equal(plain(back), plain(made))
    assert back.paths == made.paths


@settings(max_examples=30, deadline=None)
@given(made=manifests())
def test_csv_gives_back_what_was_saved(made: Manifest) -> None:
    with tempfile.TemporaryDirectory() as folder:
        back = Manifest.load(made.save(Path(folder) / "m.csv"))
        again = Manifest.load(back.save(Path(folder) / "n.csv"))
    known = [c for c in COLUMNS if c != "path"]
    assert_frame_equal(back.frame.select(known), made.frame.select(known))
    assert back.paths == made.paths
    # A column that the manifest does not know comes back as the same text, typed where no text is lost.
    if "note" in made.frame.columns:
        words = [v or None for v in made.frame["note"].to_list()]
        found = back.frame["note"]
        if found.dtype == pl.Float64:
            assert [None if w is None else float(w) for w in words] == found.to_list()
        else:
            texts = found.cast(pl.String).to_list()
            assert texts == words
    assert_frame_equal(again.frame, back.frame)


@settings(max_examples=40, deadline=None)
@given(content=st.binary(max_size=200) | st.binary(max_size=80).map(lambda rest: b"id,path,label,hour\n" + rest))
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_any_bytes_are_a_manifest_or_one_paragraph(suffix: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"m{suffix}"
        path.write_bytes(content)
        try:
            found = Manifest.load(path)
        except WorkzoneError:
            return
        assert set(found.frame["label"].to_list()) <= {0, 1, None}
