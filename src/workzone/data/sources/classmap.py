"""Which class names of a detection data set mean roadwork."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from workzone.errors import ConfigError, DataError, unreadable

Meaning = Literal["roadwork", "other", "ambiguous"]
MEANINGS: tuple[Meaning, ...] = ("roadwork", "other", "ambiguous")
Rest = Literal["negative", "unlabelled", "drop"]
NO_EVIDENCE = "no object means roadwork"
AMBIGUOUS = "only ambiguous objects"


@dataclass(frozen=True, slots=True)
class ClassMap:
    """Class name -> ``roadwork``, ``other`` or ``ambiguous``; names that are not listed are ``other``."""

    meanings: Mapping[str, Meaning] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> ClassMap:
        """From ``name=meaning,name=meaning``, plain names (they mean roadwork), or the path of a JSON object.

        Raises:
            ConfigError: unreadable file, unknown meaning, or no name that means roadwork.
        """
        path = Path(text)
        if path.suffix.lower() == ".json":
            try:
                body = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise unreadable(ConfigError, "the class map", path, error) from error
            if not isinstance(body, dict):
                raise ConfigError("the class map is no JSON object", where=str(path))
        else:
            pairs = (word.partition("=") for word in text.split(","))
            body = {name.strip(): meaning.strip() or "roadwork" for name, _, meaning in pairs}
        for name, meaning in body.items():
            if meaning not in MEANINGS:
                what = f"the class {name!r} has the meaning {meaning!r}"
                raise ConfigError(what, where="class map", fix=f"use {', '.join(MEANINGS)}")
        if "roadwork" not in body.values():
            raise ConfigError("no class of the class map means roadwork", where="class map")
        return cls({str(k): v for k, v in body.items()})

    def check(self, known: Collection[str], where: str) -> None:
        """Raise DataError for names that the data set does not have, or when nothing was mapped."""
        shown = ", ".join(sorted(known)[:40])
        if not self.meanings:
            raise DataError(
                "nobody said which classes mean roadwork", where=where, fix=f"give --class-map; the classes are {shown}"
            )
        missing = sorted(set(self.meanings) - set(known))
        if missing:
            raise DataError(
                f"the data have no class {', '.join(map(repr, missing))}", where=where, fix=f"the classes are {shown}"
            )

    def judge(self, names: Collection[str]) -> Meaning:
        """``roadwork`` where any name means it, else ``ambiguous`` where any does, else ``other``."""
        meanings = {self.meanings.get(n, "other") for n in names}
        return "roadwork" if "roadwork" in meanings else "ambiguous" if "ambiguous" in meanings else "other"


def label_or_rule(meaning: Meaning, rest: Rest) -> int | str | None:
    """1, 0 or None (unlabelled) for an image that is taken, or the rule by which it is left out."""
    if meaning == "roadwork":
        return 1
    if meaning == "ambiguous":
        return AMBIGUOUS
    return {"negative": 0, "unlabelled": None, "drop": NO_EVIDENCE}[rest]
