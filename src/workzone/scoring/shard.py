"""One shard: its images decided on, its rows written, and its figures read back from the footer."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workzone.bundle.chain import AnyDetector, open_bundle
from workzone.bundle.rows import answered, bad_row, image_row, write_parquet
from workzone.errors import ArtifactError, WorkzoneError, needs_extra
from workzone.files import atomic_path
from workzone.monitoring.void import VoidMark
from workzone.scoring.plan import Options, Output, Shard

_KEY = "workzone"


class StoppedError(WorkzoneError):
    """The work was stopped from outside."""


@dataclass(frozen=True, slots=True)
class Job:
    """What every worker needs to know; paths are absolute, since a worker starts elsewhere.

    Attributes:
        output: folder of the results.
        base: folder that relative names start from.
        bundle: folder of the bundle.
        options: what the rows depend on.
        mark: the mark of a void certificate.
        threads: images in work at once in one worker.
    """

    output: Output
    base: Path
    bundle: Path
    options: Options
    mark: VoidMark | None
    threads: int


class Scorer:
    """A worker with its bundle open.

    Args:
        job: what to do.
        stopped: asked between images; True ends the shard unwritten.
        detector: opened already, else opened here.
    """

    def __init__(
        self, job: Job, *, stopped: Callable[[], bool] | None = None, detector: AnyDetector | None = None
    ) -> None:
        self.job = job
        self._stopped = stopped or (lambda: False)
        self._detector = detector or open_detector(job)

    def __call__(self, shard: Shard) -> int:
        """Score ``shard`` and write its file, whole or not at all; returns its images.

        Raises:
            StoppedError: it was stopped; nothing was written.
            ArtifactError: the list of names is not that of the plan.
        """
        counts: Counter[str] = Counter()
        bad: Counter[str] = Counter()
        rows = []
        for row in self._rows(self._names(shard)):
            rows.append(row)
            if row["error"]:
                bad[row["error"]] += 1
            else:
                counts[row["decision"]] += 1
            if self._stopped():
                raise StoppedError("scoring was stopped")
        figures = {"address": shard.address, "n": len(rows), "decisions": dict(counts), "bad": dict(bad)}
        with atomic_path(self.job.output.root / shard.name) as partial:
            write_parquet(rows, partial, metadata={_KEY: json.dumps(figures, sort_keys=True)})
        return len(rows)

    def _names(self, shard: Shard) -> list[Path]:
        with self.job.output.names.open("rb") as stream:
            stream.seek(shard.start)
            names = stream.read(shard.length).split(b"\0")[:-1]
        if len(names) != shard.count:
            raise ArtifactError(
                "the list of images is not that of the plan", where=str(self.job.output.names), fix="run again"
            )
        return [Path(os.fsdecode(name)) for name in names]

    def _rows(self, names: list[Path]) -> Iterator[dict[str, Any]]:
        """A row for each name, in order, unusable images in their place."""
        options, mark = self.job.options, self.job.mark
        answers = answered(
            self._detector,
            (self.job.base / name for name in names),
            workers=self.job.threads,
            max_pixels=options.max_pixels,
            columns=dict(options.columns),
        )
        for name, (_, answer) in zip(names, answers, strict=True):
            if isinstance(answer, Exception):
                yield bad_row(name, answer)
            else:
                yield image_row(name, answer if mark is None else mark.honour(answer))


def open_detector(job: Job) -> AnyDetector:
    """The bundle of ``job`` at its operating point.

    Raises:
        BundleError: it is damaged, or not the one that the plan names.
    """
    from workzone.errors import BundleError

    detector = open_bundle(job.bundle, device=job.options.device, threads=job.threads)
    if detector.manifest.sha256 != job.options.bundle_sha256:
        raise BundleError("this is another bundle than at the start", where=str(job.bundle), fix="name a new --out")
    return detector if job.options.budget is None else detector.at_budget(job.options.budget)


def read_figures(path: Path, shard: Shard) -> dict[str, Any]:
    """Figures in the footer of a finished shard; no row is read.

    Raises:
        ArtifactError: the file is damaged or another.
    """
    with needs_extra("polars", "eval", feature="bulk scoring"):
        import polars as pl
    try:
        figures: dict[str, Any] = json.loads(pl.read_parquet_metadata(path)[_KEY])
        if figures["address"] != shard.address or figures["n"] != shard.count:
            raise ValueError("it holds other images")
    except (OSError, pl.exceptions.PolarsError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"a shard is damaged: {error}", where=str(path), fix="remove this file and run again"
        ) from error
    return figures


def read_bad(path: Path) -> list[tuple[str, str]]:
    """Path and reason of the unusable images of a shard."""
    import polars as pl

    frame = pl.scan_parquet(path).select("path", "error").filter(pl.col("error").is_not_null()).collect()
    return list(frame.iter_rows())
