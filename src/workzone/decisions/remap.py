"""Move a decision threshold to 0.5, for consumers that can only cut there."""

from __future__ import annotations

import numpy as np

from workzone.predictions import FloatArray


def remap(probability: FloatArray, threshold: float) -> FloatArray:
    """Shift the log-odds of ``probability`` by those of ``threshold``, so that ``threshold`` becomes 0.5.

    ``logit p' = logit p - logit t``, computed on odds so that 0, t and 1 go to exactly 0, 0.5 and 1. The ranking is
    kept, but the result is no longer a calibrated probability. A consumer that rounds half to even reads exactly 0.5 as
    "no".

    Args:
        probability: (N,) in [0, 1].
        threshold: strictly between 0 and 1.

    Raises:
        ValueError: a threshold of 0, 1 or beyond.
    """
    if not 0.0 < threshold < 1.0:
        raise ValueError("threshold must lie strictly between 0 and 1")
    p = np.asarray(probability, dtype=np.float64)
    for_roadwork = p * (1.0 - threshold)
    return np.asarray(for_roadwork / (for_roadwork + (1.0 - p) * threshold), dtype=np.float64)
