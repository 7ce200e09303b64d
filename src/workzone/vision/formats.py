"""Recognise an image format from its first bytes and open its header without decoding pixels.

Pillow's ``Image.open`` is not used: it tries every installed plugin, and its own bomb check depends on a process-wide
constant and on warnings, which threads share. Here the format is decided by a closed table and the caller compares
the size that the header states with its own limit.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

from PIL import BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin
from PIL.ImageFile import ImageFile

_PLUGINS: dict[str, Callable[[io.BytesIO], ImageFile]] = {
    # An MPO file is a JPEG followed by more pictures; the JPEG reader takes the first one.
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "GIF": GifImagePlugin.GifImageFile,
}
try:
    from PIL import AvifImagePlugin
except ImportError:  # Pillow before 11.3
    HAS_AVIF = False
else:
    HAS_AVIF = bool(AvifImagePlugin.SUPPORTED)
    if HAS_AVIF:
        _PLUGINS["AVIF"] = AvifImagePlugin.AvifImageFile

ACCEPTED = frozenset(_PLUGINS) | {"MPO"}

_BMP_HEADERS = {12, 40, 52, 56, 64, 108, 124}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_OTHERS = {
    b"8BPS": "Photoshop",
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"\x00\x00\x01\x00": "icon",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\xff\x0a": "JPEG XL",
    b"\x00\x00\x00\x0cJXL ": "JPEG XL",
    b"qoif": "QOI",
    b"DDS ": "DDS",
}


def sniff(data: bytes) -> tuple[str | None, str | None]:
    """Return ``(accepted format, None)``, ``(None, refused format)`` or ``(None, None)`` for no image at all."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG", None
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG", None
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP", None
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF", None
    if data.startswith((b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")):
        return "TIFF", None
    if data.startswith(b"BM") and len(data) >= 18 and int.from_bytes(data[14:18], "little") in _BMP_HEADERS:
        return "BMP", None
    if data[4:8] == b"ftyp":
        brand = data[8:12]
        # AVIF may hide behind the general brands; its own brand is then among the compatible ones.
        listed = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
        if brand in (b"avif", b"avis") or (brand in (b"mif1", b"msf1") and b"avif" in listed):
            return ("AVIF", None) if HAS_AVIF else (None, "AVIF")
        return None, "HEIC" if brand in _HEIF_BRANDS else "video"
    for magic, name in _OTHERS.items():
        if data.startswith(magic):
            return None, name
    return None, None


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height from a WebP header, or None; the WebP reader allocates its canvas as soon as it opens a file."""
    if len(data) < 30:
        return None
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L" and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def png_size(data: bytes) -> tuple[int, int] | None:
    """Width and height from a PNG header, or None; the PNG reader wants to see pixels before it tells the size."""
    if len(data) < 24 or data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def stated_size(kind: str, data: bytes) -> tuple[int, int] | None:
    """Size that the first bytes state, for formats whose reader does more than read the header; else None."""
    return webp_size(data) if kind == "WEBP" else png_size(data) if kind == "PNG" else None


def open_header(kind: str, data: bytes) -> ImageFile:
    """Parse the header of ``data`` as format ``kind``; no pixel is decoded. Raises whatever the parser raises."""
    return _PLUGINS[kind](io.BytesIO(data))


def is_cut_short(kind: str, data: bytes, image: ImageFile | None) -> bool:
    """Say whether the container itself states more bytes than ``data`` holds (WebP, TIFF), or lacks its end (PNG)."""
    if kind == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if kind == "PNG" and image is not None:
        return b"IEND" not in data[-64:]
    if kind == "TIFF" and isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        for start, length in ((273, 279), (324, 325)):
            if start in tags and length in tags:
                ends = (at + size for at, size in zip(_ints(tags[start]), _ints(tags[length]), strict=False))
                return any(end > len(data) for end in ends)
    if kind == "TIFF" and len(data) >= 8:
        # The table of contents may stand at the end of the file.
        return int.from_bytes(data[4:8], "little" if data.startswith(b"II") else "big") + 2 > len(data)
    return False


def _ints(value: object) -> tuple[int, ...]:
    values = value if isinstance(value, tuple) else (value,)
    return tuple(item for item in values if isinstance(item, int))
