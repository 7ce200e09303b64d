from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from helpers.command import workzone
from helpers.tools import load_tool
from workzone.bundle.starter import STARTER, starter_bundle
from workzone.bundle.verify import verify_bundle

pytestmark = pytest.mark.skipif(starter_bundle() is None, reason="the starter bundle was not made in this checkout")


def test_it_verifies_and_is_small() -> None:
    checks = verify_bundle(STARTER)
    assert [c for c in checks if not c.passed] == []
    assert sum(p.stat().st_size for p in STARTER.rglob("*") if p.is_file()) <= 10_000_000


def test_it_says_nothing_of_where_it_was_made() -> None:
    for path in STARTER.rglob("*.json"):
        assert '"/' not in path.read_text(), path
    assert "Starter" in (STARTER / "MODEL_CARD.md").read_text()


def test_predict_takes_it_where_no_bundle_is_named(images: list[Path]) -> None:
    done = workzone("predict", str(images[0]), "--format", "jsonl", env={"WORKZONE_BUNDLE": ""})
    assert done.returncode == 0, done.stderr
    assert "starter bundle" in done.stderr
    assert json.loads(done.stdout)["decision"] in ("roadwork", "no_roadwork", "abstain")


def test_its_card_tells_data_licences_and_every_source_and_can_be_written_anew(tmp_path: Path) -> None:
    tool = load_tool("make_starter")
    copy = tmp_path / "starter"
    shutil.copytree(STARTER, copy)
    card = (STARTER / "MODEL_CARD.md").read_text()
    for told in ("licence", "not distilled", "Limits", "tools/make_starter.py --images"):
        assert told in card
    metrics = json.loads((STARTER / "metrics.json").read_text())
    for row in metrics["per_source"]:
        assert f"| {row['source']} | {row['n']} | {row['n_groups']} | {row['n_roadwork']} |" in card
    tool.new_card(copy, "1,235 street images")
    for name in ("MODEL_CARD.md", "bundle.json"):
        assert (copy / name).read_bytes() == (STARTER / name).read_bytes(), name
    tool.new_card(copy, "other images")
    assert "other images" in (copy / "MODEL_CARD.md").read_text()
    assert [c for c in verify_bundle(copy) if not c.passed] == []
