"""Bundles of several runs as one cascade: planned, certified, verified, used, and refused where they do not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from helpers.forgery import edit_manifest, failures
from workzone.bundle import CascadeDetector, Detector, open_bundle, schema, verify_bundle
from workzone.bundle.chain import check_chain_files, read_chain
from workzone.cli.main import app
from workzone.data.roles import CalibData
from workzone.decisions.policies.cascade import CascadePolicy
from workzone.errors import ArtifactError, BundleError, ConfigError, DataError, LeakageError
from workzone.pipeline.commands.chain import ChainOptions, build_chain
from workzone.pipeline.commands.chain_members import Member, certification_parts, open_member
from workzone.pipeline.external import evaluate_bundle_inputs
from workzone.pipeline.phase import Progress
from workzone.pipeline.phases.calibrate import calibration_parts
from workzone.predictions import Predictions

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def made(tiny_chain: Path) -> Path:
    return tiny_chain


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """A cascade that the test may damage."""
    return Path(shutil.copytree(made / "bundle", tmp_path / "bundle"))


def members(run: Path) -> list[Member]:
    return [open_member(run, Progress()) for _ in range(2)]


def refused(folder: Path, reason: str) -> None:
    """Neither verified nor loaded, with the reason."""
    assert reason in " ".join(failures(folder).values())
    with pytest.raises(BundleError):
        CascadeDetector.load(folder)


def test_the_cascade_is_good_and_certified_as_a_whole(made: Path) -> None:
    checks = verify_bundle(made / "bundle")
    assert [c.name for c in checks] == ["schema", "hashes", "member 1", "member 2", "certificate", "golden cases"]
    assert all(c.passed for c in checks), checks
    detector = open_bundle(made / "bundle")
    assert isinstance(detector, CascadeDetector)
    policy = detector.policy
    assert isinstance(policy, CascadePolicy)
    assert [m.looks for m in policy.plan.models] == [2, 5]
    assert policy.plan.stages == (1, 2, 4, 7)
    assert policy.plan.points[0].cost == 1.0
    assert policy.plan.points[-1].cost == pytest.approx(1 / 22), "one cheap look of 2 cheap and 5 dear ones"
    (promise,) = detector.certificate.guarantees
    assert promise.n == policy.n
    assert detector.certificate.engine == "onnxruntime-fp32 > onnxruntime-fp32"


def test_the_certificate_rests_on_images_no_calibrator_has_seen(made: Path, tiny_run: Path) -> None:
    pair = members(tiny_run)
    data, first, second = certification_parts(pair)
    certificate = open_bundle(made / "bundle").certificate
    assert certificate.certification_images_sha256 == second.fingerprint
    assert certificate.calibration_images_sha256 == first.fingerprint
    used, _ = calibration_parts(data, pair[0].config)
    assert not set(second.groups.tolist()) & set(used.groups.tolist())
    assert len(first) + len(second) == len(data)


def test_predict_decides_as_the_evaluation_did(made: Path) -> None:
    saved = Predictions.load(made / "evaluate" / "predictions.parquet")
    detector = open_bundle(made / "bundle")
    found = [d for _, d in detector.predict(str(p) for p in saved.columns["path"])]
    assert [d.label for d in found] == saved.columns["decision"].tolist()
    assert [d.stage for d in found] == saved.columns["stage"].tolist()
    assert [d.cost for d in found] == pytest.approx(saved.columns["cost"].tolist())
    assert [d.probability for d in found] == pytest.approx(saved.columns["probability"].tolist(), abs=1e-4)
    report = json.loads((made / "evaluate" / "cascade.json").read_text())
    (chosen,) = (row for row in report["curve"] if row["chosen"])
    assert chosen["cost"]["value"] == pytest.approx(np.mean([d.cost for d in found]))
    assert sum(stage["n"] for stage in report["chosen"]["stages"]) == report["n"] == len(found)
    assert "of its full cost" in report["sentence"]
    assert report["deferral"]["curve"]["by_doubt"]


def test_a_budget_chooses_how_much_is_spent(made: Path) -> None:
    detector = open_bundle(made / "bundle")
    image = next((made / "bundle" / "golden").glob("*.png"))
    assert detector.at_budget(1.0)(image).cost == pytest.approx(1.0)
    assert len(detector.at_budget(1.0)(image).views) == 5
    cheap = detector.at_budget(0.05)(image)
    assert cheap.cost == pytest.approx(1 / 22)
    assert len(cheap.views) == 1
    with pytest.raises(ConfigError, match="less than one look"):
        detector.at_budget(0.01)
    with pytest.raises(ConfigError, match="cannot be counted together"):
        detector.at_budget(3.0)


def test_commands_take_the_cascade(made: Path, tmp_path: Path, tiny_run: Path) -> None:
    bundle, image = str(made / "bundle"), str(next((made / "bundle" / "golden").glob("*.png")))
    run = CliRunner()
    done = run.invoke(app, ["predict", "--bundle", bundle, "--budget", "0.5", "--format", "jsonl", image])
    assert done.exit_code == 0, done.output
    assert "of the cost of the dearest one is spent" in done.output
    assert run.invoke(app, ["verify", bundle]).exit_code == 0
    out = tmp_path / "out"
    words = [str(tiny_run), str(tiny_run), "--out", str(out), "--stages", "1/5", "--costs", "1,2", "--scores", "last"]
    done = run.invoke(app, ["cascade", *words, "decide.target_fnr=0.7", "decide.budget=0.9"])
    assert done.exit_code == 0, done.output
    plan = open_bundle(out / "bundle").policy.plan  # type: ignore[attr-defined]
    assert (plan.stages, plan.mean) == ((1, 6), False)
    assert plan.points[0].cost == 1.0, "who is passed on by everyone is not looked at by the first model"
    for wrong, told in (
        (["--stages", "x/5"], "no list of numbers"),
        (["--scores", "best"], "take mean or last"),
        (["train.epochs=3"], "belongs to the runs"),
    ):
        done = run.invoke(app, ["cascade", str(tiny_run), str(tiny_run), "--out", str(out), *wrong])
        assert told in str(done.exception), done.output


def test_other_images_are_evaluated_with_their_maps(made: Path, tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    rows = ["path,label"]
    for number, picture in enumerate(sorted((made / "bundle" / "golden").glob("*.png"))[:4]):
        shutil.copy(picture, tmp_path / "images")
        rows.append(f"images/{picture.name},{number % 2}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    found = evaluate_bundle_inputs(made / "bundle", tmp_path / "labels.csv", threads=1, progress=Progress())
    assert found.decisions.stage is not None
    assert found.overlay is not None
    drawn = found.overlay(tmp_path / "images" / "00.png")
    with Image.open(tmp_path / "images" / "00.png") as picture:
        assert drawn.width / drawn.height == pytest.approx(picture.width / picture.height, rel=0.02)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["export", "{made}/bundle", "--engine", "openvino"], "export.engine=openvino export.precision=fp32"),
        (["export", "{made}", "--engine", "onnxruntime", "--precision", "int8"], "then workzone cascade"),
        (["export", "{made}/bundle", "--engine", "openvino", "--calib", "{made}"], "then workzone cascade"),
        (["export", "{made}/bundle", "--engine", "tensorrt"], "the run of one of its models"),
        (["registry", "triton", "{made}/bundle"], "bundle/members/1"),
    ],
)
def test_one_network_cannot_hold_it(
    call: Callable[..., Any], made: Path, tmp_path: Path, words: list[str], says: str
) -> None:
    answer = call(*(word.format(made=made) for word in words), "--out", tmp_path / "out")
    assert answer.code == 2
    assert "several models is" in answer.err
    assert says in answer.err
    assert not (tmp_path / "out").exists()


def test_other_commands_say_what_it_is(made: Path) -> None:
    for load in (Detector.load, schema.read_manifest):
        with pytest.raises(BundleError, match="cascade of several models"):
            load(made / "bundle")
    assert isinstance(open_bundle(made / "bundle" / "members" / "1"), Detector)


@pytest.mark.parametrize(
    "name",
    [
        "members/1/engine/head.onnx",
        "members/2/policy.json",
        "members/1/bundle.json",
        "policy.json",
        "calibrator.json",
        "certificate.json",
        "metrics.json",
        "MODEL_CARD.md",
        "golden/cases.json",
        "bundle.json",
    ],
)
def test_any_changed_file_is_named(copy: Path, name: str) -> None:
    path = copy / name
    content = path.read_bytes()
    path.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
    refused(copy, name.rpartition("/")[2])


def test_members_cannot_be_swapped_removed_or_added(copy: Path, tiny_run: Path) -> None:
    (copy / "members" / "3").mkdir()
    refused(copy, "members/3 does not belong")
    (copy / "members" / "3").rmdir()
    away = copy.parent / "away"
    (copy / "members" / "2").rename(away)
    refused(copy, "members/2 is not a folder")
    (copy / "members" / "2").symlink_to(away)
    refused(copy, "members/2 is not a folder")
    (copy / "members" / "2").unlink()
    away.rename(copy / "members" / "2")
    assert failures(copy) == {}
    (copy / "members" / "1" / "extra.py").write_text("print()")
    refused(copy, "extra.py does not belong")


def test_another_member_voids_the_certificate_even_when_it_is_sealed_again(copy: Path) -> None:
    member = copy / "members" / "1"
    (member / "MODEL_CARD.md").write_text("another model\n")

    def update(values: dict[str, Any]) -> None:
        from workzone.files import sha256_file

        card = member / "MODEL_CARD.md"
        values["files"]["MODEL_CARD.md"] = {"sha256": sha256_file(card), "size": card.stat().st_size}

    edit_manifest(member, update)
    refused(copy, "another bundle than the one")
    head = member / "engine" / "head.onnx"
    shutil.copyfile(member / "engine" / "backbone.onnx", head)

    def update_head(values: dict[str, Any]) -> None:
        from workzone.files import sha256_file

        update(values)
        values["files"]["engine/head.onnx"] = {"sha256": sha256_file(head), "size": head.stat().st_size}

    edit_manifest(member, update_head)
    found = schema.read_manifest(member).sha256
    edit_manifest(copy, lambda values: values["members"][0].update(sha256=found))
    assert check_chain_files(copy, read_chain(copy)) == []
    refused(copy, "issued for another engine")


def test_a_policy_of_other_models_is_refused(copy: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    values = json.loads((copy / "policy.json").read_text())
    alone = Path(shutil.copytree(tiny_bundle, tmp_path / "alone"))
    (alone / "policy.json").write_text(json.dumps(values))
    with pytest.raises(BundleError, match="several models"):
        Detector.load(alone, check_hashes=False)
    (copy / "policy.json").write_bytes((tiny_bundle / "policy.json").read_bytes())
    with pytest.raises(BundleError, match="no cascade of 2 models"):
        CascadeDetector.load(copy, check_hashes=False)


def test_runs_that_do_not_fit_are_refused(tiny_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no finished run"):
        build_chain([tiny_run, tmp_path], tmp_path / "out", ChainOptions(), Progress())
    with pytest.raises(ConfigError, match="at least two"):
        build_chain([tiny_run], tmp_path / "out", ChainOptions(), Progress())
    for options, told in (
        (ChainOptions(costs=(1.0,)), "costs for 1"),
        (ChainOptions(looks=((1,), (2, 4)), costs=(1.0, 2.0)), "ends with 5"),
        (ChainOptions(decide={"stages": (1, 5)}), "--stages"),
        (ChainOptions(decide={"nothing": 1}), "decide.nothing"),
        (ChainOptions(decide={"delta": 7}), "delta"),
    ):
        with pytest.raises(ConfigError, match=told):
            build_chain([tiny_run, tiny_run], tmp_path / "out", options, Progress())
    assert not (tmp_path / "out").exists()


def test_members_with_other_labels_splits_or_calibrators_are_refused(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one, two = members(tiny_run)
    data = one.context.open(CalibData)
    flipped = CalibData.from_arrays(1 - data.labels, np.zeros(len(data)), groups=data.groups, ids=data.ids)
    object.__setattr__(two.context, "open", lambda kind: flipped)
    with pytest.raises(DataError, match="another label or group"):
        certification_parts([one, two])
    fewer = data.take(np.arange(len(data)) > 0)
    object.__setattr__(two.context, "open", lambda kind: fewer)
    with pytest.raises(DataError, match="different splits"):
        certification_parts([one, two])
    other = members(tiny_run)[1]
    object.__setattr__(other.context, "config", other.config.model_copy(update={"seed": 5}))
    with pytest.raises(LeakageError, match="other images than its configuration says"):
        certification_parts([one, other])
    # A calibrator that was honestly fitted on the other half leaves nothing to certify on.
    seen, rest = calibration_parts(data, one.config)
    monkeypatch.setattr(
        "workzone.pipeline.commands.chain_members.calibration_parts",
        lambda d, config: (rest, seen) if config.seed == 5 else (seen, rest),
    )
    certificate = other.detector.certificate.model_copy(update={"calibration_images_sha256": rest.fingerprint})
    object.__setattr__(other.detector, "certificate", certificate)
    with pytest.raises(DataError, match="cannot be certified"):
        certification_parts([one, other])
    copy = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    (copy / "prepare" / "splits.json").write_text((copy / "prepare" / "splits.json").read_text() + " ")
    with pytest.raises(ArtifactError, match="not the one its bundle was certified on"):
        open_member(copy, Progress())
