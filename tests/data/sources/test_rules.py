"""What is special about each source: its rules, its errors, its damaged files."""

from __future__ import annotations

import json
from pathlib import Path

import layouts
import polars as pl
import pytest

from workzone.data.manifest import Manifest
from workzone.data.sources import jsonstream
from workzone.data.sources.build import detect
from workzone.data.sources.classmap import ClassMap
from workzone.data.sources.coco import CocoSource
from workzone.data.sources.drives import VideoSource
from workzone.data.sources.importing import import_source
from workzone.data.sources.mapillary import STRONG, MapillaryVistasSource
from workzone.data.sources.natix import CONTRADICTION, NatixSource
from workzone.data.sources.negatives import Bdd100kSource, Rdd2022Source
from workzone.data.sources.options import make_source
from workzone.data.sources.records import Dropped, Record, position, sequence_from_name, sequence_group
from workzone.data.sources.roadwork import RoadworkSource
from workzone.data.sources.survey import survey
from workzone.data.sources.voc import VocSource, read_objects
from workzone.data.sources.yolo import YoloSource, read_names
from workzone.errors import ConfigError, DataError

CLASSES = ClassMap.parse("cone")


# natix


def test_natix_drops_contradictions_and_hands_no_description_on(tmp_path: Path) -> None:
    rows = [(1, "Cones."), (1, None), (1, "  "), (0, "Cones."), (0, None), (0, "")]
    (tmp_path / "data").mkdir()
    frame = pl.DataFrame([layouts.natix_row(n, y, scene_description=d) for n, (y, d) in enumerate(rows)])
    frame.write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet")
    done = import_source(NatixSource(), tmp_path, tmp_path / "out")
    table = Manifest.load(done.manifest).frame
    assert table["original_name"].str.slice(-8, 4).to_list() == ["0000", "0004", "0005"]
    assert dict(done.survey.dropped) == {CONTRADICTION: 3}
    listed = (tmp_path / "out/left_out.csv").read_text()
    assert all(f"data/test-00000-of-00001/{n:06d},rule" in listed for n in (1, 2, 3))
    everything = repr(table.rows()) + repr(table.columns)
    assert not any(word in everything for word in ("Cones.", "scene_description", "travel_alteration", "Blocked"))
    assert set(table["official_split"]) == {"test"}
    unchecked = survey(NatixSource(check_description=False), tmp_path / "data")
    assert unchecked.images == 6


def test_natix_rows_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    rows = [layouts.natix_row(n, 1) for n in range(4)]
    rows[1]["image"] = {"bytes": None, "path": "gone.jpg"}
    rows[2]["label"] = 3
    rows[3]["image"] = {"bytes": layouts.jpeg(3)[:300], "path": "half.jpg"}
    pl.DataFrame(rows).write_parquet(tmp_path / "data" / "train-0.parquet")
    done = import_source(NatixSource(), tmp_path / "data", tmp_path / "out")
    assert dict(done.survey.dropped) == {"the row has no image bytes": 1, "the label is neither 0 nor 1": 1}
    assert [(r[0], r[2][:9]) for r in done.rejected] == [("train-0/000003", "truncated")]
    assert not list((tmp_path / "out/images").rglob("*.partial*"))


def test_natix_needs_its_columns(tmp_path: Path) -> None:
    pl.DataFrame({"picture": [1], "label": [1]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no column 'image'"):
        survey(NatixSource(), tmp_path)
    pl.DataFrame([layouts.natix_row(1, 1)]).drop("label").write_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no column 'label'"):
        survey(NatixSource(), tmp_path)


def test_natix_folder_keeps_out_names_that_leave_it(tmp_path: Path) -> None:
    root = layouts.make_natix_folder(tmp_path / "data")
    with (root / "train" / "metadata.jsonl").open("a") as stream:
        for name in ("../secret.jpg", "/etc/x.jpg", "boston_s0_v1_0000.jpg"):
            stream.write(json.dumps({"file_name": name, "label": 0}) + "\n")
    found = survey(NatixSource(), root)
    assert dict(found.dropped) == {
        "the row names no image file below its folder": 2, "the image is listed twice": 1
    }  # fmt: skip
    (root / "train" / "metadata.jsonl").write_text('{"file_name": 1\n')
    with pytest.raises(DataError, match="line 1 is no JSON"):
        survey(NatixSource(), root)


def test_flat_columns_are_read_like_nested_ones(tmp_path: Path) -> None:
    row = layouts.natix_row(2, 1)
    nested = {f"{k}.{n}": row[k][n] for k in ("video_info", "scene_level_tags") for n in row[k]}
    flat = {k: v for k, v in row.items() if k not in ("video_info", "scene_level_tags")} | nested
    pl.DataFrame([flat]).write_parquet(tmp_path / "a.parquet")
    (event,) = NatixSource().stream(tmp_path).events
    assert isinstance(event, Record)
    assert event.columns["group"] == "drive:boston/s1/v1"
    assert event.columns["scene"] == "Urban"


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ([40.4, -79.9], (40.4, -79.9)), ([-79.9, 40.4], None), ([-118.2, 34.0], (34.0, -118.2)),
        ("40.4, -79.9", (40.4, -79.9)),
        ({"lat": 1, "lng": 2}, (1.0, 2.0)), ([0, 0], None), ([], None), ([1], None), (None, None), ("here", None),
        (["a", "b"], None), ([400, 500], None), (7, None),
    ],
)  # fmt: skip
def test_positions(value: object, wanted: tuple[float, float] | None) -> None:
    # Of two numbers that could both be latitudes the order as published is kept.
    assert position(value) == (wanted if value != [-79.9, 40.4] else (-79.9, 40.4))


