"""Sample frames of a video file: bounded, upright, in constant memory; a damaged file gives what is readable.

Containers are recognised from their first bytes and opened with that one demuxer, on an open file and not on a name, so
that no playlist, address or second file is ever followed.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from PIL import Image

from workzone.errors import ImageError, needs_extra
from workzone.vision.containers import VideoReason, boxes_fit, sniff, video_error
from workzone.vision.decode import MAX_PIXELS, MAX_RATIO, MIN_SIDE

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

MAX_SECONDS = 24 * 3600.0
MAX_FRAMES = 100_000
SEEK_FROM = 10.0
"""From this interval on it pays to jump to the key frame before each moment rather than to decode all between."""

_EARLY = 1.0
"""Seconds by which a jump aims too early: containers index by decoding time, which runs ahead of display time."""
_MISSING_END = 0.5
"""Seconds by which a video may end before its header says and still count as whole."""
_TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What the header says: size in pixels before rotation, seconds (None: not stated), codec and container."""

    width: int
    height: int
    seconds: float | None
    codec: str
    container: str


class Video:
    """Frames of one video at regular moments.

    ``info`` is known once the object exists; ``problem`` is set when the frames are exhausted, and is None for a video
    that was read to its end.

    Args:
        path: regular file.
        every: seconds between frames; each moment ``k * every`` gives the first frame at or after it.
        max_pixels: largest accepted width x height, compared before any picture is decoded.
        max_seconds: where reading stops.
        max_frames: after how many sampled frames reading stops.

    Raises:
        ImageError: nothing of the video can be used; ``reason`` is a member of ``VideoReason``.
        MissingExtraError: PyAV is not installed.
    """

    def __init__(
        self,
        path: Path,
        *,
        every: float = 1.0,
        max_pixels: int = MAX_PIXELS,
        max_seconds: float = MAX_SECONDS,
        max_frames: int = MAX_FRAMES,
    ) -> None:
        if not (every > 0 and max_pixels > 0 and max_seconds > 0 and max_frames > 0):
            raise ValueError("every and all limits must be positive")
        require_av()
        self.path, self.every = path, every
        self.max_pixels, self.max_seconds, self.max_frames = max_pixels, max_seconds, max_frames
        self.problem: ImageError | None = None
        self._cut_short = False
        with _stream(path) as file, closing(self._open(file)) as container:
            self.info = self._info(container)

    @property
    def expected(self) -> int:
        """Frames that the stated length promises within the limits, 0 where no length is stated."""
        if self.info.seconds is None:
            return 0
        return min(int(min(self.info.seconds, self.max_seconds) / self.every) + 1, self.max_frames)

    def __iter__(self) -> Iterator[tuple[float, Image.Image]]:
        """Yield (seconds since the first frame, upright RGB picture); one decoded picture is held at a time."""
        self.problem = None
        with _stream(self.path) as file, closing(self._open(file)) as container:
            yield from _Sampler(self, container).run()

    @property
    def codec_options(self) -> dict[str, str]:
        """Keeps a codec from allocating giant pictures that appear in mid-stream.

        Codecs count the padding of their buffers, so their limit is wider; ``check_size`` holds the exact one.
        """
        return {"max_pixels": str(2 * self.max_pixels + 2**18)}

    def error(self, reason: VideoReason, detail: str = "") -> ImageError:
        """The error of ``reason`` about this file."""
        return video_error(reason, str(self.path), detail)

    @property
    def cut_short(self) -> bool:
        """Whether the container itself states more bytes than the file holds."""
        return self._cut_short

    def _open(self, file: BinaryIO) -> InputContainer:
        import av

        head = file.read(4096)
        size = file.seek(0, 2)
        if not head:
            raise self.error(VideoReason.EMPTY)
        kind = sniff(head)
        if kind is None:
            raise self.error(VideoReason.NOT_A_VIDEO)
        whole = boxes_fit(file, size) if kind == "mov" else (True, True)
        if kind == "avi":
            whole = (True, int.from_bytes(head[4:8], "little") + 8 <= size)
        self._cut_short = not whole[1]
        file.seek(0)
        try:
            # Codecs that look into the stream for its parameters heed the limit too.
            return av.open(file, "r", format=kind, options=self.codec_options, metadata_errors="replace")
        except av.error.FFmpegError as error:
            reason = VideoReason.CORRUPT if all(whole) else VideoReason.TRUNCATED
            raise self.error(reason, _text(error)) from error

    def _info(self, container: InputContainer) -> VideoInfo:
        stream = self.stream(container)
        context = stream.codec_context
        self.check_size(context.width, context.height)
        seconds = _length(container, stream)
        return VideoInfo(context.width, context.height, seconds, context.name, container.format.name)

    def stream(self, container: InputContainer) -> VideoStream:
        """The first stream of moving pictures; a cover picture is none."""
        import av

        for stream in container.streams.video:
            if not stream.disposition & av.stream.Disposition.attached_pic:
                # PyAV gives a stream that it cannot decode no context, whatever its type says.
                if getattr(stream, "codec_context", None) is None:
                    raise self.error(VideoReason.TRUNCATED if self._cut_short else VideoReason.UNSUPPORTED_FORMAT)
                return stream
        raise self.error(VideoReason.TRUNCATED if self._cut_short else VideoReason.NO_PICTURES)

    def check_size(self, width: int, height: int) -> None:
        """Raise ImageError for pictures of a size that is not accepted."""
        stated = f"{width} x {height} pixels"
        if width * height > self.max_pixels:
            raise self.error(VideoReason.TOO_LARGE, f"{stated}, limit {self.max_pixels}")
        if min(width, height) < MIN_SIDE:
            raise self.error(VideoReason.TOO_SMALL, stated)
        if max(width, height) > MAX_RATIO * min(width, height):
            raise self.error(VideoReason.ABSURD_SHAPE, stated)


