"""A made-up detector on made-up sources, some harder than others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from workzone.config.run import EvaluateConfig
from workzone.decisions.certificate import Certificate, Guarantee
from workzone.decisions.types import Code, Decisions
from workzone.evaluation.inputs import Evaluated, OneView
from workzone.predictions import Predictions, sigmoid

# name, share of images, share of roadwork, separation of the scores
SOURCES = (("harbour", 0.4, 0.15, 3.2), ("ring", 0.3, 0.45, 2.2), ("alley", 0.2, 0.3, 1.0), ("campus", 0.1, 0.0, 2.5))


def decisions(probability: Any, low: float, high: float) -> Decisions:
    codes = np.full(len(probability), Code.ABSTAIN, dtype=np.int8)
    codes[probability < low] = Code.NO_ROADWORK
    codes[probability >= high] = Code.ROADWORK
    reasons = ["abstained: between the two thresholds" if c == -1 else "beyond a threshold" for c in codes]
    return Decisions(codes, probability, np.stack([codes != 1, codes != 0], axis=1), reasons)


def certificate(status: str, *, alpha: float = 0.1) -> Certificate:
    guarantee = Guarantee(
        risk="false_negative_rate",
        status=status,
        alpha=alpha,
        delta=0.05,
        method="Clopper-Pearson, fixed sequence",  # type: ignore[arg-type]
        n=60,
        errors=1,
        bound=0.077,
        needed=93,
        reason="60 images with roadwork and 1 error are too few; 93 would be needed.",
    )
    return Certificate(
        guarantees=(guarantee,),
        engine="onnxruntime-fp32",
        engine_sha256="a" * 64,
        preprocessing_sha256="b" * 64,
        calibrator_sha256="c" * 64,
        policy_sha256="d" * 64,
        split_sha256="e" * 64,
        calibration_images_sha256="f" * 64,
        certification_images_sha256="0" * 64,
        n_calibration=120,
        n_certification=130,
        n_certification_groups=118,
        prevalence=0.25,
        created="2026-01-01T00:00:00Z",
    )


def build(
    n: int = 250,
    *,
    seed: int = 0,
    low: float = 0.12,
    high: float = 0.6,
    sources: Any = SOURCES,
    one_view: bool = True,
    status: str | None = "not_certifiable",
    columns: dict[str, Any] | None = None,
    **fields: Any,
) -> Evaluated:
    rng = np.random.default_rng(seed)
    which = rng.choice(len(sources), n, p=np.array([s[1] for s in sources]) / sum(s[1] for s in sources))
    labels = (rng.random(n) < np.array([s[2] for s in sources])[which]).astype(np.int64)
    strength = np.array([s[3] for s in sources])[which]
    rate = np.clip([s[2] for s in sources], 0.05, 0.95)
    base = np.log(rate / (1 - rate))[which]
    log_odds = strength * (2 * labels - 1) + base + rng.normal(0, np.sqrt(2 * strength))
    weaker = 0.6 * log_odds + rng.normal(0, 1.3, n)
    hour = np.array([None if rng.random() < 0.15 else int(v) for v in rng.choice(24, n)], dtype=object)
    known = {
        "source": np.array([s[0] for s in sources])[which],
        "group": np.array([f"{sources[w][0]}-{rng.integers(max(2, n // 12))}" for w in which]),
        "hour": hour,
        "weather": rng.choice(np.array(["clear", "rain", "", "snow"], dtype=object), n, p=[0.5, 0.25, 0.2, 0.05]),
        "path": np.array([f"images/{i}.jpg" for i in range(n)]),
        **(columns or {}),
    }
    p = sigmoid(log_odds)
    given: dict[str, Any] = {
        "predictions": Predictions(np.array([f"img-{i:04d}" for i in range(n)]), 1.3 * log_odds, labels, columns=known),
        "probability": p,
        "decisions": decisions(p, low, high),
        "policy": {"policy": "threshold", "parameters": {"t_low": low, "t_high": high, "min_coverage": 0.7}},
        "one_view": OneView(weaker, sigmoid(weaker), decisions(sigmoid(weaker), low, high)) if one_view else None,
        "calibrators": [
            {"name": "temperature", "cv_nll": 0.312, "brier": 0.094, "chosen": True},
            {"name": "isotonic", "cv_nll": 0.371, "brier": 0.101, "chosen": False},
        ],
        "certificate": None if status is None else certificate(status),
        "meta": {
            "run": "streets",
            "data": "synthetic",
            "engine": "onnxruntime",
            "precision": "fp32",
            "views": "grid 3 x 3",
        },
    }
    return Evaluated(**(given | fields))


@pytest.fixture(scope="session")
def make() -> Callable[..., Evaluated]:
    return build


@pytest.fixture(scope="session")
def quick() -> EvaluateConfig:
    return EvaluateConfig(resamples=100, gallery=6)
