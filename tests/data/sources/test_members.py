"""One battery for the sources with layouts of their own: import, resume, dry run, unreadable images, wrong folders."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import layouts
import polars as pl
import pytest
from PIL import Image

from workzone.config import RunConfig
from workzone.config.run import SourceConfig
from workzone.data.manifest import Manifest
from workzone.data.sources.base import Source
from workzone.data.sources.build import SOURCES, build_manifest, detect
from workzone.data.sources.importing import import_source
from workzone.data.sources.options import make_source
from workzone.data.sources.records import Record
from workzone.data.sources.survey import survey
from workzone.errors import ConfigError, DataError
from workzone.files import sha256_file
from workzone.pipeline.artifacts import Artifacts
from workzone.pipeline.phase import Progress
from workzone.pipeline.reading import outside, read_manifest

MAP = "cone,works vehicle,sign=ambiguous"


@dataclass(frozen=True)
class Row:
    """Layout, how it is read, and what has to come out."""

    make: Callable[[Path], Path]
    labels: list[int | None]
    groups: list[str | None]
    dropped: dict[str, int] = field(default_factory=dict)
    options: dict[str, object] = field(default_factory=dict)
    licence: str | None = None
    detected: bool = True
    inside: bool = False  # images lie inside other files
    kind: str | None = None


BOSTON = [f"drive:boston/s{n}/v1" for n in (0, 0, 1, 1, 2, 2)]
VISTAS_GROUPS: list[str | None] = [None] * 6
SMALL = "temporary objects cover too little of the image"
WEAK = "only objects that may or may not belong to roadwork"
VISTAS = Row(layouts.make_vistas, [1, 1, 1, 0, 0, 0], VISTAS_GROUPS, {SMALL: 1, WEAK: 1}, licence="research edition")
CELLS = ["2024-05-06@23350:3628", "2024-05-07@23395:3619"]
OBJECTS: dict[str, object] = {"class_map": MAP}
AMBIGUOUS = {"only ambiguous objects": 1}
ROWS = {
    "natix": Row(layouts.make_natix, [1, 0, 1, 0, 1, 0], BOSTON, licence="no licence", inside=True),
    "natix-folder": Row(
        layouts.make_natix_folder, [1, 0, 1, 0, 1, 0], BOSTON, licence="no licence", kind="natix"
    ),
    "roadwork": Row(
        layouts.make_roadwork,
        [1] * 6,
        ["drive:pittsburgh/03"] * 2 + [f"drive:boston/s{n}/v1" for n in range(4)],
        {"no object that shows a work zone; in a set of work zones that is no clean negative": 2},
        licence="ODC-BY",
    ),
    "mapillary_vistas": VISTAS,
    "vistas-polygons": Row(
        lambda root: layouts.make_vistas(root, "polygons"), VISTAS.labels, VISTAS_GROUPS, VISTAS.dropped,
        licence="research", kind="mapillary_vistas",
    ),
    "vistas-labels": Row(
        lambda root: layouts.make_vistas(root, "labels"), VISTAS.labels, VISTAS_GROUPS, VISTAS.dropped,
        licence="research", kind="mapillary_vistas",
    ),
    "bdd100k": Row(layouts.make_bdd, [None] * 6, [f"bdd100k:b1c66a42-{n}" for n in range(6)], licence="BDD100K"),
    "bdd-negatives": Row(
        layouts.make_bdd, [0] * 6, [f"bdd100k:b1c66a42-{n}" for n in range(6)], options={"assume_negative": True},
        licence="BDD100K", kind="bdd100k",
    ),
    "rdd2022": Row(
        layouts.make_rdd, [0] * 5, [None] * 5, {"no damage is annotated": 1},
        {"assume_negative": True, "options": ["damaged_only=true"]}, licence="CC BY-SA",
    ),
    "coco": Row(layouts.make_coco, [1, 1, 0, 0, 1], [None] * 5, AMBIGUOUS, OBJECTS, detected=False),
    "coco-rest": Row(
        layouts.make_coco, [1, 1, None, None, 1], [None] * 5, AMBIGUOUS, OBJECTS | {"rest": "unlabelled"},
        detected=False, kind="coco",
    ),
    "yolo": Row(layouts.make_yolo, [1, 1, 0, 0, 1], [None] * 5, AMBIGUOUS, OBJECTS, detected=False),
    "voc": Row(layouts.make_voc, [1, 1, 0, 0, 1], [None] * 5, AMBIGUOUS, OBJECTS, detected=False),
    "voc-drop": Row(
        layouts.make_voc, [1, 1, 1], [None] * 3, AMBIGUOUS | {"no object means roadwork": 2},
        OBJECTS | {"rest": "drop"}, detected=False, kind="voc",
    ),
    "phone": Row(
        layouts.make_phone, [1, 1, 1, None, None, None],
        [*CELLS[:2], None, CELLS[0], "2024-05-06@23395:3619", "trip"],
        detected=False,
    ),
    "video": Row(
        layouts.make_video, [None] * 3 + [1] * 3, ["video:b.mp4"] * 3 + ["video:roadwork/a.mp4"] * 3, inside=True
    ),
}  # fmt: skip


@pytest.fixture(params=sorted(ROWS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def source_of(name: str) -> Source:
    return make_source(ROWS[name].kind or name, **ROWS[name].options)  # type: ignore[arg-type]


def test_every_source_has_a_row() -> None:
    generic = {"folder", "table", "unlabelled"}  # in tests/data/test_sources.py
    assert {row.kind or name for name, row in ROWS.items()} | generic == set(SOURCES)


def test_import(tmp_path: Path, name: str) -> None:
    row, location, source = ROWS[name], ROWS[name].make(tmp_path / "data"), source_of(name)
    if row.detected:
        assert detect(location) == source.kind
    steps: list[tuple[int, int]] = []
    done = import_source(source, location, tmp_path / "out", progress=lambda a, b: steps.append((a, b)), part=4)
    frame = Manifest.load(done.manifest).frame
    assert frame["label"].to_list() == row.labels
    # A row without a group is a group of its own, named after its id.
    own = [i if g is None else g for i, g in zip(frame["id"], row.groups, strict=True)]
    assert frame["group"].to_list() == own
    assert dict(done.survey.dropped) == row.dropped
    assert [s[0] for s in steps] == list(range(1, len(row.labels) + sum(row.dropped.values()) + 1))
    assert frame["id"].n_unique() == frame.height
    assert frame["source"].null_count() == 0
    assert done.unreadable == 0
    assert done.resumed == 0
    for path, cells in zip(Manifest.load(done.manifest).paths, frame.rows(named=True), strict=True):
        with Image.open(path) as image:
            assert (cells["width"], cells["height"]) == image.size
        assert cells["sha256"] == sha256_file(path)
        assert path.is_relative_to(tmp_path / ("out/images" if row.inside else "data"))
        assert not row.inside or path.stem == cells["sha256"]
    assert (row.licence is None) == (source.licence is None)
    assert row.licence is None or row.licence in source.licence.text()  # type: ignore[union-attr]
    # NATIX says a licence for each image, here the number 1.
    wanted = {None if source.licence is None else "1" if source.kind == "natix" else source.licence.name}
    assert set(frame["licence"] if "licence" in frame.columns else [None]) == wanted
    text = (tmp_path / "out/left_out.csv").read_text()
    assert text.count("\n") == 1 + sum(row.dropped.values())
    again = import_source(source, location, tmp_path / "out", part=4)
    assert again.resumed == len(steps)
    assert Manifest.load(again.manifest).frame.equals(frame)
    fresh = import_source(source, location, tmp_path / "other", part=3, workers=1)
    assert Manifest.load(fresh.manifest).frame.drop("path").equals(frame.drop("path"))


def test_dry_run_counts_the_same_and_writes_nothing(tmp_path: Path, name: str) -> None:
    row, location = ROWS[name], ROWS[name].make(tmp_path / "data")
    before = sorted(tmp_path.rglob("*"))
    found = survey(source_of(name), location)
    assert sorted(tmp_path.rglob("*")) == before
    assert found.images == len(row.labels)
    assert dict(found.dropped) == row.dropped
    assert len(found.groups) == len({g for g in row.groups if g is not None})
    assert found.ungrouped == row.groups.count(None)
    assert "left out" in "\n".join(found.lines()) or not row.dropped
    if (row.kind or name) != "video":
        done = import_source(source_of(name), location, tmp_path / "out")
        assert (found.size, found.unsized) == (done.survey.size, 0)


def test_start_skips_events_and_content_changes_nothing_else(tmp_path: Path, name: str) -> None:
    location, source = ROWS[name].make(tmp_path / "data"), source_of(name)
    whole = list(source.stream(location).events)
    bare = list(source.stream(location, content=False).events)
    assert len(whole) == len(bare)
    for full, empty in zip(whole, bare, strict=True):
        assert full.id == empty.id
        if isinstance(full, Record):
            assert isinstance(empty, Record)
            assert full.columns == empty.columns
            assert empty.content is None
            assert (full.content is not None) == ROWS[name].inside
    for start in (1, 3, len(whole)):
        assert [e.id for e in source.stream(location, start=start).events] == [e.id for e in whole[start:]]


def test_a_manifest_without_an_import(tmp_path: Path, name: str) -> None:
    row, location = ROWS[name], ROWS[name].make(tmp_path / "data")
    if row.inside:
        with pytest.raises(DataError, match="workzone data import"):
            build_manifest(location, source=source_of(name))
        return
    manifest = build_manifest(location, source=source_of(name))
    assert manifest.frame["label"].to_list() == row.labels
    assert manifest.warnings["reason"].str.starts_with("left out: ").sum() == sum(row.dropped.values())


def test_unreadable_images_are_named(tmp_path: Path, name: str) -> None:
    row, location = ROWS[name], ROWS[name].make(tmp_path / "data")
    if row.inside:
        return  # test_natix and test_drives break what lies inside
    frame = Manifest.load(import_source(source_of(name), location, tmp_path / "before").manifest).frame
    victim = Path(frame["path"][1])
    victim.write_bytes(victim.read_bytes()[:400])
    done = import_source(source_of(name), location, tmp_path / "out")
    assert done.unreadable == 1
    assert done.rejected[0][0] == frame["id"][1]
    assert done.rejected[0][2].startswith("truncated")
    kept = Manifest.load(done.manifest).frame["id"].to_list()
    assert kept == [i for i in frame["id"] if i != frame["id"][1]]
    assert f"{frame['id'][1]},unreadable,truncated" in (tmp_path / "out/left_out.csv").read_text()


def test_wrong_locations(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    for place in ("absent", "empty"):
        with pytest.raises(DataError):
            import_source(source_of(name), tmp_path / place, tmp_path / f"out-{place}")
        with pytest.raises(DataError):
            survey(source_of(name), tmp_path / place)
        assert not (tmp_path / f"out-{place}" / "manifest.parquet").exists()


def test_one_drive_in_two_sources_is_one_group(tmp_path: Path) -> None:
    from workzone.data.units import find_units

    natix = import_source(source_of("natix"), layouts.make_natix(tmp_path / "n"), tmp_path / "no")
    roadwork = import_source(source_of("roadwork"), layouts.make_roadwork(tmp_path / "r"), tmp_path / "ro")
    frames = [Manifest.load(m.manifest).frame.select("id", "path", "group", "sha256") for m in (natix, roadwork)]
    both = Manifest.from_frame(pl.concat(frames), root="/")
    units = dict(zip(both.frame["id"], find_units(both), strict=True))
    assert units["data/train-00000-of-00002/000000"] == units["boston_s0_v1_00000.jpg"] == "drive:boston/s0/v1"


def _saved_again(original: Path, quality: int, scale: float) -> bytes:
    stream = io.BytesIO()
    with Image.open(original) as image:
        size = (round(image.width * scale), round(image.height * scale))
        image.convert("RGB").resize(size).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def test_roadwork_pictures_inside_natix_are_found_under_other_names(tmp_path: Path) -> None:
    from workzone.data.fusion.combine import combine
    from workzone.data.splits import make_splits

    place = layouts.make_roadwork(tmp_path / "r")
    taken = [place / "images" / name for name in layouts.ROADWORK_NAMES[:2] + layouts.ROADWORK_NAMES[3:5]]
    ways = [(40, 1.0), (75, 0.6), (90, 1.5), (30, 0.8)]
    again = [_saved_again(p, quality, scale) for p, (quality, scale) in zip(taken, ways, strict=True)]
    rows = []
    for n in range(12):
        row = layouts.natix_row(n, 1 - n % 2, city_name="Elsewhere", video_info={"seq_id": f"z{n}", "vid_id": "q"})
        row["image"]["path"] = f"elsewhere_z{n}_q_{n:04d}.jpg"
        if n < 8 and n % 2 == 0:
            row["image"]["bytes"] = again[n // 2]
        rows.append(row)
    shard = tmp_path / "n" / "data" / "train-00000-of-00001.parquet"
    shard.parent.mkdir(parents=True)
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(shard)
    parts = {
        "natix": Manifest.load(import_source(source_of("natix"), tmp_path / "n", tmp_path / "no").manifest),
        "roadwork": Manifest.load(import_source(source_of("roadwork"), place, tmp_path / "ro").manifest),
    }
    joined = combine(parts)
    assert joined.copies == 0, "no picture is the same file"
    frame = joined.manifest.frame
    group = dict(zip(frame["origin_id"], frame["group"], strict=True))
    natix = parts["natix"].frame["id"].to_list()
    for n, original in zip((0, 2, 4, 6), taken, strict=True):
        assert group[natix[n]] == group[original.name], original.name
    others = [group[natix[n]] for n in range(12) if n % 2 or n > 7]
    assert not set(others) & {group[i] for i in parts["roadwork"].frame["id"].to_list()}
    for seed in range(3):
        splits = make_splits(joined.manifest, {"train": 0.5, "val_test": 0.5}, seed=seed)
        role = {own: splits.assignment[i] for i, own in zip(frame["id"], frame["origin_id"], strict=True)}
        assert all(role[natix[n]] == role[p.name] for n, p in zip((0, 2, 4, 6), taken, strict=True))


def test_a_run_reads_it_as_an_import_does(tmp_path: Path, name: str) -> None:
    row, location = ROWS[name], ROWS[name].make(tmp_path / "data")
    options = dict(row.options)
    given = {"class_map": options.pop("class_map", None), "rest": options.pop("rest", None)}
    source = {
        "kind": row.kind or name,
        "assume_negative": bool(options.pop("assume_negative", False)),
        "options": tuple(options.pop("options", ())),  # type: ignore[arg-type]
        **given,
    }
    assert not options
    done = import_source(source_of(name), location, tmp_path / "out")
    wanted = Manifest.load(done.manifest).frame
    config = RunConfig(data=str(location), out=tmp_path / "run", source=SourceConfig(**source, accept_licence=True))
    home = Artifacts(config.out)
    frame = read_manifest(config, home, Progress()).frame
    for column in ("id", "label", "group", "source", "sha256", "width", "hour", "latitude"):
        assert frame[column].to_list() == wanted[column].to_list(), column
    assert home.imported.exists() == row.inside
    before = outside(config)
    assert outside(config) == before
    files = sorted(p for p in location.rglob("*") if p.suffix in (".parquet", ".mp4"))
    victim = files[0] if row.inside else Manifest.load(done.manifest).paths[0]
    os.utime(victim, (1, 1))
    assert outside(config) != before
    if source_of(name).licence is not None:
        refused = config.model_copy(update={"source": SourceConfig(**source)})
        with pytest.raises(ConfigError, match=r"licence .* was not accepted"):
            read_manifest(refused, home, Progress())
