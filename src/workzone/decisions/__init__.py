"""Decisions: policies that turn calibrated probabilities into answers, and the promises they can prove."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from workzone.decisions.apply import apply_policy
from workzone.decisions.certificate import Certificate, Guarantee
from workzone.decisions.fitting import fit_policy, issue, require_disjoint
from workzone.decisions.policies.aps import ApsPolicy
from workzone.decisions.policies.argmax import ArgmaxPolicy
from workzone.decisions.policies.base import Policy
from workzone.decisions.policies.cascade import CascadePolicy
from workzone.decisions.policies.crc import RiskControlPolicy
from workzone.decisions.policies.crcp import ContaminationPolicy
from workzone.decisions.policies.gate import GatePolicy
from workzone.decisions.policies.lac import LacPolicy
from workzone.decisions.policies.ltt import LearnThenTestPolicy
from workzone.decisions.policies.mondrian import MondrianPolicy
from workzone.decisions.policies.scrc import SelectivePolicy
from workzone.decisions.policies.sgr import SelectiveRiskPolicy
from workzone.decisions.policies.threshold import ThresholdPolicy
from workzone.decisions.types import Code, Decision, Decisions, ViewScore
from workzone.errors import BundleError, ConfigError

POLICIES: Mapping[str, type[Policy]] = {
    cls.name: cls
    for cls in (
        ArgmaxPolicy,
        ThresholdPolicy,
        LearnThenTestPolicy,
        RiskControlPolicy,
        LacPolicy,
        MondrianPolicy,
        ApsPolicy,
        SelectivePolicy,
        ContaminationPolicy,
        SelectiveRiskPolicy,
        GatePolicy,
        CascadePolicy,
    )
}
REFUSED: Mapping[str, str] = {
    "raps": "with two classes its penalty falls on the second label of every image alike, so its sets are those of aps",
}
"""Methods that mean nothing for two classes, with the reason; ``workzone.decisions.conformal`` has them for more."""

__all__ = [
    "POLICIES",
    "REFUSED",
    "Certificate",
    "Code",
    "Decision",
    "Decisions",
    "Guarantee",
    "Policy",
    "ViewScore",
    "apply_policy",
    "create",
    "fit_policy",
    "from_dict",
    "issue",
    "require_disjoint",
    "unfitted",
]


def create(name: str, **options: Any) -> Policy:
    """Return a new, unfitted policy.

    Raises:
        ConfigError: no policy has this name, or it has no such option.
    """
    if name in REFUSED:
        raise ConfigError(f"there is no policy {name!r}: {REFUSED[name]}", fix=f"use one of {', '.join(POLICIES)}")
    if name not in POLICIES:
        raise ConfigError(f"there is no policy {name!r}", fix=f"use one of {', '.join(POLICIES)}")
    known = list(inspect.signature(POLICIES[name]).parameters)
    unknown = [key for key in options if key not in known]
    if unknown:
        raise ConfigError(f"policy {name!r} has no option {unknown[0]!r}", fix=f"its options are {', '.join(known)}")
    return POLICIES[name](**options)


def unfitted(name: str, settings: Mapping[str, Any], **more: Any) -> Policy:
    """A new policy with those of ``settings`` that it knows, and ``more`` options, which it must know.

    Raises:
        ConfigError: as ``create``.
    """
    known = inspect.signature(POLICIES[name]).parameters if name in POLICIES else {}
    return create(name, **{k: v for k, v in settings.items() if k in known}, **more)


def from_dict(stored: object) -> Policy:
    """Rebuild what ``Policy.to_dict`` wrote; a bundle holds exactly one policy.

    Raises:
        BundleError: not exactly one policy, an unknown one, or missing or impossible numbers.
    """
    if not isinstance(stored, Mapping) or set(stored) != {"policy", "parameters"}:
        raise BundleError("a bundle must hold exactly one policy, stored as 'policy' and 'parameters'")
    name, parameters = stored["policy"], stored["parameters"]
    if not isinstance(name, str) or name not in POLICIES:
        raise BundleError(f"unknown policy {name!r}", fix=f"known policies are {', '.join(POLICIES)}")
    if not isinstance(parameters, Mapping):
        raise BundleError(f"policy {name!r} is stored without parameters")
    return POLICIES[name].from_parameters(parameters)
