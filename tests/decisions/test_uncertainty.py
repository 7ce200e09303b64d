"""Uncertainty measures from views, samples and evidence: limits, masks, identities."""

from __future__ import annotations

import numpy as np
import pytest

from workzone.decisions.uncertainty import (
    CERTAINTY,
    MEASURES,
    SEVEN,
    binary_entropy,
    embedding_variance,
    entropy,
    from_evidence,
    from_samples,
    from_views,
    p_norm_max_logit,
    require_entropy_threshold,
)
from workzone.errors import ConfigError
from workzone.predictions import sigmoid


def drawn(n: int = 200, v: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    u = rng.normal(size=(n, v)) * 3
    u[rng.random((n, v)) < 0.3] = np.nan
    u[:, 0] = rng.normal(size=n)
    return sigmoid(np.nanmax(u, axis=1)), u, rng.normal(size=(n, v, 4))


def test_all_seven_and_more_are_there_and_within_their_limits() -> None:
    found = from_views(*drawn())
    assert set(SEVEN) <= set(found)
    assert set(found) == set(MEASURES) - {"vacuity"}
    tops = {"max_probability": 1.0, "entropy": np.log(2), "view_variance": 0.25, "max_minus_mean": 1.0}
    tops |= {"view_disagreement": 0.5, "expected_entropy": np.log(2), "mutual_information": np.log(2)}
    for name, values in found.items():
        assert values.shape == (200,)
        assert np.isfinite(values).all()
        assert (values >= 0).all()
        assert (values <= tops.get(name, np.inf)).all()
    assert (found["max_probability"] >= 0.5).all()
    assert "embedding_variance" not in from_views(*drawn()[:2])


def test_missing_views_are_as_if_they_were_not_there() -> None:
    p, u, e = drawn()
    together = from_views(p, u, e)
    for i in range(40):
        seen = ~np.isnan(u[i])
        alone = from_views(p[i : i + 1], u[i : i + 1, seen], e[i : i + 1, seen])
        for name, values in together.items():
            assert values[i] == pytest.approx(alone[name][0], abs=1e-12), name
    order = np.array([3, 0, 4, 2, 1])
    for name, values in from_views(p, u[:, order], e[:, order]).items():
        assert values == pytest.approx(together[name], abs=1e-12)


def test_values_by_hand() -> None:
    u = np.array([[np.log(4), -np.log(4), np.nan]])
    found = from_views(np.array([0.9]), u, np.array([[[0.0, 2.0], [2.0, 2.0], [np.nan, np.inf]]]))
    assert found["max_probability"][0] == 0.9
    assert found["view_variance"][0] == pytest.approx(0.09)
    assert found["max_minus_mean"][0] == pytest.approx(0.3)
    assert found["view_disagreement"][0] == 0.5
    assert found["embedding_variance"][0] == pytest.approx(0.5)
    assert found["expected_entropy"][0] == pytest.approx(float(binary_entropy(np.array(0.8))))
    assert found["mutual_information"][0] == pytest.approx(np.log(2) - float(binary_entropy(np.array(0.8))))
    assert found["p_norm_max_logit"][0] == pytest.approx(1.0)
    assert "p_norm_max_logit" not in CERTAINTY
    peak = from_views(np.array([0.9]), np.array([[3.0, 0.0, 0.0, 0.0]]), p_norm=2.0)["p_norm_max_logit"]
    assert peak[0] == pytest.approx(2.0)


def test_one_view_and_extreme_views() -> None:
    found = from_views(np.array([0.7, 1.0, 0.0]), np.array([[0.3], [np.inf], [-np.inf]]))
    for name in ("view_variance", "max_minus_mean", "view_disagreement", "mutual_information"):
        assert found[name].tolist() == [0.0, 0.0, 0.0]
    assert found["entropy"].tolist()[1:] == [0.0, 0.0]
    apart = from_views(np.array([0.5]), np.array([[np.inf, -np.inf]]))
    assert apart["view_variance"][0] == pytest.approx(0.25)
    assert apart["mutual_information"][0] == pytest.approx(np.log(2))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="no view"):
        from_views(np.array([0.5]), np.array([[np.nan]]))
    with pytest.raises(ValueError, match="expected probability"):
        from_views(np.array([0.5]), np.array([0.5]))
    with pytest.raises(ValueError, match="view_embeddings"):
        from_views(np.array([0.5]), np.array([[0.5]]), np.zeros((1, 2, 3)))


