from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from workzone.streetvision.challenges import Pictures, Scored
from workzone.vision.streetvision.transforms import PROTOCOLS

HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"


def pictures(n: int, columns: dict[str, list[str]] | None = None, prefix: str = "") -> Pictures:
    """Images that exist in name only, the first half with roadwork."""
    ids = np.array([f"{prefix}{i}" for i in range(n)])
    labels = np.array([int(i < n // 2) for i in range(n)])
    given = {name: np.array(values) for name, values in (columns or {}).items()}
    return Pictures(ids, [Path(i) for i in ids], labels, ids, np.array([f"{prefix}hash{i}" for i in range(n)]), given)


def scored(
    p: np.ndarray, *, protocol: str = "2.0.4", columns: dict[str, list[str]] | None = None, prefix: str = ""
) -> Scored:
    """The scores ``p`` (N,) at every level."""
    probability = np.repeat(np.repeat(p[:, None, None], 4, axis=1), 2, axis=2).astype(float)
    codes = np.where(np.abs(probability - 0.5) < 0.05, -1, probability > 0.5).astype(np.int8)
    return Scored(pictures(len(p), columns, prefix), PROTOCOLS[protocol], probability, codes)


@pytest.fixture
def rates() -> Scored:
    """100 images answered at 0.5 with TPR = TNR = 0.98."""
    p = np.r_[np.full(49, 0.9), 0.2, np.full(49, 0.1), 0.8]
    return scored(p)
