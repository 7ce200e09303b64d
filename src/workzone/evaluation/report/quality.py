"""The page of a data set: counts, shortcuts, and pictures of what was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from workzone.data.manifest import Manifest
from workzone.data.quality.inspect import KINDS, Finding, Inspection
from workzone.data.quality.measures import thumbnail
from workzone.evaluation.shortcuts import Shortcut

SHOWN = 12
SLICES = ("source", "weather", "time_of_day", "camera_id", "domain", "hour")
_MOST_VALUES = 20

MEANING = {
    "unreadable": "The file cannot be decoded.",
    "exact_copy": "The bytes of another image.",
    "near_duplicate": "The same picture, saved again or resized.",
    "label_conflict": "Copies of one picture with different labels: one of them is wrong.",
    "label_doubt": "Confident learning: models that saw neither the image nor its group say otherwise. "
    "A single far cone looks the same, so a person decides.",
    "blank": "Next to no contrast, or few greys.",
    "blurred": "Little detail for the contrast there is.",
    "dark": "Night pictures are dark too: nothing is suggested but a look.",
    "outlier": "The oddest pictures by isolation forest. A rank, no verdict: a data set always has an oddest picture.",
    "similar": "Alike for the network and in another group: perhaps frames of one place. Give them one group.",
}


def render(inspection: Inspection, shortcuts: Sequence[Shortcut], *, title: str, shown: int = SHOWN) -> str:
    """The page as text, with at most ``shown`` pictures of each kind; nothing is loaded from elsewhere."""
    from markupsafe import Markup

    from workzone import __version__
    from workzone.evaluation.report.templates import environment, source

    counts = inspection.counts()
    sections = [
        {
            "kind": kind,
            "meaning": MEANING[kind] + _left_out(inspection, kind),
            "count": counts[kind],
            "cards": [_card(inspection, f) for f in [f for f in inspection.findings if f.kind == kind][:shown]],
        }
        for kind in KINDS
        if counts[kind]
    ]
    doubts = inspection.doubts
    return (
        environment()
        .get_template("quality.html.j2")
        .render(
            title=title,
            style=Markup(source("report.css")),
            n=len(inspection.manifest),
            groups=len(set(inspection.manifest.groups)),
            units=len(set(inspection.units)),
            labels=_labels(inspection.manifest),
            counts=[(kind, counts[kind], MEANING[kind] + _left_out(inspection, kind)) for kind in KINDS],
            shortcuts=shortcuts,
            joint=None if doubts is None else [[f"{v:.1%}" for v in row] for row in doubts.joint.tolist()],
            slices=_slices(inspection.manifest),
            sections=sections,
            skipped=inspection.skipped,
            version=__version__,
        )
    )


def _left_out(inspection: Inspection, kind: str) -> str:
    """How many of a kind are not put before a person."""
    count = inspection.counts()[kind]
    queued = sum(f.kind == kind for f in inspection.queued())
    if queued == count:
        return ""
    verb = "is" if queued == 1 else "are"
    return f" {queued} of {count} {verb} in review.csv: a probability of {inspection.confidence:g} or more."


def _labels(manifest: Manifest) -> list[tuple[str, int]]:
    counts = Counter(manifest.frame["label"].to_list())
    return [(name, counts[value]) for value, name in ((1, "roadwork"), (0, "no_roadwork"), (None, "unlabelled"))]


def _slices(manifest: Manifest) -> list[dict[str, Any]]:
    """Counts by value of the columns that make slices; unknown values are a value."""
    frame, found = manifest.frame, []
    for column in SLICES:
        if column not in frame.columns:
            continue
        values = ["unknown" if v is None else str(v) for v in frame[column].to_list()]
        total = Counter(values)
        if total.keys() == {"unknown"}:
            continue
        pairs = Counter(zip(values, frame["label"].to_list(), strict=True))
        rows = [(v, n, pairs[v, 1], pairs[v, 0], pairs[v, None]) for v, n in total.most_common(_MOST_VALUES)]
        found.append({"column": column, "rows": rows, "more": len(total) - len(rows)})
    return found


def _card(inspection: Inspection, f: Finding) -> dict[str, str]:
    manifest = inspection.manifest
    label = None if f.row < 0 else manifest.frame["label"][f.row]
    other = ""
    if f.other and f.other != f.id:
        row = manifest.frame["id"].to_list().index(f.other)
        other = thumbnail(manifest.paths[row])
    return {
        "id": f.id,
        "picture": "" if f.row < 0 else thumbnail(manifest.paths[f.row]),
        "other": other,
        "detail": f.detail,
        "label": {1: "roadwork", 0: "no_roadwork", None: "unlabelled"}[label],
        "suggested": f.suggested,
    }
