from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from workzone.calibration import create as create_calibrator
from workzone.data.roles import CalibData, TestData
from workzone.decisions import Certificate, create, fit_policy, issue
from workzone.errors import BundleError, LeakageError
from workzone.files import canonical_json, sha256_json

HASH = {"engine_sha256": "e" * 64, "preprocessing_sha256": "p" * 64, "split_sha256": "s" * 64}


def whole(n: int = 1200, *, per_group: int = 1, seed: int = 0) -> CalibData:
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.5).astype(int)
    return CalibData.from_arrays(y, 5 * (y - 0.5) + rng.normal(size=n), groups=[f"g{i // per_group}" for i in range(n)])


def issued(per_group: int = 1, **options: Any) -> tuple[Certificate, dict[str, str]]:
    first, second = whole(per_group=per_group).disjoint_parts(0.5, seed=0)
    calibrator = create_calibrator("platt").fit(first)
    policy = fit_policy(create("threshold", **options), calibrator, second, calibration=first)
    certificate = issue(
        policy,
        calibrator,
        calibration=first,
        certification=second,
        engine="onnxruntime-fp32",
        created=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        **HASH,
    )
    parts = {
        "policy_sha256": sha256_json(policy.to_dict()),
        "calibrator_sha256": sha256_json(calibrator.to_dict()),
        "engine": "onnxruntime-fp32",
        **HASH,
    }
    return certificate, parts


def test_round_trip() -> None:
    certificate, _ = issued(target_fpr=0.02)
    text = canonical_json(certificate.to_dict())
    assert Certificate.from_dict(json.loads(text)) == certificate
    assert certificate.created == "2026-01-02T03:04:05Z"
    assert certificate.certified


@pytest.mark.parametrize(
    "change", [{"extra": 1}, {"schema_version": 2}, {"prevalence": 2.0}, {"n_calibration": "5"}, {"engine": None}]
)
def test_tampered_certificates_are_refused(change: dict[str, Any]) -> None:
    stored = {**issued()[0].to_dict(), **change}
    with pytest.raises(BundleError, match="cannot be read"):
        Certificate.from_dict(stored)
    with pytest.raises(BundleError):
        Certificate.from_dict([])


def test_it_is_void_for_any_other_part() -> None:
    certificate, parts = issued()
    assert certificate.void_reasons(**parts) == []
    for name in parts:
        (reason,) = certificate.void_reasons(**{**parts, name: "something else"})
        assert name in reason
    with pytest.raises(ValueError, match="not bound"):
        certificate.void_reasons(colour="red")


def test_sentences_state_the_promise_its_evidence_and_the_groups() -> None:
    text = " ".join(issued()[0].sentences())
    assert "at most 2.00%" in text
    assert "onnxruntime-fp32" in text
    assert "groups" in text
    assert "Warning" not in text


def test_several_images_per_group_bring_a_warning_unless_groups_are_counted() -> None:
    certificate, _ = issued(per_group=3)
    assert certificate.n_certification_groups < certificate.n_certification
    assert any("3.0 images each" in s for s in certificate.sentences())
    by_group, _ = issued(per_group=3, unit="group", target_fnr=0.05)
    assert by_group.certified
    assert not by_group.warnings
    assert "share of groups" in by_group.sentences()[0]


def test_a_shared_image_or_group_is_leakage() -> None:
    data = whole(per_group=2)
    first, second = data.disjoint_parts(0.5, seed=0)
    calibrator = create_calibrator("temperature").fit(first)
    with pytest.raises(LeakageError, match=r"share .* images"):
        fit_policy(create("argmax"), calibrator, data, calibration=first)
    half_group = np.arange(len(data)) % 2 == 0
    with pytest.raises(LeakageError, match=r"share .* groups"):
        fit_policy(create("argmax"), calibrator, data.take(half_group), calibration=data.take(~half_group))
    test: Any = TestData.from_arrays(second.labels, second.scores, ids=[f"t{i}" for i in range(len(second))])
    with pytest.raises(LeakageError, match="val_calib"):
        fit_policy(create("argmax"), calibrator, test, calibration=first)