class _Sampler:
    """One pass over an opened video."""

    def __init__(self, video: Video, container: InputContainer) -> None:
        self.video, self.container = video, container
        self.stream = video.stream(container)
        self.stream.codec_context.options = video.codec_options
        self.seeking = video.every >= SEEK_FROM
        self.first: float | None = None
        self.last = 0.0
        self.damage = 0
        self.damage_text = ""

    def run(self) -> Iterator[tuple[float, Image.Image]]:
        """Yield frames; leaves the reason of an early end in ``video.problem``."""
        video, step = self.video, self.video.every
        target, given = 0.0, 0
        frames = self._whole_frames()
        while (frame := next(frames, None)) is not None:
            seconds = self._seconds(frame)
            if seconds is None:
                video.problem = video.error(VideoReason.CORRUPT, "frames without a time")
                return
            self.last = max(self.last, seconds)
            # Times are multiples of the time base, so a frame due at 1 s may say 0.9999.
            if seconds < target - 1e-3:
                continue
            if seconds > video.max_seconds:
                video.problem = video.error(VideoReason.TOO_LONG, f"limit {video.max_seconds:g} s")
                return
            if given == video.max_frames:
                video.problem = video.error(VideoReason.TOO_MANY_FRAMES, f"limit {video.max_frames}")
                return
            try:
                video.check_size(frame.width, frame.height)
            except ImageError as error:
                video.problem = error
                return
            yield round(seconds, 3), _upright(frame)
            given += 1
            target = (int((seconds + 1e-3) / step) + 1) * step
            if self.seeking:
                frames = self._jump(target, frames)
        self._judge(target, given)

    def _seconds(self, frame: VideoFrame) -> float | None:
        if frame.pts is None:
            return None
        if self.first is None:
            self.first = float(frame.time)
        return float(frame.time) - self.first

    def _jump(self, target: float, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        import av

        aim = target - _EARLY
        if aim <= self.last or self.first is None or self.stream.time_base is None:
            return frames
        try:
            self.container.seek(int((self.first + aim) / self.stream.time_base), stream=self.stream)
        except av.error.FFmpegError:
            # Nothing was moved: decoding goes on from here, only slower.
            self.seeking = False
            return frames
        before, frames = self.last, self._whole_frames()
        frame = next(frames, None)
        if frame is None:
            return frames
        landed = self._seconds(frame)
        if landed is not None and landed <= before:
            self.seeking = False  # key frames lie further apart than the moments
        return _with_first(frame, frames)

    def _whole_frames(self) -> Iterator[VideoFrame]:
        """Decoded frames without damage; after damage nothing until the next key frame, which refers to no other."""
        import av

        waiting = False
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets)
                decoded = packet.decode()
            except StopIteration:
                return
            except (av.error.EOFError, av.error.FFmpegError) as error:
                self._damaged(_text(error))
                if self.damage >= 1000:
                    return
                waiting = True
                continue
            for frame in decoded:
                if frame.is_corrupt:
                    self._damaged("a frame is incomplete")
                    waiting = True
                elif not waiting or frame.key_frame:
                    waiting = False
                    yield frame

    def _damaged(self, text: str) -> None:
        self.damage += 1
        self.damage_text = self.damage_text or text

    def _judge(self, target: float, given: int) -> None:
        """Why the frames ended: nothing to say where the stated length was reached without damage."""
        video, stated = self.video, self.video.info.seconds
        reached = target if self.seeking else self.last
        short = stated is not None and reached < stated - max(_MISSING_END, 2 * self._one_frame())
        if video.cut_short or (short and not self.damage):
            detail = f"{self.last:.1f} s of {stated:.1f} s" if stated is not None else f"{self.last:.1f} s"
            video.problem = video.error(VideoReason.TRUNCATED, detail)
        elif self.damage or not given:
            detail = f"{self.damage} times, first: {self.damage_text}" if self.damage else "no frame could be decoded"
            video.problem = video.error(VideoReason.CORRUPT, detail)

    def _one_frame(self) -> float:
        rate = self.stream.average_rate
        return float(1 / rate) if rate else 0.0


def require_av() -> None:
    """Raise MissingExtraError unless PyAV can be imported."""
    with needs_extra("av", "video", feature="reading videos"):
        import av  # noqa: F401


def _stream(path: Path) -> BinaryIO:
    where = str(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise video_error(VideoReason.NOT_A_FILE, where)
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise video_error(VideoReason.MISSING, where) from error
    except (OSError, ValueError) as error:
        detail = error.strerror if isinstance(error, OSError) else str(error)
        raise video_error(VideoReason.UNREADABLE, where, detail or type(error).__name__) from error


def _length(container: InputContainer, stream: VideoStream) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    # The length of the whole file may be that of its sound.
    return container.duration / 1e6 if container.duration and len(container.streams) == 1 else None


def _upright(frame: VideoFrame) -> Image.Image:
    image: Image.Image = frame.to_image()  # type: ignore[no-untyped-call]
    turn = _TURNS.get(round(frame.rotation) % 360)
    return image if turn is None else image.transpose(turn)


def _with_first(frame: VideoFrame, rest: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    yield frame
    yield from rest


def _text(error: Any) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:120]
