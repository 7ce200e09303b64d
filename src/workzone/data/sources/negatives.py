"""Sources ``bdd100k`` and ``rdd2022``: street pictures without any word about roadwork."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import polars as pl

from workzone.data.sources.base import RecordSource, file_record, image_files, register, sub_folders
from workzone.data.sources.jsonstream import objects
from workzone.data.sources.records import Dropped, Event, Licence, one_text
from workzone.data.sources.voc import read_objects
from workzone.errors import DataError

_BDD_IMAGES = ("images/100k", "100k", "images/10k", "images")
_BDD_LABELS = ("labels/det_20", "labels", ".")


@register
@dataclass(frozen=True, slots=True)
class Bdd100kSource(RecordSource):
    """Key frames of BDD100K (Yu et al. 2020, arXiv 1805.04687) with weather, scene and time of day.

    BDD100K has no label for roadwork, and some of its streets have roadwork: its images are unlabelled unless
    ``assume_negative`` is set, which labels them 0 and records that in ``label_origin``.
    """

    kind: ClassVar[str] = "bdd100k"
    licence: ClassVar[Licence | None] = Licence(
        "BDD100K licence", "https://doc.bdd100k.com/license.html", "for education, research and not-for-profit use"
    )
    extra: ClassVar[dict[str, pl.DataType]] = {
        "official_split": pl.String(),
        "time_of_day": pl.String(),
        "scene": pl.String(),
        "label_origin": pl.String(),
    }

    assume_negative: bool = False

    @classmethod
    def recognises(cls, location: Path) -> bool:
        """A folder with label files of ``det_20``."""
        return location.is_dir() and any(location.glob("labels/det_20/det_*.json"))

    def events(self, location: Path, *, content: bool) -> Iterator[Event]:
        """Images of the parts that have attributes: train, then val."""
        found = [(p, _first(location, _BDD_LABELS, f"det_{p}.json")) for p in ("train", "val")]
        files = [(part, file) for part, file in found if file is not None]
        if not files:
            raise DataError(
                "there is no det_train.json or det_val.json", where=str(location), fix="unpack labels/det_20 there"
            )
        for part, file in files:
            folder = _first(location, _BDD_IMAGES, part)
            if folder is None:
                raise DataError(f"there is no folder images/100k/{part}", where=str(location), fix="unpack the images")
            seen: set[str] = set()
            for number, frame in enumerate(objects(file), 1):
                name = str(frame.get("name") or "")
                if not name or Path(name).name != name or name in seen:
                    yield Dropped(f"{part}#{number}", "the entry names no image of its own", name)
                    continue
                seen.add(name)
                yield file_record(f"{part}/{name}", folder / name, self._columns(frame, name, part))

    def _columns(self, frame: dict[str, Any], name: str, part: str) -> dict[str, Any]:
        tags = frame.get("attributes") or {}
        return {
            "label": 0 if self.assume_negative else None,
            "source": "bdd100k",
            "group": f"bdd100k:{Path(name).stem}",
            "weather": one_text(tags.get("weather")),
            "official_split": part,
            "time_of_day": one_text(tags.get("timeofday")),
            "scene": one_text(tags.get("scene")),
            "label_origin": "assumed" if self.assume_negative else None,
        }


def _first(location: Path, below: tuple[str, ...], name: str) -> Path | None:
    return next((location / b / name for b in below if (location / b / name).exists()), None)


@register
@dataclass(frozen=True, slots=True)
class Rdd2022Source(RecordSource):
    """Pictures of road damage (Arya et al. 2022, arXiv 2209.08538), ``<country>/train/images`` with VOC files.

    Nobody looked for roadwork in them. Unlabelled unless ``assume_negative`` is set; with ``damaged_only`` images
    without an annotated damage are left out.
    """

    kind: ClassVar[str] = "rdd2022"
    licence: ClassVar[Licence | None] = Licence(
        "CC BY-SA 4.0", "https://doi.org/10.6084/m9.figshare.21431547", "see the data set's own page for each country"
    )
    extra: ClassVar[dict[str, pl.DataType]] = {
        "official_split": pl.String(),
        "country": pl.String(),
        "damage": pl.String(),
        "label_origin": pl.String(),
    }

    assume_negative: bool = False
    damaged_only: bool = False

    @classmethod
    def recognises(cls, location: Path) -> bool:
        """A folder of countries with ``train/annotations/xmls``."""
        return location.is_dir() and any(location.glob("*/train/annotations/xmls"))

    def events(self, location: Path, *, content: bool) -> Iterator[Event]:
        """Training images of all countries by name; the test parts have no annotations and are not read."""
        roots = [p for p in (location, *sub_folders(location)) if (p / "train" / "images").is_dir()]
        if not roots:
            raise DataError("there is no folder COUNTRY/train/images", where=str(location), fix="unpack RDD2022 there")
        for root in roots:
            country = root.absolute().name
            for path in image_files(root / "train" / "images", recursive=False):
                key = f"{country}/{path.name}"
                xml = root / "train" / "annotations" / "xmls" / f"{path.stem}.xml"
                if not xml.is_file():
                    yield Dropped(key, "no annotation for the image")
                    continue
                try:
                    damage = sorted(set(read_objects(xml)))
                except DataError as error:
                    yield Dropped(key, "the annotation cannot be read", error.what)
                    continue
                if self.damaged_only and not damage:
                    yield Dropped(key, "no damage is annotated")
                    continue
                columns = {
                    "label": 0 if self.assume_negative else None,
                    "source": "rdd2022",
                    "group": None,
                    "official_split": "train",
                    "country": country,
                    "damage": ", ".join(damage) or None,
                    "label_origin": "assumed" if self.assume_negative else None,
                }
                yield file_record(key, path, columns)
