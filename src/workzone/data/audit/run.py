"""Audit of a split: what one role knows of another through groups, copies, near copies and crops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from workzone.data.audit.crops import correlation, find_matches, is_flat
from workzone.data.audit.window_index import Greys
from workzone.data.audit.windows import SIDE
from workzone.data.manifest import Manifest
from workzone.data.perceptual import grey_square, near_pairs, phash
from workzone.data.roles import Role
from workzone.data.splits import Splits, check_against
from workzone.errors import ImageError
from workzone.files import sha256_file, write_json
from workzone.vision.batch import in_order
from workzone.vision.decode import decode

Kind = Literal["group", "copy", "near_duplicate", "crop"]
KINDS: tuple[Kind, ...] = ("group", "copy", "near_duplicate", "crop")
HASH_BITS = 6
SAME_PICTURE = 0.90
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One leak between two roles. ``score`` is 1 for equal groups and bytes, else a correlation."""

    kind: Kind
    id_a: str
    role_a: Role
    id_b: str
    role_b: Role
    detail: str
    score: float

    def text(self) -> str:
        """The finding in one line."""
        return f"{self.kind}: {self.id_a} ({self.role_a}) and {self.id_b} ({self.role_b}): {self.detail}"


@dataclass(frozen=True, slots=True)
class AuditReport:
    """Result of an audit.

    Attributes:
        findings: leaks, certain ones first.
        checked: number of images compared.
        unreadable: image id -> why it could not be compared.
        changed: ids of images whose file is not the one that was split.
        paths: image id -> file, for the contact sheet.
    """

    findings: list[Finding]
    checked: int
    unreadable: Mapping[str, str] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    paths: Mapping[str, Path] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether nothing crosses roles and no file has changed; ``unreadable`` images were not compared."""
        return not self.findings and not self.changed

    def render(self) -> list[str]:
        """The report as lines of plain text."""
        counts = Counter(f.kind for f in self.findings)
        found = ", ".join(f"{counts[k]} {k}" for k in KINDS if counts[k]) or "no leak"
        lines = [f"{self.checked} images compared across split roles: {found}"]
        lines += [f"  {f.text()}" for f in self.findings[:_SHOWN]]
        if len(self.findings) > _SHOWN:
            lines.append(f"  and {len(self.findings) - _SHOWN} more")
        if self.changed:
            lines.append(f"{len(self.changed)} files changed since the split was made, first {self.changed[0]}")
        if self.unreadable:
            first = next(iter(self.unreadable.items()))
            lines.append(f"{len(self.unreadable)} images could not be compared, first {first[0]} ({first[1]})")
        return lines

    def write(self, folder: Path | str) -> list[Path]:
        """Write ``audit.json`` and, if anything was found, ``audit.png`` with the worst pairs; returns the files."""
        from workzone.data.audit.contact_sheet import draw_pairs

        target = Path(folder)
        body = {
            "passed": self.passed,
            "checked": self.checked,
            "findings": [asdict(f) for f in self.findings],
            "unreadable": dict(self.unreadable),
            "changed": self.changed,
        }
        write_json(target / "audit.json", body)
        pairs = [f for f in self.findings if f.kind != "group"] or self.findings
        if not pairs:
            return [target / "audit.json"]
        captions = [(f.id_a, f.id_b, f"{f.kind.replace('_', ' ')}, {f.role_a} / {f.role_b}: {f.detail}") for f in pairs]
        draw_pairs([(self.paths[a], self.paths[b], c) for a, b, c in captions], target / "audit.png")
        return [target / "audit.json", target / "audit.png"]


@dataclass(frozen=True, slots=True)
class _Loaded:
    """One image as the audit sees it; ``grey`` is put on disk at once."""

    sha256: str
    grey: NDArray[np.uint8]
    phash: str
    flat: bool


@dataclass(frozen=True, slots=True)
class _Known:
    """What stays in memory of one image."""

    id: str
    role: int
    sha256: str
    phash: str
    flat: bool


def _load(path: Path) -> _Loaded | ImageError:
    try:
        image = decode(path, min_side=SIDE)
    except ImageError as error:
        return error
    grey = grey_square(image, SIDE).astype(np.uint8)
    return _Loaded(sha256_file(path), grey, phash(image), is_flat(grey))


def _crossing_groups(ids: list[str], roles: list[Role], groups: list[str]) -> list[Finding]:
    members: dict[str, dict[Role, list[str]]] = {}
    for image_id, role, group in zip(ids, roles, groups, strict=True):
        members.setdefault(group, {}).setdefault(role, []).append(image_id)
    findings = []
    for group, by in members.items():
        for a, b in combinations(sorted(by, key=list(Role).index), 2):
            detail = f"group {group!r} has {len(by[a])} images in {a} and {len(by[b])} in {b}"
            findings.append(Finding("group", by[a][0], a, by[b][0], b, detail, 1.0))
    return findings


def audit(
    manifest: Manifest, splits: Splits, *, workers: int = 2, progress: Callable[[int, int], None] | None = None
) -> AuditReport:
    """Compare all images of different roles.

    Found are groups in two roles, files with equal bytes, re-encoded or resized copies, mirrored copies, and crops that
    keep about 55 percent or more of width and height. Frames of one group inside one role are no leak.

    Work and memory grow in proportion to the number of images; a grey square of 26 kB of each lies in the temporary
    folder meanwhile. Up to 1,000 images all pairs are compared, beyond that those that an index names.

    Args:
        manifest: the images.
        splits: any split of them.
        workers: threads that decode.
        progress: called with steps done and steps in all.

    Raises:
        DataError: the split names images that the manifest does not have, or was made from other contents.
    """
    check_against(manifest, splits)
    rows = [i for i, image_id in enumerate(manifest.frame["id"].to_list()) if image_id in splits.assignment]
    all_ids, all_groups, all_paths = manifest.frame["id"].to_list(), manifest.groups, manifest.paths
    ids = [str(all_ids[i]) for i in rows]
    roles = [splits.assignment[i] for i in ids]
    paths = dict(zip(ids, (all_paths[i] for i in rows), strict=True))
    findings = _crossing_groups(ids, roles, [all_groups[i] for i in rows])

    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, 2 * len(ids))

    loaded: list[_Known] = []
    unreadable: dict[str, str] = {}
    with closing(Greys()) as grey:
        for i, result in in_order((paths[i] for i in ids), _load, workers=max(1, workers), on_error=None):
            if isinstance(result, ImageError):
                unreadable[ids[i]] = result.reason
                step()
            else:
                grey.append(result.grey)
                role = list(Role).index(splits.assignment[ids[i]])
                loaded.append(_Known(ids[i], role, result.sha256, result.phash, result.flat))
            step()
        known = dict(manifest.frame.select("id", "sha256").rows()) | dict(splits.content)
        changed = [image.id for image in loaded if known.get(image.id) not in (None, image.sha256)]
        if loaded:
            findings += _picture_findings(loaded, grey, step)
    findings.sort(key=lambda f: (KINDS.index(f.kind), -f.score, f.id_a, f.id_b))
    return AuditReport(findings, len(loaded), unreadable, changed, paths)


def _picture_findings(loaded: list[_Known], grey: Greys, step: Callable[[], None]) -> list[Finding]:
    number, roles = [image.role for image in loaded], list(Role)
    found: dict[tuple[int, int], Finding] = {}

    def add(kind: Kind, a: int, b: int, detail: str, score: float) -> None:
        one, other = loaded[a], loaded[b]
        finding = Finding(kind, one.id, roles[one.role], other.id, roles[other.role], detail, round(score, 4))
        found.setdefault((min(a, b), max(a, b)), finding)

    first: dict[str, dict[int, int]] = {}
    for i, image in enumerate(loaded):
        by = first.setdefault(image.sha256, {})
        for role, j in by.items():
            if role != number[i]:
                add("copy", j, i, "the files are equal byte by byte", 1.0)
        by.setdefault(number[i], i)
    # Pictures without structure correlate with nothing, and all have one hash.
    rows = [i for i, image in enumerate(loaded) if not image.flat]
    for a, b, distance in near_pairs([loaded[i].phash for i in rows], HASH_BITS, apart=[number[i] for i in rows]):
        i, j = rows[a], rows[b]
        # Hashes of pictures with little structure meet by chance, so the pixels have to agree as well.
        if (score := correlation(grey[i], grey[j])) >= SAME_PICTURE:
            add("near_duplicate", i, j, f"{distance} of 64 hash bits differ, correlation {score:.2f}", score)
    for match in find_matches(grey, number, step=step):
        turned = "mirrored, " if match.mirrored else ""
        if match.window.is_whole:
            text = f"{turned}correlation {match.score:.2f}"
            add("near_duplicate", match.part, match.whole, text, match.score)
        else:
            text = f"{turned}the first shows {match.window.text()} of the second, correlation {match.score:.2f}"
            add("crop", match.part, match.whole, text, match.score)
    return list(found.values())
