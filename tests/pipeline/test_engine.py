from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest
from toy import NAMES, config, journal, output, phases

from workzone.errors import ArtifactError, ConfigError
from workzone.pipeline.artifacts import Artifacts
from workzone.pipeline.engine import run_pipeline
from workzone.pipeline.phase import PhaseSpec


def ran(
    out: Path, specs: list[PhaseSpec] | None = None, sections: dict[str, object] | None = None, **options: object
) -> list[str]:
    results = run_pipeline(config(out, **(sections or {})), specs or phases(), **options)  # type: ignore[arg-type]
    return [r.name for r in results if r.ran]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    assert ran(folder) == list(NAMES)
    return folder


def test_nothing_runs_twice(out: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.json")}
    assert ran(out) == []
    assert journal(out) == list(NAMES)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.json")} == before


def test_a_key_reruns_its_phase_and_what_reads_it(out: Path) -> None:
    assert ran(out, sections={"decide": {"delta": 0.1}}) == ["decide", "evaluate"]
    assert ran(out, sections={"decide": {"delta": 0.1}, "evaluate": {"level": 0.9}}) == ["evaluate"]
    assert ran(out, sections={"decide": {"delta": 0.1}, "evaluate": {"level": 0.9}, "compute": {"threads": 3}}) == []


def test_a_key_set_back_is_not_mistaken_for_the_old_result(out: Path) -> None:
    run_pipeline(config(out, decide={"delta": 0.1}), phases(), to="decide")
    assert ran(out) == ["decide"]


def test_equal_output_stops_the_chain(out: Path) -> None:
    """A phase that runs again and writes the same bytes makes no later phase run."""
    specs = phases()
    specs[1] = replace(specs[1], version=2)
    assert ran(out, specs) == ["train"]


@pytest.mark.parametrize("damage", ["delete", "change", "cut", "same length and date"])
@pytest.mark.parametrize("part", [1, 2])
def test_a_damaged_output_is_made_again(out: Path, damage: str, part: int) -> None:
    path = output(Artifacts(out), "train", part)
    content, status = path.read_bytes(), path.stat()
    if damage == "delete":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[:-5])
    else:
        path.write_bytes(content.replace(b"o", b"0", 1))
    if damage.startswith("same"):
        import os

        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert ran(out) == ["train"]
    assert path.read_bytes() == content
    assert ran(out) == []


def test_a_folder_output_is_watched_file_by_file(tmp_path: Path) -> None:
    spec = replace(phases()[0], outputs=lambda a, c: [a.root / "prepare"])
    assert ran(tmp_path / "run", [spec]) == ["prepare"]
    assert ran(tmp_path / "run", [spec]) == []
    (tmp_path / "run" / "prepare" / "part1.json").unlink()
    assert ran(tmp_path / "run", [spec]) == ["prepare"]
    (tmp_path / "run" / "prepare" / "foreign.txt").write_text("x")
    assert ran(tmp_path / "run", [spec]) == ["prepare"]
    assert ran(tmp_path / "run", [spec]) == []


def test_why_names_the_key(out: Path) -> None:
    changed = config(out, train={"lr": 0.5, "epochs": 7})
    why = {r.name: r.why for r in run_pipeline(changed, phases(), dry_run=True)}
    assert why["train"] == "changed: train.epochs, train.lr"
    assert why["prepare"] == "up to date"


def test_why_names_the_output(out: Path) -> None:
    output(Artifacts(out), "decide", 2).unlink()
    why = {r.name: r.why for r in run_pipeline(config(out), phases(), dry_run=True)}
    assert why["decide"] == "an output is missing: decide/part2.json"


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    results = run_pipeline(config(tmp_path / "run"), phases(), dry_run=True)
    assert [(r.name, r.ran) for r in results] == [(n, True) for n in NAMES]
    assert not (tmp_path / "run").exists()


def test_dry_run_tells_certain_from_possible(out: Path) -> None:
    results = run_pipeline(config(out, decide={"delta": 0.1}), phases(), dry_run=True)
    assert [(r.name, r.ran, r.sure) for r in results] == [
        ("prepare", False, True),
        ("train", False, True),
        ("decide", True, True),
        ("evaluate", True, False),
    ]
    assert journal(out) == list(NAMES)


def test_from_forces_the_rest(out: Path) -> None:
    assert ran(out, start="decide") == ["decide", "evaluate"]
    assert ran(out, start="train", to="decide") == ["train", "decide"]


