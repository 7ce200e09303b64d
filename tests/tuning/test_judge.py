from __future__ import annotations

import numpy as np
import pytest

from workzone.errors import ConfigError
from workzone.metrics import auroc
from workzone.predictions import sigmoid
from workzone.tuning.grid import resolve, variants
from workzone.tuning.judge import Images, check_metric, group_weights, judge
from workzone.tuning.space import parse_space


def images(n: int = 400, seed: int = 0) -> Images:
    rng = np.random.default_rng(seed)
    source = rng.choice(["a", "b", "c"], n)
    labels = np.where(source == "c", 0, rng.random(n) < 0.4).astype(np.int64)
    groups = np.char.add(source, rng.integers(0, 30, n).astype(str))
    return Images(labels, groups, source)


def scores(of: Images, strength: float, seed: int) -> np.ndarray:
    return strength * (2 * of.labels - 1) + np.random.default_rng(seed).normal(0, 2, len(of.labels))


def test_figures_are_those_of_the_metrics_and_the_mean_over_sources() -> None:
    of = images()
    z = scores(of, 1.0, 1)
    row = judge(of, {"one": [z]}, ["auroc", "macro_auroc"], baseline="one", resamples=200, seed=0, fewest=5)[0]
    p = sigmoid(z)
    assert row["figures"]["auroc"].value == pytest.approx(auroc(of.labels, p))
    each = [auroc(of.labels[of.sources == s], p[of.sources == s]) for s in ("a", "b")]
    assert row["figures"]["macro_auroc"].value == pytest.approx(np.mean(each))
    assert [row["sources"][s].value for s in ("a", "b")] == pytest.approx(each)
    assert row["differences"]["auroc"].value == row["differences"]["auroc"].high == 0.0
    low, high = row["figures"]["auroc"].low, row["figures"]["auroc"].high
    assert low < row["figures"]["auroc"].value < high


def test_a_real_difference_is_told_and_repeats_are_averaged() -> None:
    of = images()
    weak, strong = [[scores(of, s, seed) for seed in (1, 2)] for s in (0.3, 2.0)]
    rows = judge(of, {"weak": weak, "strong": strong}, ["auroc"], baseline="weak", resamples=300, seed=0, fewest=5)
    difference = rows[1]["differences"]["auroc"]
    assert difference.low > 0.05
    expected = np.mean(
        [auroc(of.labels, sigmoid(b)) - auroc(of.labels, sigmoid(a)) for a, b in zip(weak, strong, strict=True)]
    )
    assert difference.value == pytest.approx(expected)


@pytest.mark.stat
def test_the_interval_of_no_difference_covers_zero_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(120):
        of = images(300, seed)
        a, b = scores(of, 1.0, 1000 + seed), scores(of, 1.0, 5000 + seed)
        row = judge(of, {"a": [a], "b": [b]}, ["auroc"], baseline="a", resamples=300, seed=seed, fewest=5)[1]
        covered += not row["differences"]["auroc"].told
    assert covered >= 106  # 95 % nominal: 114 of 120, five standard errors below


def test_whole_groups_are_drawn_within_their_source() -> None:
    of = images()
    w = group_weights(of.groups, 50, 0, strata=of.sources)
    assert (w[0] == 1).all()
    for group in np.unique(of.groups)[:10]:
        own = w[:, of.groups == group]
        assert (own == own[:, :1]).all()
    for source in "abc":
        names, first = np.unique(of.groups[of.sources == source], return_index=True)
        assert (w[:, np.flatnonzero(of.sources == source)[first]].sum(axis=1) == len(names)).all()
    with pytest.raises(ValueError, match="two strata"):
        group_weights(np.array(["g", "g"]), 5, 0, strata=np.array(["x", "y"]))


def test_unknown_metrics_are_named() -> None:
    check_metric("macro_mcc")
    with pytest.raises(ConfigError, match="macro_nonsense"):
        check_metric("macro_nonsense")


def test_variants_of_a_grid() -> None:
    found = variants(["fuse.k=2,3", "fuse.hidden=0,64"], ["big: fuse.hidden=256 fuse.k=5"])
    assert list(found) == [
        "baseline",
        "fuse.k=2 fuse.hidden=0",
        "fuse.k=2 fuse.hidden=64",
        "fuse.k=3 fuse.hidden=0",
        "fuse.k=3 fuse.hidden=64",
        "big",
    ]
    single = variants(["fuse.k=2,3", "fuse.hidden=0"], [], one_at_a_time=True)
    assert list(single) == ["baseline", "fuse.k=2", "fuse.k=3", "fuse.hidden=0"]
    for bad in (["fuse.k"], ["fuse.k="]):
        with pytest.raises(ConfigError):
            variants(bad, [])
    with pytest.raises(ConfigError, match="twice"):
        variants([], ["a: fuse.k=2", "a: fuse.k=3"])
    configs = resolve(["data=synthetic", "out=x"], found)
    assert configs["big"].fuse.k == 5
    assert resolve(["data=synthetic", "out=x", "fuse.k=4"], found)["big"].fuse.k == 5
    with pytest.raises(ConfigError, match=r"split"):
        resolve(["data=synthetic", "out=x"], {"baseline": [], "other": ["split.train=0.6", "split.val_test=0.2"]})


def test_search_spaces() -> None:
    axes = parse_space(
        ["fuse.lr=1e-4..1e-2:log", "fuse.k=2..5", "fuse.aggregator=topk_mean,logsumexp", "fuse.ema=0,0.9"]
    )
    assert axes[0].log
    assert axes[0].values(3) == pytest.approx([1e-4, 1e-3, 1e-2])
    assert axes[1].values(9) == [2, 3, 4, 5]
    assert axes[2].choices == ("topk_mean", "logsumexp")
    assert axes[3].choices == (0, 0.9)
    for bad in ("x", "x=", "x=3..1", "x=0..1:log", "x=a..b"):
        with pytest.raises(ConfigError):
            parse_space([bad])
