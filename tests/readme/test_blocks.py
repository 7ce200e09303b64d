"""Every command and every program in the documentation runs, unless a comment above it says why not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.md")])
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SKIP = re.compile(r"<!-- not run: (\S.+?) -->\s*\Z")
LANGUAGES = {"bash", "python", "text"}


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    skip: str


def blocks(text: str) -> list[Block]:
    found = []
    for match in _FENCE.finditer(text):
        skip = _SKIP.search(text[: match.start()])
        found.append(Block(match[1], match[2], skip[1] if skip else ""))
    return found


def runnable(page: Path) -> list[Block]:
    return [b for b in blocks(page.read_text(encoding="utf-8")) if b.language != "text" and not b.skip]


RUNNABLE = {page.relative_to(ROOT).as_posix(): runnable(page) for page in PAGES}


def test_blocks_are_found_with_their_language_and_reason() -> None:
    text = "a\n```bash\nls\n```\n<!-- not run: slow -->\n```python\nx = 1\n```\n\n```text\nq\n```\n"
    assert blocks(text) == [Block("bash", "ls\n", ""), Block("python", "x = 1\n", "slow"), Block("text", "q\n", "")]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_fence_says_what_it_is(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert {b.language for b in blocks(text)} <= LANGUAGES
    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(blocks(text))


def test_the_reasons_for_not_running_are_few() -> None:
    skipped = [b for page in PAGES for b in blocks(page.read_text(encoding="utf-8")) if b.skip]
    ran = [b for group in RUNNABLE.values() for b in group]
    assert len(skipped) < len(ran) / 2


def rows() -> list[Any]:
    """Pages with something to run; commands of pages other than the README take minutes, so they are slow tests."""
    found = []
    for name, group in RUNNABLE.items():
        slow = name != "README.md" and any(b.language == "bash" for b in group)
        if group:
            found.append(pytest.param(name, marks=[pytest.mark.slow] if slow else []))
    return found


@pytest.mark.readme
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", rows())
def test_blocks_run(page: str, request: pytest.FixtureRequest) -> None:
    found = RUNNABLE[page]
    needs_run = any(b.language == "bash" or "outputs/" in b.text for b in found)
    place = request.getfixturevalue("workshop" if needs_run else "bench")
    for block in found:
        if block.language == "bash":
            place.bash(block.text)
    program = "\n".join(b.text for b in found if b.language == "python")
    if program:
        place.python(program)
