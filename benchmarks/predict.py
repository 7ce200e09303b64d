"""Images per second, file to decision: bundles of workzone against a Hugging Face pipeline and timm in eager mode.

    python benchmarks/predict.py [--quick] [--out FILE] [--images FOLDER] [--weights FILE] [--work FOLDER]

All contenders decide on the same image files, decoding included, on the same number of cores: each is a process of its
own that is bound to them. They take turns, so that a busy moment of the machine hits all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

VARIANTS = ("onnxruntime-fp32", "onnxruntime-int8", "openvino-fp32", "openvino-int8")
LAYOUTS = {"one view": ("views.layout=global",), "all views": ("views.layout=grid", "views.rows=3", "views.cols=3")}
TIMM = {"efficientnet_lite0": "tf_efficientnet_lite0", "dinov2_vits14": "vit_small_patch14_dinov2"}
HF = "HF pipeline, ViT-B/16"
SIZE = (1280, 720)
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimd", "i8mm")


@dataclass(frozen=True)
class Contender:
    """One way from image files to answers."""

    name: str
    kind: str
    """workzone, hf or timm."""
    what: str
    """Folder of the bundle, or name of the timm model."""
    batch: int = 1


def worker(contender: Contender, files: list[str], threads: int) -> None:
    """Answer each line on standard input with the seconds of at least one pass over the files."""
    answer = open_contender(contender, threads)
    answer(files[: min(4, len(files))])
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        passes, wall, cpu = 0, time.perf_counter(), time.process_time()
        while not passes or time.perf_counter() - wall < 1.0:
            answer(files)
            passes += 1
        spent = time.perf_counter() - wall, time.process_time() - cpu
        print(json.dumps({"images": passes * len(files), "wall": spent[0], "cpu": spent[1]}), flush=True)


def open_contender(contender: Contender, threads: int) -> Callable[[list[str]], None]:
    if contender.kind == "workzone":
        from workzone import Detector

        detector = Detector.load(contender.what, threads=threads)
        return lambda files: [None for _ in detector.predict(files)] and None
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    return open_hf(contender.batch) if contender.kind == "hf" else open_timm(contender.what)


def open_hf(batch: int) -> Callable[[list[str]], None]:
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor, pipeline, utils

    utils.logging.set_verbosity_error()
    model = ViTForImageClassification(ViTConfig(num_labels=2)).eval()
    pipe = pipeline("image-classification", model=model, image_processor=ViTImageProcessor(), device="cpu")
    return lambda files: list(pipe(files, batch_size=batch)) and None


def open_timm(name: str) -> Callable[[list[str]], None]:
    import timm
    import torch
    from PIL import Image

    extra = {"img_size": 224} if name.startswith("vit") else {}
    model = timm.create_model(name, pretrained=False, num_classes=2, **extra).eval()
    config = timm.data.resolve_data_config({"input_size": (3, 224, 224)}, model=model)
    transform = timm.data.create_transform(**config, is_training=False)

    def answer(files: list[str]) -> None:
        with torch.inference_mode():
            for file in files:
                with Image.open(file) as image:
                    model(transform(image.convert("RGB"))[None]).softmax(-1)

    return answer


class Running:
    """A contender bound to some cores."""

    def __init__(self, contender: Contender, files: list[str], cores: Sequence[int]) -> None:
        words = json.dumps([asdict(contender), files, len(cores)])
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(len(cores)),
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        self.send(words)

    def send(self, line: str) -> dict[str, Any]:
        """Pass one line and wait for the answer."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        while text := self.process.stdout.readline():
            if text.startswith("{"):
                return dict(json.loads(text))
        raise SystemExit(f"a contender ended with code {self.process.wait()}")

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def environment(threads: int) -> dict[str, str]:
    source = str(Path(__file__).resolve().parents[1] / "src")
    keys = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **dict.fromkeys(keys, str(threads)), **offline, "PYTHONPATH": source}


