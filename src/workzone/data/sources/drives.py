"""Source ``video``: frames of video files, at regular moments or whenever the picture has changed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image

from workzone.data.perceptual import grey_square
from workzone.data.sources.base import ClassNames, RecordSource, image_files, is_hidden, register
from workzone.data.sources.records import Dropped, Event, Record
from workzone.errors import DataError, ImageError
from workzone.vision.video import Video, require_av

SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts"})


@register
@dataclass(frozen=True, slots=True)
class VideoSource(RecordSource):
    """A video file or a folder of them; each video is one group, its frames become JPEG files.

    Attributes:
        every: seconds between frames.
        movement: take a frame only when the mean grey value of its 32 x 32 reduction differs from the last one taken
            by this much (0 to 255) per pixel; 0 takes every frame that ``every`` offers.
        quality: of the JPEG files.
        classes: names of folders that stand for the two classes; frames of other videos are unlabelled.
    """

    kind: ClassVar[str] = "video"
    extra: ClassVar[dict[str, pl.DataType]] = {"video": pl.String(), "seconds": pl.Float64()}

    every: float = 1.0
    movement: float = 0.0
    quality: int = 95
    classes: ClassNames = field(default_factory=ClassNames)

    def __post_init__(self) -> None:
        if not (self.every > 0 and self.movement >= 0 and 1 <= self.quality <= 100):
            raise DataError("every must be positive, movement not negative, quality 1 to 100", where=self.kind)

    @classmethod
    def recognises(cls, location: Path) -> bool:
        """A video file, or a folder of videos without images of its own."""
        if location.is_file():
            return location.suffix.lower() in SUFFIXES
        if not location.is_dir() or image_files(location, recursive=False):
            return False
        return any(p.suffix.lower() in SUFFIXES for p in location.iterdir())

    def events(self, location: Path, *, content: bool) -> Iterator[Event]:
        """Frames of all videos by name."""
        require_av()
        return self._all(location, content)

    def _all(self, location: Path, content: bool) -> Iterator[Event]:
        root = location if location.is_dir() else location.parent
        found = [location] if location.is_file() else sorted(location.rglob("*"))
        files = [p for p in found if p.suffix.lower() in SUFFIXES and not is_hidden(p, root) and p.is_file()]
        if not files:
            endings = ", ".join(sorted(SUFFIXES))
            raise DataError("there are no videos", where=str(location), fix=f"they end in {endings}")
        for file in files:
            name = file.relative_to(root).as_posix()
            folders = file.relative_to(root).parts[:-1]
            label = next((v for p in folders if (v := self.classes.label(p)) is not None), None)
            columns = {"label": label, "source": root.absolute().name, "group": f"video:{name}", "video": name}
            try:
                video = Video(file, every=self.every)
            except ImageError as error:
                yield Dropped(name, "the video cannot be used", f"{error.reason}: {error.what}")
                continue
            last: NDArray[np.float32] | None = None
            for seconds, frame in video:
                tiny = grey_square(frame)
                if last is not None and self.movement and float(np.abs(tiny - last).mean()) < self.movement:
                    continue
                last = tiny
                data = self._jpeg(frame) if content else None
                key = f"{name}@{seconds:.3f}"
                yield Record(key, columns | {"seconds": seconds}, content=data, size=len(data) if data else None)
            if video.problem is not None:
                yield Dropped(f"{name}@end", "the video ends early", f"{video.problem.reason}: {video.problem.what}")

    def _jpeg(self, frame: Image.Image) -> bytes:
        stream = io.BytesIO()
        frame.save(stream, "JPEG", quality=self.quality)
        return stream.getvalue()
