"""Challenges: pictures scored once at every level, and streams of them drawn as the validator draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workzone.bundle.chain import AnyDetector
from workzone.bundle.slices import unknown_slices
from workzone.data.hours import HOUR_BAND, hour_bands
from workzone.decisions.types import NAMES
from workzone.errors import DataError
from workzone.files import atomic_path, sha256_json
from workzone.predictions import FloatArray, IntArray, StrArray
from workzone.vision import decode
from workzone.vision.streetvision.transforms import LEVELS, PROTOCOLS, Protocol, draw, transform, wire

if TYPE_CHECKING:
    # The manifest brings polars, which the detector class does not need.
    import polars as pl

    from workzone.data.manifest import Manifest

SOURCE = "source"
KINDS = ("source", "hour_band", "weather", "hard_negative", "domain", "evidence")
"""Columns whose values are kinds of images."""
MASK = ("mask_x", "mask_y")
"""Columns with the centre of the painted area of a synthetic picture, in pixels."""
_TIMES = ("hour", "time_of_day")


@dataclass(frozen=True, slots=True)
class Pictures:
    """Labelled images to draw challenges from.

    Attributes:
        ids: (N,) unique ids.
        paths: of the files.
        labels: (N,) 0 or 1.
        groups: (N,) images of one group resemble each other.
        hashes: (N,) SHA-256 of the files.
        columns: kinds of images by column, "unknown" where missing.
        painted: centre (x, y) of the painted area of a synthetic picture by row, in pixels; only where it is known.
    """

    ids: StrArray
    paths: Sequence[Path]
    labels: IntArray
    groups: StrArray
    hashes: StrArray
    columns: Mapping[str, StrArray] = field(default_factory=dict)
    painted: Mapping[int, tuple[int, int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> Pictures:
        """The labelled images of ``manifest``.

        Raises:
            DataError: one of the classes is missing.
        """
        frame = manifest.frame
        rows = [i for i, label in enumerate(frame["label"].to_list()) if label is not None]
        labels = np.array([frame["label"][i] for i in rows], dtype=np.int64)
        if len(np.unique(labels)) < 2:
            raise DataError(
                f"challenges need images with and without roadwork; of {len(rows)} labelled images "
                f"{int(labels.sum())} have roadwork",
                fix="give labelled images of both classes",
            )

        def column(name: str) -> StrArray:
            values = frame[name].to_list() if name in frame.columns else [None] * frame.height
            return np.array(["unknown" if values[i] in (None, "") else str(values[i]) for i in rows], dtype=np.str_)

        ids = np.array([frame["id"][i] for i in rows], dtype=np.str_)
        groups = column("group")
        kinds = {name: column(name) for name in KINDS if name in frame.columns}
        if HOUR_BAND not in kinds:
            times = {c: np.array(frame[c].to_list(), dtype=object) for c in _TIMES if c in frame.columns}
            kinds[HOUR_BAND] = hour_bands(times, frame.height)[rows]
        return cls(
            ids,
            [manifest.paths[i] for i in rows],
            labels,
            np.where(groups == "unknown", ids, groups),
            column("sha256"),
            kinds,
            _painted(frame, rows),
        )

    def sample(self, most: int, *, seed: int) -> Pictures:
        """At most ``most`` images of each class, by chance."""
        rng = np.random.default_rng(seed)
        parts = [rng.permutation(np.flatnonzero(self.labels == y))[:most] for y in (0, 1)]
        rows = np.sort(np.concatenate(parts))
        return Pictures(
            self.ids[rows],
            [self.paths[i] for i in rows],
            self.labels[rows],
            self.groups[rows],
            self.hashes[rows],
            {name: values[rows] for name, values in self.columns.items()},
            {new: self.painted[old] for new, old in enumerate(rows.tolist()) if old in self.painted},
        )


def _painted(frame: pl.DataFrame, rows: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Centres of painted areas out of the columns mask_x and mask_y; raises DataError where one is no number."""
    if not set(MASK) <= set(frame.columns):
        return {}
    found = {}
    for new, row in enumerate(rows):
        pair = [frame[name][row] for name in MASK]
        if any(value in (None, "") for value in pair):
            continue
        try:
            x, y = (int(float(value)) for value in pair)
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(
                f"the centre of a painted area is no pair of numbers: {pair}",
                where=f"row {row + 1}, columns {', '.join(MASK)}",
                fix="give pixels, or leave both empty",
            ) from error
        found[new] = (x, y)
    return found


