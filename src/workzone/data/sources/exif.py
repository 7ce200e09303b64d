"""Position, time and camera from EXIF: what is well-formed is taken, what is not is left unknown and reported."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from PIL import ExifTags, Image

_TIMES = (
    (ExifTags.Base.DateTimeOriginal, ExifTags.Base.OffsetTimeOriginal),
    (ExifTags.Base.DateTimeDigitized, ExifTags.Base.OffsetTimeDigitized),
)
_OFFSET = re.compile(r"[+-]\d{2}:\d{2}|Z")
_TURNED = (5, 6, 7, 8)


@dataclass(frozen=True, slots=True)
class ExifInfo:
    """What EXIF says of one image; None where it says nothing usable.

    Attributes:
        captured_at: ISO 8601, local time of the camera, with its offset where recorded.
        turned: whether the orientation swaps width and height.
        problems: fields that are present but malformed.
    """

    latitude: float | None = None
    longitude: float | None = None
    captured_at: str | None = None
    hour: int | None = None
    camera_id: str | None = None
    turned: bool = False
    problems: tuple[str, ...] = field(default_factory=tuple)


def _angle(value: Any, reference: Any, signs: Mapping[str, int], limit: float) -> float:
    """Degrees from degrees, minutes and seconds; raises ValueError when a part is malformed."""
    # Without its hemisphere a position could lie on the other side of the earth, so it is no position.
    letter = (reference.decode("ascii", "replace") if isinstance(reference, bytes) else str(reference)).strip("\0 ")
    if letter.upper() not in signs:
        raise ValueError(f"hemisphere {letter!r}")
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)) or len(value) != 3:
        raise ValueError("not three numbers")
    parts = [float(v) for v in value]
    if not all(math.isfinite(p) and p >= 0 for p in parts) or parts[1] >= 60 or parts[2] >= 60:
        raise ValueError(f"degrees, minutes, seconds {parts}")
    angle = parts[0] + parts[1] / 60 + parts[2] / 3600
    if angle > limit:
        raise ValueError(f"{angle} degrees")
    return signs[letter.upper()] * angle


def _position(gps: Mapping[int, Any]) -> tuple[float, float] | None:
    tags = ExifTags.GPS
    if tags.GPSLatitude not in gps and tags.GPSLongitude not in gps:
        return None
    latitude = _angle(gps.get(tags.GPSLatitude), gps.get(tags.GPSLatitudeRef), {"N": 1, "S": -1}, 90.0)
    longitude = _angle(gps.get(tags.GPSLongitude), gps.get(tags.GPSLongitudeRef), {"E": 1, "W": -1}, 180.0)
    if latitude == 0 and longitude == 0:
        raise ValueError("0, 0 is what cameras write without a fix")
    return latitude, longitude


def _time(tags: Mapping[int, Any]) -> datetime | None:
    for time_tag, offset_tag in _TIMES:
        text = tags.get(time_tag)
        if text is None or not (plain := str(text).strip("\0 ")) or plain.startswith("0000"):
            continue
        stamp = datetime.strptime(plain, "%Y:%m:%d %H:%M:%S")
        offset = str(tags.get(offset_tag, "")).strip("\0 ")
        return datetime.fromisoformat(stamp.isoformat() + offset) if _OFFSET.fullmatch(offset) else stamp
    return None


def read_exif(image: Image.Image) -> ExifInfo:
    """Read EXIF of an opened image; broken fields become ``problems``, never values and never exceptions."""
    problems: list[str] = []
    found: dict[str, Any] = {}
    try:
        exif = image.getexif()
        base = dict(exif)
        if not base:
            return ExifInfo()
        details = dict(exif.get_ifd(ExifTags.IFD.Exif))
        gps = dict(exif.get_ifd(ExifTags.IFD.GPSInfo))
    except Exception as error:  # Pillow's EXIF parser raises whatever the broken bytes lead it into
        return ExifInfo(problems=(f"cannot be parsed: {error!r}",))
    try:
        position = _position(gps)
        if position is not None:
            found["latitude"], found["longitude"] = position
    except (ValueError, TypeError, ZeroDivisionError, OverflowError) as error:
        problems.append(f"GPS position: {error}")
    try:
        stamp = _time(details)
        if stamp is not None:
            found["captured_at"], found["hour"] = stamp.isoformat(), stamp.hour
    except (ValueError, OverflowError) as error:
        problems.append(f"time: {error}")
    names = [str(base.get(tag, "")).strip("\0 ") for tag in (ExifTags.Base.Make, ExifTags.Base.Model)]
    if names[1]:
        # Many makers repeat their name in the model.
        repeated = names[1].lower().startswith(names[0].lower())
        found["camera_id"] = names[1] if repeated else f"{names[0]} {names[1]}"
    return ExifInfo(**found, turned=base.get(ExifTags.Base.Orientation) in _TURNED, problems=tuple(problems))
