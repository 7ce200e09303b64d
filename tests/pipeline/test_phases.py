"""What the phases of a run declare: roles, keys, files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from workzone.config import RunConfig
from workzone.config.load import load_config
from workzone.data.roles import ROLE_TYPES, CalibData, Role, SelectData, TestData, TrainData
from workzone.errors import LeakageError
from workzone.pipeline.artifacts import Artifacts
from workzone.pipeline.engine import run_pipeline
from workzone.pipeline.phase import Context
from workzone.pipeline.phases import PHASES

SPECS = {spec.name: spec for spec in PHASES}
ALL = tuple(SPECS)
OFF = {"pretrain", "augment"}
ROLES: dict[str, set[Role]] = {
    "prepare": set(),
    "pretrain": {Role.TRAIN},
    "augment": {Role.TRAIN},
    "train": {Role.TRAIN, Role.VAL_SELECT},
    "fuse": {Role.TRAIN, Role.VAL_SELECT},
    "export": {Role.TRAIN, Role.VAL_SELECT},
    "calibrate": {Role.VAL_CALIB},
    "decide": {Role.VAL_CALIB},
    "evaluate": {Role.VAL_TEST},
    "bundle": set(),
}


def test_the_roles_of_every_phase() -> None:
    assert {spec.name: set(spec.roles) for spec in PHASES} == ROLES


def test_a_finished_run_opened_what_was_declared_and_no_more(tiny_run: Path) -> None:
    record = json.loads((tiny_run / "run.json").read_text())
    opened = {name: set(entry["roles_opened"]) for name, entry in record["phases"].items()}
    assert opened == {name: {str(r) for r in roles} for name, roles in ROLES.items() if name not in OFF}
    assert record["roles_opened"] == {"train": 3, "val_select": 3, "val_calib": 2, "val_test": 1}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", [TrainData, SelectData, CalibData, TestData])
def test_a_role_that_was_not_declared_is_leakage(tiny_run: Path, name: str, kind: type) -> None:
    counted: list[str] = []
    context = Context(SPECS[name], _config(tiny_run), Artifacts(tiny_run), on_open=counted.append)
    role = next(r for r, t in ROLE_TYPES.items() if t is kind)
    if role in ROLES[name]:
        assert isinstance(context.open(kind), kind)
        assert counted == [role]
        assert context.opened == {role: 1}
    else:
        with pytest.raises(LeakageError, match="which it did not declare"):
            context.open(kind)
        assert counted == []
        assert context.opened == {}


def test_an_opening_counts_even_when_the_phase_fails(tiny_run: Path, tmp_path: Path) -> None:
    import shutil

    out = tmp_path / "run"
    shutil.copytree(tiny_run, out, copy_function=_link)
    (out / "run.json").unlink()
    shutil.copy(tiny_run / "run.json", out / "run.json")

    def run(context: Context) -> None:
        context.open(TestData)
        raise RuntimeError("killed here")

    broken = replace(SPECS["evaluate"], run=run)
    specs = [broken if s.name == "evaluate" else s for s in PHASES]
    with pytest.raises(RuntimeError, match="killed here"):
        run_pipeline(_config(out), specs, start="evaluate")
    assert json.loads((out / "run.json").read_text())["roles_opened"]["val_test"] == 2


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


def test_every_input_is_written_by_an_earlier_phase(tiny_run: Path) -> None:
    config = _config(tiny_run).model_copy(
        update={"train": _config(tiny_run).train.model_copy(update={"method": "lora"})}
    )
    artifacts = Artifacts(tiny_run)
    written: list[Path] = []
    for spec in PHASES:
        for path in spec.inputs(artifacts, config):
            assert any(path.is_relative_to(w) for w in written), (spec.name, path)
        made = spec.outputs(artifacts, config)
        assert all(any(p.is_relative_to(f) for f in artifacts.folders) for p in made)
        assert not any(p.is_relative_to(w) or w.is_relative_to(p) for p in made for w in written), spec.name
        written += made


def _config(run: Path, *words: str) -> RunConfig:
    return load_config([f"out={run}", *words], file=run / "config.yaml")


AFTER = {name: set(ALL[i:]) for i, name in enumerate(ALL)}
NOT_TRAIN = AFTER["export"]

# The phases that may run after a change of one key; those in the first set run for certain.
CHANGES: list[tuple[str, set[str], set[str]]] = [
    ("seed=1", set(ALL) - OFF, set()),
    ("source.synthetic_images=75", {"prepare"}, AFTER["train"]),
    ("source.positive=[works]", {"prepare"}, AFTER["train"]),
    ("split.near_duplicates=false", {"prepare"}, AFTER["train"]),
    ("views.rows=1", {"train", "evaluate", "bundle"}, AFTER["fuse"]),
    ("model.image_size=96", {"train", "export", "bundle"}, AFTER["fuse"]),
    ("pretrain.lr=0.01", set(), set()),
    ("pretrain.method=byol", {"pretrain", "train"}, AFTER["fuse"]),
    ("augment.epochs=2", set(), set()),
    ("train.lr=0.01", {"train"}, AFTER["fuse"]),
    ("train.method=full", {"train", "export", "evaluate", "bundle"}, AFTER["fuse"]),
    ("fuse.epochs=5", {"fuse"}, AFTER["export"]),
    ("fuse.aggregator=logsumexp", {"fuse", "evaluate", "bundle"}, AFTER["export"]),
    ("export.also=[openvino-fp32]", NOT_TRAIN, set()),
    ("export.engine=openvino", NOT_TRAIN, set()),
    ("export.precision=int8", NOT_TRAIN, set()),
    ("export.golden=5", {"export", "bundle"}, NOT_TRAIN),
    ("export.tolerance=0.01", {"export", "bundle"}, NOT_TRAIN),
    ("export.int8_images=9", {"export"}, NOT_TRAIN),
    ("export.int8_tolerance=0.5", {"bundle"}, set()),
    ("calibrate.method=platt", {"calibrate"}, AFTER["decide"]),
    ("calibrate.fraction=0.6", {"calibrate", "decide"}, AFTER["decide"]),
    ("decide.delta=0.2", {"decide"}, AFTER["evaluate"]),
    ("evaluate.level=0.9", {"evaluate"}, {"bundle"}),
    ("evaluate.resamples=200", {"evaluate"}, {"bundle"}),
    ("tracking.loggers=[]", set(), set()),
    ("compute.threads=2", set(), set()),
    ("compute.workers=2", set(), set()),
    ("compute.max_pixels=50000", {"prepare"}, AFTER["train"]),
    ("cache.folder=/nowhere", set(), set()),
]


@pytest.mark.parametrize(("word", "certain", "possible"), CHANGES, ids=[c[0] for c in CHANGES])
def test_one_key_reruns_only_what_depends_on_it(
    tiny_run: Path, word: str, certain: set[str], possible: set[str]
) -> None:
    plan = run_pipeline(_config(tiny_run, word), PHASES, dry_run=True)
    assert {r.name for r in plan if r.ran and r.sure} == certain
    assert {r.name for r in plan if r.ran and not r.sure} == possible - certain


def test_every_section_of_the_configuration_is_tried() -> None:
    sections = {word.partition("=")[0].partition(".")[0] for word, _, _ in CHANGES}
    assert sections == set(RunConfig.model_fields) - {"data", "out"}


def test_the_tiny_run_is_up_to_date(tiny_run: Path) -> None:
    assert not any(r.ran for r in run_pipeline(_config(tiny_run), PHASES, dry_run=True))
