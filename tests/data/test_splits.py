from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from workzone.data.manifest import Manifest
from workzone.data.roles import ROLE_TYPES, CalibData, Role
from workzone.data.splits import DEFAULT_FRACTIONS, Splits, make_splits, open_role, role_frame
from workzone.data.units import find_units, geographic_cell
from workzone.errors import DataError
from workzone.predictions import Predictions


def table(n_groups: int = 700, seed: int = 0, **columns: object) -> Manifest:
    rng = np.random.default_rng(seed)
    rows = []
    for g in range(n_groups):
        source = str(rng.choice(["north", "south", "video"], p=[0.5, 0.3, 0.2]))
        rate = {"north": 0.1, "south": 0.3, "video": 0.8}[source]
        size = int(rng.geometric(0.4)) if source == "video" else 1
        rows += [(f"g{g}_{k}", f"{g}_{k}.jpg", int(rng.random() < rate), source, f"g{g}") for k in range(size)]
    frame = pl.DataFrame(rows, schema=["id", "path", "label", "source", "group"], orient="row")
    return Manifest.from_frame(frame.with_columns(**columns), root="/data")  # type: ignore[arg-type]


def roles_by_group(manifest: Manifest, splits: Splits) -> dict[str, set[Role]]:
    found: dict[str, set[Role]] = {}
    for image_id, group in zip(manifest.frame["id"].to_list(), manifest.groups, strict=True):
        found.setdefault(group, set()).add(splits.assignment[image_id])
    return found


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_groups_stay_whole_fractions_are_near_and_both_classes_are_everywhere(seed: int) -> None:
    manifest = table()
    splits = make_splits(manifest, seed=seed)
    assert all(len(roles) == 1 for roles in roles_by_group(manifest, splits).values())
    assert len(splits.assignment) == len(manifest)
    frame = manifest.frame.with_columns(role=pl.Series([str(splits.assignment[i]) for i in manifest.frame["id"]]))
    for role, fraction in DEFAULT_FRACTIONS.items():
        mine = frame.filter(pl.col("role") == str(role))
        assert abs(mine.height / len(manifest) - fraction) < 0.01
        for source in ("north", "south", "video"):
            for label in (0, 1):
                cell = (pl.col("source") == source) & (pl.col("label") == label)
                assert abs(mine.filter(cell).height - fraction * frame.filter(cell).height) <= 3


def test_split_depends_on_the_seed_and_not_on_the_order_of_rows() -> None:
    manifest = table(200)
    first = make_splits(manifest, seed=3)
    assert first.fingerprint == make_splits(manifest, seed=3).fingerprint
    assert dict(first.assignment) != dict(make_splits(manifest, seed=4).assignment)
    shuffled = Manifest.from_frame(manifest.frame.sample(fraction=1.0, shuffle=True, seed=1), root="/data")
    assert make_splits(shuffled, seed=3).fingerprint == first.fingerprint


def test_few_groups_still_give_both_classes_to_each_role() -> None:
    labels = [1] * 4 + [0] * 4
    frame = pl.DataFrame({"id": [f"i{k}" for k in range(8)], "path": ["x.jpg"] * 8, "label": labels})
    splits = make_splits(Manifest.from_frame(frame, root="/"), seed=0)
    label_of = dict(zip(frame["id"].to_list(), labels, strict=True))
    for role in Role:
        assert Counter(label_of[i] for i in splits.ids(role)) == {0: 1, 1: 1}


def test_mixed_groups_are_shared_out() -> None:
    rows = [(f"m{g}_{k}", "x.jpg", k % 2, f"m{g}") for g in range(2) for k in range(20)]
    rows += [(f"p{g}", "x.jpg", 1, f"p{g}") for g in range(2)] + [(f"n{g}", "x.jpg", 0, f"n{g}") for g in range(2)]
    frame = pl.DataFrame(rows, schema=["id", "path", "label", "group"], orient="row")
    manifest = Manifest.from_frame(frame, root="/")
    splits = make_splits(manifest, seed=0)
    for role in Role:
        assert set(role_frame(manifest, splits, role)["label"].to_list()) == {0, 1}


