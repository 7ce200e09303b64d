"""One look for every plot: a PNG on white for the folder, and an SVG that follows the theme of the page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workzone.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours of a plot by their role."""

    ink: str
    muted: str
    grid: str
    paper: str
    roadwork: str
    clear: str
    wrong: str
    right: str
    band: str


LIGHT = Palette("#1d2733", "#5d6b7a", "#e3e8ee", "#ffffff", "#c2560c", "#1f6fb2", "#b3261e", "#2f7d5b", "#8896a5")
_ROLES = tuple(Palette.__slots__)
# Colours that nothing else uses, so that each can be replaced by the CSS variable of its role.
_TOKENS = Palette(*(f"#0a0b{i:02x}" for i in range(1, len(_ROLES) + 1)))

_RC: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "workzone",
    # Names of sources and slices are text, whatever signs they hold.
    "text.parse_math": False,
}

Draw = Callable[["Figure", Palette], None]


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture that can be drawn in any palette.

    Attributes:
        name: file name without suffix.
        draw: draws on an empty figure.
        size: width and height in inches.
        alt: one sentence for those who cannot see it.
    """

    name: str
    draw: Draw
    size: tuple[float, float]
    alt: str

    def _save(self, target: Path | io.StringIO, palette: Palette, **options: Any) -> None:
        """Draw on a fresh figure and save it; ticks are made while saving, so the style covers both."""
        import matplotlib as mpl
        from matplotlib.figure import Figure

        colours = {
            "text.color": palette.ink,
            "axes.labelcolor": palette.ink,
            "axes.edgecolor": palette.muted,
            "axes.titlecolor": palette.ink,
            "xtick.color": palette.muted,
            "ytick.color": palette.muted,
            "grid.color": palette.grid,
            "axes.facecolor": palette.paper,
            "figure.facecolor": palette.paper,
        }
        with mpl.rc_context({**_RC, **colours}):
            figure = Figure(figsize=self.size, layout="constrained")
            self.draw(figure, palette)
            figure.savefig(target, **options)

    def save_png(self, folder: Path) -> Path:
        """Write ``name``.png, 144 dots per inch, on white."""
        path = folder / f"{self.name}.png"
        with atomic_path(path) as partial:
            self._save(partial, LIGHT, dpi=144, metadata={"Software": None})
        return path

    def svg(self) -> str:
        """Inline SVG without prolog, metadata or addresses; its colours are the CSS variables ``--plot-<role>``."""
        stream = io.StringIO()
        self._save(stream, _TOKENS, format="svg", transparent=True, metadata={"Date": None})
        text = stream.getvalue()
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        text = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
        text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
        # Two plots of one page may use the same name for different clip paths or glyphs.
        text = re.sub(r'(\bid=")', rf"\g<1>{self.name}-", text)
        text = re.sub(r'(href="#|url\(#)', rf"\g<1>{self.name}-", text)
        for role in _ROLES:
            text = text.replace(getattr(_TOKENS, role), f"var(--plot-{role})")
        text = re.sub(r"font-family: ?[^;\"]*", "font-family: inherit", text)
        text = re.sub(r"(font: ?[^;\"]*?\d(?:px|pt)) [^;\"]*", r"\1 inherit", text)
        width, height = (round(72 * side) for side in self.size)
        head = f'<svg role="img" viewBox="0 0 {width} {height}" aria-labelledby="{self.name}-alt">'
        return re.sub(r"<svg[^>]*>", lambda _: f'{head}<title id="{self.name}-alt">{_escape(self.alt)}</title>', text, count=1)


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def printable(text: str, limit: int = 40) -> str:
    """``text`` without control characters, shortened to ``limit`` characters."""
    clean = "".join(c if c.isprintable() else " " for c in text)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
