"""A bundle in use, as far as the monitor looks at it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from workzone.bundle import schema
from workzone.bundle.engines import network_files
from workzone.decisions.certificate import Certificate, Guarantee
from workzone.files import write_atomic, write_json

START = datetime(2026, 5, 1, tzinfo=UTC)
NAMES = {1: "roadwork", 0: "no_roadwork", -1: "abstain"}


def make_bundle(folder: Path, *, name: str = "tiny", alpha: float = 0.02) -> Path:
    """What the monitor reads of a bundle: its manifest and its certificate."""
    sha = "0" * 64
    files = [*schema.REQUIRED, *(f"engine/{n}" for n in network_files("onnxruntime"))]
    values: dict[str, Any] = {
        "schema_version": 1,
        "name": name,
        "created": "2026-01-01T00:00:00+00:00",
        "workzone_version": "0.1.0",
        "engine": {"name": "onnxruntime", "precision": "fp32", "backbone": "tiny", "embedding_dim": 8},
        "files": {n: {"sha256": sha, "size": 1} for n in files},
        "lineage": {},
    }
    guarantee = Guarantee(
        risk="false_negative_rate", status="certified", alpha=alpha, delta=0.1, method="test", n=200, errors=0,
        bound=0.01,
    )  # fmt: skip
    certificate = Certificate(
        guarantees=(guarantee,), engine="onnxruntime-fp32", engine_sha256=sha, preprocessing_sha256=sha,
        calibrator_sha256=sha, policy_sha256=sha, split_sha256=sha, calibration_images_sha256=sha,
        certification_images_sha256=sha, n_calibration=10, n_certification=10, n_certification_groups=10,
        prevalence=0.5, created="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    folder.mkdir(parents=True)
    write_atomic(folder / schema.MANIFEST, schema.seal(values))
    write_json(folder / schema.CERTIFICATE, certificate.model_dump(mode="json"))
    return folder


def make_rows(
    rng: np.random.Generator, day: int, n: int, *, shift: float = 0.0, missed: float = 0.0
) -> list[dict[str, Any]]:
    """Calibrated predictions of one day with their labels; a share ``missed`` of roadwork is answered no_roadwork."""
    z = rng.normal(-0.5 + shift, 2.5, n)
    p = 1 / (1 + np.exp(-z))
    y = rng.random(n) < p
    code = np.where(p > 0.9, 1, np.where(p < 0.02, 0, -1))
    code = np.where(y & (rng.random(n) < missed), 0, code)
    seconds = np.sort(rng.integers(0, 86_400, n))
    return [
        {
            "id": f"{day}-{i}",
            "time": (START + timedelta(days=day, seconds=int(seconds[i]))).isoformat(),
            "probability": float(p[i]),
            "decision": NAMES[int(code[i])],
            "uncertainty": {"entropy": 0.5, "view_spread": float(rng.gamma(2.0))},
            "label": int(y[i]),
        }
        for i in range(n)
    ]
