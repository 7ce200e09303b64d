"""What bulk scoring costs: images per second and per core, memory of a worker, bytes of a row, local against Ray.

    python benchmarks/scale.py [--quick] [--images FOLDER] [--bundle FOLDER] [--out FILE]
    python benchmarks/scale.py --fps 30 [--bundle FOLDER] [--processor-time]

Everything is measured in one run: the share of decoding, views and network in one image, whole commands with one worker
and with one for each core, and the same work by Ray (the cluster of RAY_ADDRESS, or one started here).

`--fps 30` measures one worker on one core alone, with a bundle of one view unless one is given, and ends with code 3
unless it passes that many images a second, decoding included, by the lower end of the interval over turns. On a busy
machine `--processor-time` judges by the time that the processor gave.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from predict import describe, draw_images, environment, make_bundles

_T95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}
"""Student's t for a mean of so many turns, two-sided 95 %."""

_PEAK = """
def peak():
    # Not ru_maxrss, which begins at the peak of the parent.
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) / 1024
"""


def interval(values: Sequence[float]) -> dict[str, float]:
    """Mean and 95 % interval of it over turns."""
    mean = statistics.fmean(values)
    half = _T95[len(values)] * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return {"mean": mean, "low": mean - half, "high": mean + half, "turns": len(values)}


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds of this thread."""
    wall, cpu = time.perf_counter(), time.thread_time()
    work()
    return time.perf_counter() - wall, time.thread_time() - cpu


def shares(bundle: Path, files: list[str], turns: int) -> dict[str, Any]:
    """Milliseconds of one image by step, on one thread, and images per second of the whole."""
    from workzone.bundle.cascade import early_exits
    from workzone.bundle.parallel import embed_views
    from workzone.bundle.runtime import Detector
    from workzone.vision import decode, open_views
    from workzone.vision.views import needed_side

    detector = Detector.load(bundle, threads=1)
    pre = detector.preprocessing
    steps: dict[str, list[float]] = {"decode": [], "decode and views": [], "whole": []}
    rates, cpu_rates = [], []
    paths = [Path(f) for f in files]
    embed_views(detector.engine, open_views(paths[0], pre)[0])
    for _ in range(turns):
        parts: dict[str, Callable[[], object]] = {
            "decode": lambda: [decode(p, min_side=needed_side(pre)) for p in paths],
            "decode and views": lambda: [open_views(p, pre) for p in paths],
            "whole": lambda: [detector(p) for p in paths],
        }
        for name, work in parts.items():
            wall, cpu = timed(work)
            steps[name].append(cpu / len(paths) * 1e3)
            if name == "whole":
                rates.append(len(paths) / wall)
                cpu_rates.append(len(paths) / cpu)
    middle = {name: statistics.median(v) for name, v in steps.items()}
    rest = {
        "views": middle["decode and views"] - middle["decode"],
        "network and decision": middle["whole"] - middle["decode and views"],
    }
    if early_exits(detector.policy) is not None:
        # A cascade cuts the views that it looks at, and no others.
        rest = {"views, network and decision": middle["whole"] - middle["decode"]}
    return {
        "views": len(open_views(paths[0], pre)[0]),
        "engine": f"{detector.manifest.engine.name}-{detector.manifest.engine.precision}",
        "cpu_ms": {"decode": middle["decode"], **rest, "whole": middle["whole"]},
        "images_per_second": interval(rates),
        "images_per_cpu_second": interval(cpu_rates),
    }


def memory(bundle: Path, files: list[str]) -> dict[str, Any]:
    """Peak resident megabytes of one worker: with the bundle open, after some images, after ten times as many."""
    program = """
import json, sys
from pathlib import Path
from workzone import Detector
""" + _PEAK + """
bundle, files = json.loads(sys.stdin.readline())
found = {"modules": peak()}
detector = Detector.load(bundle, threads=1)
found["bundle open"] = peak()
for times in (1, 10):
    for _ in detector.predict(files * times, workers=1):
        pass
    found[f"{times * len(files)} images"] = peak()
print(json.dumps(found))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps([str(bundle), files]) + "\n", env=environment(1),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return dict(json.loads(done.stdout))


