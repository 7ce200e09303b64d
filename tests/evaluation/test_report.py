from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from workzone.config.run import EvaluateConfig
from workzone.decisions.types import Decisions
from workzone.evaluation.evaluate import evaluate, make_plots
from workzone.evaluation.inputs import Evaluated
from workzone.evaluation.report.gallery import abstentions, gallery, worst_mistakes
from workzone.evaluation.report.tables import LABEL_ROWS, system_table
from workzone.evaluation.report.terminal import summary_table
from workzone.evaluation.slices import compute_slices
from workzone.evaluation.summary import summarise
from workzone.predictions import Predictions

Make = Callable[..., Evaluated]
FILES = {
    "metrics_summary.json", "confusion.json", "confusion.png", "roc_curve.png", "pr_curve.png", "reliability.png",
    "risk_coverage.png", "confidence_histogram.png", "bootstrap_ci.json", "per_class_metrics.json", "slices.json",
    "slices.png", "slice_calibration.png", "report.html",
}  # fmt: skip


def _quiet(_: str) -> None:
    return None


class Page(HTMLParser):
    """Tags with their attributes, figures by key, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.figures: list[tuple[str, float, str]] = []
        self.text = ""
        self._open: tuple[str, float] | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append((tag, values))
        if tag == "data":
            self._open = (str(values["data-key"]), float(str(values["value"])))

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._open:
            self.figures.append((*self._open, data))
            self._open = None


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "images").mkdir()
    for i in range(0, 250, 2):  # every other picture is missing
        Image.new("RGB", (640, 360), (i, 90, 40)).save(folder / "images" / f"{i}.jpg")
    return folder


@pytest.fixture(scope="module")
def written(make: Make, quick: EvaluateConfig, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "evaluate"
    steps: list[str] = []
    evaluate(make(250, root=pictures), quick, folder, seed=0, progress=steps.append)
    assert len(steps) > 3
    return folder


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return Page((written / "report.html").read_text(encoding="utf-8"))


def _strict(path: Path) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{path.name} holds {name}")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def _self_contained(html: str) -> None:
    assert not re.search(r"https?://|//cdn|@import|url\((?!#)", html)
    for tag, attrs in Page(html).tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base"), tag
        assert not any(name.startswith("on") for name in attrs), (tag, attrs)
        for name in ("src", "srcset", "href", "xlink:href", "data", "action"):
            value = attrs.get(name)
            assert value is None or value.startswith(("data:image/jpeg;base64,", "#")), (tag, name, value[:60])


def test_every_file_is_written_and_json_is_strict(written: Path) -> None:
    assert {p.name for p in written.iterdir()} == FILES
    for path in written.glob("*.json"):
        assert _strict(path)["schema_version"] == 1
    for path in written.glob("*.png"):
        with Image.open(path) as image:
            assert min(image.size) > 200


def test_report_needs_nothing_from_outside(written: Path) -> None:
    html = (written / "report.html").read_text(encoding="utf-8")
    _self_contained(html)
    assert len(html) < 3_000_000
    assert html.count("<svg") == 7
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', html)) <= set(ids)


def test_figures_of_the_page_are_those_of_the_files(written: Path, page: Page) -> None:
    slices = _strict(written / "slices.json")
    stored = _strict(written / "metrics_summary.json") | {name: slices[name] for name in ("slices", "fairness")}
    assert len(page.figures) > 150
    for key, value, text in page.figures:
        found: Any = stored
        for step in key.split("/"):
            found = found[int(step)] if isinstance(found, list) else found[step]
        expected = found["value"] if isinstance(found, dict) else found
        assert value == expected, key
        shown = f"{100 * expected:.1f}%" if text.endswith("%") else f"{expected:.3f}"
        assert text == shown, key


def test_page_says_what_is_not_certified_first(page: Page) -> None:
    assert (
        page.text.index("Not certifiable")
        < page.text.index("the detector decided")
        < page.text.index("What the policy does")
    )


def test_summary_and_tables_agree(written: Path) -> None:
    summary, ci = _strict(written / "metrics_summary.json"), _strict(written / "bootstrap_ci.json")
    assert ci["systems"] == summary["systems"]
    table = _strict(written / "confusion.json")["tables"][0]
    (found, missed, held), (alarms, _, _) = table["counts"]
    assert table["answers"] == ["roadwork", "no_roadwork", "abstain"]
    assert (missed, alarms) == (summary["counts"]["missed"], summary["counts"]["false_alarms"])
    assert found + missed + held == summary["n_roadwork"]
    per_class = _strict(written / "per_class_metrics.json")["classes"]
    assert per_class["roadwork"]["policy"]["missed"] == summary["systems"]["policy"]["natural"]["fnr"]


def test_same_seed_same_figures_and_plots(make: Make, quick: EvaluateConfig, written: Path) -> None:
    e = make(250)
    summary = summarise(e, quick, seed=0, progress=_quiet)
    stored = _strict(written / "metrics_summary.json")
    again = json.loads(json.dumps(summary.to_dict()))
    assert again == {key: stored[key] for key in again}
    slices = compute_slices(e, quick.slices, draws=summary.draws, fewest=quick.min_slice, progress=_quiet)
    plot = make_plots(e, summary, slices)["roc_curve"]
    png, svg = plot.render()
    assert png == (written / "roc_curve.png").read_bytes()
    assert svg in (written / "report.html").read_text(encoding="utf-8")


def test_gallery_is_ordered_and_says_which_picture_is_missing(make: Make, pictures: Path) -> None:
    e = make(250, root=pictures)
    wrong = worst_mistakes(e)
    truth = np.where(e.labels == 1, e.probability, 1 - e.probability)[wrong]
    assert len(wrong)
    assert (np.diff(truth) >= 0).all()
    assert (e.decisions.codes[wrong] != e.labels[wrong]).all()
    assert (e.decisions.codes[abstentions(e)] == -1).all()
    shown = gallery(e, 20, progress=_quiet)
    assert shown.n_mistakes == len(wrong)
    cards = [*shown.mistakes, *shown.abstained]
    assert len(cards) == 20
    for card in cards:
        there = int(card.id.removeprefix("img-")) % 2 == 0
        assert (card.picture is not None) == there
        assert card.missing == ("" if there else "missing")
        assert not there or (card.width, card.height) == (320, 180)
    assert gallery(e, 0, progress=_quiet).mistakes == ()


HOSTILE = "</title><script>alert(1)</script><img src=x onerror=alert(1)>\"'&$\\frac{x$\x00\n{{ 7*7 }}"


def test_hostile_text_is_text(make: Make, quick: EvaluateConfig, tmp_path: Path) -> None:
    n = 60
    e = make(n)
    columns = {
        name: np.array([HOSTILE + str(i % 2) for i in range(n)], dtype=object) for name in ("source", "weather", "path")
    }
    ids = np.array([f"{HOSTILE}{i}" for i in range(n)])
    codes = np.where(np.arange(n) % 3 == 0, -1, 1 - e.labels).astype(np.int8)
    e = Evaluated(
        Predictions(ids, e.predictions.log_odds, e.labels, columns=columns), e.probability,
        Decisions(codes, e.probability, e.decisions.sets, [HOSTILE] * n), policy={"policy": HOSTILE},
        meta={HOSTILE: HOSTILE, "run": HOSTILE, "data": HOSTILE}, calibrators=[{"name": HOSTILE, HOSTILE: HOSTILE}],
    )  # fmt: skip
    evaluate(e, quick, tmp_path, seed=0)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    _self_contained(html)
    assert "{{ 7*7 }}" in html
    assert "&lt;script&gt;" in html


@pytest.mark.parametrize("case", ["one class, all abstained", "no mistakes, twelve images"])
def test_extreme_reports_can_be_read(make: Make, quick: EvaluateConfig, tmp_path: Path, case: str) -> None:
    if case.startswith("one class"):
        e = make(40, sources=(("only", 1.0, 0.0, 2.0),), low=0.0, high=1.1, status=None)
    else:
        e = make(12, low=0.5, high=0.5)
        e = make(12, probability=np.where(e.labels == 1, 0.97, 0.02), one_view=False, decisions=Decisions(
            e.labels.astype(np.int8), e.probability, e.decisions.sets, ["sure"] * 12))  # fmt: skip
    evaluate(e, quick, tmp_path, seed=0)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    _self_contained(html)
    text = Page(html).text
    assert not re.search(r"\bnan\b", text)
    if case.startswith("one class"):
        assert "It decided nothing" in text
        assert "No promise" in text
        assert "needs images of both classes" in text
    else:
        assert "The policy decided no image wrongly" in text
        assert "The policy decided every image" in text
    for path in tmp_path.glob("*.json"):
        _strict(path)


def test_terminal_table_shows_the_promise(make: Make, quick: EvaluateConfig) -> None:
    from rich.console import Console

    summary = summarise(make(120), quick, seed=0, progress=_quiet)
    console = Console(record=True, width=140, file=io.StringIO())
    console.print(summary_table(summary))
    text = console.export_text()
    assert "not certifiable" in text
    assert f"{summary.systems['argmax'].natural['mcc']}" in text
    assert "n 120" in text


def test_rates_of_one_class_count_the_images_of_that_class(make: Make, quick: EvaluateConfig) -> None:
    summary = summarise(make(120), quick, seed=0, progress=_quiet)
    counted = {row["title"]: row["n"] for row in system_table(summary, LABEL_ROWS, "argmax", "one_view")["rows"]}
    assert counted["Recall"] == counted["Roadwork missed (FNR)"] == summary.n_positive
    assert counted["Specificity"] == counted["False alarms (FPR)"] == 120 - summary.n_positive
    assert counted["MCC"] == counted["AUROC"] == 120


def test_pictures_of_the_page_do_not_wait_for_scrolling(written: Path) -> None:
    text = (written / "report.html").read_text(encoding="utf-8")
    assert "<img src=" in text
    assert 'loading="lazy"' not in text
