"""Calibrate, decide and certify the scores of any binary detector; needs workzone[eval], not PyTorch.

    python examples/calibrate_your_own_scores.py [predictions.csv]

The table has the columns id, label (1 roadwork, 0 none), log_odds or probability, and, where images are not
independent, group. Without a table, scores of a made-up, overconfident detector are used. On the command line,
`workzone certify predictions.csv --out certified` does the same and writes it down.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from workzone import Predictions, decisions
from workzone.calibration.select import Selection, select
from workzone.data.roles import CalibData
from workzone.metrics.calibration import ece
from workzone.predictions import sigmoid


def made_up_scores(n: int = 3000) -> CalibData:
    """Scores whose log-odds are twice as large as they should be."""
    rng = np.random.default_rng(0)
    honest = rng.normal(-1.0, 3.0, n)
    labels = (rng.random(n) < sigmoid(honest)).astype(int)
    return CalibData.from_arrays(labels, 2.0 * honest)


def read_scores(path: Path) -> CalibData:
    """Scores of a table; whoever calls this vouches that no image of it was trained on."""
    table = Predictions.load(path)
    if table.labels is None:
        sys.exit(f"{path} has no column 'label'")
    groups = table.column("group") if "group" in table.columns else None
    return CalibData.from_arrays(table.labels, table.log_odds, groups=groups, ids=table.ids)


def fit(data: CalibData) -> tuple[Selection, decisions.Policy, CalibData]:
    """The choice of a calibrator, the certified policy, and the images the promise rests on."""
    # One part fits the calibrator, the other proves the promise: tested on images it was fitted to, a promise is void.
    first, second = data.disjoint_parts(0.4, seed=0)
    selection = select(first, ["temperature", "platt", "beta"], seed=0)
    policy = decisions.create("threshold", target_fnr=0.05, delta=0.05, if_not_certifiable="abstain")
    decisions.fit_policy(policy, selection.best, second, calibration=first)
    return selection, policy, second


def main() -> None:
    """Print the chosen calibrator, what it did, and the promise."""
    data = read_scores(Path(sys.argv[1])) if len(sys.argv) > 1 else made_up_scores()
    selection, policy, second = fit(data)
    calibrator = selection.best
    for row in selection.table:
        print(f"{row.name:12} cross-validated NLL {row.cv_nll:.4f}  {row.reason}")
    before = ece(second.labels, sigmoid(second.scores))
    after = ece(second.labels, calibrator(second.scores))
    print(f"ECE on the other part: {before:.3f} before, {after:.3f} after {calibrator.name}")

    for guarantee in policy.guarantees:
        print(guarantee.sentence())
    decided = policy.decide(calibrator(np.array([-8.0, 0.0, 8.0])))
    for log_odds, code, reason in zip((-8.0, 0.0, 8.0), decided.codes, decided.reasons, strict=True):
        print(f"log-odds {log_odds:+.1f}: {decisions.types.NAMES[int(code)]} ({reason})")


if __name__ == "__main__":
    main()
