from __future__ import annotations

import numpy as np

from workzone.evaluation.shortcuts import find_shortcuts


def facts(n: int = 400) -> tuple[dict[str, np.ndarray], np.ndarray, list[str]]:
    rng = np.random.default_rng(0)
    labels = (rng.random(n) < 0.4).astype(np.int64)
    source = np.where(rng.random(n) < 0.8, np.where(labels == 1, "city", "country"), "village")
    size = np.stack([rng.normal(640, 5, n), rng.normal(480, 5, n)], axis=1)
    return {"source": source, "image size": size, "one": np.full(n, "same")}, labels, [f"g{i // 2}" for i in range(n)]


def test_a_source_that_tells_the_label_is_told_and_chance_is_not() -> None:
    given, labels, groups = facts()
    found = {s.name: s for s in find_shortcuts(given, labels, groups, resamples=300)}
    assert set(found) == {"source", "image size"}
    assert next(iter(found)) == "source"
    assert found["source"].auroc.value > 0.85
    assert found["source"].told
    assert found["source"].values == 3
    assert found["source"].groups == 200
    assert not found["image size"].told


def test_a_fact_that_only_names_the_group_knows_nothing() -> None:
    _, labels, groups = facts()
    of_group = np.repeat(labels[::2], 2)
    name = {"camera": np.array(groups), "leak": of_group.astype(np.float64)}
    found = {s.name: s for s in find_shortcuts(name, of_group, groups, resamples=300)}
    assert found["leak"].auroc.value == 1.0
    # Every camera is one group, so out of fold its value has never been seen.
    assert found["camera"].auroc.low < 0.5 < found["camera"].auroc.high


def test_without_groups_of_both_classes_nothing_is_measured() -> None:
    given, labels, _ = facts()
    assert find_shortcuts(given, labels, ["one"] * len(labels)) == []
    assert find_shortcuts(given, np.zeros_like(labels), [str(i) for i in range(len(labels))]) == []
