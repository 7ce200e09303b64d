"""A real bundle: scoring, the command line, the detector class, publishing."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from conftest import HOTKEY
from workzone.bundle import Detector, open_bundle
from workzone.data.manifest import Manifest
from workzone.data.sources.build import build_manifest
from workzone.errors import BundleError, ConfigError, DataError
from workzone.streetvision.adapter import RoadworkDetector, read_config
from workzone.streetvision.challenges import Pictures, load_scores, save_scores, score, score_key
from workzone.streetvision.publish import Card, publish_folder
from workzone.vision.streetvision.transforms import PROTOCOLS, Recipe, transform, wire
from workzone.vision.views import Cutter

Call = Callable[..., Any]
CARD = Card("tiny", "drawn scenes", "1.2.3", HOTKEY)


@pytest.fixture(scope="module")
def tables(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Tables of the images of val_calib and val_test."""
    manifest = Manifest.load(tiny_run / "prepare" / "manifest.parquet")
    roles = json.loads((tiny_run / "prepare" / "splits.json").read_text())["assignment"]
    frame = manifest.frame.with_columns(pl.Series("path", [str(Path(p).absolute()) for p in manifest.paths]))
    folder = tmp_path_factory.mktemp("tables")
    for role in ("val_calib", "val_test"):
        rows = frame.filter(pl.col("id").is_in([i for i, r in roles.items() if r == role]))
        rows.select("id", "path", "label", "source", "group").write_csv(folder / f"{role}.csv")
    return folder / "val_calib.csv", folder / "val_test.csv"


@pytest.fixture(scope="module")
def detector(tiny_bundle: Path) -> Detector:
    return Detector.load(tiny_bundle, threads=1)


@pytest.fixture(scope="module")
def test_images(tables: tuple[Path, Path]) -> Pictures:
    return Pictures.from_manifest(build_manifest(tables[1]))


