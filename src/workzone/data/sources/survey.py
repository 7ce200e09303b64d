"""Counts of what an import takes or has taken: by label, source, group and reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workzone.data.sources.base import Source, nothing_taken
from workzone.data.sources.records import Dropped, Event

LABELS = {1: "roadwork", 0: "no_roadwork", None: "unlabelled"}
_EXAMPLES = 3
_GROUPS = 1_000_000


@dataclass(slots=True)
class Survey:
    """Running counts over the events of a source.

    Attributes:
        images: taken.
        labels: label name -> images.
        sources: source -> label name -> images.
        groups: hashes of the groups met; beyond a million only their number as a lower bound.
        ungrouped: images without a group.
        size: bytes of the images of known size.
        unsized: images of unknown size: missing files, or frames that are not encoded yet.
        dropped: rule -> images left out.
        examples: rule -> the first few of them.
    """

    images: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    sources: dict[str, Counter[str]] = field(default_factory=dict)
    groups: set[int] = field(default_factory=set)
    ungrouped: int = 0
    size: int = 0
    unsized: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, event: Event) -> None:
        """Count one event."""
        if isinstance(event, Dropped):
            self.dropped[event.rule] += 1
            shown = self.examples.setdefault(event.rule, [])
            if len(shown) < _EXAMPLES:
                shown.append(f"{event.id} ({event.detail})" if event.detail else event.id)
            return
        self.images += 1
        name = LABELS[event.columns.get("label")]
        self.labels[name] += 1
        self.sources.setdefault(str(event.columns.get("source")), Counter())[name] += 1
        group = event.columns.get("group")
        if group is None:
            self.ungrouped += 1
        elif len(self.groups) < _GROUPS:
            self.groups.add(hash(group))
        if event.size is None:
            self.unsized += 1
        else:
            self.size += event.size

    def lines(self) -> list[str]:
        """The counts as lines of plain text."""
        labels = ", ".join(f"{self.labels[n]} {n}" for n in LABELS.values() if self.labels[n])
        out = [f"{self.images} images: {labels or 'none'}"]
        if len(self.sources) > 1:
            out += [f"  source {s}: {', '.join(f'{n} {k}' for k, n in c.items())}" for s, c in self.sources.items()]
        out.append(f"{len(self.groups)} groups, {self.ungrouped} images without a group")
        unsized = f", {self.unsized} images of unknown size" if self.unsized else ""
        size = f"{self.size / 1e6:.1f} MB" if self.size >= 1e5 else f"{self.size / 1e3:.1f} kB"
        out.append(f"{size} of images{unsized}")
        for rule, count in sorted(self.dropped.items(), key=lambda item: (-item[1], item[0])):
            out.append(f"left out: {count}, {rule}; such as {', '.join(self.examples[rule])}")
        return out

    def body(self) -> dict[str, Any]:
        """The counts as JSON."""
        return {
            "images": self.images,
            "labels": dict(sorted(self.labels.items())),
            "sources": {s: dict(sorted(c.items())) for s, c in sorted(self.sources.items())},
            "groups": len(self.groups),
            "ungrouped": self.ungrouped,
            "bytes": self.size,
            "dropped": dict(sorted(self.dropped.items())),
        }


def survey(source: Source, location: Path, *, progress: Callable[[int, int], None] | None = None) -> Survey:
    """Count what an import of ``location`` would take, without opening an image (videos are decoded).

    Raises:
        DataError: another layout, or nothing to take.
    """
    found = Survey()
    stream = source.stream(location, content=False)
    first: list[Dropped] = []
    for number, event in enumerate(stream.events, 1):
        if isinstance(event, Dropped) and not first:
            first.append(event)
        found.add(event)
        if progress is not None:
            progress(number, stream.total or 0)
    if not found.images:
        raise nothing_taken(first * sum(found.dropped.values()), stream.where)
    return found
