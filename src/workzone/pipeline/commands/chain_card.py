"""The model card of a cascade of several models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workzone import __version__
from workzone.bundle.schema import BundleManifest
from workzone.decisions import Certificate
from workzone.decisions.policies.cascade import CascadePolicy
from workzone.pipeline.card import LIMITS


def chain_card(
    name: str,
    members: Sequence[BundleManifest],
    policy: CascadePolicy,
    report: Mapping[str, Any],
    certificate: Certificate,
) -> str:
    """Markdown for people; every figure has its n, prevalence and interval."""
    plan = policy.plan
    size = f"n {report['n']}, {report['prevalence']:.1%} roadwork, {report['n_groups']} groups"
    lines = [
        f"# {name}: roadwork in street images, by a cascade of {len(members)} models",
        "",
        "Says `roadwork`, `no_roadwork` or `abstain` about one street image. Label 1 means: active road work is",
        "visible on or beside the road. A cheap model looks first; a dearer one is asked where the answer may change.",
        "",
        "## Promise",
        "",
        *(f"- {sentence}" for sentence in certificate.sentences()),
        "- It is made about the cascade as a whole. Certificates of the members speak of each member used alone.",
        "",
        f"## Measured on the test role ({size})",
        "",
        report["sentence"],
        "",
        "| stage | model | views | images | accuracy |",
        "|---|---|---|---|---|",
    ]
    for row in report["chosen"]["stages"]:
        stage = row["stage"]
        model = members[plan.model(stage)]
        accuracy = row["accuracy"]["value"]
        shown = "undefined" if accuracy is None else f"{accuracy:.3f}"
        lines.append(f"| {stage} | {model.name} | {len(plan.views(stage))} | {row['n']} | {shown} |")
    lines += [
        "",
        "## How it was made",
        "",
        *(
            f"- member {i}: `{m.name}`, backbone `{m.engine.backbone}`, engine `{m.engine.name}-{m.engine.precision}`"
            for i, m in enumerate(members, start=1)
        ),
        "- later models add to the score of earlier ones" if plan.mean else "- each model answers by its own score",
        f"- workzone {__version__}",
        "",
        *LIMITS,
    ]
    return "\n".join(lines)
