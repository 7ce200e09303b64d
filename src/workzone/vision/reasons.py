"""The closed set of reasons for which an image is refused, each with its sentence."""

from __future__ import annotations

from enum import StrEnum

from workzone.errors import ImageError


class Reason(StrEnum):
    """Why one image cannot be used; the value is what reports, tables and the server show."""

    MISSING = "missing"
    NOT_A_FILE = "not_a_file"
    UNREADABLE = "unreadable"
    UNREACHABLE = "unreachable"
    EMPTY = "empty"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED_FORMAT = "unsupported_format"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    TOO_LARGE = "too_large"
    TOO_SMALL = "too_small"
    ABSURD_SHAPE = "absurd_shape"


SENTENCES: dict[Reason, tuple[str, str]] = {
    Reason.MISSING: ("There is no file at this path", "check the path"),
    Reason.NOT_A_FILE: ("This path is a folder or a device, not a regular file", "name an image file"),
    Reason.UNREADABLE: ("The file cannot be read", "check its permissions and the disk"),
    Reason.UNREACHABLE: ("The address gives no picture", "check the address, the server and the network"),
    Reason.EMPTY: ("The file holds no bytes", "copy or download it again"),
    Reason.NOT_AN_IMAGE: ("The content is no image", "give a JPEG, PNG, WebP, BMP, TIFF or GIF"),
    Reason.UNSUPPORTED_FORMAT: ("The image is of a kind that is not accepted", "convert it to 8-bit JPEG or PNG"),
    Reason.TRUNCATED: ("The image ends before its last row", "copy or download it again"),
    Reason.CORRUPT: ("The image is damaged and cannot be decoded", "export it again from its source"),
    Reason.TOO_LARGE: ("The image is larger than the limit", "shrink it, or raise max_pixels or max_bytes"),
    Reason.TOO_SMALL: ("The image is too small to show a street", "give an image of at least 8 x 8 pixels"),
    Reason.ABSURD_SHAPE: ("The image is more than 50 times as long as it is wide", "cut it into ordinary pictures"),
}


def image_error(reason: Reason, where: str, detail: str = "") -> ImageError:
    """Build the ``ImageError`` of ``reason``, with ``detail`` in brackets after its sentence."""
    return worded(reason, SENTENCES[reason], where, detail)


def worded(reason: str, words: tuple[str, str], where: str, detail: str) -> ImageError:
    """The error of a reason from its sentence and what to do about it."""
    sentence, fix = words
    return ImageError(reason, f"{sentence} ({detail})" if detail else sentence, where=where, fix=fix)
