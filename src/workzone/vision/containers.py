"""What a video file is, from its bytes alone, and the closed set of reasons for which one is refused or cut off."""

from __future__ import annotations

from enum import StrEnum
from typing import BinaryIO

from workzone.errors import ImageError
from workzone.vision.reasons import worded


class VideoReason(StrEnum):
    """Why a video cannot be used, or not to its end."""

    MISSING = "missing"
    NOT_A_FILE = "not_a_file"
    UNREADABLE = "unreadable"
    EMPTY = "empty"
    NOT_A_VIDEO = "not_a_video"
    NO_PICTURES = "no_pictures"
    UNSUPPORTED_FORMAT = "unsupported_format"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    TOO_LARGE = "too_large"
    TOO_SMALL = "too_small"
    ABSURD_SHAPE = "absurd_shape"
    TOO_LONG = "too_long"
    TOO_MANY_FRAMES = "too_many_frames"


SENTENCES: dict[VideoReason, tuple[str, str]] = {
    VideoReason.MISSING: ("There is no file at this path", "check the path"),
    VideoReason.NOT_A_FILE: ("This path is a folder or a device, not a regular file", "name a video file"),
    VideoReason.UNREADABLE: ("The file cannot be read", "check its permissions and the disk"),
    VideoReason.EMPTY: ("The file holds no bytes", "copy or download it again"),
    VideoReason.NOT_A_VIDEO: ("The content is no video", "give an MP4, MOV, MKV, WebM, AVI or MPEG file"),
    VideoReason.NO_PICTURES: ("The file holds no video stream", "give a file with pictures"),
    VideoReason.UNSUPPORTED_FORMAT: ("There is no decoder for this video", "convert it to H.264 in MP4"),
    VideoReason.TRUNCATED: ("The video ends before its stated end", "copy or download it again"),
    VideoReason.CORRUPT: ("Parts of the video are damaged and were left out", "export it again from its source"),
    VideoReason.TOO_LARGE: ("The pictures of the video are larger than the limit", "shrink it, or raise max_pixels"),
    VideoReason.TOO_SMALL: ("The pictures are too small to show a street", "give a video of at least 8 x 8 pixels"),
    VideoReason.ABSURD_SHAPE: ("The pictures are more than 50 times as long as wide", "cut them into ordinary ones"),
    VideoReason.TOO_LONG: ("The video is longer than the limit and was read up to it", "cut it into parts"),
    VideoReason.TOO_MANY_FRAMES: ("More frames were asked for than the limit", "sample more rarely, or cut the video"),
}


def video_error(reason: VideoReason, where: str, detail: str = "") -> ImageError:
    """Build the error of ``reason``, with ``detail`` in brackets after its sentence."""
    return worded(reason, SENTENCES[reason], where, detail)


def sniff(head: bytes) -> str | None:
    """FFmpeg's name of the container that the first bytes of a file show, or None."""
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    if head.startswith(b"\x1aE\xdf\xa3"):
        return "matroska"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "avi"
    if head.startswith(b"\x00\x00\x01\xba"):
        return "mpeg"
    # Transport streams come in packets of 188 bytes, on discs with 4 bytes of time before each.
    for first, step in ((0, 188), (4, 192)):
        marks = head[first : first + 4 * step + 1 : step]
        if len(marks) == 5 and marks == b"\x47" * 5:
            return "mpegts"
    return None


def boxes_fit(file: BinaryIO, size: int) -> tuple[bool, bool]:
    """Whether an MP4 has its table of contents, and whether each of its outermost boxes ends within the file."""
    at, has_moov = 0, False
    for _ in range(100_000):
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            return has_moov, at == size
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        has_moov |= head[4:8] == b"moov"
        if length == 0:  # to the end of the file
            return has_moov, True
        if length < 8 or at + length > size:
            return has_moov, length < 8
        at += length
    return has_moov, True
