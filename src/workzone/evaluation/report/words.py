"""The evaluation in sentences: what was decided, how often wrongly, what is promised, and what to be careful about."""

from __future__ import annotations

import numpy as np

from workzone.evaluation.inputs import Evaluated
from workzone.evaluation.slices import FEW, Slices
from workzone.evaluation.summary import Summary
from workzone.metrics import Interval

_WIDE = 0.20
_FEW_ROADWORK = 50
_FEW_GROUPS = 20


def percent(interval: Interval) -> str:
    """``4.5% (2.1 to 8.3%)``; says so where there is no value or no interval."""
    if not np.isfinite(interval.value):
        return "not defined"
    if not np.isfinite(interval.low):
        return f"{100 * interval.value:.1f}% (no interval{interval.method.removeprefix('none')})"
    return f"{100 * interval.value:.1f}% ({100 * interval.low:.1f} to {100 * interval.high:.1f}%)"


def count(n: int, noun: str, plural: str | None = None) -> str:
    """``1 image``, ``2 images``."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def headline(s: Summary) -> list[str]:
    """What the policy did, in words that need no statistics."""
    policy, c = s.systems["policy"].natural, s.counts
    lines = [
        f"Of {count(s.n, 'image')} ({s.n_positive:,} with roadwork, {s.prevalence:.0%}) the detector decided "
        f"{c['decided']:,}, that is {percent(policy['coverage'])}, and left {c['abstained']:,} to a person."
    ]
    if c["decided"]:
        lines.append(
            f"Of its {count(c['decided'], 'decision')} {c['wrong']:,} {'was' if c['wrong'] == 1 else 'were'} wrong: "
            f"{percent(policy['risk'])}."
        )
        answered, others = [], s.n - s.n_positive
        if s.n_positive:
            answered.append(
                f"'no roadwork' to {c['missed']:,} of {count(s.n_positive, 'image')} with roadwork, "
                f"{percent(policy['fnr'])}"
            )
        if others:
            answered.append(
                f"'roadwork' to {c['false_alarms']:,} of {count(others, 'image')} without, {percent(policy['fpr'])}"
            )
        lines.append(f"It answered {', and '.join(answered)}.")
    else:
        lines.append("It decided nothing, so there is no error rate to report.")
    return lines


def certificate_line(s: Summary) -> tuple[str, str]:
    """Title and sentence about the certificate; the title says at once whether there is a promise."""
    if s.certified == "certified":
        what = " ".join(p.sentence for p in s.promises)
        if contradicted := [p for p in s.promises if p.contradicted]:
            here = ", ".join(f"the {p.risk.replace('_', ' ')} is {percent(p.measured)}" for p in contradicted)
            return "Certified, but these images contradict it", f"{what} On these images {here}."
        return "Certified", what
    if s.certified == "not_certifiable":
        return "Not certifiable", " ".join(p.sentence for p in s.promises if p.status == "not_certifiable")
    return "No promise", "No error rate is promised: the figures below are measurements on these images only."


def cautions(e: Evaluated, s: Summary, slices: Slices) -> list[str]:
    """What a reader should know before relying on a figure; the most serious first."""
    return [*_promises(e, s), *_sample(s), *_shortcuts(s), *_calibration(s), *_slices(slices)]


def _promises(e: Evaluated, s: Summary) -> list[str]:
    found = [
        f"On these images the {p.risk.replace('_', ' ')} is {percent(p.measured)} ({p.events} of "
        f"{count(p.measured.n, p.unit)}), above the limit of {p.alpha:.1%} that the certificate names: "
        + ("more than chance explains." if p.beyond_chance else "chance may explain it.")
        + (
            " The promise is about the mean over draws of the certification images; a single draw may be above."
            if p.kind == "expectation"
            else ""
        )
        for p in s.promises
        if p.above
    ]
    if e.certificate is not None:
        found += e.certificate.warnings
    wanted = (e.policy.get("parameters") or {}).get("min_coverage")
    coverage = s.systems["policy"].natural["coverage"]
    if isinstance(wanted, (int, float)) and coverage.value < wanted:
        found.append(f"The policy decided {percent(coverage)} of the images; the run asked for at least {wanted:.0%}.")
    return found


def _sample(s: Summary) -> list[str]:
    found = []
    if s.n_positive in (0, s.n):
        kind = "no roadwork at all" if s.n_positive == 0 else "nothing but roadwork"
        found.append(f"These images hold {kind}: ranking, MCC and one of the two error rates cannot be measured.")
    elif s.n_positive < _FEW_ROADWORK:
        found.append(
            f"Only {count(s.n_positive, 'image')} with roadwork: a single miss moves the share of missed roadwork by "
            f"{1 / s.n_positive:.1%}."
        )
    policy, labels = s.systems["policy"].natural, s.systems["argmax"].natural
    wide = [
        f"{name} {text(value)}"
        for name, value, text in (
            ("missed roadwork", policy["fnr"], percent),
            ("false alarms", policy["fpr"], percent),
            ("wrong among decided", policy["risk"], percent),
            ("MCC at 0.5", labels["mcc"], "{:.2f}".format),
        )
        if np.isfinite(value.low) and value.high - value.low > _WIDE
    ]
    if wide:
        found.append(f"Wide intervals, too wide to compare models by: {', '.join(wide)}.")
    if s.draws.by_group and 1 < s.n_groups < _FEW_GROUPS:
        found.append(f"Only {s.n_groups} independent groups: intervals by group are themselves uncertain.")
    if s.draws.by_group and s.n_groups >= _FEW_GROUPS and 0 < s.n_groups_roadwork < min(_FEW_GROUPS, s.n_positive):
        places = count(s.n_groups_roadwork, "group")
        found.append(
            f"The images with roadwork come from only {places}: intervals of what is missed or found are themselves "
            "uncertain, and likely too narrow."
        )
    if s.draws.by_group and s.n_groups == 1:
        found.append(
            "All images belong to one group and may all be alike: they say next to nothing about other places."
        )
    return found


def _shortcuts(s: Summary) -> list[str]:
    found = []
    single = [row for row in s.sources if not row.both_classes]
    both = [row for row in s.sources if row.both_classes]
    if len(s.sources) > 1 and single:
        names = ", ".join(row.name for row in single[:6]) + (f" and {len(single) - 6} more" if len(single) > 6 else "")
        found.append(f"{count(len(single), 'source')} with one class only, left out of the mean over sources: {names}.")
    pooled = s.systems["argmax"].natural["auroc"].value
    if len(both) > 1:
        mean = s.macro["argmax"]["auroc"].value
        known = f"Knowing nothing but the source ranks the labels with AUROC {s.source_auroc:.2f}"
        if pooled - mean > 0.02:
            found.append(
                f"The pooled AUROC of {pooled:.2f} flatters: the mean over {len(both)} sources is {mean:.2f}. {known}. "
                "Judge by the mean over sources."
            )
        elif s.source_auroc > 0.7:
            found.append(
                f"{known}; judge by the mean over sources (AUROC {mean:.2f}), not by the pooled figure ({pooled:.2f})."
            )
        thin = [row.name for row in both if min(row.n_positive, row.n - row.n_positive) < FEW]
        if thin:
            found.append(
                f"{len(thin)} of the {len(both)} sources in the mean have fewer than {FEW} images of a class "
                f"({', '.join(thin[:6])}): they weigh as much as the others, but are less certain."
            )
    return found


def _calibration(s: Summary) -> list[str]:
    verdict = s.calibration["all_views"]["ece_verdict"]
    if verdict["ece"] <= verdict["null_95"]:
        return []
    return [
        f"The probabilities are off: ECE {verdict['ece']:.3f}, where a calibrated model would stay below "
        f"{verdict['null_95']:.3f} on {count(verdict['n'], 'image')} (95% of the time)."
    ]


def _slices(slices: Slices) -> list[str]:
    found = []
    if slices.worst is not None and slices.worst["differs"]:
        w = slices.worst
        column = w["column"].replace("_", " ").replace("*", " x ")
        found.append(
            f"Weakest slice: {column} '{w['value']}' with balanced accuracy {w['slice']:.2f} "
            f"against {w['others']:.2f} on the others. {w['caveat']}"
        )
    if slices.day_night["verdict"] == "differs":
        gap = slices.day_night["gap"]
        found.append(
            f"At 0.5, the share of missed roadwork is {100 * abs(gap.value):.0f} points "
            f"{'higher' if gap.value > 0 else 'lower'} at night than by day "
            f"({100 * gap.low:+.0f} to {100 * gap.high:+.0f})."
        )
    return found