def workzone(*words: str, cores: Sequence[int] | None = None, check: bool = True) -> float:
    """Run the command line; seconds from start to end."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", "from workzone.cli.main import main; main()", *words],
        env=environment(len(cores or os.sched_getaffinity(0))),
        preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
        capture_output=True,
        text=True,
    )
    if check and done.returncode:
        raise SystemExit(f"workzone {' '.join(words)} ended with {done.returncode}:\n{done.stderr}")
    return time.perf_counter() - start


def draw_images(folder: Path, count: int) -> list[str]:
    """Drawn scenes as JPEG files; kept for the next run."""
    from workzone.data.synthetic import generate

    folder.mkdir(parents=True, exist_ok=True)
    if len(list(folder.glob("*.jpg"))) < count:
        for scene in generate(count, seed=7, size=SIZE):
            scene.image.save(folder / f"{scene.id}.jpg", quality=90)
    return sorted(str(p) for p in folder.glob("*.jpg"))[:count]


def make_bundles(work: Path, backbone: str, layout: str, weights: str | None) -> dict[str, Path]:
    """Bundles of all variants from one short run; kept for the next run while they still verify."""
    run = work / f"{backbone}-{layout.replace(' ', '-')}"
    bundles = {name: run / "variants" / name for name in VARIANTS[1:]} | {VARIANTS[0]: run / "bundle"}
    if not all(_loads(folder) for folder in bundles.values()):
        print(f"making bundles: {backbone}, {layout}", flush=True)
        words = [f"model.backbone={backbone}", *([f"model.weights={weights}"] if weights else [])]
        also = f"export.also=[{','.join(VARIANTS[1:])}]"
        size = ("source.synthetic_images=80", "evaluate.resamples=100", "export.int8_images=16")
        workzone("demo", f"out={run}", *LAYOUTS[layout], also, *size, f"cache.folder={work / 'cache'}", *words)
    return {name: bundles[name] for name in VARIANTS}


def _loads(folder: Path) -> bool:
    from workzone import Detector
    from workzone.errors import WorkzoneError

    try:
        Detector.load(folder)
    except WorkzoneError:
        return False
    return True


def contenders(work: Path, weights: str | None, quick: bool) -> list[Contender]:
    """Everybody who takes part."""
    found = [Contender(HF, "hf", "")]
    if not quick:
        found.append(Contender(f"{HF}, batches of 8", "hf", "", batch=8))
    backbones: dict[str, str | None] = {"efficientnet_lite0": None}
    if weights:
        backbones["dinov2_vits14"] = weights
    for backbone, file in backbones.items():
        found.append(Contender(f"timm eager, {backbone}", "timm", TIMM[backbone]))
        for layout in LAYOUTS:
            if quick and backbone != "efficientnet_lite0" and layout == "all views":
                continue
            for variant, folder in make_bundles(work, backbone, layout, file).items():
                found.append(Contender(f"workzone {backbone}, {layout}, {variant}", "workzone", str(folder)))
    return found


def measure(everybody: list[Contender], files: list[str], cores: Sequence[int], repeats: int) -> list[dict[str, Any]]:
    """One row for each contender on these cores."""
    running = [Running(c, files, cores) for c in everybody]
    samples: list[list[dict[str, Any]]] = [[] for _ in everybody]
    for turn in range(repeats):
        for kept, process in zip(samples, running, strict=True):
            kept.append(process.send("go"))
        print(f"  {len(cores)} cores: turn {turn + 1} of {repeats}", flush=True)
    for process in running:
        process.close()
    rows = []
    for contender, kept in zip(everybody, samples, strict=True):
        rates = [s["images"] / s["wall"] for s in kept]
        cpu = statistics.median(s["cpu"] / s["images"] for s in kept)
        row = {"cores": len(cores), "name": contender.name, "images_per_second": statistics.median(rates)}
        rows.append(row | {"low": min(rates), "high": max(rates), "cpu_ms_per_image": cpu * 1e3})
    reference = next(r for r in rows if r["name"] == HF)
    for row in rows:
        row["ratio"] = row["images_per_second"] / reference["images_per_second"]
        row["cpu_ratio"] = reference["cpu_ms_per_image"] / row["cpu_ms_per_image"]
    return rows


def measure_command(everybody: list[Contender], folder: Path, cores: Sequence[int], turns: int) -> list[dict[str, Any]]:
    """Seconds of the whole command, start of Python included, on a folder and on one image of it."""
    one, count = next(folder.glob("*")), len(list(folder.glob("*")))
    rows = []
    for contender in everybody:
        if contender.kind == "workzone" and "onnxruntime" in contender.name:
            words = ("predict", "--bundle", contender.what, "--format", "csv", "--threads", str(len(cores)))
            times = [[workzone(*words, str(p), cores=cores) for p in (folder, one)] for _ in range(turns)]
            whole, single = (statistics.median(t) for t in zip(*times, strict=True))
            rows.append(
                {"cores": len(cores), "name": contender.name, "images": count, "seconds": whole, "one_image": single}
            )
    return rows


def describe() -> dict[str, Any]:
    """Processor features and versions; no name of the machine."""
    from importlib.metadata import version

    info = Path("/proc/cpuinfo")
    flags = set(info.read_text().split("flags", 1)[1].split("\n", 1)[0].split()) if info.exists() else set()
    names = ("workzone", "onnxruntime", "openvino", "torch", "transformers", "timm", "pillow", "numpy")
    return {
        "machine": platform.machine(),
        "features": [f for f in _FLAGS if f in flags],
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {n: version(n) for n in names},
    }


def show(rows: list[dict[str, Any]], commands: list[dict[str, Any]]) -> None:
    """Print the tables."""
    width = max(len(r["name"]) for r in rows)
    print(
        f"\n{'cores':>5}  {'way':<{width}} {'images/s':>9} {'low-high':>15} {'ratio':>6} {'CPU ms':>8} {'CPU ratio':>9}"
    )
    for r in rows:
        spread = f"{r['low']:.1f}-{r['high']:.1f}"
        print(
            f"{r['cores']:>5}  {r['name']:<{width}} {r['images_per_second']:>9.1f} {spread:>15} {r['ratio']:>6.1f} "
            f"{r['cpu_ms_per_image']:>8.1f} {r['cpu_ratio']:>9.1f}"
        )
    heads = f"{'workzone predict, the whole command':<{width}} {'images':>9} {'seconds':>8} {'one image':>10}"
    print(f"\n{'cores':>5}  {heads}")
    for r in commands:
        times = f"{r['images']:>9} {r['seconds']:>8.2f} {r['one_image']:>10.2f}"
        print(f"{r['cores']:>5}  {r['name'].removeprefix('workzone '):<{width}} {times}")
    print("\nratio: images per second as a multiple of the Hugging Face pipeline on the same cores.")
    print("CPU ratio: the same from processor time, which other programs on the machine disturb less.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer images and turns, DINOv2-S with one view only")
    parser.add_argument("--out", type=Path, help="write the tables as JSON")
    parser.add_argument("--images", type=Path, help="folder of images [default: drawn scenes of 1280 x 720, JPEG]")
    parser.add_argument("--weights", default=os.environ.get("WORKZONE_DINOV2_WEIGHTS"), help="DINOv2-S, safetensors")
    parser.add_argument("--work", type=Path, help="keeps images and bundles between runs [default: the cache folder]")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        contender, files, threads = json.loads(sys.stdin.readline())
        worker(Contender(**contender), files, threads)
        return
    from workzone.bundle.embedding import default_cache_folder

    work = (args.work or default_cache_folder() / "benchmark").resolve()
    count, repeats = (12, 3) if args.quick else (32, 5)
    if args.images:
        files = sorted(
            str(p) for p in args.images.resolve().rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png")
        )
        files = files[:count]
    else:
        files = draw_images(work / "images", count)
    if not files:
        raise SystemExit("no images were found")
    folder = work / "measured"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    copies = [str(shutil.copyfile(f, folder / f"{i:04d}{Path(f).suffix}")) for i, f in enumerate(files)]
    everybody = contenders(work, args.weights and str(Path(args.weights).resolve()), args.quick)
    cores = sorted(os.sched_getaffinity(0))
    rows: list[dict[str, Any]] = []
    commands: list[dict[str, Any]] = []
    for n in sorted({1, min(2, len(cores))}):
        rows += measure(everybody, copies, cores[:n], repeats)
        commands += measure_command(everybody, folder, cores[:n], 1 if args.quick else 3)
    report = {"environment": describe(), "images": len(files), "turns": repeats, "rows": rows, "command": commands}
    print(json.dumps(report["environment"]))
    show(rows, commands)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