def test_drives_have_one_name_in_both_sets() -> None:
    assert sequence_from_name("pgh03_00017.jpg") == sequence_group("Pittsburgh", "03", 5) == "drive:pittsburgh/03"
    assert sequence_from_name("san francisco_a1_b2_00017.jpg") == sequence_group("San Francisco", "A1", "B2")
    assert sequence_from_name("IMG_0001.jpg") is None
    assert sequence_group("Boston", None) is None
    assert sequence_group(None, "s1") is None


# roadwork


def test_roadwork_keeps_the_official_splits(tmp_path: Path) -> None:
    root = layouts.make_roadwork(tmp_path / "data")
    rows = Manifest.load(import_source(RoadworkSource(), root, tmp_path / "a").manifest).frame
    assert rows["split_gps"].to_list() == ["train"] * 4 + ["val"] * 2
    assert rows["split_pittsburgh"].to_list() == ["train"] * 2 + ["val"] * 4
    assert rows["split_geographic"].to_list() == ["pretrain"] * 2 + ["unsupervised"] * 2 + ["unsupervised", "test"]
    assert rows["latitude"][1] == pytest.approx(40.41)
    assert not {"travel_alteration", "scene_description"} & set(rows.columns)
    other = Manifest.load(import_source(RoadworkSource(split="geographic"), root, tmp_path / "b").manifest).frame
    assert sorted(other["id"]) == sorted(rows["id"])
    with pytest.raises(DataError, match="no split 'random'"):
        RoadworkSource(split="random")  # type: ignore[arg-type]


def test_roadwork_needs_its_categories_and_images(tmp_path: Path) -> None:
    root = layouts.make_roadwork(tmp_path / "data")
    file = root / "annotations" / "instances_train_gps_split.json"
    text = file.read_text()
    file.write_text(text.replace('"Cone"', '"Kegel"'))
    with pytest.raises(DataError, match="the categories lack Cone"):
        survey(RoadworkSource(), root)
    file.write_text(text)
    (root / "images").rename(root / "pictures")
    with pytest.raises(DataError, match="none of the first images"):
        survey(RoadworkSource(), root)


# mapillary_vistas


def test_vistas_12_is_refused_with_its_reason(tmp_path: Path) -> None:
    root = layouts.make_vistas(tmp_path / "data")
    (root / "config_v2.0.json").rename(root / "config_v1.2.json")
    assert detect(root) == "mapillary_vistas"
    with pytest.raises(DataError, match=r"v1\.2 has no class for traffic cones"):
        survey(MapillaryVistasSource(), root)


@pytest.mark.parametrize("name", STRONG)
def test_vistas_missing_names_are_an_error(tmp_path: Path, name: str) -> None:
    root = layouts.make_vistas(tmp_path / "data")
    config, panoptic = root / "config_v2.0.json", root / "training/v2.0/panoptic/panoptic_2020.json"
    text = panoptic.read_text()
    panoptic.write_text(text.replace(f'"{name}"', '"other"'))
    with pytest.raises(DataError, match=f"the categories {name} are missing"):
        survey(MapillaryVistasSource(), root)
    config.write_text(config.read_text().replace(f'"{name}"', '"other"'))
    with pytest.raises(DataError, match=f"the classes {name} are missing"):
        survey(MapillaryVistasSource(), root)