def scored(names: Path, bundle: Path, out: Path, *words: str) -> dict[str, Any]:
    """Summary of one call of ``workzone score``, with the wall seconds of the whole command."""
    shutil.rmtree(out, ignore_errors=True)
    start = time.perf_counter()
    entry = "from workzone.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", entry, "score", str(names), "--bundle", str(bundle), "--out", str(out), *words],
        env=environment(1), capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"workzone score {' '.join(words)} ended with {done.returncode}:\n{done.stderr}")
    return {**json.loads((out / "summary.json").read_text()), "command_seconds": time.perf_counter() - start}


def commands(
    files: list[str], bundle: Path, work: Path, count: int, turns: int, with_ray: bool, size: int
) -> dict[str, Any]:
    """Whole commands in turns: one worker, one for each core, the same by Ray; bytes are compared."""
    names = work / "names.txt"
    names.write_text("\n".join(files[i % len(files)] for i in range(count)))
    cores = len(os.sched_getaffinity(0))
    ways = {"local, 1 worker": ("--workers", "1"), f"local, {cores} workers": ("--workers", str(cores))}
    if with_ray:
        ways[f"ray, {cores} workers"] = ("--workers", str(cores), "--launcher", "ray")
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    kept: dict[str, bytes] = {}
    for turn in range(turns):
        for name, words in ways.items():
            summary = scored(names, bundle, work / "scored", *words, "--shard-size", str(size))
            found[name].append(summary)
            shards = {str(p.relative_to(work)): p.read_bytes() for p in (work / "scored").rglob("*.parquet")}
            if (kept := kept or shards) != shards:
                raise SystemExit(f"{name} wrote other bytes")
        print(f"  whole commands: turn {turn + 1} of {turns}", flush=True)
    rates = {n: [s["last_call"]["images_per_second"] for s in v] for n, v in found.items()}
    rows: dict[str, Any] = {n: interval(v) for n, v in rates.items()}
    for name, calls in found.items():
        rows[name]["command_seconds"] = statistics.median(s["command_seconds"] for s in calls)
        rows[name]["scoring_seconds"] = statistics.median(s["last_call"]["seconds"] for s in calls)
    one = next(iter(found.values()))[0]
    local, ray = f"local, {cores} workers", f"ray, {cores} workers"
    told = {"images": count, "shards": one["shards"], "shard_size": size, "ways": rows}
    told["bytes_per_row"] = one["bytes"] / count
    if with_ray:
        seconds = [[s["last_call"]["seconds"] for s in found[name]] for name in (ray, local)]
        told["ray_seconds_over_local"] = interval([r / s for r, s in zip(*seconds, strict=True)])
    return told


def planning(work: Path, count: int) -> dict[str, Any]:
    """Seconds and memory of listing and planning, from a list of that many names."""
    program = """
import json, sys, time
from pathlib import Path
from workzone.scoring.listing import list_images
from workzone.scoring.plan import Options, Output, make_plan
""" + _PEAK + """
before, start = peak(), time.process_time()
options = Options("0" * 64, None, 1, None, (), 1024)
shards = make_plan(list_images(sys.argv[1]), options, Output(Path(sys.argv[2])))
print(json.dumps({"names": sum(s.count for s in shards), "cpu_seconds": time.process_time() - start,
                  "megabytes": peak() - before}))
"""
    names = work / "many.txt"
    with names.open("w") as stream:
        stream.writelines(f"/data/drives/2026/{i // 2000:06d}/front/{i:09d}.jpg\n" for i in range(count))
    out = work / "planned"
    shutil.rmtree(out, ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "-c", program, str(names), str(out)],
        env=environment(1), capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = dict(json.loads(done.stdout))
    found["bytes_per_name"] = (out / "images.lst").stat().st_size / count
    return found


def show_core(report: dict[str, Any]) -> None:
    """Print what one worker does on one core."""
    one = report["one_core"]
    print(f"\none worker, one core, {one['engine']}, {one['views']} views, {report['images']} different images")
    for name, value in one["cpu_ms"].items():
        print(f"  {name:<22} {value:7.1f} ms of processor time per image  {value / one['cpu_ms']['whole']:6.1%}")
    for name in ("images_per_second", "images_per_cpu_second"):
        r = one[name]
        print(f"  {name:<22} {r['mean']:7.1f} [{r['low']:.1f}, {r['high']:.1f}] over {r['turns']} turns")


