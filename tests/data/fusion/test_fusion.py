from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from workzone.data.fusion.combine import combine, keep_roles
from workzone.data.fusion.strategies import STRATEGIES, weigh
from workzone.data.manifest import Manifest
from workzone.data.roles import Role
from workzone.data.splits import Splits, make_splits
from workzone.errors import ConfigError, DataError


def part(name: str, positives: int, negatives: int, **columns: list) -> Manifest:
    n = positives + negatives
    rows = {
        "id": [f"{name}{i}" for i in range(n)],
        "path": [f"{i}.jpg" for i in range(n)],
        "label": [1] * positives + [0] * negatives,
        "group": [f"{i}" for i in range(n)],
        "source": [name] * n,
    }
    return Manifest.from_frame(pl.DataFrame(rows | columns), root=f"/{name}")


@pytest.fixture
def both() -> Manifest:
    hard = [None] * 30 + ["1"] * 10 + [None] * 60
    return combine({"a": part("a", 30, 70, hard_negative=hard), "b": part("b", 15, 5)}).manifest


def shares(manifest: Manifest, by: str, column: str) -> dict:
    frame = manifest.frame
    sums = frame.group_by(by).agg(pl.col(column).sum())
    return {k: v / frame[column].sum() for k, v in sums.rows()}


def test_every_image_keeps_its_origin_path_and_licence() -> None:
    done = combine(
        {"a": part("a", 1, 1, license=["CC", None]), "b": part("b", 1, 1, licence=["MIT", "MIT"], extra=[1, 2])}
    )
    frame = done.manifest.frame
    assert frame["origin"].to_list() == ["a", "a", "b", "b"]
    assert frame["license"].to_list() == ["CC", None, "MIT", "MIT"]
    assert [str(p) for p in done.manifest.paths] == ["/a/0.jpg", "/a/1.jpg", "/b/0.jpg", "/b/1.jpg"]
    assert frame["extra"].to_list() == [None, None, 1, 2]
    assert frame["id"].to_list() == ["a0", "a1", "b0", "b1"]
    # Equal names of groups in two sets are two groups.
    assert frame["group"].n_unique() == 4
    assert done.shared == 0
    assert done.unlicensed == {"a": 1, "b": 0}


def test_ids_that_clash_get_the_name_of_their_set() -> None:
    done = combine({"x": part("a", 1, 0), "y": part("a", 0, 1)})
    assert done.manifest.frame["id"].to_list() == ["x/a0", "y/a0"]
    assert done.manifest.frame["origin_id"].to_list() == ["a0", "a0"]


def test_copies_across_sets_share_a_group_and_are_told() -> None:
    one, other = "1" * 64, "2" * 64
    done = combine({"a": part("a", 1, 1, sha256=[one, other]), "b": part("b", 0, 2, sha256=[one, "3" * 64])})
    groups = done.manifest.frame["group"].to_list()
    assert groups[0] == groups[2]
    assert len(set(groups)) == 3
    assert (done.shared, done.copies, done.conflicts) == (1, 2, 1)
    near = combine({"a": part("a", 1, 0, phash=["0" * 16]), "b": part("b", 1, 0, phash=["0" * 15 + "7"])})
    assert near.manifest.frame["group"].n_unique() == 1


def test_columns_of_two_types_become_text() -> None:
    frame = combine({"a": part("a", 1, 0, mark=[1]), "b": part("b", 1, 0, mark=["x"])}).manifest.frame
    assert frame["mark"].to_list() == ["1", "x"]


def test_naive_leaves_the_sizes_alone(both: Manifest) -> None:
    done = weigh(both, "naive")
    assert shares(done, "origin", "sample_weight") == pytest.approx({"a": 100 / 120, "b": 20 / 120})
    assert set(done.frame["loss_weight"].to_list()) == {1.0}


def test_balanced_draws_classes_equally(both: Manifest) -> None:
    assert shares(weigh(both, "balanced"), "label", "sample_weight") == pytest.approx({0: 0.5, 1: 0.5})


def test_inverse_frequency_is_n_over_k_n_k_in_the_loss(both: Manifest) -> None:
    done = weigh(both, "inverse_frequency").frame
    assert set(done["sample_weight"].to_list()) == {1.0}
    of = dict(zip(done["label"].to_list(), done["loss_weight"].to_list(), strict=True))
    assert of == pytest.approx({1: 120 / (2 * 45), 0: 120 / (2 * 75)})


