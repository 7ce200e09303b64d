"""Turn a finished run into the starter bundle that ships with the package.

    python tools/make_starter.py RUN [--name NAME]

The bundle is that of the run but for its golden cases, which are drawn scenes: images of others are not shipped. Its
records name the data by ``--name`` and not by where they lay. At most 10 MB.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from workzone.bundle.starter import STARTER
from workzone.bundle.write import write_bundle
from workzone.config.load import load_config
from workzone.data.synthetic import write_dataset
from workzone.pipeline.artifacts import Artifacts
from workzone.pipeline.phase import Context
from workzone.pipeline.phases import bundle
from workzone.pipeline.variants import main_variant

MOST_BYTES = 10_000_000
SCENES = 6
NOTE = """
## Starter

Trained on {name}: images gathered from public repositories, labelled by eye, most without a stated licence or
for research only. Good for a first look and for trying the tools. For anything that matters, train on your own images
(`workzone run data=FOLDER preset=small`) and read that report.
"""


def main() -> None:
    """Read the run, write the bundle."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--name", default="1,235 street images", help="what the data are called")
    args = parser.parse_args()
    artifacts = Artifacts(args.run.resolve())
    own = load_config([], file=artifacts.config)
    config = own.model_copy(update={"data": args.name, "out": Path("workzone-starter")})
    context = Context(bundle.SPEC, config, artifacts)
    parts = bundle.bundle_parts(context, main_variant(config))
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder), SCENES, seed=7)
        images = sorted(Path(folder).rglob("*.jpg"))[:SCENES]
        starter = replace(
            parts,
            golden_images=images,
            # Drawn scenes may lie near a threshold, where another processor may decide otherwise.
            compare_decisions=False,
            tolerance=max(parts.tolerance, 0.5),
            metrics=_renamed(parts.metrics, own.data, args.name),
            card=parts.card + NOTE.format(name=args.name),
        )
        write_bundle(starter, STARTER)
    size = sum(p.stat().st_size for p in STARTER.rglob("*") if p.is_file())
    if size > MOST_BYTES:
        raise SystemExit(f"the starter bundle has {size / 1e6:.1f} MB, more than {MOST_BYTES / 1e6:.0f}")
    print(f"{STARTER}: {size / 1e6:.1f} MB")


def _renamed(metrics: Any, old: str, new: str) -> Any:
    return json.loads(json.dumps(metrics).replace(json.dumps(old)[1:-1], new))


if __name__ == "__main__":
    main()
