"""The whole of a scoring: which shards are missing, who makes them, and what came out."""

from __future__ import annotations

import csv
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workzone.bundle.chain import open_bundle
from workzone.cluster import Launcher
from workzone.errors import ArtifactError, ConfigError
from workzone.files import atomic_path, write_json
from workzone.monitoring.void import mark_path, read_mark
from workzone.processors import processors
from workzone.scoring.plan import SHARD_SIZE, Options, Output, Shard, locked, make_plan, shard_files
from workzone.scoring.shard import Job, read_bad, read_figures
from workzone.vision.decode import MAX_PIXELS

Advance = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Launch:
    """Who does the work; the results do not depend on it.

    Attributes:
        launcher: ``local`` processes, or actors of a ``ray`` cluster.
        workers: processes or actors, 0 for as many as there are CPUs for.
        threads: images in work at once in each.
        address: of a Ray cluster; None for ``RAY_ADDRESS`` or a cluster of this machine.
    """

    launcher: Launcher = "local"
    workers: int = 0
    threads: int = 1
    address: str | None = None


def score_images(
    names: Iterable[bytes],
    bundle: Path,
    out: Path,
    *,
    launch: Launch | None = None,
    max_pixels: int = MAX_PIXELS,
    budget: float | None = None,
    device: str = "cpu",
    columns: dict[str, str] | None = None,
    shard_size: int = SHARD_SIZE,
    advance: Advance | None = None,
) -> dict[str, Any]:
    """Score ``names`` into shards of Parquet below ``out``, and return the content of ``out/summary.json``.

    One row for each name, in the columns of ``workzone predict --out x.parquet``. A shard appears whole under a name
    that follows from its images, the bundle and the options, so a call after a kill makes the missing ones alone, and
    the set of files is the same byte for byte, whichever launcher and however many workers made it.

    Args:
        names: of image files, relative ones to the working folder; see ``list_images``.
        bundle: folder of the bundle; a void mark beside it is honoured.
        out: new, empty, or of an earlier call for the same.
        launch: who does the work.
        max_pixels: largest image that is decoded.
        budget: see ``Detector.at_budget``.
        device: see ``Detector.load``; every process opens the bundle on it.
        columns: metadata that the calibrator needs, the same for all images.
        shard_size: images of a shard.
        advance: told images done and in all.

    Raises:
        ConfigError: wrong numbers, or ``out`` was begun for something else.
        DataError: no names, or the calibrator lacks a column.
        BundleError: the bundle cannot be opened.
        ArtifactError: a finished shard is damaged.
        RunLockedError: another process scores into ``out``.
        MissingExtraError: polars, or ray for its launcher, is not installed.
    """
    from workzone.bundle.slices import require_columns
    from workzone.scoring.local import run_local
    from workzone.scoring.on_ray import run_ray

    how = launch or Launch()
    if shard_size < 1 or how.workers < 0 or how.threads < 1:
        raise ConfigError("shard size and threads must be at least 1, workers at least 0")
    root = bundle.resolve()
    detector = open_bundle(root, device=device, threads=how.threads)
    require_columns(detector.calibrator, columns)
    if budget is not None:
        detector = detector.at_budget(budget)
    mark = read_mark(mark_path(root), detector.manifest.sha256)
    options = Options(
        bundle_sha256=detector.manifest.sha256,
        void_sha256=None if mark is None else mark.to_dict()["sha256"],
        max_pixels=max_pixels,
        budget=budget,
        columns=tuple(sorted((columns or {}).items())),
        shard_size=shard_size,
        device=device,
    )
    output = Output(out.resolve())
    job = Job(output, Path.cwd(), root, options, mark, how.threads)
    with locked(output):
        shards = make_plan(names, options, output)
        missing = [s for s in shards if not (output.root / s.name).exists()]
        total = sum(s.count for s in shards)
        asked = sum(s.count for s in missing)
        done = total - asked
        tell = advance or (lambda done, total: None)
        tell(done, total)
        start = time.perf_counter()
        workers = how.workers or max(1, processors() // how.threads)
        if missing:
            made = (
                run_local(job, missing, workers, detector)
                if how.launcher == "local"
                else run_ray(job, missing, how.workers, how.address)
            )
            for count in made:
                done += count
                tell(done, total)
        seconds = time.perf_counter() - start
        figures = _gather(output, shards)
        summary = {
            "n": total,
            **figures,
            "shards": len(shards),
            "shard_size": shard_size,
            "bundle_sha256": options.bundle_sha256,
            "certified": detector.certified and mark is None,
            "void": None if mark is None else list(mark.reasons),
            "last_call": {
                "launcher": how.launcher,
                "workers": how.workers or (workers if how.launcher == "local" else None),
                "threads": how.threads,
                "images": asked,
                "seconds": seconds,
                "images_per_second": asked / seconds if asked else None,
            },
        }
        write_json(output.summary, summary)
    return summary


def _gather(output: Output, shards: Sequence[Shard]) -> dict[str, Any]:
    """Figures of all shards, and the list of unusable images.

    Raises:
        ArtifactError: the folder does not hold exactly the shards of the plan.
    """
    wanted = [output.root / s.name for s in shards]
    if shard_files(output) != wanted:
        raise ArtifactError(
            "the folder does not hold exactly the shards of the plan", where=str(output.shards), fix="run again"
        )
    decisions: Counter[str] = Counter({"roadwork": 0, "no_roadwork": 0, "abstain": 0})
    reasons: Counter[str] = Counter()
    with atomic_path(output.bad) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["path", "error"])
        for path, shard in zip(wanted, shards, strict=True):
            figures = read_figures(path, shard)
            decisions.update(figures["decisions"])
            reasons.update(figures["bad"])
            if figures["bad"]:
                writer.writerows(read_bad(path))
    bytes_of_shards = sum(p.stat().st_size for p in wanted)
    return {
        "bad": sum(reasons.values()),
        "bad_reasons": dict(sorted(reasons.items())),
        "decisions": dict(decisions),
        "bytes": bytes_of_shards,
    }
