from __future__ import annotations

import numpy as np
import pytest

from workzone.decisions.remap import remap
from workzone.predictions import logit


@pytest.mark.parametrize("t", [1e-4, 0.03, 0.5, 0.7, 0.999])
def test_the_threshold_becomes_one_half_and_the_log_odds_shift(t: float) -> None:
    p = np.sort(np.random.default_rng(0).random(2000))
    q = remap(p, t)
    assert remap(np.array([0.0, t, 1.0]), t).tolist() == [0.0, 0.5, 1.0]
    assert np.array_equal(q >= 0.5, p >= t)
    assert (np.diff(q) >= 0).all()
    np.testing.assert_allclose(logit(q), logit(p) - logit(np.array(t)), atol=1e-8)
    np.testing.assert_allclose(remap(q, 1.0 - t), p, atol=1e-12)


@pytest.mark.parametrize("t", [0.0, 1.0, -0.5, float("nan")])
def test_impossible_thresholds(t: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        remap(np.array([0.5]), t)
