from __future__ import annotations

import numpy as np
import pytest

from workzone import metrics as m


def _calibrated(n: int, seed: int = 0, scale: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-rng.normal(0, scale, n)))
    return (rng.random(n) < p).astype(int), p


def test_ece_by_hand() -> None:
    y, p = [0, 1, 1, 1], [0.1, 0.12, 0.9, 1.0]
    # Bins of width 1/2: (0.22 - 1) / 4 and (1.9 - 2) / 4.
    assert m.ece(y, p, 2) == pytest.approx((0.78 + 0.1) / 4)
    assert m.ece(y, p, 1) == pytest.approx(0.88 / 4)
    assert m.ece_classwise(y, p, 2) == pytest.approx(m.ece(y, p, 2))


def test_base_rate_has_no_calibration_error_and_no_skill() -> None:
    y = np.r_[np.ones(40, dtype=int), np.zeros(60, dtype=int)]
    p = np.full(100, 0.4)
    assert m.ece(y, p) == pytest.approx(0)
    assert m.smooth_ece(y, p) < 0.002
    assert m.brier_skill(y, p) == pytest.approx(0)
    assert m.brier(y, p) == pytest.approx(0.24)


def test_debiased_is_near_zero_where_plain_ece_is_not() -> None:
    values = [(m.ece_debiased(*_calibrated(715, s)), m.ece(*_calibrated(715, s))) for s in range(40)]
    debiased, plain = np.mean(values, axis=0)
    assert abs(debiased) < 0.012 < 0.02 < plain


def test_smooth_ece_of_a_known_shift() -> None:
    # A constant residual of 0.2 everywhere is kept by any smoothing, so the error is 0.2.
    rng = np.random.default_rng(1)
    p = rng.uniform(0.1, 0.7, 40_000)
    y = (rng.random(40_000) < p + 0.2).astype(int)
    assert m.smooth_ece(y, p) == pytest.approx(0.2, abs=0.01)


def test_smooth_ece_matches_the_definition() -> None:
    """Direct kernel sum with images of the reflected Gaussian, at the fixed point of width and error."""
    y, p = _calibrated(300, 3, scale=1.0)
    grid = (np.arange(4000) + 0.5) / 4000

    def error(width: float) -> float:
        total = np.zeros(len(grid))
        for shift in (-2, 0, 2):
            for sign in (1, -1):
                z = (grid[:, None] - (sign * p[None] + shift)) / width
                total += (np.exp(-0.5 * z**2) / (width * np.sqrt(2 * np.pi))) @ (y - p) / len(p)
        return float(np.abs(total).mean())

    found = m.smooth_ece(y, p)
    assert error(found) == pytest.approx(found, abs=1e-3)


def test_mce_ignores_sparse_bins() -> None:
    y = np.r_[np.zeros(19, dtype=int), np.ones(50, dtype=int)]
    p = np.r_[np.full(19, 0.9), np.full(50, 0.8)]
    assert m.mce(y, p) == pytest.approx(0.2)
    assert m.mce(y, p, min_per_bin=19) == pytest.approx(0.9)
    assert np.isnan(m.mce(y[:10], p[:10]))


def test_brier_decomposition_adds_up() -> None:
    y, p = _calibrated(500)
    d = m.brier_decomposition(y, p)
    assert d.brier == pytest.approx(d.reliability - d.resolution + d.uncertainty + d.within_bin)
    assert d.brier == pytest.approx(m.brier(y, p))
    assert abs(d.within_bin) < 0.005
    coarse = m.brier_decomposition(y, np.round(p, 1) * 0.9 + 0.05, 20)
    assert coarse.within_bin == pytest.approx(0, abs=1e-12)


def test_saturated_wrong_scores_have_a_finite_nll() -> None:
    assert m.nll([1, 0], [0.0, 1.0]) == pytest.approx(-np.log(1e-12))


@pytest.mark.stat
def test_spiegelhalter_z_is_standard_normal_if_calibrated() -> None:
    z = np.array([m.spiegelhalter_z(*_calibrated(400, s)) for s in range(400)])
    assert abs(z.mean()) < 0.2
    assert z.std() == pytest.approx(1, abs=0.12)
    y, p = _calibrated(4000)
    assert abs(m.spiegelhalter_z(y, p**2)) > 5


@pytest.mark.parametrize("scale", [3.0, 5.0, 8.0])
def test_a_calibrated_model_does_not_show_zero(scale: float) -> None:
    band = m.ece_null_band(_calibrated(715, 11, scale)[1])
    assert 0.023 <= band.mean <= 0.041
    assert band.mean < band.upper < 0.056


def test_milder_scores_have_a_higher_null_band() -> None:
    assert m.ece_null_band(_calibrated(715, 11, 1.0)[1]).mean > 0.041


def test_null_band_equals_a_loop() -> None:
    _, p = _calibrated(300)
    rng = np.random.default_rng(5)
    for mass in (False, True):
        loop = [m.ece((rng.random(300) < p).astype(int), p, equal_mass=mass) for _ in range(1500)]
        band = m.ece_null_band(p, equal_mass=mass, n_resamples=4000)
        assert band.mean == pytest.approx(np.mean(loop), abs=0.001)
        assert band.upper == pytest.approx(np.quantile(loop, 0.95), abs=0.003)


def test_verdict() -> None:
    y, p = _calibrated(2000)
    fine, bad = m.ece_verdict(y, p), m.ece_verdict(y, p**3)
    assert fine.verdict == "cannot be told from 0"
    assert bad.verdict == "miscalibrated"
    assert bad.ece > bad.null_95 > bad.null_mean
    assert "cannot be told from 0" in str(fine)
    with pytest.raises(ValueError, match="at least one"):
        m.ece_null_band([])


@pytest.mark.stat
def test_verdict_rarely_accuses_a_calibrated_model() -> None:
    wrong = [m.ece_verdict(*_calibrated(300, s), n_resamples=200).verdict == "miscalibrated" for s in range(300)]
    assert np.mean(wrong) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)


@pytest.mark.parametrize("mass", [False, True])
@pytest.mark.parametrize("interval", ["clopper-pearson", "wilson"])
def test_reliability_curve(mass: bool, interval: str) -> None:
    y, p = _calibrated(800)
    c = m.reliability_curve(y, p, 10, equal_mass=mass, interval=interval)
    assert c.count.sum() == 800
    assert len(c.edges) == 11
    assert ((c.low <= c.rate) & (c.rate <= c.high)).all()
    assert float(c.count @ np.abs(c.rate - c.probability)) / 800 == pytest.approx(m.ece(y, p, 10, equal_mass=mass))
    with pytest.raises(ValueError, match="unknown interval"):
        m.reliability_curve(y, p, interval="wald")


@pytest.mark.parity
@pytest.mark.slow
def test_ece_and_mce_match_torchmetrics() -> None:
    torch = pytest.importorskip("torch")
    classification = pytest.importorskip("torchmetrics.classification")
    y, p = _calibrated(1000)
    p = p.astype(np.float32).astype(np.float64)
    for norm, ours in (("l1", m.ece(y, p)), ("max", m.mce(y, p, min_per_bin=1))):
        theirs = classification.BinaryCalibrationError(n_bins=15, norm=norm)(torch.tensor(p), torch.tensor(y))
        assert ours == pytest.approx(float(theirs), abs=1e-6)
