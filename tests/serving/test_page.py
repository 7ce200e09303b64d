"""The pages in a browser: drop, choose and paste pictures; the review queue by keyboard."""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from helpers.browser import Browser, find_chromium
from helpers.server import Running
from workzone.bundle.starter import starter_bundle

pytestmark = pytest.mark.e2e
CARDS = "document.querySelectorAll('#results .verdict').length"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium is installed")
    opened = Browser(program, tmp_path / "profile")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def golden() -> Path:
    bundle = starter_bundle()
    assert bundle is not None
    return bundle / "golden"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, golden: Path) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("page")
    started = Running([str(golden.parent), "--keep-abstained", str(folder / "keep")], folder / "errors.txt")
    yield started
    started.stop()


def test_pictures_are_dropped_pasted_and_chosen(
    browser: Browser, server: Running, golden: Path, tmp_path: Path
) -> None:
    cases = {c["image"]: c["decision"] for c in json.loads((golden / "cases.json").read_text())["cases"]}
    odd = tmp_path / "<img src=x onerror=document.title='hurt'>.jpg"
    odd.write_bytes((golden / "01.jpg").read_bytes())
    browser.open(f"{server.url}/")
    browser.wait("document.getElementById('served').textContent.includes('starter')")
    browser.drop("#drop", [golden / "02.jpg", odd])
    browser.wait(f"{CARDS} == 2")
    titles = browser.run("[...document.querySelectorAll('#results h2')].map(e => e.textContent)")
    assert titles == [odd.name, "02.jpg"]
    assert browser.run("document.title") == "workzone"
    verdicts = browser.run("[...document.querySelectorAll('#results .verdict')].map(e => e.classList[1])")
    assert verdicts == [cases["golden/01.jpg"], cases["golden/02.jpg"]]
    assert browser.run("document.querySelectorAll('#results section:first-child tbody tr').length") == 10
    assert "Probability of roadwork" in browser.run("document.querySelector('svg.bar').getAttribute('aria-label')")
    assert browser.run("document.getElementById('promise-text').textContent.length") > 40

    text = base64.b64encode((golden / "00.jpg").read_bytes()).decode()
    browser.run(
        f"""(() => {{
          const bytes = Uint8Array.from(atob("{text}"), c => c.charCodeAt(0)), data = new DataTransfer();
          data.items.add(new File([bytes], "pasted.jpg", {{type: "image/jpeg"}}));
          document.dispatchEvent(new ClipboardEvent("paste", {{clipboardData: data, bubbles: true}}));
        }})()"""
    )
    browser.wait(f"{CARDS} == 3")
    assert browser.run("document.querySelector('#results .verdict').classList[1]") == cases["golden/00.jpg"]

    (tmp_path / "notes.txt").write_text("no picture")
    root = browser.call("DOM.getDocument")["root"]["nodeId"]
    chooser = browser.call("DOM.querySelector", nodeId=root, selector="#files")["nodeId"]
    assert not browser.problems
    browser.call("DOM.setFileInputFiles", nodeId=chooser, files=[str(tmp_path / "notes.txt")])
    browser.wait("document.querySelector('#results .bad') !== null")
    assert browser.run("document.querySelector('#results h2').textContent") == "notes.txt"
    # The browser notes the refused request; the page itself has no fault.
    assert all("415" in problem for problem in browser.problems)


def test_the_review_queue_by_keyboard(browser: Browser, server: Running, golden: Path) -> None:
    undecided = (golden / "00.jpg").read_bytes()
    for more in range(4):  # bytes after the end of a JPEG make another file of the same picture
        assert server.ask(undecided + bytes(more)).json()["decision"] == "abstain"
    browser.open(f"{server.url}/review")
    browser.wait("document.activeElement.id == 'reviewer'")
    browser.call("Input.insertText", text="ann")
    browser.press("Enter")
    browser.wait("document.getElementById('status').textContent.startsWith('ann: 4 to look at')")
    browser.wait("document.getElementById('shown').naturalWidth > 100")
    for key, left in (("r", 3), ("n", 2), ("u", 3), ("n", 2), ("x", 2), ("s", 1), ("r", 0)):
        wanted = f"ann: {left} to look at" if left else "ann: nothing left"
        browser.press(key)
        browser.wait(f"document.getElementById('status').textContent.startsWith('{wanted}')")
    assert browser.run("document.getElementById('task').classList.contains('hidden')")
    rows = list(csv.DictReader(httpx2.get(f"{server.url}/v1/review/export").text.splitlines()))
    assert sorted(row["label"] for row in rows) == ["0", "1", "1"]
    assert not browser.problems
