"""Chromium of the machine, driven by Playwright; nothing is downloaded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
NARROW, WIDE = {"width": 360, "height": 740}, {"width": 1000, "height": 900}
SHOTS = "WORKZONE_SCREENSHOTS"
"""Environment variable: a folder in which ``shot`` leaves its pictures, for people to look at."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser; skips the test where Playwright or Chromium is not installed."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'workzone[dev]'")
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no Chromium is installed: none of {', '.join(NAMES)} is on the PATH")
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def window(browser: Browser, *, narrow: bool = False, dark: bool = False) -> Iterator[tuple[Page, list[str]]]:
    """A page of a person of its own (nothing stored is shared), and the errors that its console got so far."""
    scheme = "dark" if dark else "light"
    context = browser.new_context(viewport=NARROW if narrow else WIDE, color_scheme=scheme, accept_downloads=True)
    context.set_default_timeout(60_000)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    try:
        yield page, problems
    finally:
        context.close()


def shot(page: Page, name: str) -> None:
    """Save the whole page where a folder was asked for, and require that nothing reaches beyond the window."""
    folder = os.environ.get(SHOTS)
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"{name} is {wide} pixels wider than its window"
