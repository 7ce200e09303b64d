"""Turn any file into an upright RGB picture, or say in one word why not."""

from __future__ import annotations

import stat
import struct
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

from workzone.errors import ImageError
from workzone.vision.formats import ACCEPTED, is_cut_short, open_header, sniff, stated_size
from workzone.vision.reasons import Reason, image_error

MAX_PIXELS = 120_000_000
MAX_BYTES = 64 * 1024 * 1024
MIN_SIDE = 8
MAX_RATIO = 50
# Transparent parts take the mid-grey that normalisation maps near zero, so they carry no evidence of their own.
BACKGROUND = (128, 128, 128)

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112


def decode(
    source: Path | bytes | Image.Image,
    *,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    min_side: int | None = None,
    name: str | None = None,
) -> Image.Image:
    """Decode one image to 8-bit RGB, turned upright by its EXIF orientation and stripped of metadata.

    The header is read first and the stated size refused before any pixel is decoded. Colours: alpha and transparent
    palettes are composited on mid-grey, 16-bit grey is scaled (not clipped), Adobe CMYK is inverted and converted
    without a profile, embedded ICC profiles are ignored. Of an animation or a multi-page file the first frame counts.

    Args:
        source: a path, the bytes of a file, or a Pillow image (used at its current frame and size, never modified).
        max_pixels: largest accepted width x height.
        max_bytes: largest accepted file.
        min_side: lets a JPEG be decoded at 1/2, 1/4 or 1/8 as long as its shorter side keeps this many pixels. The
            choice depends on the stated size alone, so equal input gives equal pixels.
        name: what messages call an image that is given as bytes.

    Raises:
        ImageError: the image cannot be used; ``reason`` is a member of ``Reason``.
    """
    if isinstance(source, Image.Image):
        return _from_pillow(source, max_pixels)
    if isinstance(source, Path):
        return _from_bytes(read_file(source, max_bytes), str(source), max_pixels, min_side)
    if isinstance(source, bytes):
        where = name or f"image of {len(source)} bytes"
        if len(source) > max_bytes:
            raise image_error(Reason.TOO_LARGE, where, f"limit {max_bytes} bytes")
        return _from_bytes(source, where, max_pixels, min_side)
    raise TypeError(f"source must be a Path, bytes or a Pillow image, not {type(source).__name__}")


def read_file(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """Bytes of a regular file of at most ``max_bytes``; raises ImageError where there is none."""
    where = str(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise image_error(Reason.NOT_A_FILE, where)
        if status.st_size > max_bytes:
            raise image_error(Reason.TOO_LARGE, where, f"{status.st_size} bytes, limit {max_bytes}")
        with path.open("rb") as stream:
            # The file may grow between the two calls.
            data = stream.read(max_bytes + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise image_error(Reason.MISSING, where) from error
    except (OSError, ValueError) as error:
        detail = error.strerror if isinstance(error, OSError) else str(error)
        raise image_error(Reason.UNREADABLE, where, detail or type(error).__name__) from error
    if len(data) > max_bytes:
        raise image_error(Reason.TOO_LARGE, where, f"limit {max_bytes} bytes")
    return data


def _from_bytes(data: bytes, where: str, max_pixels: int, min_side: int | None) -> Image.Image:
    if not data:
        raise image_error(Reason.EMPTY, where)
    kind, other = sniff(data)
    if kind is None:
        if other:
            raise image_error(Reason.UNSUPPORTED_FORMAT, where, other)
        raise image_error(Reason.NOT_AN_IMAGE, where)
    image: ImageFile | None = None
    try:
        if size := stated_size(kind, data):
            _check_size(size, where, max_pixels)
        image = open_header(kind, data)
        _check_size(image.size, where, max_pixels)
        if min_side is not None and kind == "JPEG":
            image.draft(None, (min_side, min_side))
        image.load()
        return _upright_rgb(image, where)
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        # Decoders raise almost any type on hostile bytes; each means that this one image is unusable.
        raise _classify(error, kind, data, image, where) from error


def _from_pillow(image: Image.Image, max_pixels: int) -> Image.Image:
    where = f"picture of {image.width} x {image.height} pixels in memory"
    if image.format is not None and image.format not in ACCEPTED:
        raise image_error(Reason.UNSUPPORTED_FORMAT, where, image.format)
    _check_size(image.size, where, max_pixels)
    try:
        image.load()
        return _upright_rgb(image, where)
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        raise _classify(error, "", b"", None, where) from error


def _check_size(size: tuple[int, int], where: str, max_pixels: int) -> None:
    width, height = size
    stated = f"{width} x {height} pixels"
    if width * height > max_pixels:
        raise image_error(Reason.TOO_LARGE, where, f"{stated}, limit {max_pixels}")
    if min(size) < MIN_SIDE:
        raise image_error(Reason.TOO_SMALL, where, stated)
    if max(size) > MAX_RATIO * min(size):
        raise image_error(Reason.ABSURD_SHAPE, where, stated)


def _upright_rgb(image: Image.Image, where: str) -> Image.Image:
    turn = _UPRIGHT.get(_orientation(image))
    rgb = _rgb(image, where)
    if turn is not None:
        rgb = rgb.transpose(turn)
    if rgb is image:
        rgb = image.copy()
    # A kept EXIF block would let a later reader rotate a second time.
    rgb.info = {}
    return rgb


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except (SyntaxError, ValueError, KeyError, TypeError, IndexError, EOFError, OSError, struct.error):
        # Damaged metadata beside good pixels: show the picture as stored, as image viewers do.
        return 1
    return value if isinstance(value, int) else 1


def _rgb(image: Image.Image, where: str) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return _from_16_bit(image)
    if image.mode in ("I", "F", "LAB", "HSV"):
        raise image_error(Reason.UNSUPPORTED_FORMAT, where, f"pixel type {image.mode}")
    if image.has_transparency_data:
        layers = image.convert("LA") if image.mode == "La" else image
        layers = layers.convert("RGBA")
        flat = Image.new("RGB", image.size, BACKGROUND)
        flat.paste(layers, mask=layers.getchannel("A"))
        return flat
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(258, (16,))
    top = 2 ** (bits[0] if isinstance(bits, tuple) else bits) - 1
    if tags.get(262) == 0:  # WhiteIsZero, which Pillow applies to 8-bit samples only
        values = top - values
    grey = (values * 255 + top // 2) // top
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")


def _classify(error: Exception, kind: str, data: bytes, image: ImageFile | None, where: str) -> ImageError:
    text = " ".join(str(error).split())[:120] or type(error).__name__
    ends_early = isinstance(error, EOFError) or isinstance(error.__cause__, (EOFError, IndexError, struct.error))
    if ends_early or "truncated" in text.lower() or is_cut_short(kind, data, image):
        return image_error(Reason.TRUNCATED, where, text)
    return image_error(Reason.CORRUPT, where, text)
