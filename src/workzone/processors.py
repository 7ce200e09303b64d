"""How many processors this process may use: those it is bound to, and no more than its control group is given.

A container with a limit of two processors on a machine with 64 sees all 64. Threads for 64 would use up the time of a
period in its beginning and stand still for the rest of it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path

_PROC, _GROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def processors(proc: Path = _PROC, groups: Path = _GROUPS) -> int:
    """Processors to make use of, at least 1; a limit of 1.5 counts as 2.

    Args:
        proc: where the kernel tells of processes.
        groups: where control groups are mounted, of version 1 or 2.
    """
    quotas = [math.ceil(q) for q in _quotas(proc, groups)]
    return max(1, min([len(os.sched_getaffinity(0)), *quotas]))


def limit_libraries(count: int, environment: MutableMapping[str, str]) -> None:
    """Have PyTorch and its like start ``count`` threads where these are fewer than the processors they would count.

    They read ``OMP_NUM_THREADS`` when they are loaded, and somebody's own setting of it stays.
    """
    if count < len(os.sched_getaffinity(0)):
        environment.setdefault("OMP_NUM_THREADS", str(count))


def _quotas(proc: Path, groups: Path) -> Iterator[float]:
    """Limits of the group of this process and of those above it, in processors; none where there is no limit."""
    for line in _text(proc / "self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            roots = [groups, groups / "unified"]
        elif "cpu" in controllers.split(","):
            roots = [groups / controllers, groups / "cpu"]
        else:
            continue
        inside = Path(path.lstrip("/"))
        # In a container the path is often that of the machine, which is not mounted there: the root is the group then.
        for root in roots:
            for folder in dict.fromkeys([root / inside, *(root / p for p in inside.parents), root]):
                quota = _two(_text(folder / "cpu.max")) or _two(
                    f"{_text(folder / 'cpu.cfs_quota_us')} {_text(folder / 'cpu.cfs_period_us')}"
                )
                if quota is not None:
                    yield quota


def _two(text: str) -> float | None:
    """Microseconds of each period as processors; None for ``max``, -1 or another text."""
    words = text.split()
    if len(words) != 2 or not all(w.isdigit() for w in words) or words[1] == "0":
        return None
    return int(words[0]) / int(words[1])


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # no such controller, or not for us to read
        return ""