def test_to_stops_early_and_a_later_call_goes_on(tmp_path: Path) -> None:
    assert ran(tmp_path / "run", to="train") == ["prepare", "train"]
    assert ran(tmp_path / "run") == ["decide", "evaluate"]


def test_from_does_not_hide_a_stale_earlier_phase(out: Path) -> None:
    output(Artifacts(out), "train", 1).unlink()
    assert ran(out, start="evaluate") == ["train", "evaluate"]


@pytest.mark.parametrize("options", [{"to": "nope"}, {"start": "nope"}, {"start": "evaluate", "to": "train"}])
def test_wrong_phase_names(tmp_path: Path, options: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        ran(tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_missing_input_names_the_phase_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="run phase 'prepare' first"):
        run_pipeline(config(tmp_path / "run"), phases()[1:])


def test_a_phase_must_write_what_it_declares(tmp_path: Path) -> None:
    lazy = replace(phases()[0], run=lambda context: None)
    with pytest.raises(ArtifactError, match=r"did not write part1\.json"):
        run_pipeline(config(tmp_path / "run"), [lazy])


def test_results_that_are_no_longer_asked_for_go(tmp_path: Path) -> None:
    out = tmp_path / "run"
    few = replace(phases()[0], version=2, outputs=lambda a, c: [output(a, "prepare", 1)])
    more = output(Artifacts(out), "prepare", 2)
    run_pipeline(config(out), phases()[:1])
    kept = out / "prepare" / "mine.txt"
    kept.write_text("x")

    def run(context: object) -> None:
        (out / "prepare" / "part1.json").write_text("new")

    run_pipeline(config(out), [replace(few, run=run)])
    assert not more.exists()
    assert kept.exists()


def test_a_result_changed_by_hand_stays_when_no_longer_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run_pipeline(config(out), phases()[:1])
    output(Artifacts(out), "prepare", 2).write_text("edited")
    few = replace(phases()[0], version=2, outputs=lambda a, c: [output(a, "prepare", 1)], run=lambda c: None)
    run_pipeline(config(out), [few])
    assert output(Artifacts(out), "prepare", 2).read_text() == "edited"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"version": 2, "phases": {}, "roles_opened": {}}',
        '{"version": 1, "phases": [], "roles_opened": {}}',
    ],
)
def test_a_broken_record_is_refused(out: Path, content: str) -> None:
    (out / "run.json").write_text(content)
    with pytest.raises(ArtifactError, match="run manifest cannot be read"):
        ran(out)


@pytest.mark.parametrize("name", ["/etc/passwd", "../x"])
def test_a_record_cannot_name_files_elsewhere(out: Path, name: str) -> None:
    record = json.loads((out / "run.json").read_text())
    record["phases"]["train"]["outputs"][name] = "0" * 64
    (out / "run.json").write_text(json.dumps(record))
    with pytest.raises(ArtifactError, match="outside the run folder"):
        ran(out)


def _fail_with(error: Exception) -> PhaseSpec:
    def run(context: object) -> None:
        raise error

    return replace(phases()[1], run=run)


class _ForeignError(Exception):
    """What a library with a core of its own raises."""


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        _ForeignError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_one_paragraph_and_finished_phases_stay(tmp_path: Path, error: Exception) -> None:
    out = tmp_path / "run"
    specs = phases()
    with pytest.raises(ArtifactError, match="the disk is full"):
        run_pipeline(config(out), [specs[0], _fail_with(error), *specs[2:]])
    assert ran(out) == list(NAMES[1:])


def test_other_errors_of_the_system_are_not_called_a_full_disk(tmp_path: Path) -> None:
    specs = phases()
    with pytest.raises(PermissionError):
        run_pipeline(config(tmp_path / "run"), [specs[0], _fail_with(PermissionError(errno.EACCES, "no"))])


def test_the_record_says_what_a_phase_read_and_wrote(out: Path) -> None:
    entry = json.loads((out / "run.json").read_text())["phases"]["train"]
    assert entry["parts"]["inputs"].keys() == {"prepare/part2.json"}
    assert entry["parts"]["config"].keys() == {"train"}
    assert entry["outputs"].keys() == {"train/part1.json", "train/part2.json"}
    assert entry["seed"] == 0
    assert {"python", "numpy"} <= entry["environment"].keys()