def test_entropy_is_at_most_ln_k_and_a_threshold_above_it_is_refused() -> None:
    for k in (2, 3, 7):
        assert np.log(k) - 1e-12 < entropy(np.full(k, 1 / k)) <= np.log(k)
        assert entropy(np.eye(k)[0]) == 0.0
        assert require_entropy_threshold(np.log(k) - 0.01, k) == np.log(k) - 0.01
    with pytest.raises(ConfigError, match=r"0\.6931"):
        require_entropy_threshold(1.5)
    require_entropy_threshold(1.5, classes=5)


def test_samples() -> None:
    p, found = from_samples(np.array([[0.2, 0.5, 1.0], [0.8, 0.5, 1.0]]))
    assert p == pytest.approx([0.5, 0.5, 1.0])
    assert found["entropy"] == pytest.approx([np.log(2), np.log(2), 0.0])
    assert found["mutual_information"] == pytest.approx([np.log(2) - float(binary_entropy(np.array(0.2))), 0.0, 0.0])
    assert found["view_variance"] == pytest.approx([0.09, 0.0, 0.0])
    assert set(found) <= set(MEASURES)
    for wrong in (np.zeros((1, 3)), np.zeros(3), np.array([[0.5], [np.nan]]), np.array([[0.5], [1.5]])):
        with pytest.raises(ValueError, match="samples"):
            from_samples(wrong)


def test_evidence_agrees_with_sampling_from_the_dirichlet() -> None:
    alpha = np.array([[1.0, 1.0], [20.0, 2.0], [500.0, 500.0], [1.0, 1.5]])
    p, found = from_evidence(alpha)
    assert p.sum(axis=1) == pytest.approx(1.0)
    assert found["vacuity"] == pytest.approx([1.0, 2 / 22, 0.002, 0.8])
    rng = np.random.default_rng(0)
    for i, a in enumerate(alpha):
        q = rng.dirichlet(a, 200_000)
        assert found["expected_entropy"][i] == pytest.approx(entropy(q).mean(), abs=0.002)
        assert found["view_variance"][i] == pytest.approx(q[:, 1].var(), rel=0.02)
    assert found["mutual_information"][2] < 0.001 < found["mutual_information"][0]
    assert set(found) <= set(MEASURES)
    for wrong in (np.ones(3), np.ones((2, 1)), np.array([[1.0, 0.0]]), np.array([[1.0, np.inf]])):
        with pytest.raises(ValueError, match=r"alpha|Dirichlet"):
            from_evidence(wrong)


def test_digamma() -> None:
    from scipy.special import digamma as reference

    from workzone.decisions.uncertainty.evidence import digamma

    x = np.geomspace(1e-3, 1e8, 400)
    assert digamma(x) == pytest.approx(reference(x), rel=1e-11, abs=1e-11)


def test_p_norm_max_logit_is_constant_for_two_classes_and_so_refused() -> None:
    z = np.random.default_rng(0).normal(size=(50, 4))
    found = p_norm_max_logit(z)
    assert np.ptp(found) > 0.1
    assert found == pytest.approx(p_norm_max_logit(7 * z + 3))
    with pytest.raises(ValueError, match="constant"):
        p_norm_max_logit(z[:, :2])


def test_embedding_variance_in_blocks_is_that_of_each_image() -> None:
    rng = np.random.default_rng(0)
    e = rng.normal(size=(600, 3, 4)).astype(np.float32)
    seen = rng.random((600, 3)) < 0.7
    seen[:, 0] = True
    e[~seen] = np.nan
    found = embedding_variance(e, seen)
    for i in (0, 255, 256, 599):
        assert found[i] == pytest.approx(e[i, seen[i]].astype(np.float64).var(axis=0).mean())
    with pytest.raises(ValueError, match="view_embeddings"):
        embedding_variance(e, seen[:5])