def test_vistas_labels_by_name_whatever_the_numbers(tmp_path: Path) -> None:
    root = layouts.make_vistas(tmp_path / "data")
    config, panoptic = root / "config_v2.0.json", root / "training/v2.0/panoptic/panoptic_2020.json"
    before = [e.id for e in MapillaryVistasSource().stream(root).events if isinstance(e, Record) and e.columns["label"]]
    body = json.loads(panoptic.read_text())
    readable = {e["name"]: e["readable"] for e in json.loads(config.read_text())["labels"]}
    for category in body["categories"]:
        category["id"] += 100
        category["name"] = readable[category["name"]]
    for annotation in body["annotations"]:
        for segment in annotation["segments_info"]:
            segment["category_id"] += 100
    panoptic.write_text(json.dumps(body))
    shifted = MapillaryVistasSource().stream(root).events
    assert [e.id for e in shifted if isinstance(e, Record) and e.columns["label"]] == before


def test_vistas_thresholds(tmp_path: Path) -> None:
    root = layouts.make_vistas(tmp_path / "data")
    assert survey(MapillaryVistasSource(min_area=0.0001), root).labels == {"roadwork": 4, "no_roadwork": 3}
    assert survey(MapillaryVistasSource(min_area=0.01), root).labels == {"roadwork": 1, "no_roadwork": 3}
    assert survey(MapillaryVistasSource(negatives=False), root).labels == {"roadwork": 3}
    with pytest.raises(DataError, match="min_area"):
        MapillaryVistasSource(min_area=20)


# coco, yolo, voc


def test_a_class_map_is_checked(tmp_path: Path) -> None:
    for source, make in (
        (CocoSource, layouts.make_coco),
        (YoloSource, layouts.make_yolo),
        (VocSource, layouts.make_voc),
    ):
        root = make(tmp_path / source.kind)
        with pytest.raises(DataError, match=r"nobody said.*the classes are car, cone, sign, works vehicle"):
            survey(source(), root)
        with pytest.raises(DataError, match="no class 'cones'"):
            survey(source(classes=ClassMap.parse("cones")), root)
    (tmp_path / "map.json").write_text('{"cone": "roadwork", "sign": "ambiguous"}')
    assert ClassMap.parse(str(tmp_path / "map.json")) == ClassMap.parse("cone, sign=ambiguous")
    for text in ("cone=maybe", "cone=other", str(tmp_path / "absent.json")):
        with pytest.raises(ConfigError):
            ClassMap.parse(text)


def test_coco_images_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    root = layouts.make_coco(tmp_path / "data")
    file = root / "annotations" / "instances_train.json"
    body = json.loads(file.read_text())
    body["images"] += [{"id": 90, "file_name": "../x.jpg"}, {"id": 91, "file_name": "c0.jpg"}, {"id": 92}]
    file.write_text(json.dumps(body))
    found = survey(CocoSource(classes=CLASSES), root)
    assert dict(found.dropped) == {"the file name leaves the image folder": 2, "the image is listed twice": 1}
    body["annotations"].append({"image_id": 1, "category_id": 77})
    file.write_text(json.dumps(body))
    with pytest.raises(DataError, match="unknown category 77"):
        survey(CocoSource(classes=CLASSES), root)


def test_yolo_names_and_wrong_lines(tmp_path: Path) -> None:
    root = layouts.make_yolo(tmp_path)
    (root / "data.yaml").write_text("names:\n  0: cone\n  1: car\n  2: sign\n  3: works vehicle\n")
    assert read_names(root) == ["cone", "car", "sign", "works vehicle"]
    (root / "labels/train/y3.txt").write_text("4 0.5 0.5 0.1 0.1\n")
    (root / "labels/train/y2.txt").write_text("cone 0.5 0.5 0.1 0.1\n")
    found = survey(YoloSource(classes=CLASSES), root)
    assert dict(found.dropped) == {"the label file is wrong": 2}
    for text in ("names: {1: a}", "names: 3", "names: [", "!!python/object/apply:os.system ['x']"):
        (root / "data.yaml").write_text(text)
        with pytest.raises(DataError):
            read_names(root)
    (root / "data.yaml").unlink()
    (root / "classes.txt").write_text("cone\ncar\n")
    assert read_names(root) == ["cone", "car"]


def test_voc_files_with_document_types_are_not_parsed(tmp_path: Path) -> None:
    root = layouts.make_voc(tmp_path)
    bomb = '<!DOCTYPE a [<!ENTITY b "bbbb">]><annotation><object><name>&b;</name></object></annotation>'
    (root / "Annotations/p3.xml").write_text(bomb)
    (root / "Annotations/p4.xml").write_text("<annotation>")
    (root / "Annotations/p5.xml").unlink()
    with pytest.raises(DataError, match="document type"):
        read_objects(root / "Annotations/p3.xml")
    found = survey(VocSource(classes=CLASSES), root)
    assert dict(found.dropped) == {"the annotation cannot be read": 2, "no annotation for the image": 1}


