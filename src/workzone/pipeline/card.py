"""The model card of a bundle: what it is, what it was measured to do, and what it promises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workzone import __version__
from workzone.config import RunConfig
from workzone.config.views import ViewSpec
from workzone.decisions import Certificate

_SHOWN = {"policy": ("coverage", "risk", "fnr", "fpr"), "argmax": ("mcc", "accuracy", "auroc", "recall", "specificity")}

LIMITS = (
    "## Limits",
    "",
    "The promise holds for images drawn like the certification images. Another camera, country or season is",
    "another population: measure it (`workzone evaluate`) before relying on it.",
    "",
)


def model_card(
    config: RunConfig, variant: str, metrics: Mapping[str, Any], certificate: Certificate, licence: str
) -> str:
    """Markdown for people; every figure has its n, prevalence and interval."""
    size = f"n {metrics['n']}, {metrics['prevalence']:.1%} roadwork, {metrics['n_groups']} groups"
    views = config.views
    lines = [
        *opening(config.out.name, certificate),
        "",
        f"## Measured on the test role ({size})",
        "",
        "| system | figure | value with interval |",
        "|---|---|---|",
    ]
    for system, names in _SHOWN.items():
        natural = metrics["systems"][system]["natural"]
        for name in names:
            cell = natural.get(name)
            if cell is not None:
                lines.append(f"| {system} | {name} | {_figure(cell)} |")
    lines += [
        "",
        "## How it was made",
        "",
        f"- backbone `{config.model.backbone}` ({licence})",
        f"- training `{config.train.method}`, aggregator `{config.fuse.aggregator}`",
        f"- views: `{views.layout}`, {_tiles(views)}, {_size(config)} px",
        f"- engine `{variant}`; calibrated and certified on the scores of this engine",
        f"- seed {config.seed}, workzone {__version__}",
        "",
        *LIMITS,
    ]
    return "\n".join(lines)


def _tiles(views: ViewSpec) -> str:
    if views.layout == "global":
        return "no tiles"
    if views.layout == "adaptive":
        return f"{views.min_tiles} to {views.max_tiles} tiles"
    return f"{' and '.join(f'{rows} x {cols}' for rows, cols in views.grids)} tiles"


def opening(name: str, certificate: Certificate) -> list[str]:
    """Lines of a card up to the last promise."""
    return [
        f"# {name}: roadwork in street images",
        "",
        "Says `roadwork`, `no_roadwork` or `abstain` about one street image. Label 1 means: active road work is",
        "visible on or beside the road.",
        "",
        "## Promise",
        "",
        *(f"- {sentence}" for sentence in certificate.sentences()),
    ]


def _size(config: RunConfig) -> str:
    size, width = config.model.image_size, config.model.image_width
    return f"{width} x {size}" if width else f"{size}"


def _figure(cell: Mapping[str, Any]) -> str:
    def number(value: Any) -> str:
        return "undefined" if value is None else f"{value:.3f}"

    return f"{number(cell.get('value'))} [{number(cell.get('low'))}, {number(cell.get('high'))}]"
