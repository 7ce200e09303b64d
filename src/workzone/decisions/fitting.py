"""Fit a policy on images its calibrator has not seen, and issue the certificate."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TypeVar

import numpy as np

from workzone.calibration.base import Calibrator
from workzone.data.roles import CalibData, require_calib
from workzone.decisions.certificate import Certificate
from workzone.decisions.policies.base import Policy
from workzone.errors import LeakageError
from workzone.files import sha256_json
from workzone.predictions import FloatArray

P = TypeVar("P", bound=Policy)


def require_disjoint(calibration: CalibData, certification: CalibData) -> None:
    """Raise LeakageError where the two parts share an image or a group."""
    first = require_calib(calibration, user="the calibrator")
    second = require_calib(certification, user="the certificate")
    for what, a, b in (("images", first.ids, second.ids), ("groups", first.groups, second.groups)):
        shared = np.intersect1d(a, b)
        if len(shared):
            raise LeakageError(
                f"calibrator and certificate share {len(shared)} {what}, so the promise would not hold",
                where=f"{what[:-1]} {str(shared[0])!r}",
                fix="split the data with CalibData.disjoint_parts, and give images from elsewhere ids of their own",
            )


def fit_policy(
    policy: P,
    calibrator: Calibrator,
    certification: CalibData,
    *,
    calibration: CalibData,
    uncertainty: Mapping[str, FloatArray] | None = None,
) -> P:
    """Fit ``policy`` on the calibrated scores of ``certification``.

    Args:
        policy: unfitted policy.
        calibrator: fitted on ``calibration``.
        certification: the part of ``val_calib`` the promise will rest on.
        calibration: the part the calibrator has seen.
        uncertainty: (N,) measures of the certification images by name, for a policy that uses them.

    Raises:
        LeakageError: a part is not ``CalibData``, or the parts share an image or a group.
    """
    require_disjoint(calibration, certification)
    return policy.fit(certification, calibrator.apply(certification), uncertainty)


def issue(
    policy: Policy,
    calibrator: Calibrator,
    *,
    calibration: CalibData,
    certification: CalibData,
    engine: str,
    engine_sha256: str,
    preprocessing_sha256: str,
    split_sha256: str,
    created: datetime | None = None,
) -> Certificate:
    """Certificate of a policy fitted with ``fit_policy``.

    Args:
        policy: fitted policy.
        calibrator: the calibrator whose probabilities it was fitted on.
        calibration: the part of ``val_calib`` the calibrator has seen.
        certification: the part the policy was fitted on.
        engine: engine and precision, for example "onnxruntime-fp32".
        engine_sha256: hash of the exported network.
        preprocessing_sha256: hash of the preprocessing specification.
        split_sha256: hash of the split.
        created: time of issue; now where None.

    Raises:
        LeakageError: a part is not ``CalibData``, or the parts share an image or a group.
    """
    require_disjoint(calibration, certification)
    time = (created or datetime.now(UTC)).astimezone(UTC)
    return Certificate(
        guarantees=policy.guarantees,
        engine=engine,
        engine_sha256=engine_sha256,
        preprocessing_sha256=preprocessing_sha256,
        calibrator_sha256=sha256_json(calibrator.to_dict()),
        policy_sha256=sha256_json(policy.to_dict()),
        split_sha256=split_sha256,
        calibration_images_sha256=calibration.fingerprint,
        certification_images_sha256=certification.fingerprint,
        n_calibration=len(calibration),
        n_certification=len(certification),
        n_certification_groups=len(np.unique(certification.groups)),
        prevalence=certification.n_positive / max(len(certification), 1),
        created=time.isoformat(timespec="seconds").replace("+00:00", "Z"),
    )