@dataclass(frozen=True, slots=True)
class Scored:
    """What a bundle says about each picture at each level.

    Attributes:
        pictures: the images.
        protocol: version whose transformations were applied.
        probability: (N, 4, K) calibrated probability of roadwork, K draws per image and level; NaN at levels that this
            version never uses. The draws of level 0 are equal, as it has no chance in it.
        codes: (N, 4, K) decisions of the bundle's policy, -1 where it abstains.
    """

    pictures: Pictures
    protocol: Protocol
    probability: FloatArray
    codes: NDArray[np.int8]


def score(
    detector: AnyDetector,
    pictures: Pictures,
    protocol: Protocol,
    *,
    draws: int = 2,
    seed: int = 42,
    workers: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Scored:
    """Score every picture ``draws`` times at every level of ``protocol``, through transformation and JPEG.

    Raises:
        ImageError: an image cannot be read.
        ValueError: draws below 1.
    """
    if draws < 1:
        raise ValueError("draws must be at least 1")
    used = [level for level in LEVELS if protocol.levels[level] > 0]
    cells = [(level, k) for level in used for k in range(draws if level else 1)]
    shape = (len(pictures), len(LEVELS), draws)
    probability, codes = np.full(shape, np.nan), np.full(shape, -1, dtype=np.int8)
    code_of = {name: code for code, name in NAMES.items()}

    def sent() -> Iterator[bytes]:
        for row, path in enumerate(pictures.paths):
            image = decode(path)
            for level, k in cells:
                rng = np.random.default_rng([seed, row, level, k])
                recipe = draw(image.size, level, rng, protocol, towards=pictures.painted.get(row))
                yield wire(transform(image, recipe, protocol))

    total = len(pictures) * len(cells)
    columns = unknown_slices(detector.calibrator)
    for index, decision in detector.predict(sent(), workers=workers, columns=columns):
        row, (level, k) = index // len(cells), cells[index % len(cells)]
        where = slice(None) if level == 0 else k
        probability[row, level, where] = decision.probability
        codes[row, level, where] = code_of[decision.label]
        progress(index + 1, total)
    return Scored(pictures, protocol, probability, codes)


def score_key(detector: AnyDetector, pictures: Pictures, protocol: Protocol, *, draws: int, seed: int) -> str:
    """Hash of everything that ``score`` depends on; tells whether stored scores may be used again."""
    return sha256_json(
        {
            "bundle": detector.manifest.sha256,
            "files": pictures.hashes.tolist(),
            "labels": pictures.labels.tolist(),
            "painted": {str(row): list(point) for row, point in pictures.painted.items()},
            "protocol": protocol.name,
            "draws": draws,
            "seed": seed,
            "version": 2,
        }
    )


def save_scores(scored: Scored, path: Path, key: str) -> None:
    """Write probabilities and decisions to ``path`` (npz)."""
    with atomic_path(path) as partial, partial.open("wb") as stream:
        np.savez(stream, key=np.array(key), probability=scored.probability, codes=scored.codes)


def load_scores(pictures: Pictures, protocol: Protocol, path: Path, key: str) -> Scored | None:
    """What ``save_scores`` wrote under the same key, else None; raises DataError for a damaged file."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["key"]) != key:
                return None
            return Scored(pictures, protocol, stored["probability"], stored["codes"])
    except Exception as error:  # numpy, zipfile, zlib and tokenize have many classes for a damaged file
        raise DataError(f"stored scores cannot be read: {error}", where=str(path), fix="delete the file") from error


@dataclass(frozen=True, slots=True)
class Stream:
    """Challenges of R runs of N steps.

    Attributes:
        labels: (R, N).
        image: (R, N) row of the picture.
        level: (R, N).
        draw: (R, N) which of the scored draws.
    """

    labels: IntArray
    image: IntArray
    level: IntArray
    draw: IntArray

    def pick(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values (R, N) of the challenges out of ``values`` (images, levels, draws)."""
        return np.asarray(values[self.image, self.level, self.draw])


def source_weights(pictures: Pictures, protocol: Protocol) -> tuple[FloatArray, str]:
    """Relative weight (N,) of each picture within its class, and one sentence on the mix of sources.

    The mix of the protocol is followed where the column ``source`` names its kinds; all images weigh the same
    otherwise. A kind without images of a class hands its share to the others.
    """
    kinds = pictures.columns.get(SOURCE, np.full(len(pictures), "unknown"))
    known = np.isin(kinds, list(protocol.sources))
    if not known.all():
        return np.ones(len(pictures)), (
            f"The mix of sources ({', '.join(protocol.sources)}) is not simulated: column 'source' does not name them."
        )
    weights = np.zeros(len(pictures))
    missing = set()
    for label in (0, 1):
        for name, share in protocol.sources.items():
            rows = (kinds == name) & (pictures.labels == label)
            if rows.any():
                weights[rows] = share / rows.sum()
            else:
                missing.add(name)
    without = f" Without images of a class: {', '.join(sorted(missing))}." if missing else ""
    return weights, f"Sources are mixed as the protocol does ({', '.join(protocol.sources)}).{without}"


def stream(
    scored: Scored,
    *,
    challenges: int,
    runs: int,
    seed: int,
    weights: FloatArray | None = None,
    resample: bool = False,
) -> Stream:
    """Draw challenges: labels 50/50, then a picture of that label, a level and one of its draws.

    Args:
        scored: scored pictures.
        challenges: steps N of a run.
        runs: runs R.
        seed: of all chance.
        weights: (N,) of the pictures within their class; equal by default.
        resample: draw the groups of pictures again with replacement for each run, as a bootstrap does, so that the
            spread between runs holds the chance of which images were collected.
    """
    pictures, protocol = scored.pictures, scored.protocol
    rng = np.random.default_rng([seed, int(resample)])
    given = np.ones(len(pictures)) if weights is None else weights
    _, group = np.unique(pictures.groups, return_inverse=True)
    labels = rng.integers(0, 2, size=(runs, challenges))
    image = np.empty((runs, challenges), dtype=np.int64)
    for run in range(runs):
        w = given
        if resample:
            w = _resampled(given, group, pictures.labels, rng)
        for label in (0, 1):
            rows = np.flatnonzero(pictures.labels == label)
            here = labels[run] == label
            image[run, here] = rng.choice(rows, size=int(here.sum()), p=w[rows] / w[rows].sum())
    level = rng.choice(len(LEVELS), size=(runs, challenges), p=protocol.levels)
    return Stream(labels, image, level, rng.integers(0, scored.probability.shape[2], size=(runs, challenges)))


def _resampled(weights: FloatArray, group: IntArray, labels: IntArray, rng: np.random.Generator) -> FloatArray:
    """Weights after a draw of groups with replacement; drawn again until both classes are left."""
    count = int(group.max()) + 1
    while True:
        times = np.bincount(rng.integers(0, count, size=count), minlength=count)
        w = weights * times[group]
        if w[labels == 1].sum() > 0 and w[labels == 0].sum() > 0:
            return np.asarray(w, dtype=np.float64)


__all__ = [
    "KINDS", "PROTOCOLS", "Pictures", "Scored", "Stream", "load_scores", "save_scores", "score", "score_key",
    "source_weights", "stream",
]  # fmt: skip
