from __future__ import annotations

import fcntl
from dataclasses import replace
from pathlib import Path

import pytest
from toy import NAMES, config, journal, phases

from workzone.errors import ConfigError, DataError, RunLockedError
from workzone.pipeline.engine import run_pipeline


def test_a_locked_folder_is_refused_and_untouched(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run_pipeline(config(out), phases(), to="train")
    before = (out / "config.yaml").read_text()
    with (out / ".lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(RunLockedError, match="another run is working in this folder \\(process"):
            run_pipeline(config(out, seed=5), phases())
    assert (out / "config.yaml").read_text() == before
    assert [r.name for r in run_pipeline(config(out), phases()) if r.ran] == list(NAMES[2:])


def test_the_lock_refuses_a_run_inside_a_run(tmp_path: Path) -> None:
    out = tmp_path / "run"

    def again(phase: str, moment: str) -> None:
        run_pipeline(config(out), phases())

    with pytest.raises(RunLockedError):
        run_pipeline(config(out), phases(again))
    assert journal(out) == ["prepare"]


def test_sweep_takes_only_what_atomic_writes_leave(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run_pipeline(config(out), phases())
    left = [
        out / ".run-00ff00ff.partial.json",
        out / "train" / ".x-0123abcd.partial",
        out / "train" / "a" / ".y-0123abcd.partial.npz",
    ]
    mine = [
        out / ".notes.partial",
        out / ".run.old",
        out / "notes" / ".x-0123abcd.partial",
        out / "train" / ".x.swp",
        out / "train" / "x-0123abcd.partial",
        out / ".bundle.old" / "bundle.json",
    ]
    for path in left + mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    run_pipeline(config(out), phases())
    assert [p for p in left if p.exists()] == []
    assert [p for p in mine if not p.exists()] == []


def test_sweep_does_not_follow_links(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    run_pipeline(config(out), phases())
    elsewhere.mkdir()
    (elsewhere / ".x-0123abcd.partial").write_text("x")
    (out / "train" / "link").symlink_to(elsewhere)
    run_pipeline(config(out), phases())
    assert (elsewhere / ".x-0123abcd.partial").exists()


@pytest.mark.parametrize("name", ["export", "bundle", "config.yaml", "train"])
def test_a_folder_of_something_else_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ConfigError, match="is not that of a run"):
        run_pipeline(config(tmp_path), phases())
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_folder_with_unrelated_files_is_used_and_they_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    run_pipeline(config(tmp_path), phases())
    assert (tmp_path / "notes.txt").read_text() == "x"


@pytest.mark.parametrize("below", ["file", "file/run"])
def test_out_is_a_file_or_below_one(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="cannot be written"):
        run_pipeline(config(tmp_path / below), phases())
    assert (tmp_path / "file").read_text() == "x"


def _refuse(phase: str, moment: str) -> None:
    raise DataError("these data are no good")


def test_a_first_phase_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    def run(context: object) -> None:
        raise DataError("these data are no good")

    with pytest.raises(DataError):
        run_pipeline(config(tmp_path / "run"), [replace(phases()[0], run=run)])
    assert list(tmp_path.iterdir()) == []


def test_a_later_failure_keeps_what_was_finished(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(DataError):
        run_pipeline(config(out), [phases()[0], *phases(_refuse)[1:]])
    assert (out / "run.json").exists()
    assert [r.name for r in run_pipeline(config(out), phases()) if r.ran] == list(NAMES[1:])


def test_a_moved_folder_is_still_up_to_date(tmp_path: Path) -> None:
    run_pipeline(config(tmp_path / "one"), phases())
    (tmp_path / "one").rename(tmp_path / "two")
    assert not any(r.ran for r in run_pipeline(config(tmp_path / "two"), phases()))
