"""Source ``yolo``: images with one text file of boxes each, of which some class names mean roadwork."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from workzone.data.sources.base import image_files, register
from workzone.data.sources.mapped import MappedSource
from workzone.data.sources.records import Dropped, Event
from workzone.errors import DataError, unreadable

_MAX_BYTES = 4 * 1024 * 1024
NAME_FILES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names")


def read_names(location: Path) -> list[str]:
    """Class names by number, from ``data.yaml`` (list or mapping) or one name a line; raises DataError without them."""
    file = next((location / n for n in NAME_FILES if (location / n).is_file()), None)
    if file is None:
        raise DataError("no file names the classes", where=str(location), fix=f"add one of {', '.join(NAME_FILES)}")
    if file.stat().st_size > _MAX_BYTES:
        raise DataError("the file of class names is too large", where=str(file))
    if file.suffix in (".txt", ".names"):
        return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        body = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except (OmegaConfBaseException, yaml.YAMLError, OSError, ValueError) as error:
        raise unreadable(DataError, "the file", file, error) from error
    names = body.get("names") if isinstance(body, dict) else None
    if isinstance(names, dict):
        wrong = sorted(map(str, names)) != sorted(str(i) for i in range(len(names)))
        names = None if wrong else [names[k] for k in sorted(names, key=lambda k: int(str(k)))]
    if not isinstance(names, list) or not names:
        raise DataError("'names' is neither a list nor a mapping of numbers from 0 on", where=str(file))
    return [str(n) for n in names]


@register
@dataclass(frozen=True, slots=True)
class YoloSource(MappedSource):
    """``images/**`` and ``labels/**`` paired by path, or ``<part>/images`` and ``<part>/labels``.

    An image without a text file shows no object of any class, as YOLO's own trainers read it.

    """

    kind: ClassVar[str] = "yolo"

    def events(self, location: Path, *, content: bool) -> Iterator[Event]:
        """Images by name, part after part."""
        names = read_names(location)
        self.classes.check(names, str(location))
        roots = [location] if (location / "images").is_dir() else []
        roots += [location / p for p in ("train", "val", "valid", "test") if (location / p / "images").is_dir()]
        if not roots:
            raise DataError("there is no folder images", where=str(location), fix="check the path")
        if not any((r / "labels").is_dir() for r in roots):
            raise DataError("there is no folder labels", where=str(location), fix="put it beside images")
        for root in roots:
            for path in image_files(root / "images"):
                below = path.relative_to(root / "images")
                key = path.relative_to(location).as_posix()
                try:
                    shown = _classes(root / "labels" / below.with_suffix(".txt"), names)
                except DataError as error:
                    yield Dropped(key, "the label file is wrong", error.what)
                    continue
                yield self.judged(key, path, shown, source=location.absolute().name, group=None)


def _classes(file: Path, names: list[str]) -> set[str]:
    if not file.is_file():
        return set()
    if file.stat().st_size > _MAX_BYTES:
        raise DataError("it is too large", where=str(file))
    shown = set()
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        first = line.split()[:1]
        if not first:
            continue
        if not first[0].isdecimal() or int(first[0]) >= len(names):
            raise DataError(f"line {number}: {first[0]!r} is no class number below {len(names)}", where=str(file))
        shown.add(names[int(first[0])])
    return shown
