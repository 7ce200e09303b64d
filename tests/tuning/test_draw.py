"""Pictures of ablations and sweeps: what stands at their axes can be read."""

from __future__ import annotations

from typing import Any

import pytest

from workzone.evaluation.report.style import LIGHT, Plot
from workzone.tuning import draw


def ticks(monkeypatch: pytest.MonkeyPatch, trials: list[tuple[dict[str, Any], float]]) -> list[list[str]]:
    """Labels of the horizontal axis of each panel, as they are drawn."""
    from matplotlib.figure import Figure

    kept: list[Plot] = []

    def keep(*words: Any) -> Plot:
        kept.append(Plot(*words))
        return kept[-1]

    monkeypatch.setattr(draw, "Plot", keep)
    assert draw.slices(trials, "nll").startswith(b"\x89PNG")
    figure = Figure(figsize=kept[0].size, layout="constrained")
    kept[0].draw(figure, LIGHT)
    figure.draw_without_rendering()
    return [[t.get_text() for t in axes.get_xticklabels()] for axes in figure.axes]


def test_a_range_over_decades_has_plain_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    (labels,) = ticks(monkeypatch, [({"train.lr": 10.0**-k}, 0.5) for k in range(1, 5)])
    assert "0.001" in labels
    assert not any("$" in label or "\\" in label for label in labels)


def test_long_names_are_shortened_and_stay_one_word_each(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["dinov2_vits14", "a_backbone_with_a_very_long_name_indeed"]
    (labels,) = ticks(monkeypatch, [({"model.backbone": name}, 0.4) for name in names])
    assert labels[0] == "dinov2_vits14"
    assert labels[1].startswith("a_backbone")
    assert len(labels[1]) == 22


def test_one_trial_has_a_whole_number() -> None:
    assert draw.history([0.4], "nll", maximise=False).startswith(b"\x89PNG")
