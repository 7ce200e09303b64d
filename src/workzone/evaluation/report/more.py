"""What belongs to a report and was made apart from it: comparisons of models, and the measurement under corruptions.

A report lists what it finds when it is written. A page that is made later puts itself on the report, except in a run:
there the files of a phase are hashed, and the list is brought up to date the next time the run is evaluated.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workzone.files import read_json, write_atomic

REPORT, COMPARISON, ROBUSTNESS, CASCADE = "report.html", "comparison", "robustness", "cascade"
COMPARISONS = "compare"
"""Folder of comparisons, beside ``report.html`` or in the folder of the run; each has a folder of its own in it."""
_LIST, _LINK = "pages", "more"
_TO_LIST = '<a href="#more">More about this detector</a>'
_RUN = "run.json"


@dataclass(frozen=True, slots=True)
class Page:
    """One entry: a heading, a sentence, where more is, a picture as a data URI, and tables of rates by level."""

    title: str
    sentence: str
    href: str
    picture: str = ""
    tables: Sequence[Mapping[str, Any]] = ()


def related(folder: Path) -> tuple[Page, ...]:
    """What there is for the report in ``folder``: its robustness, and comparisons beside it or in its run."""
    found = []
    apart = ((CASCADE, "What looking again costs and brings"), (ROBUSTNESS, "On changed pictures: what breaks first"))
    for name, title in apart:
        if (folder / f"{name}.json").is_file():
            sentence = _told(folder / f"{name}.json", "sentence")
            png = folder / f"{name}.png"
            picture = f"data:image/png;base64,{base64.b64encode(png.read_bytes()).decode()}" if png.is_file() else ""
            tables = (_record(folder / f"{name}.json") or {}).get("tables", ())
            found.append(Page(title, sentence, f"{name}.json", picture, tables))
    places = [folder / COMPARISONS]
    if _in_run(folder):
        places.append(folder.parent / COMPARISONS)
    for place in places:
        for page in sorted(place.glob(f"*/{COMPARISON}.html")):
            record = page.with_suffix(".json")
            href = Path(os.path.relpath(page, folder)).as_posix()
            found.append(Page(_names(record, page.parent.name), _told(record, "verdict"), href))
    return tuple(found)


def refresh(folder: Path) -> bool:
    """Put what ``related`` finds on the report in ``folder``; False where there is none, or where it is of a run."""
    report = folder / REPORT
    if not report.is_file() or _in_run(folder):
        return False
    pages = related(folder)
    listed = _between(report.read_text(encoding="utf-8"), _LIST, f"\n{block(pages)}\n")
    if listed is None:
        return False
    # Reports of before the mark of the link go without it.
    linked = _between(listed, _LINK, _TO_LIST if pages else "")
    write_atomic(report, listed if linked is None else linked)
    return True


def _between(text: str, name: str, content: str) -> str | None:
    """``text`` with ``content`` between the comments of this name; None where they are not in it."""
    before, start, rest = text.partition(f"<!-- {name} -->")
    _, end, after = rest.partition(f"<!-- /{name} -->")
    return f"{before}{start}{content}{end}{after}" if start and end else None


def block(pages: Sequence[Page]) -> str:
    """The entries as HTML; everything from files is escaped."""
    from workzone.evaluation.report.templates import environment

    return environment().get_template("pages.html.j2").render(pages=pages)


def reports_of(tables: Sequence[str], folder: Path) -> list[str | None]:
    """For each table of predictions the way from ``folder`` to the report beside it, or None."""
    reports = [Path(table).parent / REPORT for table in tables]
    return [Path(os.path.relpath(r, folder)).as_posix() if r.is_file() else None for r in reports]


def report_above(comparison: Path) -> Path | None:
    """Folder of the report that a comparison in this folder belongs to."""
    place = comparison.resolve().parent
    return place.parent if place.name == COMPARISONS else None


def _in_run(folder: Path) -> bool:
    return (folder.resolve().parent / _RUN).is_file()


def _record(path: Path) -> dict[str, Any] | None:
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _told(path: Path, key: str) -> str:
    record = _record(path)
    return f"{path.name} cannot be read." if record is None else str(record.get(key, "It says nothing in words."))


def _names(path: Path, fallback: str) -> str:
    models = (_record(path) or {}).get("models")
    if not isinstance(models, dict):
        return fallback
    names = [str(models[key].get("name", key)) for key in ("a", "b") if isinstance(models.get(key), dict)]
    return f"A: {names[0]}, B: {names[1]}" if len(names) == 2 else fallback
