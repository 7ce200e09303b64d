"""Videos at run time: frames are decided one by one with the bundle, then together over time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from workzone.bundle import schema
from workzone.bundle.runtime import Decider
from workzone.config.views import ViewSpec
from workzone.decisions import Decision
from workzone.decisions.policies.cascade import CascadePolicy
from workzone.decisions.pooling import create_pool
from workzone.decisions.sequences import HOLD, DriveScore, Interval, intervals
from workzone.decisions.types import NAMES, Code, DecisionLabel
from workzone.errors import BundleError, ConfigError, ImageError
from workzone.files import write_json
from workzone.predictions import logit
from workzone.vision import Preprocessing, make_views
from workzone.vision.decode import MAX_PIXELS
from workzone.vision.video import Video

NO_PROMISE = "The bundle makes no certified promise, about frames or about intervals of time."
FRAMES_ALONE = (
    "The certificate of the bundle speaks of single images: here of each frame, as far as frames of drives are like "
    "the images it was issued on. It does not cover intervals of time."
)
SCORE_SCHEMA = "workzone-drive-1"
_CODES: Mapping[DecisionLabel, Code] = {name: Code(code) for code, name in NAMES.items()}

Advance = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class FrameDecision:
    """One sampled frame.

    Attributes:
        seconds: since the first frame.
        alone: what the bundle says about the frame as a single image.
        probability: of roadwork, pooled over time; that of ``alone`` without pooling.
        label: decision on ``probability``.
    """

    seconds: float
    alone: Decision
    probability: float
    label: DecisionLabel


@dataclass(frozen=True, slots=True)
class DriveDecision:
    """What a bundle says about one video.

    Attributes:
        frames: the sampled frames.
        intervals: stretches of time with one decision; they cover all frames.
        problem: why the video was not read to its end or in all its parts, or None.
        promise: what the certificate says about these numbers, and what it does not.
    """

    frames: tuple[FrameDecision, ...]
    intervals: tuple[Interval, ...]
    problem: ImageError | None
    promise: str


def drive_score(pool: str | DriveScore | None) -> DriveScore | None:
    """The pooled score of that name ("none": no pooling), or ``pool`` itself.

    Raises:
        ConfigError: no pool has this name.
    """
    if pool is None or isinstance(pool, DriveScore):
        return pool
    return None if pool == "none" else DriveScore(create_pool(pool))


def save_score(file: Path, score: DriveScore, detector: Decider, figures: Mapping[str, Any]) -> None:
    """Write a fitted score for ``detector`` alone: its numbers mean nothing for the scores of another network."""
    write_json(
        file, {"schema": SCORE_SCHEMA, **_belongs(detector), "score": score.to_dict(), "figures": dict(figures)}
    )


def load_score(file: Path, detector: Decider) -> DriveScore:
    """Read what ``save_score`` wrote.

    Raises:
        BundleError: unreadable, malformed, or fitted for another bundle.
    """
    stored = schema.read_json_bounded(file)
    if not isinstance(stored, dict) or stored.get("schema") != SCORE_SCHEMA:
        raise BundleError("the file holds no fitted pool", where=str(file), fix="make one with: workzone drives")
    own = _belongs(detector)
    if other := [name for name in own if stored.get(name) != own[name]]:
        raise BundleError(
            f"the pool was fitted for another bundle: {other[0]} differs",
            where=str(file),
            fix="fit it for this bundle with: workzone drives FOLDER --bundle BUNDLE",
        )
    return DriveScore.from_dict(stored.get("score"))


def _belongs(detector: Decider) -> dict[str, str]:
    certificate = detector.certificate
    return {
        "engine_sha256": certificate.engine_sha256,
        "calibrator_sha256": certificate.calibrator_sha256,
        "preprocessing_sha256": certificate.preprocessing_sha256,
    }


def require_poolable(detector: Decider) -> None:
    """Raise ConfigError where the policy reads more of an image than its probability, which pooling cannot give."""
    if not detector.policy.needs:
        return
    fix = "decide frame by frame, without a pool"
    if isinstance(detector.policy, CascadePolicy):
        fix = f"add --budget 1, at which every frame passes through all stages, or {fix}"
    raise ConfigError(
        f"policy {detector.policy.name!r} decides on measures of single images, which pooled frames do not have",
        where=f"measures {', '.join(detector.policy.needs)}",
        fix=fix,
    )


def decide_video(
    detector: Decider,
    path: Path | str,
    *,
    every: float = 1.0,
    pool: str | DriveScore | None = None,
    hold: float = HOLD,
    min_seconds: float = 0.0,
    workers: int = 0,
    max_pixels: int = MAX_PIXELS,
    columns: Mapping[str, Any] | None = None,
    progress: Advance | None = None,
    honour: Callable[[Decision], Decision] | None = None,
) -> DriveDecision:
    """Decide on a video: its sampled frames, and the intervals of time they make.

    Frames are decoded, scored and dropped one after the other; only their scores are kept.

    Args:
        path: video file.
        every: seconds between frames.
        pool: name of a pool, a fitted ``DriveScore``, or None to decide frame by frame.
        hold: seconds that abstaining frames may prolong roadwork, see ``intervals``.
        min_seconds: a shorter stretch of roadwork becomes abstain.
        workers: frames in work at the same time, 0 for as many as the engine has threads.
        max_pixels: largest picture that is decoded.
        columns: metadata that the calibrator needs, one value for all frames, see ``Decider.predict``.
        progress: called with frames decided and frames expected (0: not known).
        honour: what becomes of each answer, for a bundle whose certificate is void.

    Raises:
        ImageError: nothing of the video can be read.
        ConfigError: no such pool, or a policy that cannot decide on pooled scores.
        MissingExtraError: PyAV is not installed.
    """
    score = drive_score(pool)
    if score is not None:
        require_poolable(detector)
    video = Video(Path(path), every=every, max_pixels=max_pixels)
    embed = score is not None and score.pool.needs_embeddings
    seen = look_at_frames(
        detector, video, embed=embed, workers=workers, columns=columns, max_pixels=max_pixels, progress=progress
    )
    alone = seen.alone if honour is None else [honour(decision) for decision in seen.alone]
    return _together(detector, score, seen.seconds, alone, seen.embeddings, video, hold, min_seconds)


@dataclass(frozen=True, slots=True)
class SeenFrames:
    """Frames of a video one by one: their times, decisions, and embeddings (D,) of the whole view where asked for."""

    seconds: list[float]
    alone: list[Decision]
    embeddings: list[NDArray[np.float32]]


def look_at_frames(
    detector: Decider,
    video: Video,
    *,
    embed: bool,
    workers: int = 0,
    columns: Mapping[str, Any] | None = None,
    max_pixels: int = MAX_PIXELS,
    progress: Advance | None = None,
) -> SeenFrames:
    """Decide on every sampled frame of ``video`` by itself."""
    seen = SeenFrames([], [], [])
    whole = _whole_view(detector.preprocessing)

    def images() -> Iterator[Image.Image]:
        for moment, image in video:
            seen.seconds.append(moment)
            if embed:
                seen.embeddings.append(detector.engine.embed(make_views(image, whole)[0])[0])
            yield image

    for _, decision in detector.predict(images(), workers=workers, columns=columns, max_pixels=max_pixels):
        seen.alone.append(decision)
        if progress is not None:
            progress(len(seen.alone), video.expected)
    return seen


def _together(
    detector: Decider,
    score: DriveScore | None,
    seconds: list[float],
    alone: list[Decision],
    embeddings: list[NDArray[np.float32]],
    video: Video,
    hold: float,
    min_seconds: float,
) -> DriveDecision:
    times = np.array(seconds, dtype=np.float64)
    probability = np.array([d.probability for d in alone], dtype=np.float64)
    codes = np.array([_CODES[d.label] for d in alone], dtype=np.int8)
    if score is not None and len(alone):
        vectors = np.stack(embeddings) if embeddings else None
        probability = score(logit(probability), times, vectors)
        codes = detector.policy.decide(probability).codes
    stretches = intervals(
        times, codes, probability, every=video.every, hold=hold, min_seconds=min_seconds, end=video.info.seconds
    )
    frames = tuple(
        FrameDecision(t, d, float(p), NAMES[int(c)])
        for t, d, p, c in zip(seconds, alone, probability, codes, strict=True)
    )
    return DriveDecision(frames, tuple(stretches), video.problem, _promise(detector, score))


def _promise(detector: Decider, score: DriveScore | None) -> str:
    if score is not None:
        return score.promise()
    return FRAMES_ALONE if detector.certified else NO_PROMISE


def _whole_view(pre: Preprocessing) -> Preprocessing:
    """The same preprocessing with the global view alone."""
    return pre.model_copy(update={"views": ViewSpec(layout="global")})


def frame_record(frame: FrameDecision, *, pooled: bool) -> dict[str, Any]:
    """Plain values of one frame, fit for JSON: the answer about the single image, and beside it the pooled one."""
    record: dict[str, Any] = {"seconds": frame.seconds, **frame.alone.to_dict()}
    if pooled:
        record |= {"pooled_probability": frame.probability, "pooled_decision": frame.label}
    return record