def test_too_few_positive_groups_is_an_error_that_counts_them() -> None:
    frame = pl.DataFrame(
        {
            "id": [f"i{k}" for k in range(40)],
            "path": ["x.jpg"] * 40,
            "label": [1] * 20 + [0] * 20,
            "group": ["a"] * 10 + ["b"] * 10 + [f"n{k}" for k in range(20)],
        }
    )
    with pytest.raises(DataError, match="only 2 groups hold images labelled roadwork"):
        make_splits(Manifest.from_frame(frame, root="/"))


@pytest.mark.parametrize(
    "fractions", [{"train": 0.9}, {"train": 1.2, "val_test": -0.2}, {"train": 0.5, "test": 0.5}, {}]
)
def test_wrong_fractions_are_refused(fractions: dict[str, float]) -> None:
    with pytest.raises(DataError):
        make_splits(table(50), fractions)


def test_roles_with_fraction_zero_stay_empty() -> None:
    manifest = table(100)
    splits = make_splits(manifest, {"train": 0.8, "val_select": 0.0, "val_calib": 0.0, "val_test": 0.2})
    assert set(splits.assignment.values()) == {Role.TRAIN, Role.VAL_TEST}
    with pytest.raises(DataError, match="no labelled images"):
        open_role(manifest, splits, "val_calib")


def test_near_duplicates_share_a_role_unless_switched_off() -> None:
    rng = np.random.default_rng(0)
    hashes = [f"{int(h):016x}" for h in rng.integers(0, 2**63, 700)]
    base = table(700)
    own = Manifest.from_frame(base.frame.group_by("group", maintain_order=True).first().head(700), root="/")
    linked = [(k, k + 300) for k in range(0, 200, 5)]
    for a, b in linked:
        hashes[b] = f"{int(hashes[a], 16) ^ 0b1011:016x}"
    manifest = Manifest.from_frame(own.frame.with_columns(phash=pl.Series(hashes[: len(own)])), root="/")
    ids = manifest.frame["id"].to_list()
    joined = make_splits(manifest, seed=1).assignment
    assert all(joined[ids[a]] == joined[ids[b]] for a, b in linked)
    apart = make_splits(manifest, seed=1, near_duplicates=False).assignment
    assert any(apart[ids[a]] != apart[ids[b]] for a, b in linked)


def test_geographic_cells_join_neighbours() -> None:
    frame = pl.DataFrame(
        {
            "id": ["a", "b", "c", "d"],
            "path": ["x"] * 4,
            "latitude": [52.50010, 52.50012, 52.6, None],
            "longitude": [13.40010, 13.40012, 13.4, None],
        }
    )
    manifest = Manifest.from_frame(frame, root="/")
    assert find_units(manifest, cell_metres=100) == ["a", "a", "c", "d"]
    assert find_units(manifest) == ["a", "b", "c", "d"]
    with pytest.raises(ValueError, match="positive"):
        find_units(manifest, cell_metres=0)


@pytest.mark.parametrize("latitude", [0.0, 45.0, -70.0])
def test_cells_have_the_size_that_was_asked_for(latitude: float) -> None:
    steps = np.arange(0, 0.2, 1e-4)
    metres = 111_195 * np.cos(np.radians(latitude)) * 0.2
    cells = {geographic_cell(latitude, float(x), 500.0) for x in steps}
    assert len(cells) == pytest.approx(metres / 500.0, rel=0.05, abs=1.5)


def test_save_and_load(tmp_path: Path) -> None:
    manifest = table(
        100, sha256=pl.col("id").map_elements(lambda i: f"{hash(i) % 2**200:064x}", return_dtype=pl.String)
    )
    splits = make_splits(manifest, seed=5)
    again = Splits.load(splits.save(tmp_path / "splits.json"))
    assert again == splits
    assert again.fingerprint == splits.fingerprint
    assert set(again.content) == set(again.assignment)
    total = sum(n for by in again.counts.values() for labels in by.values() for n in labels.values())
    assert total == len(manifest)


