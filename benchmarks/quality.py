"""Precision and recall of ``workzone data quality`` on planted copies, faults and wrong labels.

    python benchmarks/quality.py DATA [--copies 120] [--faults 40] [--flips 0.05] [--seeds 3] [--out FILE]

DATA is a table or folder of labelled images; nothing in it is changed. Copies are saved again as JPEG of quality
30 to 75, resized to 40 to 90 percent, or both, under new ids and groups. Faults are heavy blur, light cut to 6 percent,
and flat pictures. Labels are flipped at random, anew for each seed. A finding that was not planted counts as wrong,
though the data may hold errors of their own, so precision is a lower bound. Intervals are 95 percent Wilson intervals.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image, ImageFilter

from workzone.bundle.embedding import ViewEmbeddings
from workzone.data.manifest import Manifest
from workzone.data.quality.duplicates import find_clusters
from workzone.data.quality.inspect import CONFIDENCE
from workzone.data.quality.labels import find_label_doubts, out_of_fold
from workzone.data.quality.measures import Measures, measure_files
from workzone.data.sources.build import build_manifest, fill, read_facts
from workzone.data.units import find_units
from workzone.metrics.proportions import wilson
from workzone.pipeline.embedding import embed_manifest, picture_and_tiles, tool_config, whole_picture
from workzone.vision.decode import decode


def plant(manifest: Manifest, rows: Any, folder: Path, kind: str, rng: np.random.Generator) -> Manifest:
    """Images made of ``rows``, with the labels of their originals and ids that name kind and original."""
    records, facts = [], []
    for turn, row in enumerate(rows.tolist()):
        image = decode(manifest.paths[row])
        quality = 92
        if kind == "copy":
            if turn % 3 != 0:
                scale = rng.uniform(0.4, 0.9)
                image = image.resize((max(16, round(image.width * scale)), max(16, round(image.height * scale))))
            quality = int(rng.integers(30, 76)) if turn % 3 != 1 else 92
        elif kind == "blurred":
            image = image.filter(ImageFilter.GaussianBlur(max(image.size) / 60))
        elif kind == "dark":
            image = image.point(lambda v: round(v * 0.06))
        else:
            image = Image.new("RGB", image.size, tuple(int(v) for v in rng.integers(30, 226, 3)))
        path = folder / f"{kind}_{turn}.jpg"
        image.save(path, quality=quality)
        original = manifest.frame["id"][row]
        name = f"{kind}:{turn}:{original}"
        records.append({"id": name, "path": str(path), "label": manifest.frame["label"][row], "group": name})
        facts.append(read_facts(path))
    columns = dict(manifest.frame.schema.items())
    frame = pl.DataFrame(records, schema={c: columns[c] for c in ("id", "path", "label", "group")})
    blank = [pl.lit(None, dtype=t).alias(c) for c, t in columns.items() if c not in frame.columns]
    return Manifest(fill(frame.with_columns(blank).select(list(columns)), facts), folder)


def share(k: int, n: int) -> dict[str, Any]:
    if not n:
        return {"k": k, "n": n, "value": None, "low": None, "high": None}
    low, high = wilson(k, n)
    return {"k": k, "n": n, "value": k / n, "low": float(low), "high": float(high)}


def show(name: str, s: dict[str, Any]) -> None:
    value = "none" if s["value"] is None else f"{s['value']:.3f} [{s['low']:.3f}, {s['high']:.3f}]"
    print(f"{name:<44} {s['k']:>4} of {s['n']:<5} {value}", flush=True)


def copies(manifest: Manifest, measured: list[Any], embeddings: Any) -> dict[str, Any]:
    """Of the planted copies, those that are clustered with their original; of the clustered pairs, those planted."""
    squares = np.stack([m.square for m in measured])
    ids = manifest.frame["id"].to_list()
    planted = {(i.split(":", 2)[2], i) for i in ids if i.startswith("copy:")}
    out: dict[str, Any] = {}
    for name, kinds in (("near_duplicate", ("exact_copy", "near_duplicate")),):
        pairs = set()
        for cluster in find_clusters(manifest, squares=squares, embeddings=embeddings):
            if cluster.kind in kinds:
                names = [ids[i] for i in cluster.members]
                pairs |= {(a, b) for a in names for b in names if not a.startswith("copy:") and a != b}
        found = planted & pairs
        out[name] = {"recall": share(len(found), len(planted)), "precision": share(len(found), len(pairs))}
    return out


def planted_faults(
    manifest: Manifest, args: Any, folder: Path, chosen: Any, rng: np.random.Generator, result: dict[str, Any]
) -> ViewEmbeddings:
    """Plant faults and copies, count what is found into ``result``, and return the embeddings of all images."""
    n = len(manifest)
    own: list[Any] = measure_files(manifest.paths)
    own_faults = [set(m.faults()) if isinstance(m, Measures) else set() for m in own]
    for place, kind in enumerate(("blurred", "dark", "blank")):
        rows = chosen[place * args.faults : (place + 1) * args.faults]
        planted = plant(manifest, rows, folder, kind, rng)
        found = [kind in m.faults() for m in measure_files(planted.paths) if isinstance(m, Measures)]
        result[kind] = {
            "recall": share(sum(found), len(found)), "flagged_without": share(sum(kind in f for f in own_faults), n)
        }  # fmt: skip
        show(f"{kind}: planted that were found", result[kind]["recall"])
        show(f"{kind}: flagged among images as they are", result[kind]["flagged_without"])
    extra = plant(manifest, chosen[: args.copies], folder, "copy", rng)
    both = Manifest(
        pl.concat([m.frame.with_columns(pl.Series("path", [str(p) for p in m.paths])) for m in (manifest, extra)]),
        Path("/"),
    )
    config = tool_config(args.data, folder, [])
    views = embed_manifest(both, config, folder=folder / "backbone")
    result["copies"] = copies(both, own + list(measure_files(extra.paths)), whole_picture(views))
    for kind, figures in result["copies"].items():
        for what, s in figures.items():
            show(f"copies, {kind}: {what}", s)
    return views


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--copies", type=int, default=120)
    parser.add_argument("--faults", type=int, default=40)
    parser.add_argument("--flips", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only-labels", action="store_true", help="flip labels, plant nothing else")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    manifest = build_manifest(args.data)
    n = len(manifest)
    result: dict[str, Any] = {"images": n}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chosen = rng.permutation(n)
        if args.only_labels:
            views = embed_manifest(manifest, tool_config(args.data, folder, []), folder=folder / "backbone")
        else:
            views = planted_faults(manifest, args, folder, chosen, rng, result)
        features = picture_and_tiles(views)[:n]
        labels = manifest.frame["label"].to_numpy().astype(np.int64)
        units = find_units(manifest)
        before = set(find_label_doubts(labels, out_of_fold(features, labels, units)).rows.tolist())
        print(f"label doubts among images as they are: {len(before)}")
        total = np.zeros(4, dtype=np.int64)
        by_class = np.zeros((2, 2), dtype=np.int64)
        queue = np.zeros(4, dtype=np.int64)
        rows_out = []
        for seed in range(args.seeds):
            flipped = np.random.default_rng(100 + seed).choice(n, round(args.flips * n), replace=False)
            given = labels.copy()
            given[flipped] = 1 - given[flipped]
            doubts = find_label_doubts(given, out_of_fold(features, given, units, seed=seed))
            listed = set(doubts.rows.tolist())
            hit = listed & set(flipped.tolist())
            total += [len(hit), len(flipped), len(listed), len(listed - before - hit)]
            for c in (0, 1):
                of_class = [i for i in flipped.tolist() if labels[i] == c]
                by_class[c] += [len(set(of_class) & hit), len(of_class)]
            top = doubts.rows[: len(flipped)].tolist()
            rows_out.append({"seed": seed, "hits": len(hit), "listed": len(listed), "top": len(set(top) & hit)})
            sure = set(doubts.rows[doubts.probability >= CONFIDENCE].tolist())
            queue += [len(sure & set(flipped.tolist())), len(flipped), len(sure), len(sure - before - hit)]
            print(
                f"  seed {seed}: {len(flipped)} flipped, {len(listed)} listed, {len(hit)} of them flipped", flush=True
            )
        hits, planted_n, listed_n, new_wrong = (int(v) for v in total)
        result["labels"] = {
            "recall": share(hits, planted_n),
            "recall_no_roadwork": share(*(int(v) for v in by_class[0])),
            "recall_roadwork": share(*(int(v) for v in by_class[1])),
            "precision": share(hits, listed_n),
            "precision_new": share(hits, hits + new_wrong),
            "chance": args.flips,
            "doubts_before": len(before),
            "seeds": rows_out,
        }
        found, planted_n, sure_n, sure_wrong = (int(v) for v in queue)
        result["labels"] |= {
            "recall_queue": share(found, planted_n),
            "precision_queue": share(found, sure_n),
            "precision_new_queue": share(found, found + sure_wrong),
        }
        for what in [k for k, v in result["labels"].items() if isinstance(v, dict)]:
            show(f"labels: {what}", result["labels"][what])
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
