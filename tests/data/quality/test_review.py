from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from workzone.data.manifest import Manifest
from workzone.data.quality.review import apply_review, read_review, write_review
from workzone.errors import DataError


def manifest(**columns: list) -> Manifest:
    rows = {
        "id": list("abcd"),
        "path": [f"{i}.jpg" for i in "abcd"],
        "label": [0, 1, None, 0],
        "sha256": ["1" * 64] * 4,
    }
    return Manifest.from_frame(pl.DataFrame(rows | columns), root="/data")


def write(path: Path, *rows: dict) -> Path:
    write_review(path, rows)
    return path


def test_decisions_are_obeyed_and_the_rest_stays(tmp_path: Path) -> None:
    file = write(
        tmp_path / "r.csv",
        {"id": "a", "finding": "label_doubt", "action": "relabel", "new_label": "roadwork", "reviewer": "kim"},
        {"id": "b", "finding": "near_duplicate", "action": "drop"},
        {"id": "c", "finding": "to_label", "action": "relabel", "new_label": "0"},
        {"id": "d", "finding": "outlier", "suggested_action": "drop"},
    )
    done = apply_review(manifest(), read_review(file))
    assert dict(done.manifest.frame.select("id", "label").rows()) == {"a": 1, "c": 0, "d": 0}
    assert done.dropped == ("b",)
    assert done.relabelled == ("a", "c")
    said = dict(done.manifest.frame.select("id", "review").rows())
    assert said == {"a": "relabel no_roadwork to roadwork by kim", "c": "relabel unlabelled to no_roadwork", "d": None}
    assert done.manifest.rejected["id"].to_list() == ["b"]
    again = apply_review(done.manifest, read_review(file))
    assert again.absent == ("b",)
    assert again.manifest.frame["label"].to_list() == done.manifest.frame["label"].to_list()


def test_suggestions_alone_change_nothing(tmp_path: Path) -> None:
    file = write(tmp_path / "r.csv", *({"id": i, "finding": "blank", "suggested_action": "drop"} for i in "abcd"))
    assert read_review(file) == {}
    assert len(apply_review(manifest(), read_review(file)).manifest) == 4


def test_kept_mined_negatives_become_hard_ones(tmp_path: Path) -> None:
    file = write(
        tmp_path / "r.csv",
        {"id": "a", "finding": "false_alarm", "action": "keep"},
        {"id": "b", "finding": "missed", "action": "keep"},
        {"id": "d", "finding": "outlier", "action": "keep"},
    )
    done = apply_review(manifest(), read_review(file))
    assert done.hard == ("a",)
    assert done.kept == ("a", "b", "d")
    assert dict(done.manifest.frame.select("id", "hard_negative").rows()) == {"a": "1", "b": None, "c": None, "d": None}


def test_an_unlabelled_orange_picture_that_is_no_roadwork_is_a_hard_negative(tmp_path: Path) -> None:
    frame = manifest().frame.with_columns(pl.lit(None, dtype=pl.Int8).alias("label"))
    rows = [("a", "orange", "no_roadwork"), ("b", "orange", "roadwork"), ("c", "to_label", "no_roadwork")]
    named = [{"id": i, "finding": f, "action": "relabel", "new_label": y} for i, f, y in rows]
    done = apply_review(Manifest(frame, manifest().root), read_review(write(tmp_path / "r.csv", *named)))
    assert done.hard == ("a",)
    assert dict(done.manifest.frame.select("id", "label").rows()) == {"a": 0, "b": 1, "c": 0, "d": None}
    assert dict(done.manifest.frame.select("id", "hard_negative").rows())["a"] == "1"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "a", "action": "delete"}], "no action"),
        ([{"id": "a", "action": "relabel"}], "new label"),
        ([{"id": "a", "action": "drop"}, {"id": "a", "action": "relabel", "new_label": "1"}], "two decisions"),
        (
            [{"id": "a", "action": "relabel", "new_label": "0"}, {"id": "a", "action": "relabel", "new_label": "1"}],
            "two decisions",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, rows: list[dict], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_review(write(tmp_path / "r.csv", *rows))


def test_keep_for_one_finding_does_not_undo_a_drop_for_another(tmp_path: Path) -> None:
    for order in (("keep", "drop"), ("drop", "keep")):
        file = write(tmp_path / "r.csv", *({"id": "a", "action": action} for action in order))
        assert read_review(file)["a"].action == "drop"


def test_a_review_of_another_picture_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "r.csv", {"id": "a", "action": "drop", "sha256": "2" * 64})
    with pytest.raises(DataError, match="not the one that was reviewed"):
        apply_review(manifest(), read_review(file))
