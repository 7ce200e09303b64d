"""One look for every plot: a PNG on white for the folder, and an SVG that follows the theme of the page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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


# In an SVG each colour is replaced by the CSS variable of its role, so no two roles may share one.
LIGHT = Palette("#1d2733", "#5d6b7a", "#e3e8ee", "#ffffff", "#c2560c", "#1f6fb2", "#b3261e", "#2f7d5b", "#8896a5")
_ROLES = tuple(Palette.__slots__)

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
    # Where a legend must lie over a line it stays readable.
    "legend.frameon": True,
    "legend.fancybox": False,
    "legend.facecolor": LIGHT.paper,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.85,
    "legend.fontsize": 8.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "workzone",
    # Names of sources and slices are text, whatever signs they hold.
    "text.parse_math": False,
    "text.color": LIGHT.ink,
    "axes.labelcolor": LIGHT.ink,
    "axes.edgecolor": LIGHT.muted,
    "axes.titlecolor": LIGHT.ink,
    "xtick.color": LIGHT.muted,
    "ytick.color": LIGHT.muted,
    "grid.color": LIGHT.grid,
    "axes.facecolor": LIGHT.paper,
    "figure.facecolor": LIGHT.paper,
}

Draw = Callable[["Figure", Palette], None]


@dataclass(frozen=True, slots=True)
class Plot:
    """One picture.

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

    def render(self) -> tuple[bytes, str]:
        """PNG (144 dots per inch, on white) and inline SVG.

        The SVG has no prolog, metadata or addresses, and its colours are the CSS variables ``--plot-<role>``.
        """
        import matplotlib as mpl
        from matplotlib.figure import Figure

        png, svg = io.BytesIO(), io.StringIO()
        # Ticks are made while saving, so the style must still hold then.
        with mpl.rc_context(_RC):
            figure = Figure(figsize=self.size, layout="constrained")
            self.draw(figure, LIGHT)
            figure.savefig(png, dpi=144, metadata={"Software": None})
            figure.set_layout_engine("none")
            figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
        return png.getvalue(), self._inline(svg.getvalue())

    def _inline(self, text: str) -> str:
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        text = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
        text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
        # The stylesheet of the plot would otherwise hold for the whole page.
        text = re.sub(r"<style[^>]*>\s*\*", "<style>svg *", text)
        # Two plots of one page may use the same name for different clip paths or glyphs.
        text = re.sub(r'(\bid=")', rf"\g<1>{self.name}-", text)
        text = re.sub(r'(href="#|url\(#)', rf"\g<1>{self.name}-", text)
        for role in _ROLES:
            text = text.replace(getattr(LIGHT, role), f"var(--plot-{role})")
        text = re.sub(r"font-family: ?[^;\"]*", "font-family: inherit", text)
        text = re.sub(r"(font: ?[^;\"]*?\d(?:px|pt)) [^;\"]*", r"\1 inherit", text)
        width, height = (round(72 * side) for side in self.size)
        head = f'<svg role="img" viewBox="0 0 {width} {height}" aria-labelledby="{self.name}-alt">'
        return re.sub(
            r"<svg[^>]*>", lambda _: f'{head}<title id="{self.name}-alt">{_escape(self.alt)}</title>', text, count=1
        )


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def printable(text: str, limit: int = 40) -> str:
    """``text`` without control characters, shortened to ``limit`` characters."""
    clean = "".join(c if c.isprintable() else " " for c in text)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