def test_domain_stratified_hides_the_set_from_the_label(both: Manifest) -> None:
    done = weigh(both, "domain_stratified")
    assert shares(done, "origin", "sample_weight") == pytest.approx({"a": 0.5, "b": 0.5})
    for name in ("a", "b"):
        own = Manifest(done.frame.filter(pl.col("origin") == name), done.root)
        assert shares(own, "label", "sample_weight") == pytest.approx({0: 0.5, 1: 0.5})


def test_hard_negatives_weigh_twice_and_only_negatives(both: Manifest) -> None:
    done = weigh(both, "hard_negative").frame
    assert (done["loss_weight"] == 2.0).sum() == 10
    assert done.filter(pl.col("loss_weight") == 2.0)["label"].unique().to_list() == [0]
    with pytest.raises(DataError, match="hard_negative"):
        weigh(combine({"b": part("b", 2, 2)}).manifest, "hard_negative")


@pytest.mark.parametrize("pair", [(50, 50), (70, 30), (30, 70), (1, 0)])
def test_ratios_are_met_whatever_the_sizes(both: Manifest, pair: tuple[float, float]) -> None:
    done = weigh(both, "ratio", ratios={"a": pair[0], "b": pair[1]})
    total = sum(pair)
    assert shares(done, "origin", "sample_weight") == pytest.approx({"a": pair[0] / total, "b": pair[1] / total})
    with pytest.raises(ConfigError, match="the ratios name"):
        weigh(both, "ratio", ratios={"a": 1})


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_weighs_labelled_images_and_no_others(both: Manifest, name: str) -> None:
    frame = both.frame.with_columns(
        pl.when(pl.col("id") == "a0").then(None).otherwise(pl.col("label")).cast(pl.Int8).alias("label")
    )
    done = weigh(Manifest(frame, both.root), name, ratios={"a": 1, "b": 1}).frame
    first, rest = done.filter(pl.col("id") == "a0"), done.filter(pl.col("id") != "a0")
    for column in ("sample_weight", "loss_weight"):
        assert first[column].to_list() == [None]
        values = rest[column].to_numpy()
        assert np.isfinite(values).all()
        assert (values > 0).all()
    assert rest["sample_weight"].mean() == pytest.approx(1.0)


def test_unknown_names_are_refused(both: Manifest) -> None:
    with pytest.raises(ConfigError, match="no strategy"):
        weigh(both, "best")
    with pytest.raises(ConfigError, match="no column"):
        weigh(both, "naive", by="planet")


def test_roles_of_an_earlier_split_are_kept_and_new_images_are_for_training() -> None:
    shas = [f"{i:064x}" for i in range(6)]
    old = part("a", 3, 3, sha256=shas)
    roles = dict(zip(old.frame["id"].to_list(), [Role.TRAIN] * 3 + [Role.VAL_TEST, Role.VAL_CALIB], strict=False))
    splits = Splits(roles, dict(zip(old.frame["id"].to_list(), shas, strict=True)))
    # The first new image is a copy of a test image, the second has the id of one and another content.
    new = part("b", 2, 1, id=["n0", "a3", "n2"], sha256=[shas[3], "f" * 64, "e" * 64])
    combined = combine({"a": old, "b": new}).manifest
    kept, without = keep_roles(combined, splits)
    found = dict(zip(zip(kept.frame["origin"], kept.frame["origin_id"], strict=True), kept.frame["split"], strict=True))
    assert [found["a", f"a{i}"] for i in range(6)] == ["train"] * 3 + ["val_test", "val_calib", "train"]
    assert found["b", "n0"] is None, "it would carry a test image into the training"
    assert (found["b", "a3"], found["b", "n2"]) == ("train", "train")
    assert without == 1
    assert make_splits(kept).ids(Role.VAL_TEST) == [i for i in kept.frame["id"].to_list() if i.endswith("a/a3")]
    with pytest.raises(DataError, match="none of the images"):
        keep_roles(combine({"b": part("c", 1, 1)}).manifest, splits)
    changed = part("a", 3, 3, sha256=["c" * 64, *shas[1:]])
    with pytest.raises(DataError, match="not the one that was split"):
        keep_roles(combine({"a": changed}).manifest, splits)
