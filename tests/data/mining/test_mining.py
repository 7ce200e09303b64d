from __future__ import annotations

import numpy as np
import pytest

from workzone.data.mining.acquire import disagreement, entropy, k_centre_greedy, margin, rank
from workzone.data.mining.select import confident_mistakes, orange_candidates, pseudo_labels
from workzone.data.quality.orange import OrangeParts


def test_mistakes_are_confident_labelled_and_ordered() -> None:
    labels = np.array([0, 0, 1, 1, -1, 0])
    p = np.array([0.95, 0.6, 0.02, 0.99, 0.99, 0.91])
    assert confident_mistakes(labels, p).tolist() == [2, 0, 5]
    assert confident_mistakes(labels, p, confidence=0.99).tolist() == []


def test_orange_candidates_are_compact_and_not_labelled_roadwork() -> None:
    compact, sparse = OrangeParts(0.02, 0.01, 0.8, 1), OrangeParts(0.02, 0.01, 0.1, 1)
    labels, p = np.array([0, 0, 1, -1, 0]), np.array([0.1, 0.1, 0.1, 0.6, 0.1])
    rows, score = orange_candidates(labels, p, [compact, sparse, compact, compact, None])
    assert rows.tolist() == [0, 3]
    assert score == pytest.approx([0.009, 0.004])


def test_entropy_and_margin_by_hand() -> None:
    p = np.array([0.0, 0.5, 0.25, 1.0])
    assert entropy(p) == pytest.approx([0, 1, 0.811278, 0], abs=1e-6)
    assert margin(p) == pytest.approx([1, 0, 0.5, 1])


def test_disagreement_looks_at_existing_views_only() -> None:
    views = np.array([[0.0, 0.0, np.nan], [40.0, -40.0, np.nan], [40.0, -40.0, 40.0]])
    exists = np.isfinite(views)
    assert disagreement(views, exists) == pytest.approx([0, 0.5, np.std([1, 0, 1])], abs=1e-9)


def test_k_centre_takes_one_of_each_cluster_before_a_second() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(5)
    place = np.repeat(np.arange(5), [40, 30, 20, 5, 5])
    x = centres[place] + 0.02 * rng.normal(size=(100, 5))
    assert sorted(place[k_centre_greedy(x, 5)].tolist()) == [0, 1, 2, 3, 4]
    assert sorted(place[k_centre_greedy(x, 3, known=centres[:2])].tolist()) == [2, 3, 4]
    everything = k_centre_greedy(np.repeat(x[:3], 4, axis=0), 12)
    assert sorted(everything.tolist()) == list(range(12))


def test_rankings_choose_what_they_say() -> None:
    rng = np.random.default_rng(1)
    p, spread, x = rng.random(60), rng.random(60), rng.normal(size=(60, 8))
    assert rank("entropy", p, spread, x, 5).tolist() == np.argsort(np.abs(p - 0.5))[:5].tolist()
    assert rank("margin", p, spread, x, 5).tolist() == rank("entropy", p, spread, x, 5).tolist()
    assert rank("disagreement", p, spread, x, 5).tolist() == np.argsort(-spread)[:5].tolist()
    mixed = rank("mixed", p, spread, x, 4)
    assert len(set(mixed.tolist())) == 4
    assert entropy(p[mixed]).mean() > entropy(p).mean()
    assert len(rank("diversity", p, spread, x, 100)) == 60


def test_pseudo_labels_are_sure_and_balanced() -> None:
    p = np.concatenate([np.linspace(0.0, 0.04, 80), np.linspace(0.96, 1.0, 10), np.full(30, 0.5)])
    equal = pseudo_labels(p, balance="equal")
    assert (equal.labels == 1).sum() == (equal.labels == 0).sum() == 10
    assert (equal.confidence >= 0.95).all()
    assert ((p[equal.rows] > 0.5) == (equal.labels == 1)).all()
    assert equal.eligible == (80, 10)
    # The surest of the larger class are the ones that stay.
    assert p[equal.rows[equal.labels == 0]].max() < 0.006
    prior = pseudo_labels(p, balance="prior", prior=0.2)
    assert ((prior.labels == 1).sum(), (prior.labels == 0).sum()) == (10, 40)
    free = pseudo_labels(p, balance="none", most=30)
    assert len(free.rows) == 30
    assert len(pseudo_labels(np.full(5, 0.5)).rows) == 0
    assert len(pseudo_labels(np.array([0.01, 0.02]), balance="equal").rows) == 0
