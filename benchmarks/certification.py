"""How much of val_calib the calibrator should take, and which calibrators few images can bear.

    python benchmarks/certification.py predictions.csv [--shares 0.1 0.25 0.5] [--draws 200] [--out FILE]

The table has the columns id, label, log_odds or probability, and group, of images that the model was not trained on.
Each draw deals whole groups into a val_calib of the wanted share and the rest; val_calib is parted by each
``calibrate.fraction`` in turn, the calibrator is chosen and the thresholds are certified as in a run, and the rest says
what came of it. A second table fits each calibrator on the same first parts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workzone import decisions
from workzone.calibration import create
from workzone.calibration.select import select
from workzone.config.run import CalibrateConfig
from workzone.data.roles import CalibData
from workzone.metrics.calibration import nll
from workzone.predictions import Predictions

FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
LIMITS = (0.02, 0.05, 0.1)
MEMBERS = ("none", "temperature", "platt", "beta")


def one_draw(data: CalibData, share: float, seed: int) -> dict[float, dict[str, float]]:
    """What each fraction gave where ``share`` of the images are val_calib."""
    calib, rest = data.disjoint_parts(share, seed=seed)
    settings = CalibrateConfig()
    found = {}
    for fraction in FRACTIONS:
        first, second = calib.disjoint_parts(fraction, seed=seed)
        calibrator = select(first, settings.candidates, folds=settings.folds, seed=seed).best
        p = calibrator(rest.scores)
        row = {"nll": nll(rest.labels, p), "roadwork": float(first.n_positive)}
        row |= {f"nll {name}": nll(rest.labels, create(name).fit(first)(rest.scores)) for name in MEMBERS}
        for limit in LIMITS:
            policy = decisions.create("threshold", target_fnr=limit, if_not_certifiable="abstain")
            decisions.fit_policy(policy, calibrator, second, calibration=first)
            cleared = policy.decide(p).codes == decisions.types.Code.NO_ROADWORK
            row |= {
                f"certified {limit:g}": float(policy.guarantees[0].status == "certified"),
                f"cleared {limit:g}": float(cleared[rest.labels == 0].mean()),
            }
        found[fraction] = row
    return found


def quantiles(values: Sequence[float]) -> str:
    """Mean, and the middle 90 % of the draws."""
    v: NDArray[np.float64] = np.asarray(values)
    return f"{v.mean():.3f} ({np.quantile(v, 0.05):.3f} to {np.quantile(v, 0.95):.3f})"


def show(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    for cells in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(cells) + " |", flush=True)
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="predictions of images the model was not trained on, with groups")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.25, 0.5], help="shares of val_calib")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    table = Predictions.load(args.table)
    groups = table.column("group") if "group" in table.columns else None
    data = CalibData.from_arrays(table.labels, table.log_odds, groups=groups, ids=table.ids)
    print(f"{len(data)} images, {data.n_positive} roadwork, {len(np.unique(data.groups))} groups, {args.draws} draws")
    kept: dict[str, Any] = {}
    for share in args.shares:
        draws = [one_draw(data, share, seed) for seed in range(args.draws)]
        kept[f"{share:g}"] = {f"{f:g}": [d[f] for d in draws] for f in FRACTIONS}
        head = ["fraction", "roadwork", "NLL of the rest", "less that of 0.5"]
        rows = []
        for fraction in FRACTIONS:
            of = {key: [d[fraction][key] for d in draws] for key in draws[0][fraction]}
            less = [d[fraction]["nll"] - d[0.5]["nll"] for d in draws]
            shares = [[np.mean(of[f"{what} {limit:g}"]) for what in ("certified", "cleared")] for limit in LIMITS]
            cells = [f"{certified:.2f}, {cleared:.3f}" for certified, cleared in shares]
            size = f"{np.mean(of['roadwork']):.0f}"
            rows.append([f"{fraction:g}", size, quantiles(of["nll"]), quantiles(less), *cells])
        print(f"\nval_calib {share:g} of the images\n")
        show([*head, *(f"{limit:.0%}: certified, cleared" for limit in LIMITS)], rows)
        rows = [
            [f"{fraction:g}", *(quantiles([d[fraction][f"nll {name}"] for d in draws]) for name in MEMBERS)]
            for fraction in FRACTIONS
        ]
        show(["fraction", *(f"NLL, {name}" for name in MEMBERS)], rows)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()
