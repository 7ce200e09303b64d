"""Make reference.json from other people's code; needs an environment of its own.

    pip install probmetrics pytorch-minimize numba
    python tests/calibration/reference/make.py

Dirichlet calibration with ODIR has no installable library (dirichletcal does not build), so its reference is the loss
as published, minimised by scipy's L-BFGS-B.
"""

from __future__ import annotations

import json
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from probmetrics.calibrators import (
    BinaryHistogramBinningCalibrator,
    CDFSplineCalibrator,
    ETSCalibrator,
    VectorScalingCalibrator,
)
from probmetrics.distributions import CategoricalLogits
from scipy import optimize

warnings.filterwarnings("ignore")


def softmax(z: Any) -> Any:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def odir(log_p: Any, y: Any, lam: float, mu: float) -> Any:
    """Weights and biases (K, K + 1) at the minimum of NLL + lam/(K(K-1)) |off-diagonal|^2 + mu/K |bias|^2."""
    n, k = log_p.shape
    off, one_hot = 1 - np.eye(k), np.eye(k)[y]

    def loss(v: Any) -> Any:
        w, b = v[: k * k].reshape(k, k), v[k * k :]
        q = softmax(log_p @ w.T + b)
        g = (q - one_hot) / n
        value = -np.mean(np.log(q[np.arange(n), y])) + lam * np.sum((w * off) ** 2) / (k * (k - 1)) + mu * np.mean(b**2)
        return value, np.r_[(g.T @ log_p + 2 * lam * w * off / (k * (k - 1))).ravel(), g.sum(0) + 2 * mu * b / k]

    start = np.r_[np.eye(k).ravel(), np.zeros(k)]
    options = {"maxiter": 10_000, "maxfun": 100_000, "ftol": 1e-15, "gtol": 1e-10}
    v = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x
    return np.c_[v[: k * k].reshape(k, k), v[k * k :]]


def main() -> None:
    rng = np.random.default_rng(0)
    n = 400
    u = np.round(rng.normal(0.2, 2.5, n), 5)
    y = (rng.random(n) < 1 / (1 + np.exp(-(0.6 * u - 0.5)))).astype(int)
    # A share of labels at random, so that the uniform member of the ensemble gets weight.
    y = np.where(rng.random(n) < 0.15, rng.integers(0, 2, n), y)
    z = np.round(rng.normal(0, 2, (n, 3)), 4)
    z = z - z.mean(axis=1, keepdims=True)
    q = 0.85 * softmax(z * [0.5, 0.7, 0.4] + [0.3, 0.0, -0.4]) + 0.05
    labels = np.array([rng.choice(3, p=row) for row in q])

    p = 1 / (1 + np.exp(-u))
    at = np.linspace(-5, 5, 41)
    p_at = 1 / (1 + np.exp(-at))
    z_at = z[:40] * 1.3
    out: dict[str, Any] = {
        "versions": {name: version(name) for name in ("probmetrics", "scipy", "numpy")},
        "binary": {"log_odds": u.tolist(), "labels": y.tolist(), "at": at.tolist()},
        "classes": {"logits": z.tolist(), "labels": labels.tolist(), "at": z_at.tolist()},
        "reference": {},
    }
    reference = out["reference"]
    for loss in ("ce", "mse"):
        ets = ETSCalibrator(loss=loss)
        ets.fit(softmax(z), labels)
        reference[f"ets {loss}"] = {
            "temperature": float(ets.t_),
            "weights": np.asarray(ets.w_).tolist(),
            "probabilities": ets.predict_proba(softmax(z_at)).tolist(),
        }
    spline = CDFSplineCalibrator()
    spline.fit(np.c_[1 - p, p], y)
    reference["spline"] = spline.predict_proba(np.c_[1 - p_at, p_at])[:, 1].tolist()
    histogram = BinaryHistogramBinningCalibrator(n_bins=10, strategy="quantile")
    histogram.fit(np.c_[1 - p, p], y)
    reference["histogram"] = histogram.predict_proba(np.c_[1 - p_at, p_at])[:, 1].tolist()
    vector = VectorScalingCalibrator()
    vector.fit_torch(CategoricalLogits(torch.tensor(z)), torch.tensor(labels))
    scaled = vector.predict_proba_torch(CategoricalLogits(torch.tensor(z_at)))
    reference["vector"] = scaled.get_probs().numpy().tolist()
    log_p = np.log(softmax(z))
    for lam, mu in ((1e-4, 1e-4), (1e-2, 1.0)):
        reference[f"dirichlet {lam:g} {mu:g}"] = odir(log_p, labels, lam, mu).tolist()
    path = Path(__file__).with_name("reference.json")
    path.write_text(json.dumps(out) + "\n")
    print(path.stat().st_size, json.dumps(reference)[:2000])


if __name__ == "__main__":
    main()
