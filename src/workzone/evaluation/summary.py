"""All figures of an evaluation in one object, before any of them is drawn or worded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from workzone.config.run import EvaluateConfig
from workzone.evaluation.calibrators import Method, on_test, read_methods
from workzone.evaluation.contrasts import Contrast, contrasts
from workzone.evaluation.figures import (
    LABEL_FIGURES,
    STATED_FIGURES,
    Draws,
    Part,
    label_figures,
    macro,
    plain,
    policy_at_prevalence,
    policy_figures,
)
from workzone.evaluation.inputs import Evaluated
from workzone.evaluation.promises import Promise, measure_promises
from workzone.evaluation.selective import score_figures
from workzone.metrics import METRICS, Interval, auroc, brier_decomposition, ece_verdict, evaluate

SCHEMA_VERSION = 1
MACRO_LABELS = ("auroc", "mcc", "balanced_accuracy", "average_precision", "fnr", "fpr")
MACRO_POLICY = ("coverage", "risk", "wrong_of_all", "fnr", "fpr", "found")


@dataclass(frozen=True, slots=True)
class System:
    """One way to answer: its figures at the natural and at the stated prevalence."""

    title: str
    natural: dict[str, Interval]
    stated: dict[str, Interval]


@dataclass(frozen=True, slots=True)
class SourceRow:
    """Figures of one source."""

    name: str
    n: int
    n_positive: int
    n_groups: int
    argmax: dict[str, Interval]
    policy: dict[str, Interval]

    @property
    def both_classes(self) -> bool:
        """Whether it counts in the mean over sources."""
        return 0 < self.n_positive < self.n


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything that is reported as a number.

    Attributes:
        n: images.
        n_positive: images with roadwork.
        n_groups: groups that are resampled as one.
        counts: of the policy: decided, abstained, wrong, missed, false_alarms.
        draws: how intervals are made.
        stated_prevalence: the share of roadwork of ``System.stated``.
        systems: policy, argmax, one_view and one_view_policy where the global view was scored, and policy_score
            (selective figures only) where the policy abstains by a score of its own.
        sources: every source, largest first.
        macro: mean over the sources with both classes, by system and figure.
        source_auroc: AUROC of ranking images by the share of roadwork in their source, NaN with one class.
        calibration: errors of the probabilities, judged against a calibrated model.
        promises: the certificate against the test images.
        methods: every calibrator that was tried.
        contrasts: pairs of ways to answer these images.
        n_groups_roadwork: groups with at least one image with roadwork.
        certified: "certified", "not_certifiable" or "none".
    """

    n: int
    n_positive: int
    n_groups: int
    counts: dict[str, int]
    draws: Draws
    stated_prevalence: float
    systems: dict[str, System]
    sources: tuple[SourceRow, ...]
    macro: dict[str, dict[str, Interval]]
    source_auroc: float
    calibration: dict[str, Any]
    promises: tuple[Promise, ...]
    certified: str
    methods: tuple[Method, ...] = ()
    contrasts: tuple[Contrast, ...] = ()
    n_groups_roadwork: int = 0

    @property
    def prevalence(self) -> float:
        """Share of roadwork."""
        return self.n_positive / self.n

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON; what is not defined is null."""
        return {
            "schema_version": SCHEMA_VERSION,
            "n": self.n,
            "n_roadwork": self.n_positive,
            "prevalence": self.prevalence,
            "n_groups": self.n_groups,
            "n_groups_roadwork": self.n_groups_roadwork,
            "counts": dict(self.counts),
            "interval": asdict(self.draws),
            "stated_prevalence": self.stated_prevalence,
            "systems": {
                name: {"title": s.title, "natural": plain(s.natural), "stated": plain(s.stated)}
                for name, s in self.systems.items()
            },
            "per_source": [
                {
                    "source": s.name,
                    "n": s.n,
                    "n_roadwork": s.n_positive,
                    "n_groups": s.n_groups,
                    "in_macro": s.both_classes,
                    "argmax": plain(s.argmax),
                    "policy": plain(s.policy),
                }
                for s in self.sources
            ],
            "macro": {
                "sources": [s.name for s in self.sources if s.both_classes],
                **{system: plain(figures) for system, figures in self.macro.items()},
            },
            "source_auroc": plain(self.source_auroc),
            "calibration": plain(self.calibration),
            "promises": [plain({name: getattr(p, name) for name in Promise.__slots__}) for p in self.promises],
            "certified": self.certified,
            "calibrators": [plain(m.to_dict()) for m in self.methods],
            "contrasts": [c.to_dict() for c in self.contrasts],
        }


def summarise(e: Evaluated, settings: EvaluateConfig, *, seed: int, progress: Callable[[str], None]) -> Summary:
    """Compute all figures of ``e``."""
    draws = Draws(settings.resamples, settings.interval, settings.level, settings.by_group, seed)
    part = Part(e.labels, e.probability, e.decisions.codes, e.groups)
    views = "" if e.one_view is None else ", all views"
    progress("figures with intervals")
    systems = {
        "policy": _policy(f"policy '{e.policy.get('policy', 'unnamed')}'{views}", part, draws, settings.prevalence),
        "argmax": _argmax(f"answer at 0.5{views}", part, draws, settings.prevalence),
    }
    if e.one_view is not None:
        codes = e.decisions.codes if e.one_view.decisions is None else e.one_view.decisions.codes
        one = Part(e.labels, e.one_view.probability, codes, e.groups)
        if e.one_view.decisions is not None:
            systems["one_view_policy"] = _policy("policy, one view", one, draws, settings.prevalence)
        systems["one_view"] = _argmax("answer at 0.5, one view", one, draws, settings.prevalence)
    if e.confidence is not None:
        title = f"answer at 0.5, trusted by the policy's score: {e.confidence[0]}"
        right = e.argmax == e.labels
        own = score_figures(right, e.confidence[1], e.groups, draws, prevalence=part.prevalence)
        systems["policy_score"] = System(title, own, {})
    progress("figures by source")
    names, counts = np.unique(e.sources, return_counts=True)
    ordered = [
        name for name, _ in sorted(zip(names.tolist(), counts.tolist(), strict=True), key=lambda v: (-v[1], v[0]))
    ]
    parts = [part.take(e.sources == name) for name in ordered]
    sources = tuple(
        SourceRow(
            name,
            len(p),
            p.n_positive,
            p.n_groups,
            label_figures(p, draws, MACRO_LABELS),
            policy_figures(p, draws, MACRO_POLICY),
        )
        for name, p in zip(ordered, parts, strict=True)
    )
    both = [p for p in parts if p.both_classes]
    share_of = dict(zip(ordered, (p.prevalence for p in parts), strict=True))
    by_source = np.array([share_of[name] for name in e.sources.tolist()])
    wrong = e.decisions.accepted & (e.decisions.codes != e.labels)
    guarantees = e.certificate.guarantees if e.certificate else ()
    progress("comparisons")
    pairs = contrasts(e, draws)
    promises = measure_promises(guarantees, part, e.decisions, draws)
    return Summary(
        n=len(e),
        n_positive=part.n_positive,
        n_groups=part.n_groups,
        counts={
            "decided": int(e.decisions.accepted.sum()),
            "abstained": int((~e.decisions.accepted).sum()),
            "wrong": int(wrong.sum()),
            "missed": int((wrong & (e.labels == 1)).sum()),
            "false_alarms": int((wrong & (e.labels == 0)).sum()),
            "wrong_at_half": int((e.argmax != e.labels).sum()),
        },
        draws=draws,
        stated_prevalence=settings.prevalence,
        systems=systems,
        sources=sources,
        macro=macro(both, draws, labels=MACRO_LABELS, policy=MACRO_POLICY),
        source_auroc=auroc(e.labels, by_source),
        calibration=_calibration(e, settings, seed),
        promises=promises,
        certified=_status([p.status for p in promises]),
        methods=on_test(read_methods(e.calibrators), e.calibrated, e.labels, draws),
        contrasts=pairs,
        n_groups_roadwork=part.take(part.y == 1).n_groups,
    )


def _status(statuses: Sequence[str]) -> str:
    if statuses and all(s == "certified" for s in statuses):
        return "certified"
    return "not_certifiable" if "not_certifiable" in statuses else "none"


def _policy(title: str, part: Part, draws: Draws, prevalence: float) -> System:
    return System(title, policy_figures(part, draws), policy_at_prevalence(part, draws, prevalence))


def _argmax(title: str, part: Part, draws: Draws, prevalence: float) -> System:
    natural = label_figures(part, draws, LABEL_FIGURES)
    stated = label_figures(part, draws, STATED_FIGURES, prevalence=prevalence)
    return System(title, natural, stated)


def _calibration(e: Evaluated, settings: EvaluateConfig, seed: int) -> dict[str, Any]:
    """Errors of the probabilities by system; ECE with the line below which chance explains it."""
    out: dict[str, Any] = {}
    rows = {"all_views": e.probability} | ({} if e.one_view is None else {"one_view": e.one_view.probability})
    kinds = [name for name, metric in METRICS.items() if metric.kind in ("calibration", "probability")]
    for name, p in rows.items():
        values: Mapping[str, float] = evaluate(e.labels, p, names=kinds)
        out[name] = {
            "figures": dict(values),
            "ece_verdict": asdict(ece_verdict(e.labels, p, n_resamples=settings.resamples, seed=seed)),
            "ece_equal_mass_verdict": asdict(
                ece_verdict(e.labels, p, equal_mass=True, n_resamples=settings.resamples, seed=seed)
            ),
            "brier_parts": asdict(brier_decomposition(e.labels, p)),
            "mean_probability": float(np.mean(p)),
        }
    return out
