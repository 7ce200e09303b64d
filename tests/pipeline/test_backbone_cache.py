from __future__ import annotations

from pathlib import Path

from workzone.pipeline.backbone_cache import BackboneCache


def made(folder: Path) -> Path:
    folder.mkdir()
    (folder / "backbone.xml").write_text("network")
    (folder / "backbone.bin").write_bytes(bytes(range(9)))
    (folder / "head.xml").write_text("head")
    return folder


def test_a_stored_backbone_comes_back_without_its_head(tmp_path: Path) -> None:
    cache, target = BackboneCache(tmp_path / "cache", "k" * 64), tmp_path / "target"
    target.mkdir()
    assert not cache.copy_to(target)
    cache.store(made(tmp_path / "made"))
    assert cache.copy_to(target)
    assert sorted(p.name for p in target.iterdir()) == ["backbone.bin", "backbone.xml"]
    assert (target / "backbone.bin").read_bytes() == bytes(range(9))
    assert not BackboneCache(tmp_path / "cache", "j" * 64).copy_to(target)
    assert [p.name for p in (tmp_path / "cache/engines").iterdir()] == ["k" * 32]


def test_a_damaged_backbone_is_dropped(tmp_path: Path) -> None:
    cache, target = BackboneCache(tmp_path / "cache", "k" * 64), tmp_path / "target"
    target.mkdir()
    cache.store(made(tmp_path / "made"))
    (cache.folder / "backbone.bin").write_bytes(b"damaged")
    assert not cache.copy_to(target)
    assert not list(target.iterdir())
    assert not cache.folder.exists()


def test_a_second_run_takes_the_backbone_of_the_first(tiny_run: Path, tmp_path: Path, monkeypatch) -> None:
    from helpers.tiny import tiny_words
    from workzone.config.load import load_config
    from workzone.export import onnx
    from workzone.pipeline.engine import run_pipeline
    from workzone.pipeline.phases import PHASES

    def refuse(*_: object) -> None:
        raise AssertionError("the backbone is known")

    monkeypatch.setattr(onnx, "export_backbone", refuse)
    config = load_config(tiny_words(tmp_path / "run", tiny_run.parent / "cache"))
    run_pipeline(config, PHASES, to="train")
    name = "train/onnx/backbone.onnx"
    assert (tmp_path / "run" / name).read_bytes() == (tiny_run / name).read_bytes()
