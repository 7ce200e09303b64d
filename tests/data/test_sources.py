"""One battery for every source: a row gives a layout on disk; plus what is special about each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
from pictures import picture, save_picture
from PIL import ExifTags, Image

from workzone.data.manifest import Manifest
from workzone.data.perceptual import phash
from workzone.data.sources.base import ClassNames, unique_ids
from workzone.data.sources.build import SOURCES, build_manifest, detect
from workzone.data.sources.exif import read_exif
from workzone.data.sources.folder import FolderSource
from workzone.errors import DataError, ManifestError
from workzone.files import sha256_file


def make_folder(root: Path) -> Path:
    for n in range(3):
        save_picture(root / f"roadwork/p{n}.jpg", n)
        save_picture(root / f"No Roadwork/drive7/n{n}.png", 10 + n, (160, 200))
    (root / "roadwork/.hidden.jpg").write_bytes(b"x")
    (root / "roadwork/readme.txt").write_text("no image")
    return root


def make_table(root: Path) -> Path:
    rows = []
    for n in range(6):
        save_picture(root / f"images/t{n}.jpg", n)
        rows.append((f"images/t{n}.jpg", "construction" if n < 3 else "none", f"s{n // 2}", "night", 52.5, 13.4))
    schema = ["file", "class", "sequence", "time_of_day", "lat", "lon"]
    pl.DataFrame(rows, schema=schema, orient="row").write_csv(root / "metadata.csv")
    return root / "metadata.csv"


def make_unlabelled(root: Path) -> Path:
    for n in range(6):
        save_picture(root / f"u{n}.jpg", n)
    return root


@dataclass(frozen=True)
class Row:
    make: Callable[[Path], Path]
    labels: list[int | None]


ROWS = {
    "folder": Row(make_folder, [0, 0, 0, 1, 1, 1]),
    "table": Row(make_table, [1, 1, 1, 0, 0, 0]),
    "unlabelled": Row(make_unlabelled, [None] * 6),
}


@pytest.fixture(params=sorted(ROWS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_source_has_a_row() -> None:
    # Sources with layouts of their own bring their own battery rows beside this file.
    assert {"folder", "table", "unlabelled"} <= set(SOURCES)
    assert set(ROWS) <= set(SOURCES)


def test_conformance(tmp_path: Path, kind: str) -> None:
    location = ROWS[kind].make(tmp_path / "data")
    assert detect(location) == kind
    steps: list[tuple[int, int]] = []
    manifest = build_manifest(location, progress=lambda done, total: steps.append((done, total)))
    frame = manifest.frame
    assert frame["label"].to_list() == ROWS[kind].labels
    assert steps == [(n, 6) for n in range(1, 7)]
    assert frame["id"].n_unique() == 6
    assert frame["group"].null_count() == 0
    assert frame["source"].null_count() == 0
    assert manifest.rejected.is_empty()
    for path, row in zip(manifest.paths, frame.rows(named=True), strict=True):
        with Image.open(path) as image:
            assert (row["width"], row["height"]) == image.size
        assert row["sha256"] == sha256_file(path)
        assert len(row["phash"]) == 16
    assert build_manifest(location, kind, workers=1).frame.equals(frame)
    again = Manifest.load(manifest.save(tmp_path / "out/manifest.parquet"))
    assert again.frame.drop("path").equals(frame.drop("path"))
    assert again.paths == manifest.paths


def test_unreadable_images_are_collected_or_refused(tmp_path: Path, kind: str) -> None:
    location = ROWS[kind].make(tmp_path / "data")
    victim = sorted((tmp_path / "data").rglob("*[0-9].jpg"))[1]
    victim.write_bytes(victim.read_bytes()[:400])
    manifest = build_manifest(location)
    assert len(manifest) == 5
    assert manifest.rejected["path"].to_list() == [victim.relative_to(tmp_path / "data").as_posix()]
    assert manifest.rejected["reason"][0].startswith("truncated")
    assert manifest.rejected["id"][0] not in manifest.frame["id"].to_list()
    with pytest.raises(DataError, match="1 of 6 images cannot be read"):
        build_manifest(location, strict=True)


def test_every_image_unreadable_is_an_error(tmp_path: Path, kind: str) -> None:
    location = ROWS[kind].make(tmp_path / "data")
    for image in (tmp_path / "data").rglob("*[0-9].*"):
        image.write_bytes(b"not an image")
    with pytest.raises(DataError, match="6 of 6"):
        build_manifest(location)


def test_wrong_locations(tmp_path: Path, kind: str) -> None:
    with pytest.raises(DataError):
        build_manifest(tmp_path / "absent", kind)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        build_manifest(tmp_path / "empty", kind)


def test_unknown_kind_and_unclear_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the sources are bdd100k, coco, folder"):
        build_manifest(tmp_path, "zip")
    save_picture(tmp_path / "cats/a.jpg", 0)
    with pytest.raises(DataError, match="not clear"):
        build_manifest(tmp_path)


def test_folder_names_groups_after_folders_below_the_class(tmp_path: Path) -> None:
    frame = build_manifest(make_folder(tmp_path / "streets")).frame
    assert frame["group"].to_list() == ["drive7"] * 3 + ["p0", "p1", "p2"]
    assert set(frame["source"].to_list()) == {"streets"}


def test_folder_refuses_what_it_cannot_map(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "data")
    save_picture(root / "maybe/x.jpg", 5)
    with pytest.raises(DataError, match=r"'maybe' is no class name.*add 'maybe'"):
        build_manifest(root)
    classes = ClassNames(positives=("roadwork", "maybe"))
    mapped = build_manifest(root, source=FolderSource(classes=classes)).frame
    assert mapped["label"].sum() == 4
    save_picture(root / "stray.jpg", 6)
    with pytest.raises(DataError, match="outside the class folders"):
        build_manifest(root, source=FolderSource(classes=classes))


def test_folder_refuses_an_empty_or_missing_class(tmp_path: Path) -> None:
    root = tmp_path / "data"
    save_picture(root / "roadwork/a.jpg", 0)
    with pytest.raises(DataError, match="no images of class no_roadwork"):
        build_manifest(root)
    (root / "none").mkdir()
    with pytest.raises(DataError, match="a class folder holds no images"):
        build_manifest(root)


def test_a_word_cannot_stand_for_both_classes() -> None:
    with pytest.raises(DataError, match="both classes"):
        ClassNames(positives=("none",))


def test_table_keeps_metadata_and_aliases(tmp_path: Path) -> None:
    frame = build_manifest(make_table(tmp_path).parent).frame
    assert frame["id"].to_list() == [f"t{n}" for n in range(6)]
    assert frame["group"].to_list() == ["s0", "s0", "s1", "s1", "s2", "s2"]
    assert frame["time_of_day"].to_list() == ["night"] * 6
    assert frame["latitude"].to_list() == [52.5] * 6


def test_table_errors_name_lines(tmp_path: Path) -> None:
    file = make_table(tmp_path)
    text = file.read_text()
    file.write_text(text.replace("images/t1.jpg,construction", "images/t1.jpg,perhaps"))
    with pytest.raises(ManifestError, match=r"line 3 \('perhaps'\)"):
        build_manifest(file)
    file.write_text(text.replace("images/t4.jpg", "images/gone.jpg"))
    with pytest.raises(DataError, match=r"1 images are missing.*line 6 \('images/gone.jpg'\)"):
        build_manifest(file)
    file.write_text(text.replace("file,", "picture_name,"))
    with pytest.raises(DataError, match="no column of the table names the image file"):
        build_manifest(file)
    file.write_text(text.replace("class", "kind"))
    with pytest.raises(DataError, match="no column of the table is the label"):
        build_manifest(file, "table")


@pytest.mark.parametrize("words", [["1", "0", ""], ["1.0", "0.0", ""], ["Work Zone", "background", ""]])
def test_label_words(tmp_path: Path, words: list[str]) -> None:
    rows = "".join(f"{save_picture(tmp_path / f'{n}.jpg', n).name},{word}\n" for n, word in enumerate(words))
    (tmp_path / "t.csv").write_text(f"image,target\n{rows}")
    assert build_manifest(tmp_path / "t.csv").frame["label"].to_list() == [1, 0, None]


def test_a_saved_manifest_is_a_table_and_its_hashes_are_checked(tmp_path: Path) -> None:
    first = build_manifest(make_table(tmp_path))
    file = first.save(tmp_path / "manifest.parquet")
    assert build_manifest(file).frame.equals(
        first.frame.with_columns(path=pl.Series([f"images/t{n}.jpg" for n in range(6)]))
    )
    save_picture(tmp_path / "images/t2.jpg", 99)
    changed = build_manifest(file)
    assert changed.rejected["id"].to_list() == ["t2"]
    assert "sha256" in changed.rejected["reason"][0]


def test_unlabelled_table_and_refusal_of_labels(tmp_path: Path) -> None:
    file = make_table(tmp_path)
    with pytest.raises(DataError, match="has a label column"):
        build_manifest(file, "unlabelled")
    pl.read_csv(file).drop("class").write_csv(tmp_path / "list.csv")
    assert detect(tmp_path / "list.csv") == "unlabelled"
    assert build_manifest(tmp_path / "list.csv").frame["label"].null_count() == 6


def test_unique_ids() -> None:
    assert unique_ids(["a/x.jpg", "b/y.jpg"]) == ["x", "y"]
    assert unique_ids(["a/x.jpg", "b/x.jpg"]) == ["a/x", "b/x"]
    assert unique_ids(["a/x.jpg", "a/x.png"]) == ["a/x.jpg", "a/x.png"]


def _with_exif(path: Path, *, gps: dict[int, object] | None = None, time: str = "2024:05:06 07:08:09") -> Path:
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Acme", "Dash 2"
    exif[ExifTags.Base.Orientation] = 6
    details = exif.get_ifd(ExifTags.IFD.Exif)
    details[ExifTags.Base.DateTimeOriginal], details[ExifTags.Base.OffsetTimeOriginal] = time, "-05:00"
    if gps is not None:
        exif.get_ifd(ExifTags.IFD.GPSInfo).update(gps)
    picture(3, (160, 120)).save(path, exif=exif)
    return path


def _gps(lat: tuple[float, ...], north: str | None, lon: tuple[float, ...], east: str) -> dict[int, object]:
    tags: dict[int, object] = {
        ExifTags.GPS.GPSLatitude: lat,
        ExifTags.GPS.GPSLongitude: lon,
        ExifTags.GPS.GPSLongitudeRef: east,
    }
    return tags if north is None else tags | {ExifTags.GPS.GPSLatitudeRef: north}


def test_exif_round_trip_through_a_manifest(tmp_path: Path) -> None:
    _with_exif(tmp_path / "a.jpg", gps=_gps((40.0, 26.0, 46.2), "N", (79.0, 58.0, 56.0), "W"))
    row = build_manifest(tmp_path).frame.row(0, named=True)
    assert row["latitude"] == pytest.approx(40 + 26 / 60 + 46.2 / 3600, abs=1e-7)
    assert row["longitude"] == pytest.approx(-(79 + 58 / 60 + 56 / 3600), abs=1e-7)
    assert row["captured_at"] == "2024-05-06T07:08:09-05:00"
    assert row["hour"] == 7
    assert row["camera_id"] == "Acme Dash 2"
    assert (row["width"], row["height"]) == (120, 160)
    assert row["phash"] == phash(Image.open(tmp_path / "a.jpg").transpose(Image.Transpose.ROTATE_270))


@pytest.mark.parametrize(
    "gps",
    [
        _gps((40.0, 26.0, 46.0), None, (79.0, 58.0, 56.0), "W"),
        _gps((95.0, 0.0, 0.0), "N", (79.0, 58.0, 56.0), "W"),
        _gps((40.0, 61.0, 0.0), "N", (79.0, 58.0, 56.0), "W"),
        _gps((40.0, 26.0), "N", (79.0, 58.0, 56.0), "W"),
        _gps((0.0, 0.0, 0.0), "N", (0.0, 0.0, 0.0), "E"),
        {ExifTags.GPS.GPSLatitude: (40.0, 26.0, 46.0), ExifTags.GPS.GPSLatitudeRef: "N"},
    ],
)
def test_a_malformed_position_is_unknown_and_reported(tmp_path: Path, gps: dict[int, object]) -> None:
    with Image.open(_with_exif(tmp_path / "a.jpg", gps=gps)) as image:
        info = read_exif(image)
    assert info.latitude is None
    assert info.longitude is None
    assert info.problems[0].startswith("GPS position")
    assert info.hour == 7
    manifest = build_manifest(tmp_path)
    assert manifest.frame["latitude"].to_list() == [None]
    assert manifest.warnings["reason"][0].startswith("EXIF GPS position")


@pytest.mark.parametrize(
    ("time", "reported"), [("0000:00:00 00:00:00", False), ("2024:13:40 07:08:09", True), ("soon", True)]
)
def test_a_malformed_time_is_unknown(tmp_path: Path, time: str, reported: bool) -> None:
    with Image.open(_with_exif(tmp_path / "a.jpg", time=time)) as image:
        info = read_exif(image)
    assert info.captured_at is None
    assert info.hour is None
    assert bool(info.problems) is reported


def test_broken_exif_bytes_do_not_stop_the_image(tmp_path: Path) -> None:
    picture(3).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + bytes(range(40)))
    frame = build_manifest(tmp_path).frame
    assert frame.height == 1
    assert frame["captured_at"].to_list() == [None]
