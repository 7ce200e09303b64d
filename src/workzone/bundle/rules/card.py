"""A rule in words: which calibrator and why, where the answers change, what is promised, and what nobody can check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workzone.bundle.rules.answers import Span, answers
from workzone.bundle.rules.certify import Certified
from workzone.bundle.rules.rule import disagree
from workzone.config.deciding import BY_GROUP
from workzone.decisions import Certificate
from workzone.evaluation.calibrators import choice, read_methods
from workzone.evaluation.figures import Draws, Part, share
from workzone.evaluation.report.words import count, percent
from workzone.evaluation.summary import Summary
from workzone.predictions import sigmoid

HEAD = ("answer", "calibrated probability", "log-odds of the table", "probability of the table")


@dataclass(frozen=True, slots=True)
class Card:
    """What is said about a rule; each sentence stands alone.

    Attributes:
        title: of what.
        images: what the rows of the table were for.
        calibrator: the choice, and what it changes.
        answers: rows under ``HEAD``; empty where the answer depends on more than the score.
        status: of the certificate: certified, not certifiable, or none.
        promises: the certificate.
        coverage: what the policy decides.
        limits: what weakens the promise, or cannot be checked.
    """

    title: str
    images: tuple[str, ...]
    calibrator: tuple[str, ...]
    answers: tuple[tuple[str, ...], ...]
    status: str
    promises: tuple[str, ...]
    coverage: tuple[str, ...]
    limits: tuple[str, ...]

    def markdown(self) -> str:
        """The whole card."""
        table = [f"| {' | '.join(row)} |" for row in (HEAD, ["---"] * len(HEAD), *self.answers)] if self.answers else []
        sections = (
            ("Images", _list(self.images)),
            ("Calibrator", _list(self.calibrator)),
            ("Answers", table or ["- The answer to an image depends on more than its score."]),
            (f"Promise: {self.status}", _list(self.promises)),
            ("Coverage", _list(self.coverage)),
            ("Limits", _list(self.limits)),
        )
        lines = [f"# {self.title}"]
        for title, body in sections:
            lines += ["", f"## {title}", "", *body]
        return "\n".join(lines) + "\n"


def make_card(c: Certified, draws: Draws) -> Card:
    """The card of ``c``; intervals of measured shares are made by ``draws``."""
    return Card(
        title=f"Certificate of the scores in {c.given.path.name}",
        images=_images(c),
        calibrator=_calibrator(c),
        answers=_answers(c),
        status=_status(c.certificate),
        promises=_promises(c),
        coverage=_coverage(c, draws),
        limits=_limits(c),
    )


def _list(sentences: Sequence[str]) -> list[str]:
    return [f"- {sentence}" for sentence in sentences]


def _images(c: Certified) -> tuple[str, ...]:
    first, second = c.first, c.second
    n_groups = len(np.unique(second.groups))
    others = "others" if n_groups == len(second) else f"images of {count(n_groups, 'other group')}"
    lines = [
        f"{count(len(first), 'image')} ({first.n_positive:,} with roadwork) fitted the calibrator; {len(second):,} "
        f"{others} ({second.n_positive:,} with roadwork, {c.certificate.prevalence:.0%}) fitted the policy and carry "
        "the promise."
    ]
    n_test = int(c.test.sum())
    if n_test:
        lines.append(f"{count(n_test, 'test image')} took no part, and the rule was measured on them.")
    else:
        lines.append(
            "Nothing was left to measure on: every row was taken as a calibration image. Say 'calibration' or 'test' "
            "in a column 'split' to keep some apart."
            if not c.unused
            else "Nothing was left to measure on: the column 'split' names no test images."
        )
    if c.unused:
        lines.append(f"{count(c.unused, 'row')} of another split took no part.")
    return tuple(lines)


def _calibrator(c: Certified) -> tuple[str, ...]:
    methods = read_methods(c.tried["methods"])
    told = choice([m for m in methods if m.chosen or m.eligible or m.name != "none"])
    chosen = next(m for m in methods if m.chosen)
    before = next(m for m in methods if m.name == "none")
    lines = [told]
    if chosen.ece is not None and before.ece is not None and chosen is not before:
        lines.append(
            f"Out of fold on these {c.tried['n']:,} images: NLL {before.cv_nll:.3f} as given, {chosen.cv_nll:.3f} "
            f"calibrated; ECE {before.ece:.3f} as given, {chosen.ece:.3f} calibrated."
        )
    return tuple(lines)


def before_and_after(summary: Summary) -> tuple[str, ...]:
    """What the calibrator did to the test images; empty where it left the scores as they are."""
    known = {m.name: m.test for m in summary.methods if m.chosen or m.name == "none"}
    before = known.pop("none", None)
    after = next(iter(known.values()), None)
    if before is None or after is None:
        return ()
    return (
        f"NLL {before.nll:.3f} as given, {after.nll:.3f} calibrated; ECE {before.ece.ece:.3f} as given, "
        f"{after.ece.ece:.3f} calibrated, where chance alone gives up to {after.ece.null_95:.3f}.",
    )


def _answers(c: Certified) -> tuple[tuple[str, ...], ...]:
    found = answers(c.calibrator, c.policy)
    if found is None:
        return ()
    known = any(a.log_odds is not None for a in found)
    rows = []
    for a in found:
        spans = [_span(a.probability)]
        if a.log_odds is not None:
            spans += [_span(a.log_odds), _span(_probabilities(a.log_odds))]
        else:
            spans += ["never reached" if known else "by more than the score"] * 2
        rows.append((a.name, *spans))
    return tuple(rows)


def _probabilities(span: Span) -> Span:
    low, high = (None if v is None else float(sigmoid(np.array(v))) for v in span)
    return low, high


def _span(span: Span) -> str:
    low, high = span
    form = ".4g"
    if low is None and high is None:
        return "any"
    if low is None:
        return f"below {high:{form}}"
    return f"{low:{form}} and above" if high is None else f"{low:{form}} to {high:{form}}"


def _promises(c: Certified) -> tuple[str, ...]:
    certificate = c.certificate
    lines = [g.sentence() for g in certificate.guarantees]
    if not lines:
        lines = [f"No promise: policy {c.policy.name!r} makes none."]
    if c.settings.decide.if_not_certifiable == "uncertified" and _refused(certificate):
        lines.append("It answers all the same and says so in every reason; decide.if_not_certifiable=abstain does not.")
    lines += certificate.warnings
    if certificate.warnings and c.policy.name in BY_GROUP:
        lines.append("decide.unit=group counts groups.")
    return tuple(lines)


def _status(certificate: Certificate) -> str:
    if not certificate.guarantees:
        return "none"
    if certificate.certified:
        return "certified"
    given = sum(g.status == "certified" for g in certificate.guarantees)
    return f"{given} of {len(certificate.guarantees)} certified" if given else "not certifiable"


def _refused(certificate: Certificate) -> bool:
    return any(g.status == "not_certifiable" for g in certificate.guarantees)


def _coverage(c: Certified, draws: Draws) -> tuple[str, ...]:
    decided = c.decided
    part = Part(c.second.labels, decided.probability, decided.codes, c.second.groups)
    interval = share(decided.accepted, part, draws, prevalence=part.prevalence)
    lines = [
        f"It decides {percent(interval)} of the {count(len(part), 'certification image')}, which also chose its limits."
    ]
    wanted = c.policy.parameters().get("min_coverage")
    if isinstance(wanted, float) and interval.value < wanted:
        lines.append(f"At least {wanted:.0%} were asked for (decide.min_coverage).")
    return tuple(lines)


def _limits(c: Certified) -> tuple[str, ...]:
    name, certificate = c.given.path.name, c.certificate
    lines = [
        f"The promise holds for scores (column {c.score}) of the model that made {name}, and for images drawn like the "
        f"{certificate.n_certification:,} certification images.",
        f"Nothing here can check that later scores come from that model, nor that it was neither trained nor chosen on "
        f"the calibration images: whoever made {name} vouches for it. A new version of the model needs a new "
        "certificate.",
    ]
    p = c.given.probability
    if c.score == "probability" and (n := int(((p <= 0.0) | (p >= 1.0)).sum())):
        lines.append(
            f"Exactly 0 or 1, where log-odds are infinite: {n:,} of {count(len(p), 'probability', 'probabilities')}. "
            "They count as 1e-12 away from it (log-odds -27.6 and 27.6); log-odds of the model, where it has them, "
            "keep apart what was rounded."
        )
    if "group" not in c.given.predictions.columns:
        lines.append(
            "The table has no column 'group', so its images are taken as independent; where several come from one "
            "drive or place, the true confidence is lower."
        )
    if disagree(c.given):
        lines.append("Columns log_odds and probability say different things; log_odds was taken, here and by 'decide'.")
    return tuple(lines)
