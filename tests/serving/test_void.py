from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from workzone.monitoring.void import mark_path, write_mark
from workzone.serving.model import Model
from workzone.vision.decode import MAX_PIXELS


@pytest.mark.parametrize("policy", ["abstain", "warn"])
def test_the_mark_of_the_monitor_is_honoured_and_its_removal_too(
    tiny_bundle: Path, tmp_path: Path, policy: str
) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "b"))
    picture = next(p for p in sorted((bundle / "golden").iterdir()) if p.suffix != ".json")
    model = Model.load(bundle, threads=1)
    before = model.answer(picture, max_pixels=MAX_PIXELS, columns=None).decision
    assert model.state() != "void"
    write_mark(mark_path(bundle), model.sha256, ["too many misses"], [{"e": 25.0}], policy)
    model.check()
    after = model.answer(picture, max_pixels=MAX_PIXELS, columns=None).decision
    assert model.state() == "void"
    assert "too many misses" in model.certificate()["sentence"]
    assert after.label == ("abstain" if policy == "abstain" else before.label)
    assert "certificate void" in after.reason
    mark_path(bundle).unlink()
    model.check()
    assert model.state() != "void"
    assert model.answer(picture, max_pixels=MAX_PIXELS, columns=None).decision == before


def test_a_damaged_mark_is_no_missing_mark(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "b"))
    mark_path(bundle).write_text("{", encoding="utf-8")
    model = Model.load(bundle, threads=1)
    assert model.state() == "void"
    assert "mark" in model.certificate()["sentence"]
