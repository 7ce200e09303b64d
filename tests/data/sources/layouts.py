"""Small data sets in the published layouts, made from drawn pictures."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import polars as pl
from pictures import picture, save_picture
from PIL import ExifTags, Image

CATEGORIES = [
    "Police Officer", "Police Vehicle", "Sidewalk", "Cone", "Fence", "Drum", "Barricade", "Barrier", "Work Vehicle",
    "Vertical Panel", "Tubular Marker", "Arrow Board", "Temporary Traffic Control Message Board", "Road", "Bike Lane",
    "Temporary Traffic Control Sign", "Work Equipment", "Worker", "Other Roadwork Objects",
]  # fmt: skip


def jpeg(seed: int, size: tuple[int, int] = (160, 120)) -> bytes:
    stream = io.BytesIO()
    picture(seed, size).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def natix_row(n: int, label: int, **changes: Any) -> dict[str, Any]:
    """A row with the columns of ``natix-network-org/roadwork``."""
    row = {
        "image": {"bytes": jpeg(n), "path": f"boston_s{n // 2}_v1_{n:04d}.jpg"},
        "id": n,
        "width": 160,
        "height": 120,
        "license": 1,
        "flickr_url": "",
        "coco_url": "",
        "date_captured": "",
        "gps": [42.3 + n / 1000, -71.05],
        "city_name": "Boston",
        "scene_description": "Cones on the right lane." if label else None,
        "video_info": {"frame_id": n, "seq_id": f"s{n // 2}", "vid_id": "v1"},
        "scene_level_tags": {
            "daytime": "Light" if n % 2 else None,
            "scene_environment": ["Urban"],
            "travel_alteration": ["Partially Blocked"] if label else ["None"],
            "weather": ["Sunny"] if n % 3 else None,
        },
        "label": label,
    }
    return row | changes


def make_natix(root: Path, labels: tuple[int, ...] = (1, 0, 1, 0, 1, 0), **changes: Any) -> Path:
    """Two shards of training rows, row groups of two rows."""
    rows = [natix_row(n, label, **changes) for n, label in enumerate(labels)]
    (root / "data").mkdir(parents=True)
    half = (len(rows) + 1) // 2
    for k, some in enumerate((rows[:half], rows[half:])):
        schema = pl.DataFrame(rows, infer_schema_length=None).schema
        frame = pl.DataFrame(some, schema=schema)
        frame.write_parquet(root / "data" / f"train-{k:05d}-of-00002.parquet", row_group_size=2)
    return root


def make_natix_folder(root: Path) -> Path:
    (root / "train").mkdir(parents=True)
    lines = []
    for n, label in enumerate((1, 0, 1, 0, 1, 0)):
        row = natix_row(n, label)
        name = row.pop("image")["path"]
        (root / "train" / name).write_bytes(jpeg(n))
        lines.append(json.dumps({"file_name": name, **row}))
    (root / "train" / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    (root / "metadata.jsonl").write_text("")
    return root


def coco_body(images: list[dict[str, Any]], shown: dict[int, list[str]], names: list[str]) -> dict[str, Any]:
    ids = {n: i + 1 for i, n in enumerate(names)}
    pairs = [(i, ids[n]) for i, classes in shown.items() for n in classes]
    return {
        "info": {"description": "test", "nested": {"images": "not these"}},
        "annotations": [
            {"id": k, "image_id": i, "category_id": c, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
            for k, (i, c) in enumerate(pairs)
        ],
        "images": images,
        "categories": [{"id": i, "name": n, "supercategory": ""} for n, i in ids.items()],
    }


ROADWORK_NAMES = [f"pgh03_{n:05d}.jpg" for n in range(3)] + [f"boston_s{n}_v1_{n:05d}.jpg" for n in range(5)]


def make_roadwork(root: Path) -> Path:
    """Six positives, one image with a fence only, one with nothing; all three families of splits."""
    for n, name in enumerate(ROADWORK_NAMES):
        save_picture(root / "images" / name, 100 + n, (160, 120))
    (root / "annotations").mkdir()
    records = [
        {
            "id": 10 + n,
            "file_name": name,
            "width": 160,
            "height": 120,
            "license": 1,
            "gps": [40.4 + n / 100, -79.9],
            "city_name": "pittsburgh" if name.startswith("pgh") else "boston",
            "scene_description": "a work zone",
            "video_info": {"seq_id": "03" if name.startswith("pgh") else f"s{n - 3}", "vid_id": "v1", "frame_id": n},
            "scene_level_tags": {
                "weather": ["Cloudy"],
                "daytime": ["Light"],
                "scene_environment": ["Urban"],
                "travel_alteration": ["Fully Blocked"],
            },
        }
        for n, name in enumerate(ROADWORK_NAMES)
    ]
    shown = {10: ["Cone", "Road"], 11: ["Worker"], 12: ["Fence"], 13: ["Drum"], 14: ["Cone"], 15: ["Arrow Board"]}
    shown |= {16: ["Temporary Traffic Control Sign"], 17: []}
    parts = {
        "instances_train_gps_split": records[:5],
        "instances_val_gps_split": records[5:],
        "instances_train_pittsburgh_only": records[:3],
        "instances_val_pittsburgh_only": records[3:],
        "instances_geographic_da_pretrain": records[:3],
        "instances_geographic_da_unsupervised_with_gt": records[3:6],
        "instances_geographic_da_test": records[6:],
    }
    for name, some in parts.items():
        body = coco_body(some, {i["id"]: shown[i["id"]] for i in some}, CATEGORIES)
        (root / "annotations" / f"{name}.json").write_text(json.dumps(body))
    return root


VISTAS = [
    "animal--bird", "construction--barrier--concrete-block", "construction--barrier--other-barrier",
    "construction--barrier--separator", "construction--barrier--temporary", "construction--flat--road",
    "human--person", "object--traffic-cone", "object--traffic-sign--temporary-back",
    "object--traffic-sign--temporary-front", "object--vehicle--car", "object--vehicle--other-vehicle",
    "object--vehicle--trailer", "void--unlabeled",
]  # fmt: skip
SQUARES: list[dict[str, int]] = [
    {"object--traffic-cone": 20},
    {"construction--barrier--temporary": 6, "human--person": 40},
    {"object--traffic-cone": 4, "object--traffic-sign--temporary-front": 4},
    {"object--traffic-cone": 2},
    {"construction--barrier--separator": 30},
    {"human--person": 40},
    {"object--vehicle--car": 40},
    {},
]
"""Side of one square of each class in pictures of 160 x 120 pixels, of which 0.1 percent are 19.2 pixels."""


def make_vistas(root: Path, form: str = "panoptic") -> Path:
    labels = [{"name": n, "readable": n.split("--")[-1].title(), "evaluate": True} for n in VISTAS]
    (root / "training" / "v2.0" / form).mkdir(parents=True)
    (root / "config_v2.0.json").write_text(json.dumps({"labels": labels, "version": "2.0"}))
    images, annotations = [], []
    folder = root / "training" / "v2.0" / form
    for n, squares in enumerate(SQUARES):
        save_picture(root / "training" / "images" / f"v{n}.jpg", 200 + n, (160, 120))
        images.append({"id": f"v{n}", "file_name": f"v{n}.jpg", "width": 160, "height": 120})
        segments = [
            {"id": k, "category_id": VISTAS.index(c) + 1, "area": s * s} for k, (c, s) in enumerate(squares.items())
        ]
        annotations.append({"image_id": f"v{n}", "file_name": f"v{n}.png", "segments_info": segments})
        if form == "polygons":
            objects = [{"label": c, "polygon": [[0, 0], [s, 0], [s, s], [0, s]]} for c, s in squares.items()]
            (folder / f"v{n}.json").write_text(json.dumps({"width": 160, "height": 120, "objects": objects}))
        if form == "labels":
            numbers = Image.new("P", (160, 120), VISTAS.index("construction--flat--road"))
            numbers.putpalette([v % 256 for v in range(768)])
            for k, (c, s) in enumerate(squares.items()):
                numbers.paste(VISTAS.index(c), (60 * k, 0, 60 * k + s, s))
            numbers.save(folder / f"v{n}.png")
    if form == "panoptic":
        categories = [{"id": i + 1, "name": n, "isthing": 1} for i, n in enumerate(VISTAS)]
        body = {"images": images, "annotations": annotations, "categories": categories}
        (folder / "panoptic_2020.json").write_text(json.dumps(body))
    return root


def make_bdd(root: Path) -> Path:
    for part, numbers in (("train", range(4)), ("val", range(4, 6))):
        frames = []
        for n in numbers:
            save_picture(root / "images" / "100k" / part / f"b1c66a42-{n}.jpg", 300 + n, (160, 120))
            tags = {"weather": "rainy" if n else "undefined", "timeofday": "night", "scene": "highway"}
            frames.append({"name": f"b1c66a42-{n}.jpg", "attributes": tags, "timestamp": 10000, "labels": None})
        file = root / "labels" / "det_20" / f"det_{part}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(frames))
    return root


def voc_text(names: list[str]) -> str:
    objects = "".join(f"<object><name>{n}</name><bndbox><xmin>1</xmin></bndbox></object>" for n in names)
    return f"<annotation><filename>x.jpg</filename>{objects}</annotation>"


def make_rdd(root: Path) -> Path:
    for country, numbers in (("Japan", range(3)), ("Norway", range(3, 6))):
        for n in numbers:
            save_picture(root / country / "train" / "images" / f"{country}_{n}.jpg", 400 + n, (160, 120))
            xml = root / country / "train" / "annotations" / "xmls" / f"{country}_{n}.xml"
            xml.parent.mkdir(parents=True, exist_ok=True)
            xml.write_text(voc_text(["D40", "D00"] if n else []))
    return root


SHOWN = [["cone"], ["cone", "car"], ["sign"], ["car"], [], ["works vehicle"]]


def make_coco(root: Path) -> Path:
    images = [{"id": n, "file_name": save_picture(root / "images" / f"c{n}.jpg", 500 + n).name} for n in range(6)]
    (root / "annotations").mkdir()
    names = ["cone", "car", "sign", "works vehicle"]
    body = coco_body(images, dict(enumerate(SHOWN)), names)
    (root / "annotations" / "instances_train.json").write_text(json.dumps(body, indent=1))
    return root


def make_yolo(root: Path) -> Path:
    names = ["cone", "car", "sign", "works vehicle"]
    (root / "labels" / "train").mkdir(parents=True)
    (root / "data.yaml").write_text(f"path: .\ntrain: images/train\nnc: 4\nnames: {json.dumps(names)}\n")
    for n, shown in enumerate(SHOWN):
        save_picture(root / "images" / "train" / f"y{n}.jpg", 500 + n)
        if shown:
            lines = "".join(f"{names.index(s)} 0.5 0.5 0.1 0.1\n" for s in shown)
            (root / "labels" / "train" / f"y{n}.txt").write_text(lines)
    return root


def make_voc(root: Path) -> Path:
    (root / "Annotations").mkdir(parents=True)
    for n, shown in enumerate(SHOWN):
        save_picture(root / "JPEGImages" / f"p{n}.jpg", 500 + n)
        (root / "Annotations" / f"p{n}.xml").write_text(voc_text(shown))
    return root


def make_phone(root: Path) -> Path:
    """Two places on one day, one place on another day, and a picture without EXIF."""
    stops = [(52.5, "2024:05:06"), (52.5001, "2024:05:06"), (52.6, "2024:05:06"), (52.6, "2024:05:07"), None, None]
    for n, stop in enumerate(stops):
        path = root / ("roadwork" if n % 2 else "trip") / f"IMG_{n}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        if stop is not None:
            minutes = (stop[0] - 52) * 60
            exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = f"{stop[1]} 07:08:09"
            exif.get_ifd(ExifTags.IFD.GPSInfo).update(
                {
                    ExifTags.GPS.GPSLatitude: (52.0, float(int(minutes)), (minutes - int(minutes)) * 60),
                    ExifTags.GPS.GPSLatitudeRef: "N",
                    ExifTags.GPS.GPSLongitude: (13.0, 24.0, 0.0),
                    ExifTags.GPS.GPSLongitudeRef: "E",
                }
            )
        picture(600 + n, (160, 120)).save(path, exif=exif)
    return root


def make_video(root: Path) -> Path:
    """Two drives of three seconds; the first stands still in its last second."""
    import av

    for name, seed, still in (("roadwork/a.mp4", 700, 20), ("b.mp4", 710, 30)):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(path, "w") as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 160, 128, "yuv420p"
            for frame in range(30):
                scene = picture(seed + min(frame, still) // 10, (160, 128))
                if frame >= still:
                    scene = picture(seed + (still - 1) // 10, (160, 128))
                for packet in stream.encode(av.VideoFrame.from_image(scene)):
                    container.mux(packet)
            for packet in stream.encode():
                container.mux(packet)
    return root
