from __future__ import annotations

from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workzone.data.columns import COLUMNS
from workzone.data.manifest import Manifest
from workzone.errors import ManifestError

_WORD = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp")), min_size=1, max_size=8)
_COORDINATE = st.floats(-1, 1, allow_nan=False)
_ROW = st.fixed_dictionaries(
    {
        "label": st.sampled_from([0, 1, None]),
        "source": st.none() | _WORD,
        "group": st.none() | _WORD,
        "captured_at": st.none() | st.datetimes().map(datetime.isoformat),
        "hour": st.none() | st.integers(0, 23),
        "weather": st.none() | _WORD,
        "position": st.none() | st.tuples(_COORDINATE, _COORDINATE),
        "width": st.none() | st.integers(1, 10_000),
        "sha256": st.none() | st.integers(0, 2**256 - 1).map(lambda v: f"{v:064x}"),
        "phash": st.none() | st.integers(0, 2**64 - 1).map(lambda v: f"{v:016x}"),
        "note": st.none() | _WORD,
        "speed": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "lane": st.none() | st.integers(-5, 5),
    }
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(_ROW, min_size=1, max_size=6), suffix=st.sampled_from([".csv", ".parquet"]))
def test_round_trip(tmp_path: Path, rows: list[dict[str, object]], suffix: str) -> None:
    flat = [
        {k: v for k, v in row.items() if k != "position"}
        | {
            "id": f"i{n}",
            "path": f"img, {n}.jpg",
            "latitude": row["position"] and 90 * row["position"][0],  # type: ignore[index]
            "longitude": row["position"] and 180 * row["position"][1],  # type: ignore[index]
        }
        for n, row in enumerate(rows)
    ]
    types = {**COLUMNS, "note": pl.String(), "speed": pl.Float64(), "lane": pl.Int64()}
    schema = {name: types[name] for name in flat[0]}
    first = Manifest.from_frame(pl.DataFrame(flat, schema=schema), root=tmp_path)
    again = Manifest.load(first.save(tmp_path / f"manifest{suffix}"))
    known = list(COLUMNS)
    assert again.frame.select(known).equals(first.frame.select(known))
    assert again.frame.columns == first.frame.columns
    assert again.fingerprint == first.fingerprint
    if suffix == ".parquet":
        assert again.frame.equals(first.frame)
    else:
        # A text column of a CSV file may hold nothing but digits; what is kept then is the value.
        for row, old in zip(again.frame.rows(named=True), first.frame.rows(named=True), strict=True):
            assert row["speed"] == old["speed"]
            assert str(row["note"]) == str(old["note"])
            assert row["lane"] == old["lane"]


