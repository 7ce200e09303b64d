"""The pictures to look at: the most confident mistakes, and what the policy would not decide."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from workzone.decisions.types import NAMES, Code
from workzone.errors import ImageError
from workzone.evaluation.inputs import Evaluated
from workzone.evaluation.report.style import printable
from workzone.predictions import LABELS
from workzone.vision import decode

_SIDE = 320
_QUALITY = 72
_SHOWN_COLUMNS = ("source", "weather", "time_of_day", "hour", "evidence", "hard_negative")


@dataclass(frozen=True, slots=True)
class Card:
    """One image of the gallery; ``picture`` is a data address, or None with ``missing`` saying why it cannot be shown
    (empty where none was named).

    ``heat`` is the same picture with the places that counted, where that was asked for.
    """

    id: str
    truth: str
    answer: str
    probability: float
    reason: str
    facts: tuple[str, ...]
    picture: str | None
    missing: str
    width: int
    height: int
    heat: str | None = None


@dataclass(frozen=True, slots=True)
class Gallery:
    """Cards and how many images each list was taken from."""

    mistakes: tuple[Card, ...]
    n_mistakes: int
    abstained: tuple[Card, ...]
    n_abstained: int


def worst_mistakes(e: Evaluated) -> NDArray[np.int64]:
    """Images the policy decided wrongly, the most confident first."""
    wrong = np.flatnonzero(e.decisions.accepted & (e.decisions.codes != e.labels))
    truth = np.where(e.labels == 1, e.probability, 1.0 - e.probability)
    return wrong[np.lexsort((e.predictions.ids[wrong], truth[wrong]))]


def abstentions(e: Evaluated) -> NDArray[np.int64]:
    """Images the policy did not decide: those it would have got wrong at 0.5 first, then the least certain."""
    held = np.flatnonzero(~e.decisions.accepted)
    saved = e.argmax[held] == e.labels[held]
    return held[np.lexsort((e.predictions.ids[held], np.abs(e.probability[held] - 0.5), saved))]


def gallery(e: Evaluated, limit: int, *, explained: int = 0, progress: Callable[[str], None]) -> Gallery:
    """At most ``limit`` cards: two thirds for mistakes, the rest for abstentions; unused places are lent.

    The first ``explained`` mistakes also show the places that counted, where ``e.overlay`` can draw them.
    """
    wrong, held = worst_mistakes(e), abstentions(e)
    n_wrong = min(len(wrong), max(limit - len(held), -(-2 * limit // 3)))
    n_held = min(len(held), limit - n_wrong)
    if n_wrong + n_held:
        progress(f"pictures of {n_wrong} mistakes and {n_held} abstentions")
    columns = {
        name: e.predictions.column(name, default="")
        for name in _SHOWN_COLUMNS
        if name in e.predictions.columns
    }
    paths = e.predictions.column("path", default="")

    def card(i: int, heat: bool = False) -> Card:
        facts = tuple(f"{name.replace('_', ' ')}: {printable(str(v[i]))}" for name, v in columns.items() if v[i] != "")
        picture, size, missing = _thumbnail(str(paths[i]), e.root)
        return Card(
            id=printable(str(e.predictions.ids[i]), 60),
            truth=LABELS[e.labels[i]],
            answer=NAMES[int(e.decisions.codes[i])],
            probability=float(e.probability[i]),
            reason=printable(str(e.decisions.reasons[i]), 160) if len(e.decisions.reasons) else "",
            facts=facts,
            picture=picture,
            missing=missing,
            width=size[0],
            height=size[1],
            heat=_heat(e, str(paths[i])) if heat and picture else None,
        )

    return Gallery(
        tuple(card(i, heat=k < explained) for k, i in enumerate(wrong[:n_wrong].tolist())),
        len(wrong),
        tuple(card(i) for i in held[:n_held].tolist()),
        len(held),
    )


def _thumbnail(path: str, root: Path | None) -> tuple[str | None, tuple[int, int], str]:
    """Data address of a small JPEG with its size, or None and why there is none."""
    nothing = (_SIDE, _SIDE * 3 // 4)
    if not path:
        return None, nothing, ""
    file = Path(path) if root is None else root / path
    try:
        image = decode(file, min_side=_SIDE)
    except ImageError as error:
        return None, nothing, str(error.reason).replace("_", " ")
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    return _address(image), image.size, ""


def _heat(e: Evaluated, path: str) -> str | None:
    """Data address of the picture with the places that counted, None where nothing can draw it."""
    if e.overlay is None:
        return None
    return _address(e.overlay(Path(path) if e.root is None else e.root / path))


def _address(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def reasons(e: Evaluated) -> list[tuple[str, int, int]]:
    """Reasons of the abstentions: reason, images, and how many of them 0.5 would get wrong; most frequent first."""
    if not len(e.decisions.reasons):
        return []
    found: dict[str, list[int]] = {}
    for i in np.flatnonzero(e.decisions.codes == Code.ABSTAIN).tolist():
        count = found.setdefault(printable(str(e.decisions.reasons[i]), 120), [0, 0])
        count[0] += 1
        count[1] += int(e.argmax[i] != e.labels[i])
    return sorted(((name, n, wrong) for name, (n, wrong) in found.items()), key=lambda r: (-r[1], r[0]))