@pytest.fixture(scope="module")
def published(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish_folder(tiny_bundle, tmp_path_factory.mktemp("published") / "repo", CARD, threshold=0.3).folder


def test_painted_places_come_from_the_table_and_follow_the_sample(tables: tuple[Path, Path], tmp_path: Path) -> None:
    frame = pl.read_csv(tables[1])
    half = [str(10 * i) if i % 2 else "" for i in range(frame.height)]
    frame.with_columns(pl.Series("mask_x", half), pl.Series("mask_y", half)).write_csv(tmp_path / "t.csv")
    all_of = Pictures.from_manifest(build_manifest(tmp_path / "t.csv"))
    assert len(all_of.painted) == sum(1 for v in half if v)
    few = all_of.sample(3, seed=1)
    known = {str(all_of.ids[row]): point for row, point in all_of.painted.items()}
    assert {str(few.ids[row]): point for row, point in few.painted.items()} == {
        i: known[i] for i in few.ids.tolist() if i in known
    }
    frame.with_columns(pl.lit("left").alias("mask_x"), pl.lit("4").alias("mask_y")).write_csv(tmp_path / "bad.csv")
    with pytest.raises(DataError, match="painted area"):
        Pictures.from_manifest(build_manifest(tmp_path / "bad.csv"))


def test_scores_are_those_of_the_bundle_on_what_is_sent(detector: Detector, test_images: Pictures) -> None:
    few = test_images.sample(2, seed=0)
    assert len(few) == 4
    protocol = PROTOCOLS["2.0.4"]
    found = score(detector, few, protocol, draws=2, seed=5)
    assert found.probability.shape == (4, 4, 2)
    assert np.isfinite(found.probability).all()
    for row, path in enumerate(few.paths):
        with Image.open(path) as image:
            sent = transform(image.convert("RGB"), Recipe(0), protocol)
        assert found.probability[row, 0].tolist() == [pytest.approx(detector(wire(sent)).probability)] * 2
    assert not np.allclose(found.probability[:, 3, 0], found.probability[:, 3, 1])
    again = score(detector, few, protocol, draws=2, seed=5)
    assert np.array_equal(found.probability, again.probability)


def test_unused_levels_are_not_scored(detector: Detector, test_images: Pictures) -> None:
    found = score(detector, test_images.sample(1, seed=0), PROTOCOLS["0.4.1"])
    assert np.isfinite(found.probability[:, 0]).all()
    assert np.isnan(found.probability[:, 1:]).all()


def test_stored_scores_serve_the_same_question_only(detector: Detector, test_images: Pictures, tmp_path: Path) -> None:
    few, protocol = test_images.sample(1, seed=0), PROTOCOLS["0.4.1"]
    key = score_key(detector, few, protocol, draws=2, seed=1)
    found = score(detector, few, protocol, seed=1)
    save_scores(found, tmp_path / "s.npz", key)
    stored = load_scores(few, protocol, tmp_path / "s.npz", key)
    assert stored is not None
    np.testing.assert_array_equal(stored.probability, found.probability)
    other = score_key(detector, few, protocol, draws=3, seed=1)
    assert load_scores(few, protocol, tmp_path / "s.npz", other) is None
    (tmp_path / "s.npz").write_bytes(b"no")
    with pytest.raises(DataError, match="stored scores"):
        load_scores(few, protocol, tmp_path / "s.npz", key)


def test_command_simulate(call: Call, tiny_bundle: Path, tables: tuple[Path, Path], tmp_path: Path) -> None:
    words = ["streetvision", "simulate", tiny_bundle, tables[1], "--calib", tables[0], "--images", "4", "--draws", "1"]
    words += ["--challenges", "200", "--runs", "20", "--out", tmp_path / "sim", "--protocol", "letterbox"]
    done = call(*words)
    assert done.code == 0, done.err
    assert "mean reward" in done.out
    assert "Rule chosen on 8 other images" in done.out
    record = json.loads((tmp_path / "sim" / "simulation.json").read_text())
    assert record["protocol"] == "letterbox"
    assert record["n"] == 8
    same = call(*words[:4], "--calib", tables[1], *words[6:])
    assert same.code == 3
    assert "both choose the rule and report on it" in same.err
    wrong = call(*words[:4], "--protocol", "3")
    assert wrong.code == 2
    assert "2.0.4, letterbox, 0.4.1" in wrong.err


def test_published_folder(published: Path, tiny_bundle: Path) -> None:
    card = json.loads((published / "model_card.json").read_text())
    assert set(card) == {"model_name", "description", "version", "submitted_by", "submission_time"}
    assert card["submitted_by"] == HOTKEY
    assert isinstance(card["submission_time"], int)
    text = (published / "README.md").read_text()
    metrics = json.loads((tiny_bundle / "metrics.json").read_text())
    mcc = metrics["systems"]["argmax"]
    for kind in ("natural", "stated"):
        assert f"{mcc[kind]['accuracy']['value']:.3f} [" in text
    assert f"Test images: {metrics['n']}" in text
    assert "No transformers model was written" in text
    assert (published / "bundle" / "bundle.json").read_bytes() == (tiny_bundle / "bundle.json").read_bytes()


def test_publishing_refuses(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ConfigError, match="holds something"):
        publish_folder(tiny_bundle, tmp_path / "full", CARD)
    with pytest.raises(ConfigError, match="threshold"):
        publish_folder(tiny_bundle, tmp_path / "a", CARD, threshold=1.0)
    damaged = shutil.copytree(tiny_bundle, tmp_path / "damaged")
    (damaged / "policy.json").write_text("{}")
    with pytest.raises(Exception, match="policy"):
        publish_folder(damaged, tmp_path / "a", CARD)
    assert not (tmp_path / "a").exists()
    for wrong in ({"version": "1.0"}, {"submitted_by": "me"}, {"model_name": " "}, {"description": "a\nb"}):
        with pytest.raises(ConfigError):
            Card(**{"model_name": "m", "description": "d", "version": "1.0.0", "submitted_by": HOTKEY, **wrong})


def test_detector_class(published: Path, detector: Detector, test_images: Pictures) -> None:
    miner = RoadworkDetector("ROADWORK", published / "streetvision.yaml", "cpu", threads=1)
    assert not miner.answers_one_view
    for path in test_images.paths[:4]:
        with Image.open(path) as image:
            answer = miner(image)
            p = detector(image).probability
        assert isinstance(answer, float)
        assert answer == pytest.approx(p * 0.7 / (p * 0.7 + (1 - p) * 0.3), abs=1e-9)
        assert (answer > 0.5) == (p > 0.3)


def test_detector_is_fast_enough_or_looks_once(published: Path, tmp_path: Path, test_images: Pictures) -> None:
    hurried = shutil.copytree(published, tmp_path / "repo")
    (hurried / "answer.yaml").write_text("threshold: 0.3\ntime_limit: 0.000001\n")
    miner = RoadworkDetector(config_name=hurried / "streetvision.yaml", threads=1)
    calm = RoadworkDetector(config_name=published / "streetvision.yaml", threads=1)
    assert miner.answers_one_view
    with Image.open(test_images.paths[0]) as image:
        assert miner(image) == calm.one_view(image)
        assert calm(image) == calm.all_views(image)
        assert calm.one_view(image) != calm.all_views(image)
    # A call that took too long counts at once, and is forgotten slowly.
    calm._learn(60.0)
    assert calm.answers_one_view
    calm._learn(0.01)
    assert calm.answers_one_view
    for _ in range(40):
        calm._learn(0.01)
    assert not calm.answers_one_view


def test_detector_in_threads(published: Path, test_images: Pictures) -> None:
    miner = RoadworkDetector(config_name=published / "streetvision.yaml", threads=2)
    images = [Image.open(p).convert("RGB") for p in test_images.paths[:4]]
    alone = [miner(i) for i in images]
    found: dict[int, float] = {}
    threads = [threading.Thread(target=lambda k=k: found.update({k: miner(images[k % 4])})) for k in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert [found[k] for k in range(12)] == alone * 3


def test_detector_abstains_where_the_policy_does(published: Path, tmp_path: Path, detector: Detector) -> None:
    repo = shutil.copytree(published, tmp_path / "repo")
    (repo / "answer.yaml").write_text("abstain: policy\n")
    miner = RoadworkDetector(config_name=repo / "streetvision.yaml", threads=1)
    rng = np.random.default_rng(0)
    said = {}
    for _ in range(40):
        image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((224, 224))
        said[detector(image).label] = (miner(image), detector(image))
    for label, (answer, decision) in said.items():
        assert answer == (-1.0 if label == "abstain" else pytest.approx(decision.probability))


def test_configuration_of_the_detector(published: Path, tmp_path: Path) -> None:
    yaml = tmp_path / "miner.yaml"
    yaml.write_text(f"hf_repo: '{published}'\nconfig_name: answer.yaml\nweights: bundle\n")
    bundle, answer = read_config(yaml)
    assert bundle == published / "bundle"
    assert answer.threshold == 0.3
    yaml.write_text("hf_repo: somebody/roadwork\nweights: bundle\n")
    with pytest.raises(ConfigError, match="no local folder"):
        read_config(yaml)
    yaml.write_text("hf_repo: .\nwieghts: bundle\n")
    with pytest.raises(ConfigError, match="wieghts"):
        read_config(yaml)
    yaml.write_text("hf_repo: [")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(yaml)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / "none.yaml")
    yaml.write_text("hf_repo: .\nweights: bundle\n")
    with pytest.raises(BundleError):
        RoadworkDetector(config_name=yaml)


def test_detector_needs_neither_torch_nor_bittensor(published: Path) -> None:
    import subprocess

    from helpers.command import environment

    code = (
        "import sys; from workzone.streetvision.adapter import RoadworkDetector as D; "
        f"D(config_name={str(published / 'streetvision.yaml')!r}); "
        "bad = {'torch', 'bittensor', 'cv2', 'polars', 'scipy', 'matplotlib'} & set(sys.modules); "
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_example_of_a_miner(published: Path, test_images: Pictures) -> None:
    import subprocess

    from helpers.command import environment

    example = Path(__file__).parents[2] / "examples" / "streetvision_miner.py"
    words = [sys.executable, str(example), str(published), *(str(p) for p in test_images.paths[:2])]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [0 <= float(line.split()[0]) <= 1 for line in done.stdout.splitlines()] == [True, True]


def test_a_cascade_of_models_is_scored_and_published(tiny_chain: Path, test_images: Pictures, tmp_path: Path) -> None:
    chain = open_bundle(tiny_chain / "bundle", threads=1)
    few = test_images.sample(1, seed=0)
    scored = score(chain, few, PROTOCOLS["2.0.4"], draws=1)
    known = scored.probability[~np.isnan(scored.probability)]
    assert len(known)
    assert ((known > 0) & (known < 1)).all()
    assert score_key(chain, few, PROTOCOLS["2.0.4"], draws=1, seed=42)
    done = publish_folder(tiny_chain / "bundle", tmp_path / "repo", CARD, threshold=0.5, run=tmp_path)
    assert "several models that pass images on" in done.transformers
    assert "A cascade of 2 models, the cheapest first: `efficientnet_lite0` (onnxruntime-fp32), then" in (
        tmp_path / "repo" / "README.md"
    ).read_text()
    miner = RoadworkDetector(config_name=tmp_path / "repo" / "streetvision.yaml", threads=1)
    for path in few.paths:
        with Image.open(path) as image:
            picture = image.convert("RGB")
        assert miner.all_views(picture) == pytest.approx(chain(picture).probability, abs=1e-9)
        # In a hurry the cheapest model answers alone, by its own calibrator.
        first = chain.models[0]
        seen = first.engine.embed(Cutter(picture, first.preprocessing).cut([0]))
        whole = np.array([[[0.0, 0.0, 1.0, 1.0]]], dtype=np.float32)
        z = first.engine.aggregate(seen[None], whole, np.ones((1, 1), dtype=np.bool_)).log_odds
        assert miner.one_view(picture) == pytest.approx(float(first.calibrator(z)[0]), abs=1e-6)
