"""Source ``mapillary_vistas``: weak labels from Mapillary Vistas v2.0 (Neuhold et al. 2017), by class name and area."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
from PIL import Image

from workzone.data.sources.base import RecordSource, file_record, image_files, register
from workzone.data.sources.jsonstream import objects
from workzone.data.sources.records import Dropped, Event, Licence
from workzone.errors import DataError, unreadable
from workzone.vision.decode import MAX_PIXELS

STRONG = (
    "object--traffic-cone",
    "construction--barrier--temporary",
    "object--traffic-sign--temporary-front",
    "object--traffic-sign--temporary-back",
)
WEAK = (
    "construction--barrier--concrete-block",
    "construction--barrier--separator",
    "construction--barrier--other-barrier",
    "object--vehicle--other-vehicle",
    "object--vehicle--trailer",
)
CONFIG = "config_v2.0.json"
TOO_SMALL = "temporary objects cover too little of the image"
ONLY_WEAK = "only objects that may or may not belong to roadwork"
NO_ANNOTATION = "no annotation for the image"
_MAX_JSON = 64 * 1024 * 1024


@register
@dataclass(frozen=True, slots=True)
class MapillaryVistasSource(RecordSource):
    """Positive where temporary objects cover ``min_area`` of the picture, negative without them and ``WEAK`` ones.

    Areas come from ``<part>/v2.0/panoptic/panoptic_2020.json``, else from ``<part>/v2.0/polygons``, else from the
    label pictures in ``<part>/v2.0/labels``.

    Attributes:
        min_area: share of the picture from which temporary objects make a positive.
        negatives: whether images without any such object are taken as negatives.
    """

    kind: ClassVar[str] = "mapillary_vistas"
    licence: ClassVar[Licence | None] = Licence(
        "Mapillary Vistas research edition licence",
        "https://www.mapillary.com/dataset/vistas",
        "needs registration, not for commercial use; the text that comes with the download decides",
    )
    extra: ClassVar[dict[str, pl.DataType]] = {"official_split": pl.String(), "evidence_area": pl.Float64()}

    min_area: float = 0.001
    negatives: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.min_area < 1:
            raise DataError("min_area must be a share of the picture, more than 0 and less than 1", where=self.kind)

    @classmethod
    def recognises(cls, location: Path) -> bool:
        """A folder with a shipped configuration of either version."""
        return location.is_dir() and any((location / f"config_v{v}.json").is_file() for v in ("1.2", "2.0"))

    def events(self, location: Path, *, content: bool) -> Iterator[Event]:
        """Images of training, then validation, by name; the test part has no annotations."""
        names = read_names(location)
        parts = [p for p in ("training", "validation") if (location / p / "images").is_dir()]
        if not parts:
            raise DataError("there is no folder training/images or validation/images", where=str(location))
        for part in parts:
            areas = _open_areas(location / part / "v2.0", names)
            for path in image_files(location / part / "images", recursive=False):
                yield self._judge(f"{part}/{path.stem}", path, areas(path.stem), part)

    def _judge(self, key: str, path: Path, areas: Mapping[str, float] | None, part: str) -> Event:
        if areas is None:
            return Dropped(key, NO_ANNOTATION)
        strong = sum(areas.get(n, 0.0) for n in STRONG)
        label = 1 if strong >= self.min_area else 0
        if label == 0 and strong > 0:
            return Dropped(key, TOO_SMALL, f"{strong:.4%}")
        if label == 0 and any(areas.get(n, 0.0) > 0 for n in WEAK):
            return Dropped(key, ONLY_WEAK)
        if label == 0 and not self.negatives:
            return Dropped(key, "negatives are not wanted")
        columns = {"label": label, "source": "mapillary_vistas", "group": None, "official_split": part}
        return file_record(key, path, columns | {"evidence_area": strong})


def read_names(location: Path) -> list[str]:
    """Class names of v2.0 in the order of their numbers; raises DataError for v1.2 and for missing names."""
    file = location / CONFIG
    if not file.is_file():
        if (location / "config_v1.2.json").is_file():
            raise DataError(
                "Mapillary Vistas v1.2 has no class for traffic cones or temporary objects, so it cannot say roadwork",
                where=str(location),
                fix=f"use version 2.0, whose download holds {CONFIG}",
            )
        raise DataError(f"there is no {CONFIG}", where=str(location), fix="give the folder of Mapillary Vistas v2.0")
    labels = _json(file).get("labels")
    names = [str(entry.get("name")) for entry in labels] if isinstance(labels, list) else []
    missing = [n for n in (*STRONG, *WEAK) if n not in names]
    if missing:
        raise DataError(f"the classes {', '.join(missing)} are missing", where=str(file), fix="use the shipped file")
    return names


def _json(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > _MAX_JSON:
            raise DataError("the file is larger than any of its kind", where=str(file))
        body = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise unreadable(DataError, "the file", file, error) from error
    if not isinstance(body, dict):
        raise DataError("the file is no JSON object", where=str(file))
    return body


class _Areas(ABC):
    """Share of the picture that each class covers, by stem of the image; None where nothing is annotated."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.folder, self.names = folder, names

    @abstractmethod
    def __call__(self, stem: str) -> Mapping[str, float] | None: ...