# negatives


def test_nothing_is_negative_unless_said(tmp_path: Path) -> None:
    bdd, rdd = layouts.make_bdd(tmp_path / "bdd"), layouts.make_rdd(tmp_path / "rdd")
    assert survey(Bdd100kSource(), bdd).labels == {"unlabelled": 6}
    assert survey(Rdd2022Source(), rdd).labels == {"unlabelled": 6}
    said = [e for e in Rdd2022Source(assume_negative=True).stream(rdd).events if isinstance(e, Record)]
    assert {(e.columns["label"], e.columns["label_origin"]) for e in said} == {(0, "assumed")}
    first = next(iter(Bdd100kSource().stream(bdd).events))
    assert isinstance(first, Record)
    assert [first.columns[c] for c in ("weather", "time_of_day", "scene")] == [None, "night", "highway"]


# video


def test_frames_by_movement(tmp_path: Path) -> None:
    root = layouts.make_video(tmp_path)
    taken = [e for e in VideoSource(movement=8.0).stream(root).events if isinstance(e, Record)]
    seconds = {v: [e.columns["seconds"] for e in taken if e.columns["video"] == v] for v in ("b.mp4", "roadwork/a.mp4")}
    assert seconds == {"b.mp4": [0.0, 1.0, 2.0], "roadwork/a.mp4": [0.0, 1.0]}
    assert len([*VideoSource(every=0.5).stream(root).events]) == 12


def test_damaged_videos_are_named(tmp_path: Path) -> None:
    root = layouts.make_video(tmp_path / "data")
    (root / "c.mp4").write_bytes(b"no video")
    whole = (root / "b.mp4").read_bytes()
    (root / "b.mp4").write_bytes(whole[: len(whole) // 2])
    events = list(VideoSource().stream(root).events)
    dropped = [e for e in events if isinstance(e, Dropped)]
    assert [e.id for e in dropped if e.rule == "the video cannot be used"][-1] == "c.mp4"
    assert any(e.id.startswith("b.mp4") for e in dropped)
    assert len([e for e in events if isinstance(e, Record) and e.columns["video"] == "roadwork/a.mp4"]) == 3


# options and JSON


def test_options_by_name() -> None:
    assert make_source("video", options=["every=0.5", "quality=80"]) == VideoSource(every=0.5, quality=80)
    assert make_source("natix", options=["check_description=false"]) == NatixSource(check_description=False)
    wrong = [
        ("zip", {}), ("video", {"options": ["speed=1"]}), ("video", {"options": ["every"]}),
        ("natix", {"class_map": "a"}),
        ("video", {"options": ["every=fast"]}), ("natix", {"assume_negative": True}), ("folder", {"class_map": "cone"}),
        ("coco", {"rest": "ignore"}), ("natix", {"options": ["check_description=maybe"]}),
        ("folder", {"options": ["classes=x"]}), ("natix", {"rest": "drop"}),
    ]  # fmt: skip
    for kind, words in wrong:
        with pytest.raises(ConfigError):
            make_source(kind, **words)  # type: ignore[arg-type]


@pytest.mark.parametrize("chunk", [1, 2, 7, 4096])
def test_json_is_read_in_pieces(tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonstream, "_CHUNK", chunk)
    body = {
        "a": [1, {"want": [9]}],
        "n": -1.5e3,
        "t": 'x]}\\"',
        "o": {"want": []},
        "want": [12, 3.25, "é", {"k": [1]}, None],
    }
    file = tmp_path / "x.json"
    for indent in (None, 2):
        file.write_text(json.dumps(body, indent=indent), encoding="utf-8")
        assert list(jsonstream.iter_array(file, "want")) == body["want"]
    file.write_text("  [ 12345 , 6 ]  ")
    assert list(jsonstream.iter_array(file)) == [12345, 6]
    file.write_text("[]")
    assert list(jsonstream.iter_array(file)) == []


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"want": [1, 2', "ends early"), ('{"want": [1 2]}', "belongs"), ('{"other": []}', "has no key"),
        ('{"want": 3}', "no list"), ("[1, x]", "belongs|damaged"), ("", "ends early"),
        ('{"want": [{"a": 1}, ', "ends early"),
        ('{"want": ["\\ud800', "ends early"), ("[" * 100_000, "belongs|nested"),
    ],
)  # fmt: skip
def test_damaged_json_is_an_error(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=what):
        list(jsonstream.iter_array(tmp_path / "x.json", "want"))
    (tmp_path / "x.json").write_text('{"want": ' + "[" * 100_000)
    with pytest.raises(DataError, match=r"nested|damaged"):
        list(jsonstream.iter_array(tmp_path / "x.json", "want"))
