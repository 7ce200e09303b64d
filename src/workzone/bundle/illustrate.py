"""Explanations as pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image

from workzone.bundle.explain import MIN_EFFECT, ExplainedView, Explanation, explain, verdict_sentence, weights_sentence
from workzone.bundle.runtime import Decider
from workzone.vision import decode
from workzone.vision.batch import Source
from workzone.vision.draw import Box, captioned, colour_bar, outline_boxes, overlay

SIDE = 560
"""Longest side of a panel in pixels."""
_SHOWN_VIEWS = 3
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
_GAP = 6
_NEAR = 1 / 3
"""Share of the largest contribution below which a view is not drawn."""


def illustrate(e: Explanation, picture: Image.Image, *, side: int = SIDE) -> Image.Image:
    """Draw an explanation: the picture with the views that counted most, the map of its cells, and a caption.

    Args:
        e: what ``explain`` found.
        picture: the picture that was explained, RGB and upright as ``decode`` gives it.
        side: longest side of a panel in pixels; smaller pictures are enlarged to it.
    """
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    base = picture.resize(size, Image.Resampling.BICUBIC)
    marks = [(v.box, _signed(v.contribution), v.contribution > 0) for v in shown_views(e) if v.contribution is not None]
    strongest = float(abs(e.heat).max())
    if e.verdict == "nothing_to_explain":
        # Stretched to full colour, chance would look like an explanation.
        strongest = max(strongest, MIN_EFFECT)
    bar = colour_bar(size[0], strongest, ("against roadwork", "for roadwork"))
    places = _extended(overlay(base, e.heat, strongest=strongest), bar.height)
    places.paste(bar, (0, places.height - bar.height))
    views = _extended(outline_boxes(base, marks), bar.height)
    return captioned([("Views that counted most", views), (_map_title(e), places)], caption(e))


def caption(e: Explanation) -> list[str]:
    """Decision, who answered, what the panels show, the two checks, and the certificate: one paragraph each."""
    d = e.decision
    lean = f", leans to {e.towards}" if d.label == "abstain" else ""
    whole = [v.contribution for v in e.views if v.box == WHOLE and v.contribution is not None]
    if whole:
        views = f"that each adds, found by leaving it out; the view of the whole picture {_signed(sum(whole))}."
    else:
        views = "cannot be divided: there is only one view, of the whole picture."
    of = f" of model {e.answered.model}" if e.answered and len(e.answered.names) > 1 else ""
    return [
        f"{d.label}{lean}: P(roadwork) {d.probability:.2f}, log-odds {d.log_odds:+.2f}",
        *(e.answered.sentences() if e.answered else ()),
        f"Views{of}: the log-odds {views}",
        f"Places: log-odds that each cell carries, found by covering it; all covered {e.log_odds_covered:+.2f}.",
        verdict_sentence(e),
        weights_sentence(e),
        f"Certificate: {e.certificate}",
    ]


def shown_views(e: Explanation) -> list[ExplainedView]:
    """At most three views whose contributions come near the largest one, that one first; of mirrors the larger."""
    best: dict[Box, ExplainedView] = {}
    for v in e.views:
        if v.contribution is not None and (v.box not in best or _size(v) > _size(best[v.box])):
            best[v.box] = v
    ordered = sorted(best.values(), key=lambda v: -_size(v))[:_SHOWN_VIEWS]
    return [v for v in ordered if _size(v) >= _NEAR * _size(ordered[0]) > 0]


def _signed(value: float) -> str:
    """``value`` with two decimals and its sign, without a sign where it is zero."""
    return f"{value:+.2f}" if round(value, 2) else "0.00"


def _size(view: ExplainedView) -> float:
    return abs(view.contribution or 0.0)


def explain_image(
    detector: Decider,
    source: Source,
    *,
    cells: int = 8,
    orders: int = 0,
    side: int = SIDE,
    columns: Mapping[str, Any] | None = None,
) -> tuple[Explanation, Image.Image]:
    """Explain one image and lay the map over it, without a caption, as a gallery needs it.

    ``orders`` 0 leaves out the test of the map, which takes most of the time; the verdict is then ``not_checked``.

    Raises:
        ImageError: the image cannot be used.
    """
    found = explain(detector, source, cells=cells, orders=orders, columns=columns)
    picture = decode(source, min_side=side)
    picture.thumbnail((side, side), Image.Resampling.BICUBIC)
    return found, overlay(picture, found.heat)


def _map_title(e: Explanation) -> str:
    words = {
        "faithful": "Places that counted",
        "not_faithful": "Places (map not faithful)",
        "nothing_to_explain": "Places (nothing to explain)",
        "not_checked": "Places that counted (not checked)",
    }
    return words[e.verdict]


def _extended(panel: Image.Image, by: int) -> Image.Image:
    """``panel`` with ``by`` white rows and a gap below."""
    sheet = Image.new("RGB", (panel.width, panel.height + _GAP + by), (255, 255, 255))
    sheet.paste(panel)
    return sheet
