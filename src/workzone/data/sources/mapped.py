"""What sources have in common whose classes mean roadwork only by a map that the user gives."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from workzone.data.sources.base import RecordSource, file_record
from workzone.data.sources.classmap import ClassMap, Rest, label_or_rule
from workzone.data.sources.records import Dropped, Event


@dataclass(frozen=True, slots=True)
class MappedSource(RecordSource):
    """Images with objects of named classes.

    Attributes:
        classes: which class names mean roadwork.
        rest: what images without such an object are: ``negative``, ``unlabelled`` or ``drop``.
    """

    classes: ClassMap = field(default_factory=ClassMap)
    rest: Rest = "negative"

    @classmethod
    def recognises(cls, location: Path) -> bool:
        """Never by itself: without a class map the labels are not known."""
        return False

    def judged(self, key: str, path: Path, shown: Collection[str], **columns: object) -> Event:
        """The image at ``path`` with its label, or the rule by which it is left out, from the classes it shows."""
        label = label_or_rule(self.classes.judge(shown), self.rest)
        if isinstance(label, str):
            return Dropped(key, label)
        return file_record(key, path, {"label": label, **columns})
