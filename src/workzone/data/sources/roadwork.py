"""Source ``roadwork``: the ROADWork data set (Ghosh et al. 2024, arXiv 2406.07661), COCO-like with scene tags."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import polars as pl

from workzone.data.sources.base import RecordSource, file_record, register
from workzone.data.sources.coco import TWICE, UNSAFE, category_names, classes_by_image, image_root, safe_name
from workzone.data.sources.jsonstream import objects
from workzone.data.sources.natix import dig
from workzone.data.sources.records import (
    Dropped,
    Event,
    Licence,
    one_text,
    position,
    sequence_from_name,
    sequence_group,
)
from workzone.errors import DataError

Family = Literal["gps", "pittsburgh", "geographic"]
FILES: dict[Family, dict[str, str]] = {
    "gps": {"train": "instances_train_gps_split.json", "val": "instances_val_gps_split.json"},
    "pittsburgh": {"train": "instances_train_pittsburgh_only.json", "val": "instances_val_pittsburgh_only.json"},
    "geographic": {
        "pretrain": "instances_geographic_da_pretrain.json",
        "unsupervised": "instances_geographic_da_unsupervised_with_gt.json",
        "test": "instances_geographic_da_test.json",
    },
}
EVIDENCE = (
    "Cone",
    "Drum",
    "Barricade",
    "Work Vehicle",
    "Vertical Panel",
    "Tubular Marker",
    "Arrow Board",
    "Temporary Traffic Control Message Board",
    "Temporary Traffic Control Sign",
    "Work Equipment",
    "Worker",
)
"""Classes that show a work zone; fences, barriers, police and sidewalks stand elsewhere as well."""
NO_EVIDENCE = "no object that shows a work zone; in a set of work zones that is no clean negative"


def _annotations(location: Path) -> Path | None:
    names = {name for family in FILES.values() for name in family.values()}
    folders = (location, location / "annotations", location / "scene" / "annotations")
    return next((f for f in folders if f.is_dir() and any((f / n).is_file() for n in names)), None)


@register
@dataclass(frozen=True, slots=True)
class RoadworkSource(RecordSource):
    """Images with at least one object of ``EVIDENCE`` are positive, all others are left out.

    ``group`` is the drive; the part of each official split is kept in ``split_gps``, ``split_pittsburgh`` and
    ``split_geographic``. Descriptions and ``travel_alteration`` are not handed on.
    """

    kind: ClassVar[str] = "roadwork"
    licence: ClassVar[Licence | None] = Licence(
        "ODC-BY 1.0",
        "https://doi.org/10.1184/R1/26093197",
        "discovered_images.zip has the licences of BDD100K and Mapillary",
    )
    extra: ClassVar[dict[str, pl.DataType]] = {
        "split_gps": pl.String(),
        "split_pittsburgh": pl.String(),
        "split_geographic": pl.String(),
        "city": pl.String(),
        "time_of_day": pl.String(),
        "scene": pl.String(),
    }

    split: Family = "gps"

    def __post_init__(self) -> None:
        if self.split not in FILES:
            raise DataError(f"ROADWork has no split {self.split!r}", fix=f"the splits are {', '.join(FILES)}")

    @classmethod
    def recognises(cls, location: Path) -> bool:
        """A folder with the published annotation files in it, in ``annotations`` or in ``scene/annotations``."""
        return location.is_dir() and _annotations(location) is not None

    def events(self, location: Path, *, content: bool) -> Iterator[Event]:
        """Images of one split, part after part."""
        folder = _annotations(location)
        if folder is None:
            raise DataError(
                "there are no annotation files of ROADWork",
                where=str(location),
                fix=f"unpack annotations.zip there, so that annotations/{FILES['gps']['train']} exists",
            )
        absent = [n for n in FILES[self.split].values() if not (folder / n).is_file()]
        if absent:
            what = f"the split {self.split!r} lacks {absent[0]}"
            raise DataError(what, where=str(folder), fix="unpack annotations.zip")
        roots = [folder.parent / "images", location / "images", location / "scene" / "images", location]
        places = {family: self._parts(folder, family) for family in FILES}
        seen: set[str] = set()
        for part, name in FILES[self.split].items():
            yield from self._file(folder / name, part, image_root(roots, folder / name), places, seen)

    def _parts(self, folder: Path, family: Family) -> dict[str, str]:
        present = {part: folder / name for part, name in FILES[family].items() if (folder / name).is_file()}
        return {str(i.get("file_name")): part for part, file in present.items() for i in objects(file, "images")}

    def _file(
        self, file: Path, part: str, root: Path, places: dict[Family, dict[str, str]], seen: set[str]
    ) -> Iterator[Event]:
        names = category_names(file)
        missing = [n for n in EVIDENCE if n not in names.values()]
        if missing:
            raise DataError(
                f"the categories lack {', '.join(missing)}", where=str(file), fix="use the files without '_with_signs'"
            )
        shown = classes_by_image(file, names, EVIDENCE)
        for number, image in enumerate(objects(file, "images"), 1):
            name = safe_name(image)
            if name is None or name in seen:
                rule = UNSAFE if name is None else TWICE
                yield Dropped(f"{part}#{number}", rule, str(image.get("file_name")))
                continue
            seen.add(name)
            if image.get("id") not in shown:
                yield Dropped(name, NO_EVIDENCE)
                continue
            yield file_record(name, root / name, self._columns(image, name, places))

    def _columns(self, image: dict[str, Any], name: str, places: dict[Family, dict[str, str]]) -> dict[str, Any]:
        place = position(image.get("gps"))
        city = one_text(image.get("city_name")) or Path(name).stem.partition("_")[0]
        group = sequence_group(city, dig(image, "video_info", "seq_id"), dig(image, "video_info", "vid_id"))
        return {
            "label": 1,
            "source": "roadwork",
            "group": group or sequence_from_name(name),
            "weather": one_text(dig(image, "scene_level_tags", "weather")),
            "latitude": place[0] if place else None,
            "longitude": place[1] if place else None,
            **{f"split_{family}": places[family].get(name) for family in FILES},
            "city": city,
            "time_of_day": one_text(dig(image, "scene_level_tags", "daytime")),
            "scene": one_text(dig(image, "scene_level_tags", "scene_environment")),
        }
