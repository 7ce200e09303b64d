"""Videos among the inputs of ``workzone predict``: rows of frames and of intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workzone.errors import ImageError

if TYPE_CHECKING:
    from workzone.bundle.runtime import Decider
    from workzone.decisions import Decision
    from workzone.decisions.sequences import DriveScore

SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mts", ".m2ts", ".ts", ".mpg", ".mpeg"})


def is_video(path: Path) -> bool:
    """Whether the suffix of ``path`` is that of a video."""
    return path.suffix.lower() in SUFFIXES


@dataclass(frozen=True, slots=True)
class VideoOptions:
    """How videos are sampled and decided; ``columns`` is metadata that the calibrator needs."""

    every: float
    score: DriveScore | None
    min_seconds: float
    columns: Mapping[str, Any] | None = None


@dataclass(slots=True)
class VideoCounts:
    """What became of the videos."""

    videos: int = 0
    damaged: int = 0
    frames: int = 0
    roadwork_seconds: float = 0.0
    seconds: float = 0.0
    promise: str = ""

    def sentences(self) -> list[str]:
        """What is said when all is done."""
        total = f"{self.videos} video{'s' if self.videos != 1 else ''}: {self.frames} frames"
        part = f"roadwork in {self.roadwork_seconds:.1f} of {self.seconds:.1f} seconds"
        said = [f"{total}, {part}, {self.damaged} unreadable in whole or in part"]
        return [*said, self.promise] if self.promise else said


def video_rows(
    detector: Decider,
    path: Path,
    name: str,
    options: VideoOptions,
    *,
    workers: int,
    max_pixels: int,
    views: bool,
    counts: VideoCounts,
    note: Callable[[str], None],
    progress: Callable[[int, int], None],
    honour: Callable[[Decision], Decision] | None = None,
) -> Iterator[dict[str, Any]]:
    """Rows of one video: its frames, its intervals, and one of kind ``video`` where it could not be read in full."""
    from workzone.bundle.drive import decide_video, frame_record

    counts.videos += 1
    try:
        found = decide_video(
            detector,
            path,
            every=options.every,
            # A pooled score is a new one; where the certificate is void, frames are answered one by one.
            pool=options.score if honour is None else None,
            min_seconds=options.min_seconds,
            workers=workers,
            max_pixels=max_pixels,
            columns=options.columns,
            progress=progress,
            honour=honour,
        )
    except ImageError as error:
        yield _problem(error, name, counts, note)
        return
    counts.frames += len(found.frames)
    counts.promise = found.promise
    for frame in found.frames:
        record = frame_record(frame, pooled=options.score is not None and honour is None)
        if not views:
            del record["views"]
        yield {"kind": "frame", "path": name, **record, "error": None}
    for interval in found.intervals:
        length = interval.end - interval.start
        counts.seconds += length
        counts.roadwork_seconds += length if interval.label == "roadwork" else 0.0
        yield {"kind": "interval", "path": name, **interval.to_dict(), "certified": False, "error": None}
    if found.problem is not None:
        yield _problem(found.problem, name, counts, note)


def _problem(error: ImageError, name: str, counts: VideoCounts, note: Callable[[str], None]) -> dict[str, Any]:
    counts.damaged += 1
    note(f"{name}: {error.reason}: {error.what}")
    return {"kind": "video", "path": name, "decision": None, "error": str(error.reason)}


def clock(seconds: float) -> str:
    """``seconds`` as minutes and seconds, with hours where there are any."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 10:04.1f}"
    return f"{hours}:{minutes:02d}:{text}" if hours else f"{minutes}:{text}"
