"""Pretraining, search and adaptation inside the folds of an ablation: done once, and only on images to learn from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from helpers.tiny import tiny_words
from helpers.transformer import NAME, call, give_name, write_weights
from workzone.config.load import load_config
from workzone.data.manifest import Manifest
from workzone.data.roles import Role
from workzone.data.splits import Splits
from workzone.errors import ConfigError
from workzone.pipeline.artifacts import Artifacts
from workzone.pipeline.phase import Context
from workzone.pipeline.phases import train
from workzone.tuning.ablate import Plan, _shared_first, run_ablation
from workzone.tuning.cell import Cell, cell_config
from workzone.tuning.folds import HELD_OUT, make_folds
from workzone.tuning.grid import resolve
from workzone.tuning.shared import first_folder, settings_of, taken

BASE = ["data=synthetic", "out=x"]
SSL = (
    f"model.backbone={NAME} pretrain.method=byol pretrain.start=scratch pretrain.epochs=1 pretrain.batch_size=8 "
    "pretrain.ssl.local_crops=1 pretrain.ssl.local_size=16 pretrain.ssl.hidden=16 pretrain.ssl.bottleneck=8"
)
FAST = ("source.synthetic_images=60", "model.image_size=32", "train.epochs=1", "fuse.epochs=2")


def cells(tmp_path: Path, *variants: list[str]) -> list[Cell]:
    splits = Splits({"a": Role.TRAIN}).save(tmp_path / "0-0.json")
    configs = [load_config([*BASE, *words]) for words in variants]
    return [
        Cell(str(i), cell_config(c, tmp_path, 0, seed=0, workers=1), splits, splits, 0, 0)
        for i, c in enumerate(configs)
    ]


def test_what_is_off_decides_nothing_and_what_is_on_may_vary() -> None:
    plain, same = load_config(BASE), load_config([*BASE, "pretrain.epochs=3", "augment.epochs=2"])
    assert settings_of(plain) == settings_of(same)
    on = load_config([*BASE, "pretrain.method=dino", "pretrain.epochs=3"])
    assert settings_of(on) != settings_of(load_config([*BASE, "pretrain.method=dino"]))
    variants = {"baseline": [], "ssl": ["pretrain.method=dino"], "lora": ["train.method=full", "augment.search=true"]}
    assert resolve(BASE, variants)["ssl"].pretrain.method == "dino"


def test_cells_that_agree_share_a_folder(tmp_path: Path) -> None:
    ssl = ["pretrain.method=dino"]
    some = cells(
        tmp_path, [], ssl, [*ssl, "fuse.hidden=8"], [*ssl, "train.method=full"], [*ssl, "pretrain.lr=0.1"],
        ["train.method=full"], ["train.method=full", "fuse.hidden=8"], ["train.method=full", "train.lr=0.5"],
    )  # fmt: skip
    homes = [first_folder(c.config, c.splits) for c in some]
    assert homes[0] is None
    assert homes[1] == homes[2] == homes[3] != homes[4]
    assert homes[5] == homes[6] != homes[7]
    assert len(set(homes)) == 5
    later = replace(some[1], config=some[1].config.model_copy(update={"seed": 1}))
    assert first_folder(later.config, later.splits) != homes[1]
    Splits({"a": Role.TRAIN, "b": Role.TRAIN}).save(tmp_path / "other.json")
    assert first_folder(some[1].config, tmp_path / "other.json") != homes[1]
    assert [c.variant for c in _shared_first(some)] == ["1", "4", "5", "7", "0", "2", "3", "6"]


def test_results_are_taken_over_whole(tiny_run: Path, tmp_path: Path) -> None:
    config = load_config(tiny_words(tmp_path / "cell", tmp_path / "cache"))
    context = Context(train.SPEC, config, Artifacts(tmp_path / "cell"))
    spec = taken(train.SPEC, tiny_run)
    spec.run(context)
    theirs = train.SPEC.outputs(Artifacts(tiny_run), config)
    for ours, source in zip(train.SPEC.outputs(context.artifacts, config), theirs, strict=True):
        for file in [source] if source.is_file() else [p for p in source.rglob("*") if p.is_file()]:
            assert (ours if source.is_file() else ours / file.relative_to(source)).read_bytes() == file.read_bytes()
    assert not spec.roles
    assert list(spec.inputs(context.artifacts, config)) == list(theirs)


def test_images_without_a_label_teach_where_nothing_of_their_unit_judges(tiny_run: Path) -> None:
    manifest = Manifest.load(tiny_run / "prepare" / "manifest.parquet")
    splits = Splits.load(tiny_run / "prepare" / "splits.json")
    blank = splits.ids(Role.TRAIN)[:12]
    label = pl.when(pl.col("id").is_in(blank)).then(None).otherwise(pl.col("label"))
    partly = Manifest(manifest.frame.with_columns(label.cast(pl.Int8).alias("label")), manifest.root)
    # Two of them share the unit of a labelled image, and all others have one of their own.
    known = next(i for i in splits.ids(Role.TRAIN) if i not in blank)
    units = dict(splits.units) | {i: f"alone {i}" for i in blank} | dict.fromkeys(blank[:2], splits.units[known])
    folds = make_folds(partly, replace(splits, units=units), folds=2, select=0.3, seed=1)
    for fold in folds:
        assert {fold.assignment[i] for i in blank[2:]} == {Role.TRAIN}
        assert not set(blank) & {*fold.ids(HELD_OUT), *fold.ids(Role.VAL_SELECT)}
        judged = fold.assignment[known] != Role.TRAIN
        assert {i in fold.assignment for i in blank[:2]} == {not judged}
    assert any(f.assignment[known] != Role.TRAIN for f in folds)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_ablation_pretrains_searches_and_adapts_inside_its_folds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_name(monkeypatch)
    weights = write_weights(tmp_path)
    more = (*FAST, f"model.backbone={NAME}", f"model.weights={weights}", "split.train=0.6", "split.val_calib=0.1")
    ssl = f"{SSL} model.weights=null"
    lora = f"{ssl} train.method=lora train.adapter.rank=2"
    out = tmp_path / "a"
    words = [
        "ablate", *tiny_words(tmp_path / "unused", tmp_path / "cache", *more), "--out", str(out), "--folds", "2",
        "--resamples", "100", "--fewest", "2", "--metric", "auroc", "--variant", f"ssl: {ssl}",
        "--variant", f"adapted: {lora}", "--variant", f"adapted wide: {lora} fuse.hidden=8",
        "--variant", "searched: train.method=full augment.search=true augment.policies=[trivialaugment] "
        "augment.epochs=1",
    ]  # fmt: skip
    call(monkeypatch, words)
    result = json.loads((out / "ablation.json").read_text())
    seconds = {row["variant"]: row["seconds_per_training"] for row in result["rows"]}
    assert seconds["adapted"] > 0
    assert seconds["ssl"] > seconds["baseline"] * 0.1
    folders = [p for p in (out / "shared").iterdir() if p.is_dir()]
    pretrained = [p for p in folders if (p / "pretrain" / "pretrain.json").exists() and not (p / "train").exists()]
    assert len(pretrained) == 2
    assert len(folders) == 2 * (1 + 3)
    held_out = []
    for folder in pretrained:
        roles = json.loads((folder / "prepare" / "splits.json").read_text())["assignment"]
        used = pl.read_parquet(folder / "pretrain" / "images.parquet")["id"].to_list()
        assert {roles[i] for i in used} == {"train"}
        held_out.append({i for i, role in roles.items() if role == HELD_OUT})
    assert not held_out[0] & held_out[1]
    for folder in folders:
        opened = json.loads((folder / "run.json").read_text())["phases"]
        assert {role for phase in opened.values() for role in phase["roles_opened"]} <= {"train", "val_select"}
    assert sum((p / "augment" / "policy.json").exists() for p in folders) == 2
    stamps = {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")}
    call(monkeypatch, words)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")} == stamps


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_sweep_over_keys_of_the_pretraining(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna")
    give_name(monkeypatch)
    words = tiny_words(tmp_path / "unused", tmp_path / "cache", *SSL.split(), *FAST)
    sweep = ["sweep", *words, "--out", str(tmp_path / "s"), "--sampler", "grid", "--trials", "4"]
    call(monkeypatch, [*sweep, "--space", "pretrain.lr=0.0001,0.001", "--space", "fuse.hidden=8,16"])
    assert json.loads((tmp_path / "s" / "sweep.json").read_text())["trials"] == 4
    folders = [p for p in (tmp_path / "s" / "shared").iterdir() if p.is_dir()]
    assert sorted((p / "train").exists() for p in folders) == [False, False, True, True]


def test_a_variant_that_cannot_train_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    configs = resolve(BASE, {"baseline": [], "bad": ["train.loss=supcon+ce", "train.batch_size=1"]})
    with pytest.raises(ConfigError, match=r"train\.batch_size=1"):
        run_ablation(configs, tmp_path / "out", Plan())
    assert not (tmp_path / "out").exists()
