"""The page on the architecture shows the layers that import-linter checks, and every requirement is a click away."""

from __future__ import annotations

import re
from pathlib import Path

from helpers.tools import load_tool

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\(([^)#]+\.md)(?:#[^)]*)?\)")


def test_page_and_picture_show_the_layers_that_are_checked() -> None:
    make = load_tool("make_house")
    layers, plain = make.contracts()
    shown = make.PAGE.read_text().partition("```text\n")[2].partition("\n```")[0].split("\n")
    assert shown == layers, "run python tools/make_house.py"
    assert make.PICTURE.read_text() == make.draw(layers, plain), "run python tools/make_house.py"


def test_every_requirement_is_reached_from_the_home_page() -> None:
    docs = ROOT / "docs"
    seen, wanted = set(), [docs / "index.md"]
    while wanted:
        page = wanted.pop()
        if page in seen:
            continue
        seen.add(page)
        wanted += [(page.parent / link).resolve() for link in LINK.findall(page.read_text()) if "://" not in link]
    table = (docs / "requirements.md").read_text()
    rows = [line for line in table.splitlines() if re.match(r"\| [A-J]\d+ \|", line)]
    assert len(rows) > 60
    for line in rows:
        pages = LINK.findall(line.rsplit("|", 2)[1])
        assert pages, line
        assert all((docs / link).resolve() in seen for link in pages), line


def test_every_row_has_as_many_cells_as_its_header() -> None:
    width = 0
    for line in (ROOT / "docs" / "requirements.md").read_text().splitlines():
        if line.startswith("| row"):
            width = line.count("|")
        elif re.match(r"\| [A-J]\d+ \|", line):
            assert line.count("|") == width, line
