"""Make the starter bundle that ships with the package: one run on labelled street images, packed without them.

    python tools/make_starter.py --images FOLDER_OR_TABLE [--out RUN] [--name NAME]
    python tools/make_starter.py --run RUN [--name NAME]
    python tools/make_starter.py --card

The first runs the pipeline with the words of RECIPE and packs its bundle, the second packs a run that is there, the
third writes nothing but the model card of the shipped bundle anew, and seals it. The bundle is that of the run but for
its golden cases, which are drawn scenes: images of others are not shipped. Its records name the data by ``--name`` and
not by where they lay. At most 10 MB.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from workzone.bundle import schema
from workzone.bundle.starter import STARTER
from workzone.bundle.write import write_bundle, write_folder
from workzone.config.load import load_config
from workzone.data.synthetic import write_dataset
from workzone.files import sha256_file, write_atomic
from workzone.pipeline.artifacts import Artifacts
from workzone.pipeline.engine import run_pipeline
from workzone.pipeline.phase import Context
from workzone.pipeline.phases import PHASES, bundle
from workzone.pipeline.variants import main_variant

MOST_BYTES = 10_000_000
SCENES = 6
DRAWN = 120
RECIPE = (
    "preset=small",
    "fuse.members=2",
    "fuse.hidden=32",
    "split.train=0.6",
    "split.val_select=0.1",
    "split.val_calib=0.25",
    "calibrate.fraction=0.5",
    "split.val_test=0.05",
    "export.precision=int8",
    "export.also=[]",
    "decide.policy=cascade",
    "decide.target_fnr=0.1",
)
_HEADING = "\n## Starter\n"
_DATA = """
## Starter

A bundle for a first look and for trying the tools. For anything that matters, train on your own images
(`workzone run data=FOLDER preset=small`) and read that report.

### Data and licences

Trained, calibrated and judged on {name}, gathered from public repositories: frames of dashcams, phone pictures and
others, every label set by eye. Most of these repositories state no licence, some allow research only, so no image is
in this bundle; its golden cases are drawn scenes. The backbone and its ImageNet weights are Apache-2.0. Whether
weights that were trained on such images may be used beyond research is for a lawyer; take them for research.

### Test role by source

Decisions of the policy; intervals of 95 %, Clopper-Pearson over groups, so that one group of many frames counts as
one. Most sources hold too few groups to say anything about them.

| source | images | groups | roadwork | AUROC | missed | false alarms | left open |
|---|---|---|---|---|---|---|---|
{rows}

### Limits

- {positives} test images with roadwork, in few groups: these figures can hardly tell a good bundle from a middling one.
- In these collections the source of an image says much about its label, so pooled figures flatter.
- Few pictures at night and in snow; roadwork of one source comes from 16 videos.
- It was not distilled. A short distillation of DINOv2-S into the same network gave no gain beyond its interval (AUROC
  by neighbours 0.798 before, 0.835 after, intervals overlap), so the network without it ships. `benchmarks/training.py`
  measures it with more time.

Made anew by: `python tools/make_starter.py --images FOLDER_OR_TABLE`
"""


def main() -> None:
    """Read the arguments and do one of the three."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--images", help="labelled images: a folder or a table")
    what.add_argument("--run", type=Path, help="folder of a finished run")
    what.add_argument("--card", action="store_true", help="write the model card of the shipped bundle anew")
    parser.add_argument("--out", type=Path, default=Path("outputs/starter"), help="folder of the run with --images")
    parser.add_argument("--name", default="1,235 street images", help="what the data are called")
    args = parser.parse_args()
    if args.card:
        new_card(STARTER, args.name)
    else:
        folder = args.run or train(args.images, args.out)
        pack(folder.resolve(), args.name)
    size = sum(p.stat().st_size for p in STARTER.rglob("*") if p.is_file())
    if size > MOST_BYTES:
        raise SystemExit(f"the starter bundle has {size / 1e6:.1f} MB, more than {MOST_BYTES / 1e6:.0f}")
    print(f"{STARTER}: {size / 1e6:.1f} MB")


def train(images: str, out: Path) -> Path:
    """Run the pipeline with RECIPE; a run that was killed goes on."""
    run_pipeline(load_config([f"data={images}", f"out={out}", *RECIPE]), PHASES)
    return out


def pack(run: Path, name: str) -> None:
    """Write the bundle of ``run`` with drawn golden cases in place of the shipped one."""
    artifacts = Artifacts(run)
    own = load_config([], file=artifacts.config)
    config = own.model_copy(update={"data": name, "out": Path("workzone-starter")})
    context = Context(bundle.SPEC, config, artifacts)
    parts = bundle.bundle_parts(context, main_variant(config))
    metrics = _renamed(parts.metrics, own.data, name)
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder), DRAWN, seed=7)
        tolerance = max(parts.tolerance, 0.5)
        scenes = sorted(Path(folder).rglob("*.jpg"))
        images = bundle.choose_golden(context, main_variant(config), scenes, count=SCENES, tolerance=tolerance)
        starter = replace(
            parts,
            golden_images=images,
            compare_decisions=True,
            tolerance=tolerance,
            metrics=metrics,
            card=card(parts.card, metrics, name),
        )
        write_bundle(starter, STARTER)


def new_card(folder: Path, name: str) -> None:
    """Write the card of the bundle in ``folder`` anew and seal it; everything else stays byte by byte."""

    def fill(work: Path) -> None:
        shutil.copytree(folder, work, dirs_exist_ok=True)
        file = work / "MODEL_CARD.md"
        metrics = json.loads((work / "metrics.json").read_text(encoding="utf-8"))
        write_atomic(file, card(file.read_text(encoding="utf-8"), metrics, name))
        values = json.loads((work / schema.MANIFEST).read_text(encoding="utf-8"))
        del values["sha256"]
        values["files"][file.name] |= {"sha256": sha256_file(file), "size": file.stat().st_size}
        write_atomic(work / schema.MANIFEST, schema.seal(values))

    write_folder(fill, folder)


def card(text: str, metrics: Mapping[str, Any], name: str) -> str:
    """Model card ``text`` with what there is to say about the starter; an older such part is replaced."""
    rows = []
    for row in metrics["per_source"]:
        one, policy = row["argmax"], row["policy"]
        cells = [one["auroc"], policy["fnr"], policy["fpr"]]
        coverage = policy["coverage"]["value"]
        rows.append(
            f"| {row['source']} | {row['n']} | {row['n_groups']} | {row['n_roadwork']} | "
            + " | ".join(cell["text"] for cell in cells)
            + f" | {round((1 - coverage) * row['n'])} |"
        )
    kept = text.partition(_HEADING)[0].rstrip("\n") + "\n"
    return kept + _DATA.format(name=name, rows="\n".join(rows), positives=metrics["n_roadwork"])


def _renamed(metrics: Any, old: str, new: str) -> Any:
    return json.loads(json.dumps(metrics).replace(json.dumps(old)[1:-1], new))


if __name__ == "__main__":
    main()