def show(report: dict[str, Any]) -> None:
    """Print the tables."""
    show_core(report)
    many = report["commands"]
    print("\nmemory of a worker, peak MB: " + ", ".join(f"{k} {v:.0f}" for k, v in report["memory"].items()))
    row = many["bytes_per_row"]
    print(f"\nworkzone score, {many['images']} images in {many['shards']} shards, {row:.1f} bytes a row")
    for name, r in many["ways"].items():
        spread = f"{r['mean']:7.1f} [{r['low']:.1f}, {r['high']:.1f}] images/s"
        print(f"  {name:<20} {spread}, scoring {r['scoring_seconds']:.1f} s, command {r['command_seconds']:.1f} s")
    if "ray_seconds_over_local" in many:
        r = many["ray_seconds_over_local"]
        spread = f"{r['mean']:.2f} [{r['low']:.2f}, {r['high']:.2f}]"
        print(f"  scoring seconds, Ray over local: {spread}, {r['turns']} turns")
    p = report["planning"]
    print(
        f"\nplan of {p['names']:,} names: {p['cpu_seconds']:.2f} CPU seconds, {p['megabytes']:.1f} MB, "
        f"{p['bytes_per_name']:.0f} bytes a name"
    )


def judge(report: dict[str, Any], wanted: float, clock: str) -> None:
    """Say whether the rate is passed; ends the program with code 3 where it is not."""
    low = report["one_core"][clock]["low"]
    verdict = "holds" if low > wanted else "is not shown"
    print(f"\nmore than {wanted:g} images a second by one worker on one core: {verdict} ({clock}, lower end {low:.1f})")
    if low <= wanted:
        raise SystemExit(3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer images and turns")
    parser.add_argument("--images", type=Path, help="folder of images [default: drawn scenes of 1280 x 720, JPEG]")
    parser.add_argument("--bundle", type=Path, help="[default: the starter bundle]")
    parser.add_argument("--work", type=Path, help="keeps drawn images [default: the cache folder]")
    parser.add_argument("--out", type=Path, help="write the tables as JSON")
    parser.add_argument("--without-ray", action="store_true", help="leave Ray out")
    parser.add_argument("--fps", type=float, help="demand this many images a second of one worker (exit code 3)")
    parser.add_argument("--processor-time", action="store_true", help="judge --fps by processor time")
    args = parser.parse_args()
    from workzone.bundle.embedding import default_cache_folder
    from workzone.bundle.starter import starter_bundle

    work = (args.work or default_cache_folder() / "benchmark").resolve()
    distinct, count, turns, size, names = (16, 64, 3, 16, 100_000) if args.quick else (64, 512, 5, 64, 1_000_000)
    if args.images:
        found = sorted(p for p in args.images.resolve().rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
        files = [str(p) for p in found[:: max(1, len(found) // distinct)][:distinct]]
    else:
        files = draw_images(work / "images", distinct)
    if not files:
        raise SystemExit("no images were found")
    work.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"environment": describe(), "images": len(files)}
    if args.fps is not None:
        bundle = args.bundle or make_bundles(work, "efficientnet_lite0", "one view", None)["onnxruntime-int8"]
        report["one_core"] = shares(bundle.resolve(), files, 5)
        print(json.dumps(report["environment"]))
        show_core(report)
        judge(report, args.fps, "images_per_cpu_second" if args.processor_time else "images_per_second")
        return
    bundle = args.bundle or starter_bundle()
    if bundle is None:
        raise SystemExit("no bundle: this checkout has no starter bundle, give --bundle")
    report["one_core"] = shares(bundle.resolve(), files, turns)
    report["memory"] = memory(bundle.resolve(), files)
    with_ray = not args.without_ray
    report["commands"] = commands(files, bundle.resolve(), work, count, turns, with_ray, size)
    report["planning"] = planning(work, names)
    print(json.dumps(report["environment"]))
    show(report)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
