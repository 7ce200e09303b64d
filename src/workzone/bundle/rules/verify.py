"""``workzone verify`` of a rule: hashes, certificate, and the answers to its test images once more."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from workzone.bundle.rules.rule import Rule, RuleFolder
from workzone.bundle.verify import Check
from workzone.errors import WorkzoneError
from workzone.evaluation.given import load_given


def verify_rule(folder: Path) -> list[Check]:
    """The checks of a rule; it is good when every check passed."""
    try:
        rule = Rule.load(folder)
    except WorkzoneError as error:
        return [Check("rule", False, str(error))]
    told = "certified" if rule.certificate.certified else "no certified promise"
    checks = [
        Check("hashes", True, f"{len(rule.record.files)} files unchanged"),
        Check("certificate", True, f"belongs to these files; {told}"),
    ]
    if rule.record.n.test:
        checks.append(_answers(rule, folder))
    return checks


def _answers(rule: Rule, folder: Path) -> Check:
    try:
        given = load_given(RuleFolder(folder).evaluation)
        decided = rule.decide(given.predictions)
    except WorkzoneError as error:
        return Check("answers", False, str(error))
    differ = int((decided.codes != given.codes).sum())
    apart = float(np.abs(decided.probability - given.probability).max())
    detail = f"{differ} of {len(decided)} test images are answered differently, probabilities up to {apart:.2g} apart"
    return Check("answers", differ == 0, detail)
