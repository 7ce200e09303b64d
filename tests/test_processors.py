"""How many processors a process may use, as control groups of both versions tell it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from workzone.processors import limit_libraries, processors

HERE = len(os.sched_getaffinity(0))


def machine(tmp_path: Path, group: str, **files: str) -> tuple[Path, Path]:
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    (proc / "self").mkdir(parents=True)
    (proc / "self/cgroup").write_text(group)
    for name, text in files.items():
        path = groups / name.replace("__", "/").replace("_max", ".max").replace("_cfs", ".cfs")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return proc, groups


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))


def test_without_groups_it_is_what_the_process_is_bound_to(tmp_path: Path) -> None:
    assert processors(tmp_path, tmp_path) == HERE


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize(
    ("text", "count"),
    [("max 100000", 64), ("200000 100000", 2), ("150000 100000", 2), ("1000 100000", 1), ("", 64), ("9 0", 64)],
)
def test_version_2_in_a_container(tmp_path: Path, text: str, count: int) -> None:
    assert processors(*machine(tmp_path, "0::/\n", cpu_max=text)) == count


@pytest.mark.usefixtures("many")
def test_version_2_the_smallest_limit_above_counts(tmp_path: Path) -> None:
    files = {"a.slice__cpu_max": "300000 100000", "a.slice__b.service__cpu_max": "max 100000"}
    assert processors(*machine(tmp_path, "0::/a.slice/b.service\n", **files)) == 3


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("path", ["/", "/docker/0123"])
@pytest.mark.parametrize(("quota", "count"), [("-1", 64), ("400000", 4)])
def test_version_1_also_under_the_path_of_the_machine(tmp_path: Path, path: str, quota: str, count: int) -> None:
    files = {"cpu__cpu_cfs_quota_us": quota, "cpu__cpu_cfs_period_us": "100000"}
    proc, groups = machine(tmp_path, f"4:cpu,cpuacct:{path}\n1:name=systemd:/\n", **files)
    assert processors(proc, groups) == count


@pytest.mark.usefixtures("many")
def test_libraries_are_told_of_a_limit_and_of_nothing_else() -> None:
    limited: dict[str, str] = {}
    limit_libraries(2, limited)
    assert limited == {"OMP_NUM_THREADS": "2"}
    for count, kept in ((2, {"OMP_NUM_THREADS": "7"}), (64, {})):
        given = dict(kept)
        limit_libraries(count, given)
        assert given == kept