def test_an_edited_split_file_is_refused_until_its_hash_is_removed(tmp_path: Path) -> None:
    file = make_splits(table(60)).save(tmp_path / "splits.json")
    raw = json.loads(file.read_text())
    first = next(iter(raw["assignment"]))
    raw["assignment"][first] = "val_test" if raw["assignment"][first] != "val_test" else "train"
    file.write_text(json.dumps(raw))
    with pytest.raises(DataError, match="changed after it was written"):
        Splits.load(file)
    del raw["hash"]
    file.write_text(json.dumps(raw))
    assert Splits.load(file).assignment[first] == raw["assignment"][first]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "no 'assignment'"),
        ('{"version": 9, "assignment": {}}', "version 9"),
        ('{"version": 1, "assignment": {"a": "dev"}}', "'dev' is no split role"),
        ('{"version": 1, "assignment": {"a": "train"}, "units": [1]}', "'units'"),
        ('{"version": 1, "assignment": {"a": "train"}, "fractions": [1]}', "malformed"),
        ('{"version": 1, "assignment": {"a": "train"}, "fractions": {"train": "x"}}', "malformed"),
        ('{"version": 1, "assignment": {"a": "train"}, "seed": "x"}', "malformed"),
        ("[" * 100_000, "it is no JSON"),
    ],
)
def test_broken_split_files(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "splits.json"
    file.write_text(content)
    with pytest.raises(DataError, match=message):
        Splits.load(file)


def test_a_given_split_is_obeyed_and_must_fit(tmp_path: Path) -> None:
    manifest = table(60)
    ids = manifest.frame["id"].to_list()
    given = {"version": 1, "assignment": {i: "val_calib" if k % 2 else "train" for k, i in enumerate(ids[:20])}}
    file = tmp_path / "splits.json"
    file.write_text(json.dumps(given))
    splits = make_splits(manifest, given=file)
    assert {i: str(r) for i, r in splits.assignment.items()} == given["assignment"]
    given["assignment"] |= {"stranger": "train"}  # type: ignore[operator]
    file.write_text(json.dumps(given))
    with pytest.raises(DataError, match="stranger"):
        make_splits(manifest, given=file)


def test_changed_content_is_noticed() -> None:
    manifest = table(60, sha256=pl.lit("a" * 64))
    splits = Splits({"g0_0": Role.TRAIN}, {"g0_0": "b" * 64})
    with pytest.raises(DataError, match="have changed"):
        make_splits(manifest, given=splits)


def test_a_split_column_is_obeyed() -> None:
    manifest = table(60)
    roles = [["train", "val_calib", None][k % 3] for k in range(len(manifest))]
    frame = manifest.frame.with_columns(split=pl.Series(roles))
    splits = make_splits(Manifest.from_frame(frame, root="/"), seed=9)
    want = {i: r for i, r in zip(manifest.frame["id"].to_list(), roles, strict=True) if r is not None}
    assert {i: str(r) for i, r in splits.assignment.items()} == want
    with pytest.raises(DataError, match=r"'validation' is no split role.*val_select"):
        make_splits(Manifest.from_frame(frame.with_columns(split=pl.lit("validation")), root="/"))


def test_unlabelled_images_are_train_or_nothing() -> None:
    base = table(200)
    extra = pl.DataFrame(
        {"id": [f"u{k}" for k in range(260)], "path": ["u.jpg"] * 260, "group": [f"g{k}" for k in range(260)]}
    )
    manifest = Manifest.from_frame(pl.concat([base.frame, extra], how="diagonal"), root="/")
    splits = make_splits(manifest, seed=0)
    groups = dict(zip(base.frame["id"].to_list(), base.groups, strict=True))
    train = {groups[i] for i in splits.ids(Role.TRAIN) if i in groups}
    for k in range(260):
        expected = Role.TRAIN if k >= 200 or f"g{k}" in train else None
        assert splits.assignment.get(f"u{k}") == expected
    assert open_role(manifest, splits, Role.TRAIN).n_positive > 0
    unlabelled = role_frame(manifest, splits, Role.TRAIN, labelled=False)
    assert 60 < unlabelled.height < 260
    assert role_frame(manifest, splits, Role.VAL_TEST, labelled=False).is_empty()


def test_whole_numbers_with_gaps_stay_whole_until_they_are_stored(tmp_path: Path) -> None:
    known = pl.col("label") == 1
    columns = {"hour": pl.when(known).then(7), "lanes": pl.col("label") + 2, "speed": pl.when(known).then(2.0)}
    manifest = table(100, **columns)
    data = open_role(manifest, make_splits(manifest), Role.VAL_TEST)
    assert set(data.columns["hour"].tolist()) == {7, None}
    assert data.columns["lanes"].dtype.kind == "i"
    assert data.columns["speed"].dtype == np.float64
    predictions = Predictions(data.ids, np.zeros(len(data)), labels=data.labels, columns=data.columns)
    for name in ("p.parquet", "p.csv"):
        predictions.save(tmp_path / name)
        again = Predictions.load(tmp_path / name)
        assert again.columns["hour"].tolist() == data.columns["hour"].tolist()
    stored = pl.read_parquet(tmp_path / "p.parquet")
    assert stored.schema["hour"] == stored.schema["lanes"] == pl.Int64
    assert "7.0" not in (tmp_path / "p.csv").read_text()
    assert ",7," in (tmp_path / "p.csv").read_text()


def test_open_role_gives_the_type_of_the_role_with_paths_and_metadata() -> None:
    manifest = table(100, weather=pl.when(pl.col("label") == 1).then(pl.lit("rain")), speed=pl.col("label") * 1.5)
    splits = make_splits(manifest)
    seen: list[str] = []
    for role in Role:
        data = open_role(manifest, splits, role)
        assert type(data) is ROLE_TYPES[role]
        assert data.paths is not None
        assert data.paths[0] == f"/data/{data.ids[0][1:]}.jpg"
        assert set(data.columns["weather"][data.labels == 1]) <= {"rain"}
        assert set(data.columns["weather"][data.labels == 0]) <= {""}
        assert set(data.columns["source"]) <= {"north", "south", "video"}
        assert np.isnan(data.columns["latitude"]).all()
        assert data.columns["speed"].dtype == np.float64
        seen += data.ids.tolist()
    assert sorted(seen) == sorted(manifest.frame["id"].to_list())
    assert isinstance(open_role(manifest, splits, "val_calib"), CalibData)
    with pytest.raises(DataError, match="no split role"):
        open_role(manifest, splits, "dev")


def test_groups_of_a_role_are_the_units_of_the_split() -> None:
    manifest = table(100, phash=pl.lit("0" * 16))
    frame = manifest.frame.with_columns(phash=pl.when(pl.col("id").is_in(["g1_0", "g2_0"])).then(pl.col("phash")))
    manifest = Manifest.from_frame(frame, root="/")
    splits = make_splits(manifest)
    data = open_role(manifest, splits, splits.assignment["g1_0"])
    group = dict(zip(data.ids.tolist(), data.groups.tolist(), strict=True))
    assert group["g1_0"] == group["g2_0"] == "g1"


@pytest.mark.parametrize("seed", [0, 1])
def test_streets_table(streets: Path, seed: int) -> None:
    frame = pl.read_csv(streets / "metadata.csv", infer_schema_length=None).rename({"file": "path"})
    manifest = Manifest.from_frame(frame, root=streets)
    splits = make_splits(manifest, seed=seed)
    assert all(len(roles) == 1 for roles in roles_by_group(manifest, splits).values())
    for role, fraction in DEFAULT_FRACTIONS.items():
        data = open_role(manifest, splits, role)
        # Four sequences hold a quarter of all images, so whole groups allow no better.
        assert abs(len(data) / len(manifest) - fraction) < 0.03
        assert abs(data.n_positive / 245 - fraction) < 0.03
