"""The pages in a browser: drop, choose and paste pictures; the review queue by keyboard, by two who disagree."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from helpers.browser import chromium, shot, window
from helpers.command import workzone
from helpers.server import Running
from workzone.bundle.starter import starter_bundle
from workzone.data.manifest import Manifest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def golden() -> Path:
    bundle = starter_bundle()
    assert bundle is not None
    return bundle / "golden"


@pytest.fixture(scope="module")
def undecided(golden: Path) -> Path:
    """A golden picture on which the bundle abstains."""
    cases = json.loads((golden / "cases.json").read_text())["cases"]
    return golden.parent / next(c["image"] for c in cases if c["decision"] == "abstain")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, golden: Path) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("page")
    started = Running([str(golden.parent), "--keep-abstained", str(folder / "keep")], folder / "errors.txt")
    yield started
    started.stop()


@pytest.fixture(scope="module")
def kept(server: Running) -> Path:
    """The folder of the review queue."""
    return server.errors.parent / "keep"


def text(page: Page, selector: str) -> str:
    return page.locator(selector).first.inner_text()


def verdicts(page: Page, count: int) -> list[str]:
    """Decisions of the cards, newest first, once there are ``count``."""
    found = page.locator("#results .verdict")
    found.nth(count - 1).wait_for()
    assert found.count() == count
    return [str(name).split()[1] for name in found.evaluate_all("all => all.map(e => e.className)")]


def test_pictures_are_dropped_pasted_and_chosen(
    browser: Browser, server: Running, golden: Path, tmp_path: Path
) -> None:
    cases = {c["image"]: c["decision"] for c in json.loads((golden / "cases.json").read_text())["cases"]}
    odd = tmp_path / "<img src=x onerror=document.title='hurt'>.jpg"
    odd.write_bytes((golden / "01.jpg").read_bytes())
    with window(browser) as (page, problems):
        page.goto(f"{server.url}/")
        page.locator("#served", has_text="starter").wait_for()
        shot(page, "empty")
        page.locator("#drop").drop({"files": [golden / "02.jpg", odd]})
        assert verdicts(page, 2) == [cases["golden/01.jpg"], cases["golden/02.jpg"]]
        assert page.locator("#results h2").all_inner_texts() == [odd.name, "02.jpg"]
        assert page.title() == "workzone"
        _the_answer_is_told(page, server, odd.read_bytes())

        # The clipboard of a browser holds PNG; Ctrl-V is that of the user.
        picture = io.BytesIO()
        Image.open(golden / "03.jpg").save(picture, "PNG")
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.evaluate(
            "async bytes => navigator.clipboard.write([new ClipboardItem({'image/png': new Blob("
            "[new Uint8Array(bytes)], {type: 'image/png'})})])",
            list(picture.getvalue()),
        )
        page.keyboard.press("Control+V")
        assert verdicts(page, 3)[0] == cases["golden/03.jpg"]
        shot(page, "answers")

        (tmp_path / "notes.txt").write_text("no picture")
        assert not problems
        page.locator("#files").set_input_files(tmp_path / "notes.txt")
        page.locator("#results .bad").wait_for()
        assert text(page, "#results h2") == "notes.txt"
        page.locator("#files").set_input_files([golden / "01.jpg", tmp_path / "notes.txt"])
        page.locator("#status", has_text="1 of 2 pictures answered.").wait_for()
        # The browser notes the refused request; the page itself has no fault.
        assert problems
        assert all("415" in problem for problem in problems)


def _the_answer_is_told(page: Page, server: Running, picture: bytes) -> None:
    """The first card says what the API says: probability, thresholds, set, views with their weights."""
    import httpx2

    raw = {"Content-Type": "application/octet-stream"}
    told = httpx2.post(f"{server.url}/v1/predict?views=1", content=picture, headers=raw, timeout=60).json()
    thresholds = httpx2.get(f"{server.url}/v1/model").json()["thresholds"].values()
    card = page.locator("#results section").first
    line = str(card.locator("svg.bar").get_attribute("aria-label"))
    for share in (told["probability"], *thresholds):
        assert f"{100 * share:.1f} %" in line or f"{100 * share:.2f} %" in line
    assert card.locator("svg.bar line").count() == len(set(thresholds)) > 0
    low, high = (f"{100 * t:.1f} %" for t in sorted(thresholds))
    assert f"no roadwork below {low}, roadwork from {high}" in card.inner_text()
    facts = dict(zip(card.locator("dt").all_inner_texts(), card.locator("dd").all_inner_texts(), strict=True))
    assert facts["Not excluded"] == ", ".join(name.replace("_", " ") for name in told["prediction_set"])
    assert facts["Why"] == told["reason"]
    views = told["views"]
    assert facts["Views looked at"] == str(len(views))
    rows = card.locator("details tbody tr")
    shown = [float(row.split("%")[0]) for row in rows.all_text_contents()]
    assert shown == pytest.approx(sorted((100 * v["weight"] for v in views), reverse=True), abs=0.051)
    whole = sum(v["box"] == [0, 0, 1, 1] for v in views)
    assert card.locator(".picture svg rect").count() == len(views) - whole
    card.get_by_label("Views:").uncheck()
    assert card.locator(".picture svg").is_hidden()
    assert len(text(page, "#promise-text")) > 40


def test_a_narrow_window(browser: Browser, server: Running, undecided: Path) -> None:
    for dark in (False, True):
        with window(browser, narrow=True, dark=dark) as (page, problems):
            slow(page, "v1/model")
            page.goto(f"{server.url}/")
            page.locator("#files").set_input_files(undecided)  # before the page knows what is served: it waits
            assert verdicts(page, 1) == ["abstain"]
            page.locator("#results details summary").click()
            shot(page, "narrow-dark" if dark else "narrow")
            assert not problems


def slow(page: Page, address: str) -> None:
    """From the next load on, answers from addresses that hold ``address`` take 700 ms longer."""
    page.add_init_script(
        "const atOnce = window.fetch; window.fetch = async (address, options) => {"
        f"  if (String(address).includes({json.dumps(address)})) await new Promise((done) => setTimeout(done, 700));"
        "  return atOnce(address, options); };"
    )


def begin(page: Page, server: Running, name: str) -> None:
    """Go to the review queue and say who one is, by keyboard."""
    page.goto(f"{server.url}/review")
    page.locator("#reviewer:focus").wait_for()
    page.keyboard.type(name)
    page.keyboard.press("Enter")


def said(page: Page, begins: str) -> None:
    """Wait until the status line begins so."""
    page.locator("#status", has_text=re.compile(f"^{begins}")).wait_for()


def test_the_review_queue_by_keyboard_and_two_who_disagree(
    browser: Browser, server: Running, undecided: Path, kept: Path, tmp_path: Path
) -> None:
    picture = undecided.read_bytes()
    for more in range(4):  # bytes after the end of a JPEG make another file of the same picture
        assert server.ask(picture + bytes(more)).json()["decision"] == "abstain"
    with window(browser) as (page, problems):
        begin(page, server, "ann")
        said(page, "ann: 4 to look at")
        assert page.locator("#shown").evaluate("async image => (await image.decode(), image.naturalWidth)") > 100
        shot(page, "review")
        for key, left in (("r", 3), ("n", 2), ("u", 3), ("n", 2), ("x", 2), ("s", 1), ("r", 0)):
            page.keyboard.press(key)
            said(page, f"ann: {left} to look at" if left else "ann: nothing left")
        assert page.locator("#task").is_hidden()
        assert page.locator("#disputes").is_hidden()
        assert not problems

        with window(browser, narrow=True) as (other, faults):
            begin(other, server, "bob")
            said(other, "bob: 4 to look at")
            # The three that ann named come first; bob is not told what she said.
            assert "ann" not in text(other, "main")
            shot(other, "review-narrow")
            for key, left in (("n", 3), ("n", 2), ("n", 1), ("n", 0)):
                other.keyboard.press(key)
                said(other, f"bob: {left} to look at" if left else "bob: nothing left")
            assert sorted(other.locator("#disputed li").all_inner_texts()[0].split(" ", 1)[1].split(", ")) == [
                "ann: roadwork",
                "bob: none",
            ]
            assert other.locator("#disputed li").count() == 2
            shot(other, "review-disputed")
            with other.expect_popup() as opened:
                other.locator("#disputed a").first.click()
            assert opened.value.url.startswith("blob:")
            assert not faults

        with window(browser) as (third, faults):
            slow(third, "review/picture")  # a key counts once the page says what is left
            begin(third, server, "cid")
            said(third, "cid: 3 to look at")
            assert "Others disagree" in text(third, "#about")
            third.keyboard.press("r")
            third.keyboard.press("n")  # before the next picture is seen: it counts for none
            said(third, "cid: 2 to look at")
            assert third.locator("#task[aria-busy]").count() == 0
            third.keyboard.press("u")
            said(third, "cid: 3 to look at")
            third.keyboard.press("r")
            said(third, "cid: 2 to look at")
            assert not faults

        page.reload()
        said(page, "ann: nothing left to look at. 3 of 4")
        assert page.locator("#disputed li").count() == 1
        with page.expect_download() as saved:
            page.get_by_text("Labels as a manifest").click()
        saved.value.save_as(kept / "manifest.csv")
        assert not problems
    rows = list(csv.DictReader((kept / "manifest.csv").read_text().splitlines()))
    assert sorted((row["label"], row["reviewers"]) for row in rows) == [("0", "1"), ("0", "2"), ("1", "3")]
    done = workzone("data", "fuse", f"review={kept / 'manifest.csv'}", "--out", str(tmp_path / "fused.csv"))
    assert done.returncode == 0, done.stderr
    fused = Manifest.load(tmp_path / "fused.csv")
    assert sorted(fused.frame["label"].to_list()) == [0, 0, 1]
    assert all(path.is_file() for path in fused.paths)