def _csv(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


GOOD = "a,a.jpg,1,52.0,13.0,7,"
CASES = [
    ("a,b.jpg,0,,,,", "column 'id' is not unique: line 2 ('a'), line 3 ('a')"),
    ("b,b.jpg,2,,,,", "column 'label' must be 0, 1 or empty: line 3 ('2')"),
    ("b,b.jpg,yes,,,,", "column 'label' is not a number: line 3 ('yes')"),
    ("b,b.jpg,0.5,,,,", "column 'label' is not a whole number: line 3 ('0.5')"),
    ("b,b.jpg,1e30,,,,", "column 'label' is out of range: line 3 ('1e30')"),
    ("b,,1,,,,", "column 'path' is empty: line 3 (None)"),
    (",b.jpg,1,,,,", "column 'id' is empty: line 3 (None)"),
    ("b,b.jpg,1,nan,1,,", "column 'latitude' is not finite: line 3 ('nan')"),
    ("b,b.jpg,1,95,1,,", "column 'latitude' must be -90 to 90: line 3 ('95')"),
    ("b,b.jpg,1,5,181,,", "column 'longitude' must be -180 to 180: line 3 ('181')"),
    ("b,b.jpg,1,5,,,", "must both be known or both empty: line 3"),
    ("b,b.jpg,1,,,24,", "column 'hour' must be 0 to 23: line 3 ('24')"),
    ("b,b.jpg,1,,,-1,", "column 'hour' must be 0 to 23: line 3 ('-1')"),
    ("b,b.jpg,1,,,,abc", "column 'sha256' must be 64 lower-case hex digits: line 3 ('abc')"),
]


@pytest.mark.parametrize(("row", "message"), CASES)
def test_errors_name_line_column_and_value(tmp_path: Path, row: str, message: str) -> None:
    file = _csv(tmp_path / "m.csv", f"id,path,label,latitude,longitude,hour,sha256\n{GOOD}\n{row}\n")
    with pytest.raises(ManifestError) as caught:
        Manifest.load(file)
    assert message in str(caught.value)
    assert str(file) in str(caught.value)


def test_errors_list_several_columns_and_only_the_first_rows(tmp_path: Path) -> None:
    rows = "".join(f"i{n},i{n}.jpg,7,99\n" for n in range(9))
    with pytest.raises(ManifestError) as caught:
        Manifest.load(_csv(tmp_path / "m.csv", f"id,path,label,hour\n{rows}"))
    text = str(caught.value)
    assert "line 2 ('7')" in text
    assert "line 6 ('7') and 4 more" in text
    assert "column 'hour'" in text
    assert "line 7" not in text


def test_lines_are_counted_in_the_file_not_in_records(tmp_path: Path) -> None:
    file = _csv(tmp_path / "m.csv", 'id,path,label,note\na,a.jpg,1,"two\nlines"\nb,b.jpg,5,\n')
    with pytest.raises(ManifestError, match=r"line 4 \('5'\)"):
        Manifest.load(file)


def test_blank_lines_do_not_shift_the_count(tmp_path: Path) -> None:
    file = _csv(tmp_path / "m.csv", "id,path,label\n\na,a.jpg,1\n\nb,b.jpg,5\n\n")
    with pytest.raises(ManifestError, match=r"line 5 \('5'\)"):
        Manifest.load(file)


def test_parquet_errors_count_rows_from_one(tmp_path: Path) -> None:
    frame = pl.DataFrame({"id": ["a", "b"], "path": ["a.jpg", "b.jpg"], "hour": [3, 30]})
    frame.write_parquet(tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match=r"row 2 \(30\)"):
        Manifest.load(tmp_path / "m.parquet")


def test_missing_column_missing_file_and_broken_file(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no column 'id'"):
        Manifest.load(_csv(tmp_path / "m.csv", "path\na.jpg\n"))
    with pytest.raises(ManifestError, match="no such file"):
        Manifest.load(tmp_path / "absent.csv")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(ManifestError, match="cannot be read"):
        Manifest.load(tmp_path / "bad.parquet")
    with pytest.raises(ManifestError, match=r"\.parquet or \.csv"):
        Manifest.load(tmp_path / "m.json")


def test_paths_follow_the_manifest(tmp_path: Path) -> None:
    frame = pl.DataFrame({"id": ["a", "b"], "path": ["sub/a.jpg", "/elsewhere/b.jpg"]})
    manifest = Manifest.from_frame(frame, root=tmp_path / "data")
    want = [tmp_path / "data/sub/a.jpg", Path("/elsewhere/b.jpg")]
    assert manifest.paths == want
    inside = Manifest.load(manifest.save(tmp_path / "data/m.csv"))
    assert inside.frame["path"].to_list() == ["sub/a.jpg", "/elsewhere/b.jpg"]
    outside = Manifest.load(manifest.save(tmp_path / "other/m.csv"))
    assert inside.paths == outside.paths == want


def test_unknown_groups_are_groups_of_their_own(tmp_path: Path) -> None:
    frame = pl.DataFrame({"id": ["a", "b"], "path": ["a", "b"], "group": ["g", None]})
    assert Manifest.from_frame(frame, root=tmp_path).groups == ["g", "b"]


def test_extra_columns_of_a_csv_keep_leading_zeros(tmp_path: Path) -> None:
    file = _csv(tmp_path / "m.csv", "id,path,code,n,ok\n01,a.jpg,007,7,true\n02,b.jpg,,8,false\n")
    frame = Manifest.load(file).frame
    assert frame["id"].to_list() == ["01", "02"]
    assert frame["code"].to_list() == ["007", None]
    assert frame["n"].to_list() == [7, 8]
    assert frame["ok"].to_list() == [True, False]