class _Panoptic(_Areas):
    def __init__(self, folder: Path, names: list[str]) -> None:
        super().__init__(folder, names)
        file = folder / "panoptic" / "panoptic_2020.json"
        wanted = {*STRONG, *WEAK}
        of: dict[Any, str] = {}
        readable = _readable(folder.parent.parent / CONFIG)
        for category in objects(file, "categories"):
            name = str(category.get("name"))
            name = readable.get(name, name)
            if name in wanted:
                of[category.get("id")] = name
        missing = sorted(wanted - set(of.values()))
        if missing:
            raise DataError(f"the categories {', '.join(missing)} are missing", where=str(file))
        pixels: dict[Any, int] = {}
        stems: dict[str, Any] = {}
        for image in objects(file, "images"):
            pixels[image.get("id")] = int(image.get("width") or 0) * int(image.get("height") or 0)
            stems[Path(str(image.get("file_name"))).stem] = image.get("id")
        self.found: dict[Any, dict[str, float]] = {}
        for annotation in objects(file, "annotations"):
            key = annotation.get("image_id")
            if not pixels.get(key):
                raise DataError(f"image {key!r} has no size", where=str(file))
            shares: dict[str, float] = {}
            for segment in annotation.get("segments_info") or []:
                if (name := of.get(segment.get("category_id"), "")) in wanted:
                    shares[name] = shares.get(name, 0.0) + float(segment.get("area") or 0) / pixels[key]
            self.found[key] = shares
        self.stems = stems

    def __call__(self, stem: str) -> Mapping[str, float] | None:
        return self.found.get(self.stems.get(stem))


def _readable(config: Path) -> dict[str, str]:
    """Readable name -> name; some editions of the panoptic file use the readable ones."""
    return {str(e.get("readable")): str(e.get("name")) for e in _json(config)["labels"] if e.get("readable")}


class _Polygons(_Areas):
    def __call__(self, stem: str) -> Mapping[str, float] | None:
        file = self.folder / "polygons" / f"{stem}.json"
        if not file.is_file():
            return None
        body = _json(file)
        total = float(body.get("width") or 0) * float(body.get("height") or 0)
        if total <= 0:
            raise DataError("the picture has no size", where=str(file))
        shares: dict[str, float] = {}
        for item in body.get("objects") or []:
            name = str(item.get("label"))
            if name not in self.names:
                raise DataError(f"the class {name!r} is not in {CONFIG}", where=str(file))
            x, y = np.asarray(item.get("polygon") or np.zeros((0, 2)), dtype=np.float64).reshape(-1, 2).T
            area = abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2
            shares[name] = shares.get(name, 0.0) + area / total
        return shares


class _Labels(_Areas):
    def __call__(self, stem: str) -> Mapping[str, float] | None:
        file = self.folder / "labels" / f"{stem}.png"
        if not file.is_file():
            return None
        try:
            with Image.open(file, formats=("PNG",)) as picture:
                # A label picture is numbers, not colours, so it must not go through the decoder for photographs.
                if picture.mode not in ("P", "L") or picture.width * picture.height > MAX_PIXELS:
                    raise DataError(f"a label picture of kind {picture.mode} cannot be used", where=str(file))
                counts = np.bincount(np.asarray(picture).ravel(), minlength=len(self.names))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise unreadable(DataError, "the label picture", file, error) from error
        if len(counts) > len(self.names):
            raise DataError(f"the label picture has class {len(counts) - 1}, {CONFIG} does not", where=str(file))
        return {n: float(c) / counts.sum() for n, c in zip(self.names, counts, strict=True) if c}


def _open_areas(folder: Path, names: list[str]) -> _Areas:
    if (folder / "panoptic" / "panoptic_2020.json").is_file():
        return _Panoptic(folder, names)
    for name, cls in (("polygons", _Polygons), ("labels", _Labels)):
        if (folder / name).is_dir():
            return cls(folder, names)
    raise DataError("there are no annotations of version 2.0", where=str(folder), fix="unpack version 2.0 there")
