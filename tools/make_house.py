"""Draw docs/assets/house.svg from the layers that import-linter checks, and list them on the page about them."""

from __future__ import annotations

import re
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "assets" / "house.svg"
PAGE = ROOT / "docs" / "explanation" / "architecture.md"
WORDS = {
    "cli": "one file per command, thin",
    "streetvision": "reward and adapter of subnet 72",
    "maps": "events and WZDx feed",
    "tuning": "ablations and sweeps",
    "pipeline": "phases, artifacts, run manifest, lock, resume",
    "training": "losses, optimisers, adapters, pretraining",
    "export": "torch to ONNX, OpenVINO, int8",
    "models": "backbones, heads, aggregators over views",
    "registry": "versions, chained log, gates, roll-out",
    "serving": "REST and Open Inference Protocol, queue, review",
    "scoring": "many images on many processes",
    "monitoring": "drift, error rates without labels, promises tested at any time, alarms",
    "bundle": "schema, verify, engines, the Detector",
    "evaluation": "figures, slices, robustness, comparison, report",
    "decisions": "policies, conformal sets, certificate",
    "calibration": "one file per calibrator, choice, ensemble",
    "metrics": "rates, bootstrap, tests of difference",
    "data": "manifest, split roles, sources, quality, fusion, drawn scenes",
    "vision": "decoding, views, corruptions, what the StreetVision validator does",
    "config": "typed keys, presets",
    "predictions": "the table that joins the two halves",
    "cluster": "the same work on one machine or a Ray cluster",
    "files": "atomic writes, hashes",
    "processors": "how many there are to use",
    "errors": "what a user can meet",
}
_ROW, _TOP, _WIDTH = 34, 46, 900
_COLOURS = {"entry": ("#eff6ff", "#93c5fd"), "torch": ("#fff7ed", "#fdba74"), "plain": ("#f0fdf4", "#86efac")}


def contracts() -> tuple[list[str], set[str]]:
    """The layers from top to bottom, and the packages that must not import PyTorch."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(c["layers"] for c in found if c["type"] == "layers")
    plain = next(c for c in found if c["type"] == "forbidden" and "torch" in c["forbidden_modules"])
    return layers, {name.removeprefix("workzone.") for name in plain["source_modules"]}


def draw(layers: list[str], plain: set[str]) -> str:
    """The picture as SVG."""
    bottom = _TOP + _ROW * len(layers)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {bottom + 46}" font-family="sans-serif" '
        'font-size="14" role="img" aria-label="Packages from the command line down to errors; imports point down">',
        f'<rect width="{_WIDTH}" height="{bottom + 46}" fill="#ffffff"/>',
        '<defs><marker id="d" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#475569"/></marker></defs>',
        '<text x="60" y="26" fill="#0f172a" font-weight="bold">Imports point down only</text>',
        f'<path d="M34 {_TOP} V{bottom - 6}" stroke="#475569" stroke-width="2" marker-end="url(#d)"/>',
    ]
    for i, layer in enumerate(layers):
        y, names = _TOP + i * _ROW, layer.split(" | ")
        kind = "entry" if names == ["cli"] else "plain" if set(names) <= plain else "torch"
        fill, stroke = _COLOURS[kind]
        words = escape("; ".join(WORDS[name] for name in names))
        lines += [
            f'<rect x="60" y="{y}" width="{_WIDTH - 80}" height="{_ROW - 6}" rx="5" fill="{fill}" stroke="{stroke}"/>',
            f'<text x="74" y="{y + 19}" fill="#0f172a">{layer}</text>',
            f'<text x="310" y="{y + 19}" fill="#334155" font-size="13">{words}</text>',
        ]
    for x, kind, words in ((60, "torch", "may need PyTorch"), (230, "plain", "never imports PyTorch")):
        fill, stroke = _COLOURS[kind]
        lines += [
            f'<rect x="{x}" y="{bottom + 7}" width="14" height="14" fill="{fill}" stroke="{stroke}"/>',
            f'<text x="{x + 22}" y="{bottom + 19}" fill="#334155" font-size="12">{words}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"


def main() -> None:
    """Write both files."""
    layers, plain = contracts()
    PICTURE.write_text(draw(layers, plain), encoding="utf-8")
    listed = "```text\n" + "\n".join(layers) + "\n```"
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(re.sub(r"```text\n.*?\n```", lambda _: listed, page, count=1, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main()
